//! What an error of the server, or of the way to it, means to the tier.
//!
//! Of a reply nothing is repeated but its code: a server may echo secrets.

use redis::{ErrorKind, RedisError};
use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use crate::network::RequestError;
use crate::store::StoreErrorKind;

/// The error of a request that got no reply, or one that is an error.
pub(super) fn request_error(error: &RedisError) -> RequestError {
    match error.kind() {
        ErrorKind::Server(_) | ErrorKind::Extension => of_code(error),
        ErrorKind::AuthenticationFailed => RequestError::new(
            StoreErrorKind::PermissionDenied,
            "the server rejects the user or the password",
        )
        .blocking_credentials(),
        ErrorKind::Io => of_the_way(error),
        ErrorKind::ClusterConnectionNotFound => RequestError::new(
            StoreErrorKind::Unreachable,
            "no node of the cluster answers",
        ),
        ErrorKind::MasterNameNotFoundBySentinel => RequestError::new(
            StoreErrorKind::Unavailable,
            "the Sentinels name no working master of this name",
        ),
        _ => RequestError::new(StoreErrorKind::Protocol, "the reply is not valid"),
    }
}

/// Whether the connection is of no use any more.
pub(super) fn ends_connection(error: &RedisError) -> bool {
    // A master that became a replica, and a server that forgot who its client is: another connection
    // may fare better.
    matches!(error.code(), Some("READONLY" | "NOAUTH"))
        || error.is_io_error()
        || error.is_unrecoverable_error()
}

fn of_code(error: &RedisError) -> RequestError {
    use StoreErrorKind::{PermissionDenied, Protocol, ReadOnly, StorageFull, Unavailable};
    let code = shown_code(error.code().unwrap_or_default());
    let of_kind = |kind, hint: &str| RequestError::new(kind, format!("{code}: {hint}"));
    match code {
        "OOM" => of_kind(StorageFull, "no memory is left below maxmemory"),
        "READONLY" => of_kind(ReadOnly, "the server is a replica").into_rejection(),
        "NOAUTH" | "WRONGPASS" => {
            let hint = "the server rejects the user or the password, or asks for one";
            of_kind(PermissionDenied, hint).blocking_credentials()
        }
        "NOPERM" => {
            let hint = "the user may not run this command on this key";
            of_kind(PermissionDenied, hint)
                .blocking_credentials()
                .with_hint(" Or give the user the commands that RedisCache names")
        }
        "LOADING" => of_kind(Unavailable, "the server loads its data"),
        "MISCONF" => of_kind(
            Unavailable,
            "the server cannot persist, and takes no writes",
        ),
        "CLUSTERDOWN" | "MASTERDOWN" | "TRYAGAIN" | "ASK" | "NOREPLICAS" | "BUSY" => {
            of_kind(Unavailable, "the server is out of service for now")
        }
        "MOVED" => {
            let hint = "the server is part of a cluster: use redis-cluster://";
            of_kind(Protocol, hint).into_rejection()
        }
        "WRONGTYPE" => of_kind(Protocol, "the key holds no string").into_rejection(),
        "ERR" if is_about_database(error) => {
            let hint = "the server refuses the database: its user needs +select, and it must exist";
            of_kind(PermissionDenied, hint).blocking_credentials()
        }
        "ERR" if is_about_clients(error) => of_kind(Unavailable, "too many clients are connected"),
        _ => of_kind(Protocol, "the server rejects the command"),
    }
}

/// The client replaces the code of this error by its own.
fn is_about_database(error: &RedisError) -> bool {
    error.to_string().contains("refused to switch database")
}

fn is_about_clients(error: &RedisError) -> bool {
    let detail = error.detail().unwrap_or_default();
    detail.starts_with("max number of clients")
}

/// A code as servers have them. Anything else is not repeated.
fn shown_code(code: &str) -> &str {
    let is_code = code.len() <= 20 && code.bytes().all(|byte| byte.is_ascii_uppercase());
    match is_code {
        true => code,
        false => "error reply",
    }
}

fn of_the_way(error: &RedisError) -> RequestError {
    if error.is_timeout() {
        return RequestError::new(
            StoreErrorKind::TimedOut,
            "no connection, or no reply, in time",
        );
    }
    // The cause is shared, which hides its type.
    let shared = error
        .source()
        .and_then(|cause| cause.downcast_ref::<Arc<dyn StdError + Send + Sync>>());
    let cause = shared.and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        Some(io::ErrorKind::InvalidData) => {
            RequestError::new(StoreErrorKind::Protocol, "the server's TLS is not valid")
        }
        _ => RequestError::new(
            StoreErrorKind::Unreachable,
            "no connection, or it was closed",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::parse_redis_value;

    fn of_reply(reply: &str) -> RequestError {
        let reply = parse_redis_value(format!("-{reply}\r\n").as_bytes()).unwrap();
        request_error(&reply.extract_error().unwrap_err())
    }

    #[test]
    fn each_error_of_a_server_has_its_kind() {
        use StoreErrorKind::{PermissionDenied, Protocol, ReadOnly, StorageFull, Unavailable};
        for (reply, kind) in [
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                StorageFull,
            ),
            (
                "READONLY You can't write against a read only replica.",
                ReadOnly,
            ),
            (
                "LOADING Redis is loading the dataset in memory",
                Unavailable,
            ),
            ("BUSY Redis is busy running a script.", Unavailable),
            ("CLUSTERDOWN Hash slot not served", Unavailable),
            ("MASTERDOWN Link with MASTER is down", Unavailable),
            (
                "TRYAGAIN Multiple keys request during rehashing of slot",
                Unavailable,
            ),
            ("NOREPLICAS Not enough good replicas to write.", Unavailable),
            (
                "MISCONF Redis is configured to save RDB snapshots",
                Unavailable,
            ),
            ("ERR max number of clients reached", Unavailable),
            ("NOAUTH Authentication required.", PermissionDenied),
            ("WRONGPASS invalid username-password pair", PermissionDenied),
            (
                "NOPERM User x has no permissions to run 'set'",
                PermissionDenied,
            ),
            ("MOVED 3999 127.0.0.1:6381", Protocol),
            ("WRONGTYPE Operation against a key", Protocol),
            ("ERR unknown command", Protocol),
            ("hunter2 is what you said", Protocol),
        ] {
            let error = of_reply(reply);
            assert_eq!(error.kind, kind, "{reply}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
