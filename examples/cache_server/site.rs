//! The paths of the server, and the way of every request: the client is identified, a permit is
//! taken, the part that the path names answers, and the end is counted and logged.

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::HeaderValue;
use axum::http::Method;
use axum::http::StatusCode;
use axum::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_RANGE, CONTENT_TYPE, WWW_AUTHENTICATE,
};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use pipeline_cache::PipelineCacheStore as _;
use std::iter;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::task::TaskTracker;

use crate::access::{Access, Client, Role};
use crate::access_log::AccessLog;
use crate::artifacts::{Artifacts, names_artifact, names_batch};
use crate::exchange::Asked;
use crate::exposition::{self, Elsewhere};
use crate::foreign::Foreign;
use crate::http_error::HttpError;
use crate::http_server::connection::Connection;
use crate::http_server::console;
use crate::http_server::exchange::Exchange;
use crate::leases::Leases;
use crate::metrics::{Area, Metrics};
use crate::permits::{Permit, Permits};
use crate::status;
use crate::store::Store;
use crate::uploads::Uploads;

/// Asks for a token as a password, of any user.
const PASSWORD: HeaderValue =
    HeaderValue::from_static("Basic realm=\"cache_server: any name, and a token as the password\"");

pub(crate) struct Site {
    pub(crate) artifacts: Artifacts,
    pub(crate) leases: Leases,
    pub(crate) ccache: Foreign,
    pub(crate) sccache: Foreign,
    pub(crate) uploads: Uploads,
    pub(crate) access: Access,
    pub(crate) log: AccessLog,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) permits: Permits,
    /// What requests have begun.
    pub(crate) work: TaskTracker,
}

/// The service of the whole site.
pub(crate) fn router(site: Arc<Site>) -> Router {
    Router::new().fallback(serve).with_state(site)
}

async fn serve(
    State(site): State<Arc<Site>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
) -> Response {
    let under_way = site.metrics.requests_under_way.enter();
    let client = site.access.identify(request.headers().get(AUTHORIZATION));
    let path = request.uri().path().to_owned();
    let (area, name) = area(&path);
    let allowed = allow(&client, needed(request.method(), area, name));
    let asked = Asked {
        area,
        method: request.method().clone(),
        path: path.clone(),
        peer,
        client: client.name,
        log: site.log.clone(),
        metrics: Arc::clone(&site.metrics),
        _under_way: under_way,
        permit: None,
    };
    let mut exchange = Exchange::begin(request.method().clone(), connection.request(), asked);
    // Errors and the health check take no permit: a client without a token could hold all of them
    // by not reading the responses.
    let answer = match allowed {
        _ if path == "/healthz" => Ok("well\n".into_response()),
        Err(error) => Err(error),
        // It ends with its client, and would keep others out if it held a permit.
        Ok(()) if area == Area::Leases && Leases::is_wait(request.method(), request.headers()) => {
            let (head, _) = request.into_parts();
            site.lease(&head, name).await
        }
        Ok(()) => match site.permits.acquire(is_batch(area, name)).await {
            Ok(permit) => {
                let (answer, permit) =
                    run_to_end(site, request, area, name.to_owned(), permit).await;
                exchange.record.permit = permit;
                answer
            }
            Err(busy) => Err(busy),
        },
    };
    let mut answer = answer.unwrap_or_else(HttpError::into_response);
    if answer.status() == StatusCode::UNAUTHORIZED && status::is_page(&path) {
        // A browser asks its user then.
        answer.headers_mut().insert(WWW_AUTHENTICATE, PASSWORD);
    }
    // Whoever may do nothing keeps no connection: a request now and then would hold it for ever.
    if client.role.is_none() {
        answer
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        connection.end();
    }
    exchange.watch(answer)
}

/// Answers in a task of its own: a client that disconnects does not stop it between two steps, and
/// its permit is held until the work is over. A success keeps the permit until it is sent.
async fn run_to_end(
    site: Arc<Site>,
    request: Request,
    area: Area,
    name: String,
    permit: Permit,
) -> (Result<Response, HttpError>, Option<Permit>) {
    let work = site.work.clone();
    let task = work.spawn(async move {
        let answer = site.answer(request, area, &name).await;
        let permit = answer.is_ok().then_some(permit);
        (answer, permit)
    });
    // It is never aborted: this is a panic, which was told on the standard error.
    task.await.unwrap_or((Err(HttpError::Failed), None))
}

