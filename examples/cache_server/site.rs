//! What is where on the server, and the way of every request: it takes its place, is told who
//! asks, goes to the part that its path names, and is counted and logged once it is over.

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use pipeline_cache::PipelineCacheStore as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::access::{Access, Client, Role};
use crate::access_log::AccessLog;
use crate::artifacts::Artifacts;
use crate::connection::Connection;
use crate::console;
use crate::exchange::Exchange;
use crate::foreign::Foreign;
use crate::metrics::{Area, Elsewhere, Metrics};
use crate::refusal::Refusal;
use crate::uploads::Uploads;

pub(crate) struct Site {
    pub(crate) artifacts: Artifacts,
    pub(crate) ccache: Foreign,
    pub(crate) sccache: Foreign,
    pub(crate) uploads: Uploads,
    pub(crate) access: Access,
    pub(crate) log: AccessLog,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) places: Arc<Semaphore>,
    /// What requests have begun.
    pub(crate) work: TaskTracker,
    /// How long a request waits for a place.
    pub(crate) inactivity: Duration,
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
    let allowed = allow(&client, Role::needed_for(request.method()));
    let path = request.uri().path().to_owned();
    let (area, name) = area(&path);
    let mut exchange = Exchange {
        area,
        method: request.method().clone(),
        path: path.clone(),
        peer,
        client: client.name,
        status: None,
        log: site.log.clone(),
        metrics: Arc::clone(&site.metrics),
        connection: connection.request(),
        began: Instant::now(),
        sent: 0,
        whole: false,
        _under_way: under_way,
        _place: None,
    };
    // Refusals and the sign of life take no place: whoever has no token could hold them all by
    // not reading the answers.
    let answer = match allowed {
        _ if path == "/healthz" => Ok("well\n".into_response()),
        Err(refusal) => Err(refusal),
        Ok(()) => match site.place().await {
            Ok(place) => {
                let (answer, place) = in_place(site, request, area, name.to_owned(), place).await;
                exchange._place = place;
                answer
            }
            Err(busy) => Err(busy),
        },
    };
    let mut answer = answer.unwrap_or_else(Refusal::into_response);
    // Whoever may do nothing keeps no connection: a request now and then would hold it for ever.
    if client.role.is_none() {
        answer
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        connection.end();
    }
    exchange.watch(answer)
}

/// The answer, by a task of its own: a client that leaves does not stop it between two steps, and
/// has its place until what it began is over. The place is kept for an answer that is no refusal.
async fn in_place(
    site: Arc<Site>,
    request: Request,
    area: Area,
    name: String,
    place: OwnedSemaphorePermit,
) -> (Result<Response, Refusal>, Option<OwnedSemaphorePermit>) {
    let work = site.work.clone();
    let task = work.spawn(async move {
        let answer = site.answer(request, area, &name).await;
        let place = answer.is_ok().then_some(place);
        (answer, place)
    });
    // It is never aborted: this is a panic, which was told on the standard error.
    task.await.unwrap_or((Err(Refusal::Failed), None))
}

/// The part of the site that a path leads to, and the rest of the path.
fn area(path: &str) -> (Area, &str) {
    let areas = [
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
    /// A place among the requests that are served at once.
    async fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let place = Arc::clone(&self.places).acquire_owned();
        let place = timeout(self.inactivity, place).await;
        place.ok().and_then(Result::ok).ok_or(Refusal::Busy)
    }

    async fn answer(&self, request: Request, area: Area, name: &str) -> Result<Response, Refusal> {
        let (head, body) = request.into_parts();
        let (method, headers, uploads) = (&head.method, &head.headers, &self.uploads);
        match area {
            Area::Artifacts => {
                let artifacts = &self.artifacts;
                artifacts
                    .answer(method, name, headers, body, uploads, &self.metrics)
                    .await
            }
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
            Area::Other if name == "/metrics" => Ok(self.metrics()),
            Area::Other => Err(Refusal::NotFound),
        }
    }

    fn metrics(&self) -> Response {
        let disk = &self.artifacts.disk;
        let text = self.metrics.text(&Elsewhere {
            disk: disk.metrics(),
            unsynced: disk.durability_report().pending_flushes,
            ccache_bytes: self.ccache.blobs.held(),
            sccache_bytes: self.sccache.blobs.held(),
            messages_lost: console::lost(),
        });
        let head = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        (head, Body::from(text)).into_response()
    }
}

fn allow(client: &Client, needed: Role) -> Result<(), Refusal> {
    match client.role {
        Some(role) if role >= needed => Ok(()),
        Some(_) => Err(Refusal::Forbidden),
        None => Err(Refusal::Unauthorized),
    }
}
