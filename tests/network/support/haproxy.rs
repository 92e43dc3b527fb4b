//! A real haproxy between a client and a server: a link that can be made to fail, and to heal.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

use crate::support::real_server::installed;
use crate::support::signals::signal;

const STARTING: Duration = Duration::from_secs(20);

pub(crate) struct Haproxy {
    program: PathBuf,
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Haproxy {
    /// Starts a link to a server on this machine. `None` where haproxy is not installed.
    ///
    /// What the link does to requests is named by [`set_fault`](Self::set_fault): `none`, `reset`,
    /// `black-hole`, `half-503`, or `drip`, which asks for the same below `/drip`. `absent-403` says
    /// 403 for 404; `writes-429`, with a long `Retry-After`, and `writes-500` refuse each PUT.
    pub(crate) fn start(server: u16) -> Option<Self> {
        let program = installed("haproxy")?;
        (0..5)
            .find_map(|_| Self::try_start(&program, server))
            .or_else(|| panic!("haproxy did not start"))
    }

    fn try_start(program: &PathBuf, server: u16) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        // Free again at the end of the statement.
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        std::fs::write(folder.path().join("faults.map"), "fault none\n").unwrap();
        let fault = |name: &str| format!("if {{ var(txn.fault) -m str {name} }}");
        let configuration = format!(
            "global
               stats socket {path}/admin.sock mode 600 level admin
               maxconn 512
             defaults
               mode http
               timeout connect 60s
               timeout client 60s
               timeout server 60s
               timeout http-keep-alive 60s
             frontend link
               bind 127.0.0.1:{port}
               option nolinger
               http-request set-var(txn.fault) str(fault),map({path}/faults.map,none)
               http-request reject {}
               http-request silent-drop {}
               http-request return status 503 {} {{ rand(2) eq 0 }}
               http-request set-path /drip%[path] {}
               http-request return status 429 hdr retry-after 600 {} {{ method PUT }}
               http-request return status 500 {} {{ method PUT }}
               http-response set-status 403 {} {{ status 404 }}
               default_backend origin
             backend origin
               server origin 127.0.0.1:{server}\n",
            fault("reset"),
            fault("black-hole"),
            fault("half-503"),
            fault("drip"),
            fault("writes-429"),
            fault("writes-500"),
            fault("absent-403"),
        );
        std::fs::write(folder.path().join("haproxy.cfg"), configuration).unwrap();
        let mut haproxy = Self {
            child: spawn(program, path),
            program: program.clone(),
            port,
            folder,
        };
        haproxy.wait_until_ready().then_some(haproxy)
    }

    /// Whether it is this haproxy that has the port: it ends where it does not get it.
    fn wait_until_ready(&mut self) -> bool {
        let deadline = Instant::now() + STARTING;
        while Instant::now() < deadline {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if self.command("show version").is_ok()
                && TcpStream::connect(("127.0.0.1", self.port)).is_ok()
            {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    fn command(&self, command: &str) -> std::io::Result<String> {
        let mut socket = UnixStream::connect(self.folder.path().join("admin.sock"))?;
        socket.write_all(format!("{command}\n").as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// From now on requests fare so.
    pub(crate) fn set_fault(&self, fault: &str) {
        let map = self.folder.path().join("faults.map");
        let said = self.command(&format!("set map {} fault {fault}", map.display()));
        assert_eq!(said.unwrap().trim(), "", "{fault}");
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Nobody listens on the port any more.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.program, self.folder.path().to_str().unwrap());
        assert!(self.wait_until_ready());
    }

    pub(crate) fn freeze(&self) {
        signal(&self.child, "STOP");
    }

    pub(crate) fn thaw(&self) {
        signal(&self.child, "CONT");
    }
}

fn spawn(program: &PathBuf, path: &str) -> Child {
    Command::new(program)
        .args(["-db", "-f"])
        .arg(format!("{path}/haproxy.cfg"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        self.kill();
    }
}
