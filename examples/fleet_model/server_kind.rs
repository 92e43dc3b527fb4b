//! The kinds of servers, and what their work costs: the assumptions of the model.
//!
//! They are round figures of the right order, not measurements, except that S3 promises its rates for a
//! prefix. Whoever plans a fleet measures the server and puts the figures here.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::server::Operation;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum ServerKind {
    /// One `cache_server` on four cores
    CacheServer,
    /// One Redis, which has one thread for commands
    Redis,
    /// A bucket at S3: no leases, and the rate that is promised for one prefix
    S3,
    /// An nginx that keeps what it fetched, on two cores
    #[value(skip)]
    Edge,
    /// A `cache_server` on the machine of its clients
    #[value(skip)]
    CacheServerBeside,
    /// A Redis on the machine of its clients
    #[value(skip)]
    RedisBeside,
}

/// Of one server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Costs {
    pub(crate) workers: usize,
    /// A worker's time for a lookup, and for a lease.
    get: Duration,
    /// A worker's time for a write.
    put: Duration,
    /// A worker's time for each MiB of an artifact.
    mebibyte: Duration,
    /// A worker's time to tell one who waits that a lease has ended.
    pub(crate) notice: Duration,
    /// Until the first byte of an answer, with no worker busy.
    get_wait: Duration,
    put_wait: Duration,
    /// Each way.
    pub(crate) gigabits: f64,
}

const fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

impl ServerKind {
    pub(crate) const fn grants_leases(self) -> bool {
        !matches!(self, Self::S3 | Self::CacheServerBeside)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::CacheServer => "cache_server",
            Self::Redis => "Redis",
            Self::S3 => "S3",
            Self::Edge => "edge",
            Self::CacheServerBeside => "cache_server, beside",
            Self::RedisBeside => "Redis, beside",
        }
    }

    pub(crate) const fn costs(self) -> Costs {
        match self {
            Self::CacheServer => Costs {
                workers: 4,
                get: micros(100),
                put: micros(300),
                mebibyte: micros(600),
                notice: micros(20),
                get_wait: Duration::ZERO,
                put_wait: Duration::ZERO,
                gigabits: 10.0,
            },
            Self::Redis => Costs {
                workers: 1,
                get: micros(10),
                put: micros(15),
                mebibyte: micros(250),
                notice: micros(2),
                get_wait: Duration::ZERO,
                put_wait: Duration::ZERO,
                gigabits: 10.0,
            },
            Self::S3 => Costs {
                // 5,500 reads and 3,500 writes a second.
                workers: 1,
                get: micros(182),
                put: micros(286),
                mebibyte: Duration::ZERO,
                notice: Duration::ZERO,
                get_wait: micros(20_000),
                put_wait: micros(40_000),
                gigabits: 100.0,
            },
            Self::Edge => Costs {
                workers: 2,
                get: micros(50),
                put: micros(50),
                mebibyte: micros(300),
                notice: micros(5),
                get_wait: Duration::ZERO,
                put_wait: Duration::ZERO,
                gigabits: 10.0,
            },
            // The processor is shared with the clients, and the network is none.
            Self::CacheServerBeside => Costs {
                workers: 1,
                gigabits: 20.0,
                ..Self::CacheServer.costs()
            },
            Self::RedisBeside => Costs {
                gigabits: 20.0,
                ..Self::Redis.costs()
            },
        }
    }
}

impl Costs {
    /// How long a request keeps a worker busy, with so many bytes of an artifact.
    pub(crate) fn work(&self, operation: Operation, bytes: u64) -> Duration {
        let fixed = match operation {
            Operation::Put => self.put,
            _ => self.get,
        };
        fixed + self.mebibyte.mul_f64(bytes as f64 / f64::from(1 << 20))
    }

    /// How long the answer takes beside that.
    pub(crate) fn wait(&self, operation: Operation) -> Duration {
        match operation {
            Operation::Put => self.put_wait,
            _ => self.get_wait,
        }
    }
}
