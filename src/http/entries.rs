//! The requests about one entry on the server, and what each response means.

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, HeaderMap};
use reqwest::{Method, StatusCode};
use tokio::time::Instant;

use super::batch;
use super::client::{Connection, Response};
use super::credentials::SentCredentials;
use super::server::{Ask, Server};
use crate::artifact::FrameError;
use crate::artifact::frame::{FrameFormat, HEADER_LEN};
use crate::key::PipelineFingerprint;
use crate::network::{
    ASK_AGAIN, AnswerProgress, Backend, Batch, ConnectionCounts, HttpStatusError, RequestError,
    ServerSupport, Upload,
};
use crate::store::{Fetched, StoreErrorKind};

pub(super) struct Entries {
    pub(super) server: Server,
    /// Whether the connections of the client are those of another tier.
    pub(super) shares_client: bool,
    /// Whether the server answers for many keys in one request.
    pub(super) batches: ServerSupport,
    pub(super) format: FrameFormat,
    /// The statuses of a lookup that mean that there is no such entry.
    pub(super) absent_statuses: Vec<u16>,
}

impl Backend for Entries {
    type Credentials = SentCredentials;

    fn credentials(&self) -> Result<SentCredentials, RequestError> {
        self.server.credentials.current()
    }

    fn version(&self, credentials: &SentCredentials) -> Option<u64> {
        self.server.version(credentials)
    }

    async fn download(
        &self,
        key: &PipelineFingerprint,
        credentials: SentCredentials,
        answer: &AnswerProgress,
    ) -> Result<Fetched, RequestError> {
        let get = Entry::new(Method::GET, key, &credentials);
        let (fetched, is_kept) = self.fetch(&get, answer).await?;
        if !is_kept || !is_of_another_key(&fetched) {
            return Ok(fetched);
        }
        // Either the entry is wrong, or the connection delivers the responses to other requests.
        let again = self.fetch(&get.over(Connection::New), answer).await;
        if !matches!(&again, Ok((fetched, _)) if is_of_another_key(fetched))
            && self.server.client.connections.replace()
        {
            tracing::warn!(
                base = %self.server.base, %key,
                "a kept connection delivered a frame of another key: all kept connections are given up"
            );
        }
        Ok(again?.0)
    }

    fn max_batch_keys(&self) -> usize {
        match self.batches.is_missing() {
            true => 1,
            false => batch::MAX_KEYS,
        }
    }

    async fn download_many(
        &self,
        batch: &Batch,
        credentials: SentCredentials,
        answer: &AnswerProgress,
        stop_at: Instant,
    ) -> Result<(), RequestError> {
        let keys = batch.unanswered();
        let upload = Upload {
            head: batch::body(&keys),
            payload: Bytes::new(),
        };
        let ask = Ask {
            method: &Method::POST,
            url: self.server.base.batch(),
            headers: HeaderMap::new(),
            upload: Some(&upload),
            connection: Connection::Kept,
        };
        let response = self.server.request(ask, &credentials).await?;
        let status = response.status();
        if status != StatusCode::OK {
            let error = response.status_error();
            response.drain().await;
            let has_credentials = self.server.version(&credentials).is_some();
            return self.without_batch(error, has_credentials);
        }
        if response.encoding().is_some() {
            response.drain().await;
            self.has_no_batches(status.as_u16());
            return Ok(());
        }
        let mut answers = response.pieces(answer);
        if !batch::begins(&mut answers).await? {
            self.has_no_batches(status.as_u16());
            return Ok(());
        }
        self.batches.is_there();
        let is_whole = batch::receive(&mut answers, batch, keys, &self.format, stop_at).await?;
        if is_whole {
            answers.finish().await;
        }
        Ok(())
    }

    async fn upload(
        &self,
        key: &PipelineFingerprint,
        upload: &Upload,
        credentials: SentCredentials,
    ) -> Result<(), RequestError> {
        let put = Entry::new(Method::PUT, key, &credentials);
        let (status, error) = self.change(&put, Some(upload)).await?;
        if status.is_success() {
            return Ok(());
        }
        self.rejected_upload(key, error, credentials).await
    }

    async fn delete(
        &self,
        key: &PipelineFingerprint,
        credentials: SentCredentials,
    ) -> Result<bool, RequestError> {
        let delete = Entry::new(Method::DELETE, key, &credentials);
        match self.change(&delete, None).await? {
            (status, _) if status.is_success() => Ok(true),
            (StatusCode::NOT_FOUND | StatusCode::GONE, _) => Ok(false),
            (_, error) => Err(error.of_a_write()),
        }
    }

    async fn probe(
        &self,
        key: &PipelineFingerprint,
        credentials: SentCredentials,
    ) -> Result<bool, RequestError> {
        let head = Entry::new(Method::HEAD, key, &credentials);
        let mut response = self.request(&head, None).await?;
        if matches!(
            response.status(),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
        ) {
            response.drain().await;
            // The head of the full response says the same. Of its body no more is read than keeps
            // the connection.
            let get = Entry::new(Method::GET, key, &credentials);
            response = self.request(&get, None).await?;
        }
        let found = match response.status() {
            StatusCode::OK => Ok(self.may_be_frame(&response)),
            status if self.is_absent(status) => Ok(false),
            _ => Err(response.status_error().of_a_read()),
        };
        response.drain().await;
        found
    }

