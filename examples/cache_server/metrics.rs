//! What the server counts.

use axum::http::StatusCode;
use std::sync::Arc;

use crate::http_server::connections::ConnectionMetrics;
use crate::http_server::counters::{Counter, Gauge};
use crate::recent::Recent;

/// The parts of the server that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Area {
    Artifacts,
    Leases,
    Ccache,
    Sccache,
    Other,
}

impl Area {
    pub(crate) const ALL: [Self; 5] = [
        Self::Artifacts,
        Self::Leases,
        Self::Ccache,
        Self::Sccache,
        Self::Other,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Artifacts => "artifacts",
            Self::Leases => "leases",
            Self::Ccache => "ccache",
            Self::Sccache => "sccache",
            Self::Other => "other",
        }
    }
}

/// The methods that are counted apart; anything else is one class, whoever invents it.
const METHODS: [&str; 8] = [
    "GET", "HEAD", "PUT", "POST", "DELETE", "PROPFIND", "MKCOL", "other",
];
const CLASSES: usize = 5;

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// By area, method and class of status.
    requests: [[[Counter; CLASSES]; METHODS.len()]; Area::ALL.len()],
    pub(crate) bytes_sent: Counter,
    /// Answers whose client left before the end.
    pub(crate) broken_off: Counter,
    pub(crate) rejected_frames: Counter,
    pub(crate) log_lines_lost: Counter,
    pub(crate) requests_under_way: Gauge,
    pub(crate) connections: Arc<ConnectionMetrics>,
    pub(crate) recent: Recent,
}

impl Metrics {
    pub(crate) fn count(&self, area: Area, method: &str, status: StatusCode) {
        let method = METHODS.iter().position(|known| *known == method);
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES) - 1;
        self.requests[area as usize][method.unwrap_or(METHODS.len() - 1)][class].increment();
    }

    /// Requests of an area whose answer was of this class, such as 2 for 2xx.
    pub(crate) fn answered(&self, area: Area, class: usize) -> u64 {
        let methods = self.requests[area as usize].iter();
        let counters = methods.filter_map(|classes| classes.get(class.checked_sub(1)?));
        counters.map(Counter::get).sum()
    }

    /// What was counted by area, method and class of status, but not what never happened.
    pub(crate) fn requests(&self) -> impl Iterator<Item = (Area, &'static str, usize, u64)> {
        let areas = Area::ALL.into_iter().zip(&self.requests);
        let methods = areas.flat_map(|(area, methods)| {
            let methods = METHODS.into_iter().zip(methods);
            methods.map(move |(method, classes)| (area, method, classes))
        });
        let counters = methods.flat_map(|(area, method, classes)| {
            let classes = classes.iter().enumerate();
            classes.map(move |(class, counter)| (area, method, class + 1, counter.get()))
        });
        counters.filter(|(.., count)| *count > 0)
    }
}
