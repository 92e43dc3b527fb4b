//! How connections are opened: to a server, to the master that a Sentinel names, or to a cluster.

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
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
    Single(Box<Client>),
    /// A client for each Sentinel, which keeps its connection.
    Sentinel(Vec<Mutex<SentinelClient>>),
    Cluster {
        client: Box<ClusterClient>,
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
            Servers::Single(client) => Ok(Client::clone(client)),
            Servers::Sentinel(sentinels) => master(sentinels).await,
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
                let client = clients.next().ok_or(none)??;
                Ok(Self::Single(Box::new(client)))
            }
            Topology::Cluster => {
                let nodes: Vec<_> = nodes.collect();
                let mut cluster = ClusterClient::builder(nodes.clone())
                    // The nodes of the URL are waited for, and then all that they name.
                    .connection_timeout(settings.connect_timeout / 4)
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
                    client: Box::new(cluster.build()?),
                    nodes: nodes.into_iter().map(client).collect::<Result<_, _>>()?,
                })
            }
            Topology::Sentinel { master } => {
                let client = |node| {
                    let certificates = certificates.clone();
                    let client = sentinel(&node, &master, tcp.clone(), certificates, settings);
                    client.map(Mutex::new)
                };
                let sentinels = nodes.map(client);
                Ok(Self::Sentinel(sentinels.collect::<Result<_, _>>()?))
            }
        }
    }
}

/// The client of the master. All Sentinels are asked at once, and the first that names it counts: one
/// that hangs costs nothing.
async fn master(sentinels: &[Mutex<SentinelClient>]) -> RedisResult<Client> {
    let mut answers: FuturesUnordered<_> = sentinels.iter().map(master_of).collect();
    let mut failed = RedisError::from((ErrorKind::EmptySentinelList, "no Sentinel"));
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(client) => return Ok(client),
            // What a Sentinel says tells more than that another says nothing.
            Err(error) if failed.kind() == ErrorKind::EmptySentinelList || !error.is_io_error() => {
                failed = error;
            }
            Err(_) => {}
        }
    }
    Err(failed)
}

async fn master_of(sentinel: &Mutex<SentinelClient>) -> RedisResult<Client> {
    sentinel.lock().await.async_get_client().await
}

fn sentinel(
    node: &ConnectionInfo,
    master: &str,
    tcp: TcpSettings,
    certificates: Option<TlsCertificates>,
    settings: &ConnectionSettings,
) -> RedisResult<SentinelClient> {
    // The user and the password of the URL are those of the servers.
    let server = node.redis_settings();
    let (address, kind) = (node.addr().clone(), SentinelServerType::Master);
    let mut builder = SentinelClientBuilder::new([address], master, kind)?
        .set_client_to_redis_tcp_settings(tcp.clone())
        .set_client_to_sentinel_tcp_settings(tcp)
        .set_client_to_redis_db(server.db());
    if let Some(user) = server.username() {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = server.password() {
        builder = builder.set_client_to_redis_password(password);
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
    pub(super) const fn is_of_a_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// The reply to one command. Errors of the server are errors.
    pub(super) async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        let reply = match self {
            Self::Server(connection) => connection.clone().send_packed_command(command).await,
            Self::Cluster(connection) => connection.clone().req_packed_command(command).await,
        };
        reply?.extract_error()
    }
}
