//! Real SeaweedFS servers on 127.0.0.1, single or in a cluster, with all they write in a folder of
//! their own. They die with the value. Tests take turns with them: a machine has room for one.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

use crate::support::real_server::installed;
use crate::support::signals::signal;

/// How long a server may take to be of use, on a machine that does much else.
const STARTING: Duration = Duration::from_secs(240);

/// How often servers are started, with other ports each time.
const TRIES: usize = 3;

pub(crate) const ACCESS_KEY: &str = "team";
pub(crate) const SECRET_KEY: &str = "a-secret-of-the-team";
pub(crate) const BUCKET: &str = "artifacts";

/// The port of a server's HTTP and that of its gRPC.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    http: u16,
    grpc: u16,
}

impl Ports {
    /// As other servers are told of it.
    fn address(self) -> String {
        format!("127.0.0.1:{}.{}", self.http, self.grpc)
    }
}

/// Ports that are free, all different. Others may take one before it is bound, which is why
/// starting is tried again.
fn free_ports<const N: usize>() -> [Ports; N] {
    let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
    let held: [[TcpListener; 2]; N] = std::array::from_fn(|_| [bind(), bind()]);
    held.map(|pair| {
        let [http, grpc] = pair.map(|listener| listener.local_addr().unwrap().port());
        Ports { http, grpc }
    })
}

/// Held by the test that has servers.
pub(crate) static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// One server, which can be killed, frozen and started again.
pub(crate) struct Node {
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Child,
    pub(crate) ports: Ports,
}

impl Node {
    fn start(program: &Path, folder: &Path, ports: Ports, arguments: &[String]) -> Self {
        let log = folder.join(format!("{}-{}.log", arguments[0], ports.http));
        let arguments = arguments.to_vec();
        Self {
            child: spawn(program, &arguments, &log),
            program: program.to_owned(),
            arguments,
            log,
            ports,
        }
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn freeze(&self) {
        signal(&self.child, "STOP");
    }

    pub(crate) fn thaw(&self) {
        signal(&self.child, "CONT");
    }

    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.program, &self.arguments, &self.log);
    }

    /// What it wrote last, if it has ended.
    fn end(&mut self) -> Option<String> {
        self.child.try_wait().unwrap()?;
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        Some(lines[lines.len().saturating_sub(5)..].join("\n"))
    }
}

fn spawn(program: &Path, arguments: &[String], log: &Path) -> Child {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(log)
        .unwrap();
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The status and the body of an answer; nothing where there is none within a second or two.
fn ask(method: &str, port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let head = format!("{method} {path} HTTP/1.0\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, body.to_owned()))
}

/// Waits until it is so, as long as all these servers run.
fn wait_until(
    what: &str,
    nodes: &mut [Node],
    mut reached: impl FnMut() -> bool,
) -> Result<(), String> {
    let deadline = Instant::now() + STARTING;
    while !reached() {
        if let Some(ended) = nodes.iter_mut().find_map(Node::end) {
            return Err(format!("{what}: a server ended: {ended}"));
        }
        if Instant::now() > deadline {
            return Err(format!("{what}: not within {STARTING:?}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn identities(folder: &Path) -> String {
    let file = folder.join("s3.json");
    let json = format!(
        r#"{{"identities":[{{"name":"team","actions":["Admin"],
            "credentials":[{{"accessKey":"{ACCESS_KEY}","secretKey":"{SECRET_KEY}"}}]}}]}}"#
    );
    std::fs::write(&file, json).unwrap();
    file.to_str().unwrap().to_owned()
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Tries to start servers. `None` where SeaweedFS is not installed.
fn start<T>(try_start: impl Fn(&Path) -> Result<T, String>) -> Option<T> {
    let program = installed("weed")?;
    let mut failures = Vec::new();
    for _ in 0..TRIES {
        match try_start(&program) {
            Ok(started) => return Some(started),
            Err(failure) => failures.push(failure),
        }
    }
    panic!("SeaweedFS did not start: {failures:#?}");
}

/// Everything in one process.
pub(crate) struct Single {
    node: [Node; 1],
    filer: Ports,
    s3: Ports,
    _folder: TempDir,
}

impl Single {
    /// `None` where SeaweedFS is not installed.
    pub(crate) fn start() -> Option<Self> {
        start(Self::try_start)
    }

    fn try_start(program: &Path) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let [master, volume, filer, s3] = free_ports();
        let identities = identities(folder.path());
        let arguments = words(&format!(
            "server -ip=127.0.0.1 -ip.bind=127.0.0.1 -dir={} -filer -s3 -master.telemetry=false
             -master.port={} -master.port.grpc={} -volume.port={} -volume.port.grpc={}
             -filer.port={} -filer.port.grpc={} -s3.port={} -s3.port.grpc={} -s3.config={identities}
             -s3.port.iceberg=0 -s3.port.lance=0 -master.volumeSizeLimitMB=64 -volume.max=32",
            folder.path().display(),
            master.http,
            master.grpc,
            volume.http,
            volume.grpc,
            filer.http,
            filer.grpc,
            s3.http,
            s3.grpc,
        ));
        let mut node = [Node::start(program, folder.path(), master, &arguments)];
        wait_for_bucket(&mut node, filer, s3)?;
        Ok(Self {
            node,
            filer,
            s3,
            _folder: folder,
        })
    }

    pub(crate) fn kill(&mut self) {
        self.node[0].kill();
    }

    /// Starts it again where it was.
    pub(crate) fn restart(&mut self) {
        self.node[0].restart();
        wait_for_bucket(&mut self.node, self.filer, self.s3).unwrap();
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.s3.http)
    }
}

