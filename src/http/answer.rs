//! An answer to one request: its head, the body that is still to be read, and what becomes of the
//! connection that it came over.

use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body as _, Incoming};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use super::inactivity::Inactivity;
use super::pool::Lease;
use crate::network::{HttpStatusError, RequestError};

/// How long the rest of a request may take that was refused before it was sent whole.
const SETTLING: Duration = Duration::from_millis(250);

/// And of one that was answered well before that: the server may still be taking it.
const TAKING: Duration = Duration::from_secs(2);

/// Read to its end, it leaves its connection to the next request.
#[derive(Debug)]
pub(super) struct Answer {
    response: Response<Incoming>,
    /// Until the body was read.
    lease: Option<Lease>,
    inactivity: Inactivity,
    /// Whether it is from the base's own server, which was shown the credentials.
    is_home: bool,
}

impl Answer {
    pub(super) const fn new(
        response: Response<Incoming>,
        lease: Lease,
        inactivity: Inactivity,
        is_home: bool,
    ) -> Self {
        Self {
            response,
            lease: Some(lease),
            inactivity,
            is_home,
        }
    }

    /// What it is, if it is none to the lookup.
    pub(super) fn refusal(&self) -> HttpStatusError {
        let refusal = HttpStatusError::new(self.status(), self.headers());
        if self.is_home {
            refusal
        } else {
            refusal.by_another()
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Of the body, as far as it was announced.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.response.body().size_hint().exact()
    }

    /// The next part of the body; none at its end. A pause that is too long is a failure.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, RequestError> {
        let body = self.response.body_mut();
        let part = async {
            loop {
                let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
                match frame.transpose()?.map(hyper::body::Frame::into_data) {
                    Some(Ok(data)) => return Ok(Some(data)),
                    // Trailers say nothing about a frame.
                    Some(Err(_)) => {}
                    None => return Ok::<_, hyper::Error>(None),
                }
            }
        };
        self.inactivity.moves();
        let part = self.inactivity.limits("no part of the body came", part);
        let part = part.await??;
        if part.is_none() {
            let settling = match self.status().is_success() {
                true => TAKING.min(self.inactivity.limit()),
                false => SETTLING,
            };
            if let Some(lease) = self.lease.take() {
                lease.give_back(settling);
            }
        }
        Ok(part)
    }
}
