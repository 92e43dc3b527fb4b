//! `GET /artifact/{key}`, and the response that holds an artifact.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use pipeline_cache::{Artifact, LookupOptions, PipelineFingerprint};

use crate::http_server::etags::lists;
use crate::problem::Problem;
use crate::site::Site;

/// A key names one artifact for ever. Whether caches may share it is for the proxy to say, which
/// knows who may read it.
const FOR_EVER: HeaderValue = HeaderValue::from_static("max-age=31536000, immutable");

pub(crate) async fn artifact(
    State(site): State<Arc<Site>>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = PipelineFingerprint::from_str(&key).map_err(|_| Problem::NotAKey)?;
    let began = Instant::now();
    let permit = site.permit(site.deadline).await?;
    let left = site.deadline.saturating_sub(began.elapsed());
    let options = LookupOptions::new().deadline(left);
    let lookup = site.cache.lookup(&key, &options).await;
    let mut response = match lookup.artifact() {
        Some(_) if lists(&headers, Some(&tag(&key))) => StatusCode::NOT_MODIFIED.into_response(),
        Some(artifact) => payload(artifact),
        None if lookup.is_degraded() => return Err(Problem::Degraded),
        None => return Err(Problem::NotFound),
    };
    response.headers_mut().extend(validators(&key));
    response.headers_mut().insert(CACHE_CONTROL, FOR_EVER);
    response.extensions_mut().insert(permit);
    Ok(response)
}

/// An artifact, with the type of what it was compiled for.
pub(crate) fn payload(artifact: &Artifact) -> Response {
    let device = artifact.metadata().device().unwrap_or_default();
    let kind = match device.split('-').next() {
        Some("msl" | "hlsl" | "glsl") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    let head = [(CONTENT_TYPE, kind), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (head, Body::from(artifact.payload().clone())).into_response()
}

/// What a client may ask by whether it has the artifact already.
pub(crate) fn validators(key: &PipelineFingerprint) -> Option<(HeaderName, HeaderValue)> {
    let tag = HeaderValue::from_str(&tag(key)).ok()?;
    Some((ETAG, tag))
}

fn tag(key: &PipelineFingerprint) -> String {
    format!("\"{key}\"")
}
