//! Where the servers are: the URL of a tier, taken apart.
//!
//! The `redis` crate knows the URL of one server. That of a Sentinel or a cluster names several, so
//! it is taken apart here, and each server gets a URL of its own.

use redis::{ConnectionInfo, IntoConnectionInfo as _};
use std::fmt;

use super::error::RedisCacheError;

/// How the servers work together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Topology {
    Single,
    /// The nodes are Sentinels. They say which server is the master of this name.
    Sentinel {
        master: String,
    },
    Cluster,
}

/// The servers of a tier. It prints itself without secrets.
pub(super) struct Address {
    pub(super) topology: Topology,
    pub(super) tls: bool,
    /// With the user and the password, which are those of the data servers.
    pub(super) nodes: Vec<ConnectionInfo>,
    shown: String,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, RedisCacheError> {
        let (scheme, rest) = url
            .split_once("://")
            .ok_or(RedisCacheError::UnsupportedScheme)?;
        let (server, kind) = scheme.split_once('-').unwrap_or((scheme, ""));
        let tls = match server {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(RedisCacheError::UnsupportedScheme),
        };
        if rest.contains(['?', '#']) {
            return Err(invalid("it has a query or a fragment"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if path.contains('@') {
            return Err(invalid(
                "it has an @ after the first /: write a / in a password as %2F",
            ));
        }
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        let (topology, database) = match kind {
            "" => (Topology::Single, path),
            "cluster" => (Topology::Cluster, path),
            "sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(invalid("the name of the master is missing in its path"));
                }
                let master = master.to_owned();
                (Topology::Sentinel { master }, database)
            }
            _ => return Err(RedisCacheError::UnsupportedScheme),
        };
        if topology == Topology::Single && hosts.contains(',') {
            return Err(invalid(
                "it names several servers: use redis-cluster:// or redis-sentinel://",
            ));
        }
        let one = if tls { "rediss" } else { "redis" };
        let at = user.map_or_else(String::new, |user| format!("{user}@"));
        let default_port = match topology {
            Topology::Sentinel { .. } => 26379,
            Topology::Single | Topology::Cluster => 6379,
        };
        let hosts: Vec<_> = hosts
            .split(',')
            .map(|host| with_port(host, default_port))
            .collect();
        let nodes = hosts.iter().map(|host| {
            // Its error is not repeated: it may quote the URL.
            format!("{one}://{at}{host}/{database}")
                .into_connection_info()
                .map_err(|_| invalid("a host, a port or the number of the database is wrong"))
        });
        let path = if path.is_empty() { "0" } else { path };
        Ok(Self {
            topology,
            tls,
            nodes: nodes.collect::<Result<_, _>>()?,
            shown: format!("{scheme}://{}/{path}", hosts.join(",")),
        })
    }

    pub(super) fn has_credentials(&self) -> bool {
        let settings = self.nodes.iter().map(ConnectionInfo::redis_settings);
        settings
            .into_iter()
            .any(|node| node.password().is_some() || node.username().is_some())
    }
}

fn with_port(host: &str, default: u16) -> String {
    // The colons of an address in brackets are not those of a port.
    let after_address = host.rsplit(']').next().unwrap_or(host);
    match after_address.contains(':') || host.is_empty() {
        true => host.to_owned(),
        false => format!("{host}:{default}"),
    }
}

fn invalid(reason: &'static str) -> RedisCacheError {
    RedisCacheError::InvalidUrl {
        reason: reason.to_owned(),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        match Address::parse(url) {
            Ok(address) => address.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_url_names_one_server_or_several_and_is_shown_without_secrets() {
        for (url, expected) in [
            ("redis://h", "redis://h:6379/0"),
            ("redis://:pa%40ss@h:1/2", "redis://h:1/2"),
            ("rediss://user:pa@ss@h", "rediss://h:6379/0"),
            ("valkey://[::1]/3", "valkey://[::1]:6379/3"),
            (
                "redis-cluster://u:p@a,b:7001",
                "redis-cluster://a:6379,b:7001/0",
            ),
            (
                "rediss-sentinel://u:p@a,b:2/main/4",
                "rediss-sentinel://a:26379,b:2/main/4",
            ),
        ] {
            assert_eq!(shown(url), expected);
        }
    }

    #[test]
    fn each_server_gets_the_user_and_the_password() {
        let address = Address::parse("redis-cluster://us%2Fer:p%40ss@a,b:7001").unwrap();
        assert!(address.has_credentials() && address.nodes.len() == 2);
        for node in &address.nodes {
            let settings = node.redis_settings();
            assert_eq!(settings.username(), Some("us/er"));
            assert_eq!(settings.password(), Some("p@ss"));
        }
        assert!(!Address::parse("redis://h/0").unwrap().has_credentials());
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_it() {
        for url in [
            "redis://:hunter2@",
            "redis://:hunter2@h:port",
            "redis://:hunter2@h:1/database",
            "redis://:hunter2@h:99999",
            "redis://:hunter2@a,b",
            "redis://:hunter2@h/0?hunter2",
            "redis://:hunter2@h/0#insecure",
            "redis://user:hun/ter2@h",
            "redis-sentinel://user:hun/ter2@h/main",
            "redis-sentinel://h/hunter2@h/main",
            "redis-cluster://user:hun/ter2@h",
            "redis-sentinel://:hunter2@h",
            "redis-hunter2://h",
            "http://:hunter2@h",
            ":hunter2@h",
            "",
        ] {
            let Err(error) = Address::parse(url) else {
                panic!("{url}");
            };
            let said = format!("{error} {error:?}");
            assert!(
                !said.contains("hunter2") && !said.contains("ter2"),
                "{said}"
            );
        }
    }
}
