//! How connections are opened: to a server, to the master that a Sentinel names, or to a cluster.

use redis::aio::{ConnectionLike as _, MultiplexedConnection, PubSub};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, RedisError, RedisResult,
    TlsCertificates, TlsMode, Value,
};
use std::time::Duration;
use tokio::sync::Mutex;

use super::address::{Address, Topology};
use super::error::RedisCacheError;

/// The user and the password of Sentinels, which have their own.
#[derive(Clone)]
pub(super) struct SentinelCredentials {
    pub(super) user: String,
    pub(super) password: String,
}

/// What all connections have in common.
pub(super) struct ConnectionSettings {
    pub(super) connect_timeout: Duration,
    /// For a reply of a cluster's node, and for what was sent to be acknowledged.
    pub(super) inactivity_timeout: Duration,
    pub(super) certificates: Option<TlsCertificates>,
    pub(super) sentinel_credentials: Option<SentinelCredentials>,
}

pub(super) struct Connector {
    servers: Servers,
    config: AsyncConnectionConfig,
}

enum Servers {
    Single(Client),
    /// The client keeps its connections to the Sentinels.
    Sentinel(Mutex<SentinelClient>),
    Cluster {
        client: ClusterClient,
        /// The nodes of the URL, for subscriptions: any node passes on what another was told.
        nodes: Vec<Client>,
    },
}

/// An open connection. A clone shares it. Dropping the future of a request does no harm: the reply is
/// discarded when it comes.
#[derive(Clone)]
pub(super) enum Connection {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connector {
    pub(super) fn new(
        address: Address,
        settings: ConnectionSettings,
    ) -> Result<Self, RedisCacheError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(settings.connect_timeout))
            // Timed where the request is made.
            .set_response_timeout(None);
        let servers = Servers::new(address, &settings);
        Ok(Self {
            // Its error is not repeated: it may quote the URL.
            servers: servers.map_err(|_| RedisCacheError::InvalidUrl {
                reason: "the servers that it names cannot be used together".to_owned(),
            })?,
            config,
        })
    }

    pub(super) const fn has_sentinels(&self) -> bool {
        matches!(self.servers, Servers::Sentinel(_))
    }

    pub(super) async fn connect(&self) -> RedisResult<Connection> {
        if let Servers::Cluster { client, .. } = &self.servers {
            return client.get_async_connection().await.map(Connection::Cluster);
        }
        let client = self.client().await?;
        let connection = client.get_multiplexed_async_connection_with_config(&self.config);
        connection.await.map(Connection::Server)
    }

    /// A connection that hears what is published.
    pub(super) async fn subscriber(&self) -> RedisResult<PubSub> {
        self.client().await?.get_async_pubsub().await
    }

    /// The client of one server.
    async fn client(&self) -> RedisResult<Client> {
        match &self.servers {
            Servers::Single(client) => Ok(client.clone()),
            Servers::Sentinel(sentinels) => sentinels.lock().await.async_get_client().await,
            Servers::Cluster { nodes, .. } => {
                let any = fastrand::usize(..nodes.len().max(1));
                let none = RedisError::from((ErrorKind::Client, "the cluster has no nodes"));
                nodes.get(any).cloned().ok_or(none)
            }
        }
    }
}

impl Servers {
    fn new(address: Address, settings: &ConnectionSettings) -> RedisResult<Self> {
        let tcp = tcp_settings(settings.inactivity_timeout);
        let certificates = settings.certificates.clone().filter(|_| address.tls);
        let nodes = address
            .nodes
            .into_iter()
            .map(|node| node.set_tcp_settings(tcp.clone()));
        let client = |node: ConnectionInfo| match &certificates {
            Some(certificates) => Client::build_with_tls(node, certificates.clone()),
            None => Client::open(node),
        };
        match address.topology {
            Topology::Single => {
                let mut clients = nodes.map(client);
                let none = RedisError::from((ErrorKind::InvalidClientConfig, "no server"));
                clients.next().ok_or(none)?.map(Self::Single)
            }
            Topology::Cluster => {
                let nodes: Vec<_> = nodes.collect();
                let mut cluster = ClusterClient::builder(nodes.clone())
                    .connection_timeout(settings.connect_timeout)
                    .response_timeout(settings.inactivity_timeout)
                    .tcp_settings(tcp)
                    // Moved keys are followed so. The calls of the tier have their own retries.
                    .retries(4)
                    .min_retry_wait(10)
                    .max_retry_wait(100);
                if let Some(certificates) = certificates.clone() {
                    cluster = cluster.certs(certificates);
                }
                Ok(Self::Cluster {
                    client: cluster.build()?,
                    nodes: nodes.into_iter().map(client).collect::<Result<_, _>>()?,
                })
            }
            Topology::Sentinel { master } => {
                let nodes = nodes.collect();
                let sentinels = sentinels(nodes, master, tcp, certificates, settings)?;
                Ok(Self::Sentinel(Mutex::new(sentinels)))
            }
        }
    }
}

fn sentinels(
    nodes: Vec<ConnectionInfo>,
    master: String,
    tcp: TcpSettings,
    certificates: Option<TlsCertificates>,
    settings: &ConnectionSettings,
) -> RedisResult<SentinelClient> {
    // The user and the password of the URL are those of the servers.
    let server = nodes.first().map(|node| node.redis_settings().clone());
    let addresses: Vec<_> = nodes.iter().map(|node| node.addr().clone()).collect();
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
        .set_client_to_redis_tcp_settings(tcp.clone())
        .set_client_to_sentinel_tcp_settings(tcp);
    if let Some(server) = server {
        builder = builder.set_client_to_redis_db(server.db());
        if let Some(user) = server.username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = server.password() {
            builder = builder.set_client_to_redis_password(password);
        }
    }
    if let Some(SentinelCredentials { user, password }) = &settings.sentinel_credentials {
        if !user.is_empty() {
            builder = builder.set_client_to_sentinel_username(user);
        }
        builder = builder.set_client_to_sentinel_password(password);
    }
    if let Some(certificates) = certificates {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_certificates(certificates);
    }
    builder.build()
}

fn tcp_settings(inactivity_timeout: Duration) -> TcpSettings {
    let settings = TcpSettings::default().set_nodelay(true);
    // A connection whose other end is gone without a word ends then.
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(inactivity_timeout);
    #[cfg(not(target_os = "linux"))]
    let _ = inactivity_timeout;
    settings
}

impl Connection {
    /// The reply to one command. Errors of the server are errors.
    pub(super) async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        let reply = match self {
            Self::Server(connection) => connection.clone().send_packed_command(command).await,
            Self::Cluster(connection) => connection.clone().req_packed_command(command).await,
        };
        reply?.extract_error()
    }
}
