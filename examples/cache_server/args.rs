//! What the server is told on its command line, each with its default.

use clap::{Parser, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::access::Role;
use crate::http_server::arguments::{count, positive_seconds, seconds, size};

/// A team's cache: artifacts for pipeline-cache, and blobs for ccache and sccache.
///
/// Paths:
///
///   /artifacts/<64 hex digits>.bin  artifacts; the base URL of a RemoteCache is
///                                   http://HOST:8420/artifacts
///
///   /artifacts/batch                many artifacts in one answer to a POST, for a RemoteCache; needs a
///                                   token that may read
///
///   /artifacts/leases/<64 hex digits>
///                                   compile leases, for a RemoteCache with compile_leases: one
///                                   client at a time compiles a key, and the others wait for its
///                                   artifact. They need a token that may write. They are in memory,
///                                   and last from 0.1 to 600 seconds without a renewal
///
///   /ccache/...                     remote_storage = http://HOST:8420/ccache
///
///   /sccache/...                    SCCACHE_WEBDAV_ENDPOINT=http://HOST:8420/sccache/
///
///   /status                         a page for people; needs a token that may read, which a browser
///                                   asks for as the password of any user
///
///   /metrics                        for Prometheus; needs a token that may read
///
///   /healthz                        200 while the server is up; needs no token
///
/// Every artifact is verified against the key in its path before it is stored.
#[derive(Debug, Parser)]
#[command(
    name = "cache_server",
    version = env!("TOOLS_VERSION"),
    verbatim_doc_comment
)]
pub(crate) struct Args {
    /// Where everything is kept
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: PathBuf,
    /// The address to listen at; port 0 for one that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8420")]
    pub(crate) listen: SocketAddr,
    /// A file of tokens, one a line: a role, a name for the access log and the token itself, as in
    /// "read-write ci 3f9c..."
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: Option<PathBuf>,
    /// What a client without a token may do
    #[arg(long, value_enum, default_value_t = Anonymous::None)]
    pub(crate) anonymous: Anonymous,
    /// A file with the shared secret. Uploads that are not signed with it are refused. May be given
    /// several times: each secret is accepted, so that clients can change to another one by one. With --store,
    /// what is stored there is signed with the first
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Vec<PathBuf>,
    /// A file with the certificate in PEM form, followed by those of its issuers: the server speaks
    /// https. Needs --tls-key
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// A file with the private key of the certificate, in PEM form and without a password
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// The most bytes of artifacts to keep; the least recently used ones are evicted
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "10G")]
    pub(crate) max_bytes: u64,
    /// The largest artifact
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "64M")]
    pub(crate) max_artifact: u64,
    /// The most bytes to keep for each of ccache and sccache
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "10G")]
    pub(crate) max_foreign_bytes: u64,
    /// The largest blob of ccache or sccache
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "256M")]
    pub(crate) max_foreign_blob: u64,
    /// An object store below the folder, which several servers may share: s3://BUCKET/PREFIX,
    /// gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER. What the folder lacks is asked of
    /// it, and uploads go to it in the background. Credentials and endpoints come from the environment,
    /// such as AWS_ACCESS_KEY_ID and AWS_ENDPOINT. ccache and sccache do not use it [default: none]
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// The seconds that a lookup in the object store waits for its turn, and again for the answer.
    /// After that it is a miss
    #[arg(long, value_name = "SECONDS", value_parser = positive_seconds, default_value = "3")]
    pub(crate) store_timeout: Duration,
    /// The most requests to the object store at once. Each may hold an artifact in memory
    #[arg(long, value_name = "N", value_parser = count, default_value = "32")]
    pub(crate) store_requests: usize,
    /// The memory for uploaded artifacts while they are verified; other uploads wait in files
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "256M")]
    pub(crate) upload_memory: u64,
    /// How many connections are open at once. The next one closes the connection that has been
    /// idle for the longest time
    #[arg(long, value_name = "N", value_parser = count, default_value = "1024")]
    pub(crate) max_connections: usize,
    /// How many requests are served at once
    #[arg(long, value_name = "N", value_parser = count, default_value = "256")]
    pub(crate) max_requests: usize,
    /// The most compile leases that are held at once. Further ones are refused: their clients
    /// compile without
    #[arg(long, value_name = "N", value_parser = count, default_value = "65536")]
    pub(crate) max_leases: usize,
    /// The most requests that wait for a compile lease at once, 64 of them for one key. Each has a
    /// connection of HTTP/1.1. Clients that are refused ask now and then
    #[arg(long, value_name = "N", value_parser = count, default_value = "512")]
    pub(crate) max_lease_waits: usize,
    /// The seconds that requests under way have to end once the server is told to stop
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "30")]
    pub(crate) drain: Duration,
    /// The seconds in which a request or response body must move on by 64 KiB, or end
    #[arg(long, value_name = "SECONDS", value_parser = positive_seconds, default_value = "30")]
    pub(crate) inactivity: Duration,
    /// The seconds that a new connection has to send the whole head of its first request, and before
    /// that for the handshake of TLS
    #[arg(long, value_name = "SECONDS", value_parser = positive_seconds, default_value = "10")]
    pub(crate) head_timeout: Duration,
    /// The seconds that a connection stays open between two requests. Clients should close first:
    /// set more than they keep an idle connection
    #[arg(long, value_name = "SECONDS", value_parser = positive_seconds, default_value = "90")]
    pub(crate) idle: Duration,
    /// Write no access log; otherwise it goes to the standard output
    #[arg(long)]
    pub(crate) no_access_log: bool,
    /// A TOML file of settings: see "Files" below
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// A role for those without a token, or none.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Anonymous {
    None,
    ReadOnly,
    ReadWrite,
}

impl Anonymous {
    pub(crate) const fn role(self) -> Option<Role> {
        match self {
            Self::None => None,
            Self::ReadOnly => Some(Role::ReadOnly),
            Self::ReadWrite => Some(Role::ReadWrite),
        }
    }
}
