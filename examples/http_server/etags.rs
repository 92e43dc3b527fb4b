//! Conditional requests.

use axum::http::HeaderMap;
use axum::http::header::IF_NONE_MATCH;

/// Whether a client says that it has what bears this tag.
pub(crate) fn lists(asked: &HeaderMap, etag: Option<&str>) -> bool {
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let etag = etag.map(bare);
    asked
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|tags| tags.to_str().ok())
        .flat_map(|tags| tags.split(','))
        .any(|tag| tag.trim() == "*" || Some(bare(tag)) == etag)
}