fn wait_for_bucket(node: &mut [Node], filer: Ports, s3: Ports) -> Result<(), String> {
    wait_until("a single server", node, || {
        make_bucket(filer) && ask("GET", s3.http, "/").is_some()
    })
}

/// A bucket is a folder of the filer. One file through it shows that there is room.
fn make_bucket(filer: Ports) -> bool {
    let made = ask("POST", filer.http, &format!("/buckets/{BUCKET}/"));
    made.is_some_and(|(status, _)| matches!(status, 200..=299 | 409))
}

/// Three masters, three volume servers, two gateways. Every object is on two volume servers.
pub(crate) struct Cluster {
    pub(crate) masters: Vec<Node>,
    pub(crate) volumes: Vec<Node>,
    /// Each is a filer and an S3 server on it.
    _gateways: Vec<Node>,
    endpoints: [Ports; 2],
    _folder: TempDir,
}

impl Cluster {
    /// `None` where SeaweedFS is not installed.
    pub(crate) fn start() -> Option<Self> {
        start(Self::try_start)
    }

    fn try_start(program: &Path) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let [m0, m1, m2, v0, v1, v2, f0, f1, s0, s1] = free_ports();
        let masters = [m0, m1, m2];
        let all_masters = masters.map(Ports::address).join(",");
        let common = "-ip=127.0.0.1 -ip.bind=127.0.0.1";
        let start =
            |ports: Ports, line: String| Node::start(program, folder.path(), ports, &words(&line));
        let numbered = |(number, ports): (usize, Ports), what: &str, rest: String| {
            let dir = folder.path().join(format!("{what}-{number}"));
            std::fs::create_dir(&dir).unwrap();
            let dir_flag = match what {
                "master" => "mdir",
                "volume" => "dir",
                _ => "defaultStoreDir",
            };
            let (dir, Ports { http, grpc }) = (dir.display(), ports);
            start(
                ports,
                format!("{what} {common} -port={http} -port.grpc={grpc} -{dir_flag}={dir} {rest}"),
            )
        };
        let masters = masters.into_iter().enumerate().map(|master| {
            let rest = format!(
                "-peers={all_masters} -defaultReplication=001 -volumeSizeLimitMB=64 \
                 -electionTimeout=2s -telemetry=false"
            );
            numbered(master, "master", rest)
        });
        let mut masters: Vec<_> = masters.collect();
        let ports: Vec<_> = masters.iter().map(|master| master.ports).collect();
        wait_until("a leader of the masters", &mut masters, || {
            leader(&ports).is_some()
        })?;
        let volumes = [v0, v1, v2].into_iter().enumerate().map(|volume| {
            let rest = format!("-master={all_masters} -max=24 -preStopSeconds=0");
            numbered(volume, "volume", rest)
        });
        let mut volumes: Vec<_> = volumes.collect();
        wait_until("the volume servers", &mut volumes, || {
            has_volumes(&ports, 3)
        })?;
        let identities = identities(folder.path());
        let mut gateways = Vec::new();
        for (filer, s3) in [f0, f1].into_iter().enumerate().zip([s0, s1]) {
            let store = numbered(filer, "filer", format!("-master={all_masters}"));
            let gateway = format!(
                "s3 -ip.bind=127.0.0.1 -port={} -port.grpc={} -filer={} -config={identities} \
                 -port.iceberg=0 -port.lance=0",
                s3.http,
                s3.grpc,
                filer.1.address()
            );
            gateways.extend([store, start(s3, gateway)]);
            // The second filer finds the first, and takes over what it knows.
            wait_until("a gateway", &mut gateways, || {
                make_bucket(filer.1) && ask("GET", s3.http, "/").is_some()
            })?;
        }
        Ok(Self {
            masters,
            volumes,
            _gateways: gateways,
            endpoints: [s0, s1],
            _folder: folder,
        })
    }

    pub(crate) fn endpoints(&self) -> [String; 2] {
        self.endpoints
            .map(|ports| format!("http://127.0.0.1:{}", ports.http))
    }

    /// Which of the masters leads, as they themselves see it.
    pub(crate) fn leader(&self) -> Option<usize> {
        leader(&self.master_ports())
    }

    /// Waits until the leader knows all volume servers again.
    pub(crate) fn wait_for_volumes(&mut self) {
        let (masters, servers) = (self.master_ports(), self.volumes.len());
        let back = wait_until("the volume servers", &mut self.volumes, || {
            has_volumes(&masters, servers)
        });
        back.unwrap();
    }

    fn master_ports(&self) -> Vec<Ports> {
        self.masters.iter().map(|master| master.ports).collect()
    }
}

fn leader(masters: &[Ports]) -> Option<usize> {
    masters.iter().position(|master| {
        let status = ask("GET", master.http, "/cluster/status");
        status.is_some_and(|(_, body)| body.replace(' ', "").contains("\"IsLeader\":true"))
    })
}

/// Whether the leader knows so many volume servers.
fn has_volumes(masters: &[Ports], servers: usize) -> bool {
    let leader = leader(masters).map(|leader| masters[leader].http);
    let status = leader.and_then(|port| ask("GET", port, "/dir/status"));
    status.is_some_and(|(_, body)| body.matches("\"PublicUrl\"").count() >= servers)
}