/// The part of the site that a path leads to, and the rest of the path.
fn area(path: &str) -> (Area, &str) {
    let areas = [
        ("/artifacts/leases/", Area::Leases),
        ("/artifacts/", Area::Artifacts),
        ("/ccache/", Area::Ccache),
        ("/sccache/", Area::Sccache),
    ];
    let within = areas
        .iter()
        .find_map(|(prefix, area)| Some((*area, path.strip_prefix(prefix)?)));
    within.unwrap_or((Area::Other, path))
}

impl Site {
    async fn answer(
        &self,
        request: Request,
        area: Area,
        name: &str,
    ) -> Result<Response, HttpError> {
        let (head, body) = request.into_parts();
        let (method, headers, uploads) = (&head.method, &head.headers, &self.uploads);
        if *method == Method::PUT && headers.contains_key(CONTENT_RANGE) {
            return Err(HttpError::PartialUpload);
        }
        match area {
            Area::Artifacts => {
                let artifacts = &self.artifacts;
                let answer = artifacts
                    .answer(method, name, headers, body, uploads, &self.metrics)
                    .await?;
                if *method == Method::PUT {
                    self.wake_waiters(name);
                }
                Ok(answer)
            }
            Area::Leases => self.lease(&head, name).await,
            Area::Ccache => {
                self.ccache
                    .answer(method, name, headers, body, uploads)
                    .await
            }
            Area::Sccache => {
                self.sccache
                    .answer(method, name, headers, body, uploads)
                    .await
            }
            Area::Other if name == "/metrics" => match *method {
                Method::GET | Method::HEAD => Ok(self.metrics()),
                _ => Err(HttpError::MethodNotAllowed("GET, HEAD")),
            },
            Area::Other if status::is_page(name) => status::answer(method, name, || {
                status::page(&self.metrics, &self.elsewhere())
            }),
            Area::Other if names_artifact(name) => Err(HttpError::WrongBase),
            Area::Other => Err(HttpError::NotFound),
        }
    }

    async fn lease(&self, head: &Parts, name: &str) -> Result<Response, HttpError> {
        let (method, headers) = (&head.method, &head.headers);
        let leases = &self.leases;
        leases.answer(method, name, headers, &self.artifacts).await
    }

    /// Those who wait for the artifact of this name. A source alias has no lease.
    fn wake_waiters(&self, name: &str) {
        let key = name.strip_suffix(".bin").map(str::parse);
        if let Some(Ok(key)) = key {
            self.leases.stored(&key);
        }
    }

    fn metrics(&self) -> Response {
        let text = exposition::text(&self.metrics, &self.elsewhere());
        let head = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        (head, Body::from(text)).into_response()
    }

    fn elsewhere(&self) -> Elsewhere<'_> {
        let disk = &self.artifacts.disk;
        Elsewhere {
            leases: &self.leases,
            disk: disk.metrics(),
            unsynced: iter::once(disk)
                .chain(disk.aliases())
                .map(|disk| disk.durability_report().pending_flushes)
                .sum(),
            ccache_bytes: self.ccache.blobs.held(),
            sccache_bytes: self.sccache.blobs.held(),
            messages_lost: console::lost(),
            store: self.artifacts.store.as_ref().map(Store::metrics),
        }
    }
}

fn is_batch(area: Area, name: &str) -> bool {
    area == Area::Artifacts && names_batch(name)
}

/// The role that a request takes.
fn needed(method: &Method, area: Area, name: &str) -> Role {
    match *method {
        Method::POST if is_batch(area, name) => Role::ReadOnly,
        _ => Role::needed_for(method),
    }
}

fn allow(client: &Client, needed: Role) -> Result<(), HttpError> {
    match client.role {
        Some(role) if role >= needed => Ok(()),
        Some(_) => Err(HttpError::Forbidden),
        None => Err(HttpError::Unauthorized),
    }
}
