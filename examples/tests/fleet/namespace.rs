//! A Redis server in a network namespace of its own, which can be cut off: packets are lost, and
//! nobody is told. Needs root.

use crate::support::real_server::installed;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PORT: u16 = 6379;

pub(crate) struct RedisInNamespace {
    name: String,
    /// The first three parts of its addresses.
    net: String,
    child: Option<Child>,
    folder: TempDir,
}

impl RedisInNamespace {
    /// `None` where no namespace can be made.
    pub(crate) fn start() -> Option<Self> {
        let program = installed("redis-server")?;
        let id = std::process::id();
        let [high, low] = [id / 200 % 200, id % 200];
        let name = format!("pc{id}");
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self {
            net: format!("10.{}.{low}", high + 20),
            child: None,
            folder,
            name,
        };
        let (name, net) = (server.name.clone(), server.net.clone());
        let (host, inside) = (format!("{net}.1/30"), format!("{net}.2/30"));
        let is_made = ip(&["netns", "add", &name])
            && ip(&[
                "link", "add", &name, "type", "veth", "peer", "name", "v", "netns", &name,
            ])
            && ip(&["addr", "add", &host, "dev", &name])
            && ip(&["link", "set", &name, "up"])
            && ip(&["-n", &name, "addr", "add", &inside, "dev", "v"])
            && ip(&["-n", &name, "link", "set", "v", "up"])
            && ip(&["-n", &name, "link", "set", "lo", "up"]);
        if !is_made {
            println!("skipped: no network namespace");
            return None;
        }
        let child = Command::new("ip")
            .args(["netns", "exec", &name])
            .arg(program)
            .args([
                "--port",
                "6379",
                "--save",
                "",
                "--protected-mode",
                "no",
                "--dir",
            ])
            .arg(server.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        server.child = Some(child.unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect((server.address(), PORT)).is_err() {
            assert!(Instant::now() < deadline, "no server in the namespace");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    fn address(&self) -> String {
        format!("{}.2", self.net)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}:{PORT}", self.address())
    }

    /// From now on nothing arrives on either side.
    pub(crate) fn cut_off(&self) {
        assert!(ip(&["-n", &self.name, "link", "set", "v", "down"]));
    }

    pub(crate) fn reconnect(&self) {
        assert!(ip(&["-n", &self.name, "link", "set", "v", "up"]));
    }
}

fn ip(arguments: &[&str]) -> bool {
    let run = Command::new("ip")
        .args(arguments)
        .stderr(Stdio::null())
        .status();
    run.is_ok_and(|status| status.success())
}

impl Drop for RedisInNamespace {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        ip(&["link", "del", &self.name]);
        ip(&["netns", "del", &self.name]);
    }
}