    /// Not by HEAD: proxies were seen to keep its empty response for the entry.
    async fn check_health(
        &self,
        key: &PipelineFingerprint,
        credentials: SentCredentials,
    ) -> Result<(), RequestError> {
        let get = Entry::new(Method::GET, key, &credentials);
        let response = self.request(&get, None).await?;
        let status = response.status();
        if status == StatusCode::OK {
            return response.read_start(HEADER_LEN).await;
        }
        let error = response.status_error();
        response.drain().await;
        match self.is_absent(status) {
            true => Ok(()),
            false => Err(error.of_a_read()),
        }
    }

    fn format(&self) -> &FrameFormat {
        &self.format
    }

    fn in_folder(&self, folder: &str) -> Self {
        Self {
            server: self.server.folder(folder),
            shares_client: true,
            batches: ServerSupport::default(),
            format: self.format.clone(),
            absent_statuses: self.absent_statuses.clone(),
        }
    }

    fn connection_counts(&self) -> ConnectionCounts {
        if self.shares_client {
            return ConnectionCounts::default();
        }
        let connections = &self.server.client.connections;
        ConnectionCounts {
            repeated: connections.repeated.get(),
            replaced: connections.replaced.get(),
        }
    }
}

/// What is asked about an entry, and as whom.
#[derive(Clone)]
struct Entry<'a> {
    method: Method,
    key: &'a PipelineFingerprint,
    credentials: &'a SentCredentials,
    connection: Connection,
}

impl<'a> Entry<'a> {
    const fn new(
        method: Method,
        key: &'a PipelineFingerprint,
        credentials: &'a SentCredentials,
    ) -> Self {
        Self {
            method,
            key,
            credentials,
            connection: Connection::Kept,
        }
    }

    fn over(&self, connection: Connection) -> Self {
        Self {
            connection,
            ..self.clone()
        }
    }
}

fn is_of_another_key(fetched: &Fetched) -> bool {
    matches!(fetched, Fetched::Corrupt(FrameError::OtherFingerprint))
}

impl Entries {
    /// What one request finds, and whether it came over a connection that may have served others.
    async fn fetch(
        &self,
        get: &Entry<'_>,
        answer: &AnswerProgress,
    ) -> Result<(Fetched, bool), RequestError> {
        let response = self.request(get, None).await?;
        let status = response.status();
        if status != StatusCode::OK {
            let error = response.status_error();
            response.drain().await;
            return match self.is_absent(status) {
                true => Ok((Fetched::Miss, false)),
                false => Err(error.of_a_read()),
            };
        }
        answer.signal();
        if let Some(encoding) = response.encoding() {
            response.drain().await;
            let reason = FrameError::ContentEncoded(encoding);
            return Ok((Fetched::Corrupt(reason), false));
        }
        let is_kept = response.is_over_kept_connection();
        let Some(frame) = response.read(self.format.max_frame(), answer).await? else {
            return Ok((Fetched::Corrupt(FrameError::TooLarge), is_kept));
        };
        let fetched = match self.format.decode_blocking(get.key, frame).await {
            Ok(artifact) => Fetched::Hit(artifact),
            Err(reason) => Fetched::Corrupt(reason),
        };
        Ok((fetched, is_kept))
    }

    /// The response to one request about a key, after redirects. Its body is still to be read.
    async fn request(
        &self,
        entry: &Entry<'_>,
        upload: Option<&Upload>,
    ) -> Result<Response, RequestError> {
        let ask = Ask {
            method: &entry.method,
            url: self.server.base.entry(entry.key),
            headers: HeaderMap::new(),
            upload,
            connection: entry.connection,
        };
        self.server.request(ask, entry.credentials).await
    }

    /// The status of the response to a request that changes the entry, and the error where that is
    /// not a success. The body is of no use.
    async fn change(
        &self,
        entry: &Entry<'_>,
        upload: Option<&Upload>,
    ) -> Result<(StatusCode, HttpStatusError), RequestError> {
        let response = self.request(entry, upload).await?;
        let answer = (response.status(), response.status_error());
        response.drain().await;
        Ok(answer)
    }

    /// What a status means that a request for a batch is answered with. Unless it is about this moment,
    /// the keys are asked for one by one, which tells more.
    fn without_batch(
        &self,
        error: HttpStatusError,
        has_credentials: bool,
    ) -> Result<(), RequestError> {
        match error.status {
            408 | 425 | 429 | 502..=504 | 507 => return Err(error.of_a_read()),
            // It may be the method that is forbidden. No success, and no verdict on the credentials.
            401 | 403 | 407 if has_credentials => {
                self.has_no_batches(error.status);
                let reason = error.to_string();
                let error = RequestError::new(StoreErrorKind::PermissionDenied, reason);
                return Err(error.into_rejection());
            }
            status => self.has_no_batches(status),
        }
        Ok(())
    }

    /// The server has answered with this status that it has no batches.
    fn has_no_batches(&self, status: u16) {
        if self.batches.missing() {
            tracing::info!(
                base = %self.server.base, status, ask_again = ?ASK_AGAIN,
                "the server answers no batches: many keys are asked for one by one"
            );
        }
    }

    fn is_absent(&self, status: StatusCode) -> bool {
        self.absent_statuses.contains(&status.as_u16())
    }

    /// Whether the body is as it was stored, and the announced length, if there is one, is that of a
    /// frame.
    fn may_be_frame(&self, response: &Response) -> bool {
        if response.encoding().is_some() {
            return false;
        }
        let length = response
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        length.is_none_or(|length| self.format.may_be_frame(length))
    }
}
