//! What is counted and logged of each request: who asked for what, and what it came to.

use axum::http::Method;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::access_log::AccessLog;
use crate::http_server::counters::Counted;
use crate::http_server::exchange::{End, Record};
use crate::metrics::{Area, Metrics};
use crate::permits::Permit;
use crate::recent::Past;

pub(crate) struct Asked {
    pub(crate) area: Area,
    pub(crate) method: Method,
    /// Without its query, which may hold what belongs in no log.
    pub(crate) path: String,
    pub(crate) peer: SocketAddr,
    pub(crate) client: String,
    pub(crate) log: AccessLog,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) _under_way: Counted,
    /// Counts it among the requests that are served at once.
    pub(crate) permit: Option<Permit>,
}

impl Record for Asked {
    fn over(&mut self, end: &End) {
        self.metrics.bytes_sent.add(end.sent);
        if let Some(status) = end.status {
            self.metrics.count(self.area, self.method.as_str(), status);
        }
        if end.left {
            self.metrics.broken_off.increment();
        }
        if self.area != Area::Other {
            self.metrics.recent.add(self.past(end));
        }
        self.log.line(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            format!(
                "{:.3} {} {} {} {} {}{} {} {:.1}ms",
                now.unwrap_or_default().as_secs_f64(),
                self.peer,
                self.client,
                self.method,
                self.path.escape_default(),
                end.status.map_or(0, |status| status.as_u16()),
                if end.left { "-left" } else { "" },
                end.sent,
                end.elapsed.as_secs_f64() * 1e3,
            )
        });
    }
}

impl Asked {
    fn past(&self, end: &End) -> Past {
        Past {
            ended: Instant::now(),
            client: self.client.clone(),
            method: self.method.to_string(),
            path: self.path.clone(),
            status: end.status.map_or(0, |status| status.as_u16()),
            left: end.left,
            sent: end.sent,
            elapsed: end.elapsed,
        }
    }
}
