//! Real Redis servers on 127.0.0.1, alone or in company, with all they write in a folder of their
//! own. They die with the value.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

use crate::support::real_server::installed;
use crate::support::signals::signal;

/// How long a server may take to be of use, on a machine that does much else.
const STARTING: Duration = Duration::from_secs(60);

/// Others may take a port before the server binds it.
const TRIES: usize = 5;

/// One server, or one Sentinel.
pub(crate) struct Redis {
    program: PathBuf,
    arguments: Vec<String>,
    child: Child,
    pub(crate) port: u16,
    folder: TempDir,
}

impl Redis {
    /// A server that keeps nothing on disk. `None` where Redis is not installed. `{port}` and
    /// `{folder}` in the arguments stand for its own.
    pub(crate) fn start(arguments: &str) -> Option<Self> {
        let program = installed("redis-server")?;
        let defaults = "--bind 127.0.0.1 --save  --appendonly no --dir {folder}";
        let server = (0..TRIES).find_map(|_| {
            let port = free_port();
            let line = format!("--port {port} {defaults} {arguments}");
            Self::try_start(&program, port, &line)
        });
        Some(server.unwrap_or_else(|| panic!("redis-server did not start: {arguments}")))
    }

    fn try_start(program: &Path, port: u16, line: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let line = line
            .replace("{port}", &port.to_string())
            .replace("{folder}", folder.path().to_str().unwrap());
        // Two spaces stand around an empty argument.
        let arguments: Vec<_> = line.trim_end().split(' ').map(str::to_owned).collect();
        let mut server = Self {
            child: spawn(program, &arguments, folder.path()),
            program: program.to_owned(),
            arguments,
            port,
            folder,
        };
        server.wait_until_it_answers().then_some(server)
    }

    /// A Sentinel that watches a server as `main`.
    pub(crate) fn sentinel(server: u16, quorum: u32) -> Option<Self> {
        let program = installed("redis-server")?;
        let started = (0..TRIES).find_map(|_| {
            let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
            let file = folder.path().join("sentinel.conf");
            let configuration = format!(
                "port {port}\nbind 127.0.0.1\ndir {}\n\
                 sentinel monitor main 127.0.0.1 {server} {quorum}\n\
                 sentinel down-after-milliseconds main 500\n\
                 sentinel failover-timeout main 3000\n",
                folder.path().display()
            );
            std::fs::write(&file, configuration).unwrap();
            let arguments = vec![file.to_str().unwrap().to_owned(), "--sentinel".to_owned()];
            let mut sentinel = Self {
                child: spawn(&program, &arguments, folder.path()),
                program: program.clone(),
                arguments,
                port,
                folder,
            };
            sentinel.wait_until_it_answers().then_some(sentinel)
        });
        Some(started.expect("the Sentinel did not start"))
    }

    /// Whether it answers, be it with an error.
    fn wait_until_it_answers(&mut self) -> bool {
        let deadline = Instant::now() + STARTING;
        while Instant::now() < deadline {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The reply to a command, as `redis-cli` prints it.
    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        cli(self.port, arguments)
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.program, &self.arguments, self.folder.path());
        assert!(self.wait_until_it_answers());
    }

    pub(crate) fn freeze(&self) {
        signal(&self.child, "STOP");
    }

    pub(crate) fn thaw(&self) {
        signal(&self.child, "CONT");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The reply of the server at a port to a command, as `redis-cli` prints it. Empty where nobody
/// answers.
pub(crate) fn cli(port: u16, arguments: &[&str]) -> String {
    let output = Command::new("redis-cli")
        .args(["-h", "127.0.0.1", "-p", &port.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Waits until it is so.
pub(crate) fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + STARTING;
    while !reached() {
        assert!(Instant::now() < deadline, "{what}: not within {STARTING:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Six servers: three masters with a replica each.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Redis>,
}

impl Cluster {
    pub(crate) fn start() -> Option<Self> {
        let nodes: Option<Vec<_>> = (0..6)
            .map(|_| {
                // Its bus has a port of its own, by default one that may be beyond the last.
                let bus = free_port();
                Redis::start(&format!(
                    "--cluster-enabled yes --cluster-node-timeout 5000 --cluster-port {bus} \
                     --cluster-config-file nodes.conf --cluster-replica-validity-factor 0 \
                     --cluster-require-full-coverage no"
                ))
            })
            .collect();
        let nodes = nodes?;
        let addresses: Vec<_> = nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        let created = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(&addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&created.stdout);
        assert!(created.status.success(), "{said}");
        let cluster = Self { nodes };
        cluster.wait_until_well();
        Some(cluster)
    }

    /// Waits until all slots are served, as all nodes that answer see it.
    pub(crate) fn wait_until_well(&self) {
        wait_until("the cluster", || {
            self.nodes.iter().all(|node| {
                let info = node.command(&["cluster", "info"]);
                info.is_empty() || info.contains("cluster_state:ok")
            })
        });
    }

    pub(crate) fn url(&self) -> String {
        let nodes = self.nodes[..2].iter();
        let nodes: Vec<_> = nodes
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        format!("redis-cluster://{}", nodes.join(","))
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn spawn(program: &Path, arguments: &[String], folder: &Path) -> Child {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}
