//! The servers that grant the leases of a fleet, each with the faults that it can be given.

use crate::cache_server::CacheServer;
use crate::namespace::RedisInNamespace;
use crate::support::redis::{Redis, wait_until};
use crate::support::seaweed::Single;

pub(crate) enum Backend {
    CacheServer(CacheServer),
    Seaweed(Single),
    Redis(Redis),
    Sentinels(Box<Group>),
    Namespace(RedisInNamespace),
}

/// A server, its replica, and three Sentinels.
pub(crate) struct Group {
    master: Redis,
    _replica: Redis,
    sentinels: [Redis; 3],
}

/// A server that keeps what it has when it is killed.
const DURABLE: &str = "--appendonly yes --appendfsync always";

impl Backend {
    pub(crate) fn cache_server() -> Self {
        Self::CacheServer(CacheServer::start(&["--no-access-log"]))
    }

    /// `None` where SeaweedFS is not installed.
    pub(crate) fn seaweed() -> Option<Self> {
        Single::start().map(Self::Seaweed)
    }

    /// `None` where Redis is not installed.
    pub(crate) fn redis() -> Option<Self> {
        Redis::start(DURABLE).map(Self::Redis)
    }

    /// `None` where Redis is not installed.
    pub(crate) fn sentinels() -> Option<Self> {
        let master = Redis::start("")?;
        let replica = Redis::start(&format!("--replicaof 127.0.0.1 {}", master.port))?;
        let sentinels = [(); 3].map(|()| Redis::sentinel(master.port, 2).unwrap());
        wait_until("the Sentinels know the replica and each other", || {
            sentinels.iter().all(|sentinel| {
                let known = sentinel.command(&["sentinel", "master", "main"]);
                let lines: Vec<_> = known.lines().collect();
                let has = |pair: [&str; 2]| lines.windows(2).any(|lines| lines == pair);
                has(["num-slaves", "1"]) && has(["num-other-sentinels", "2"])
            })
        });
        let group = Group {
            master,
            _replica: replica,
            sentinels,
        };
        Some(Self::Sentinels(Box::new(group)))
    }

    /// `None` where no network namespace can be made.
    pub(crate) fn in_namespace() -> Option<Self> {
        RedisInNamespace::start().map(Self::Namespace)
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::CacheServer(_) => "cache_server",
            Self::Seaweed(_) => "SeaweedFS S3",
            Self::Redis(_) => "Redis",
            Self::Sentinels(_) => "Redis, Sentinels",
            Self::Namespace(_) => "Redis, namespace",
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::CacheServer(server) => server.url("/artifacts"),
            Self::Seaweed(server) => format!("s3+{}", server.endpoint()),
            Self::Redis(server) => server.url(),
            Self::Sentinels(group) => {
                let ports = group.sentinels.each_ref().map(|sentinel| sentinel.port);
                let hosts = ports.map(|port| format!("127.0.0.1:{port}")).join(",");
                format!("redis-sentinel://{hosts}/main")
            }
            Self::Namespace(server) => server.url(),
        }
    }

    /// What goes wrong with the server.
    pub(crate) fn fail(&mut self) {
        match self {
            Self::CacheServer(server) => server.kill(),
            Self::Seaweed(server) => server.kill(),
            Self::Redis(server) => server.kill(),
            Self::Sentinels(group) => group.master.kill(),
            Self::Namespace(server) => server.cut_off(),
        }
    }

    /// It is well again, or another has taken its place.
    pub(crate) fn recover(&mut self) {
        match self {
            Self::CacheServer(server) => server.restart(),
            Self::Seaweed(server) => server.restart(),
            Self::Redis(server) => server.restart(),
            Self::Sentinels(_) => {}
            Self::Namespace(server) => server.reconnect(),
        }
    }
}
