//! A real nginx on 127.0.0.1, with all it writes in a folder of its own. It dies with the value.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

use crate::support::real_server::installed;

/// How long nginx may take to answer its first request.
const STARTING: Duration = Duration::from_secs(20);

pub(crate) struct Nginx {
    program: PathBuf,
    child: Child,
    scheme: &'static str,
    port: u16,
    /// Plain HTTP/1, to see whether it is up.
    control_port: u16,
    folder: TempDir,
}

/// What is configured other than the locations. `$folder` stands for nginx's folder in all of it.
#[derive(Default)]
pub(crate) struct Settings<'a> {
    /// Next to the port in `listen`, as `http2` or `ssl http2`.
    pub(crate) listen: &'a str,
    pub(crate) server: &'a str,
    pub(crate) http: &'a str,
}

impl Nginx {
    /// Starts nginx with these `location` blocks, in which `$folder` stands for its folder.
    /// `None` where nginx is not installed.
    pub(crate) fn start(locations: &str) -> Option<Self> {
        Self::start_with(&Settings::default(), locations)
    }

    pub(crate) fn start_with(settings: &Settings<'_>, locations: &str) -> Option<Self> {
        let program = installed("nginx")?;
        // Between the choice of a port and nginx's bind another program may take it.
        (0..5)
            .find_map(|_| Self::try_start(&program, settings, locations))
            .or_else(|| panic!("nginx did not start"))
    }

    fn try_start(program: &PathBuf, settings: &Settings<'_>, locations: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap();
        let [port, control_port] =
            [free(), free()].map(|listener| listener.local_addr().unwrap().port());
        std::fs::create_dir(folder.path().join("www")).unwrap();
        let here = |text: &str| text.replace("$folder", path);
        let (locations, server, http) =
            (here(locations), here(settings.server), here(settings.http));
        let listen = settings.listen;
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|module| format!("{module}_temp_path {path}/{module};"))
            .concat();
        let configuration = format!(
            "daemon off; master_process off; pid {path}/pid; error_log {path}/error.log;
             events {{ worker_connections 512; }}
             http {{
                 {temporary}
                 log_format connection '$connection $status $request';
                 access_log {path}/access.log connection;
                 default_type application/octet-stream;
                 {http}
                 server {{
                     listen 127.0.0.1:{port} {listen};
                     {server}
                     client_max_body_size 16m;
                     root {path}/www;
                     {locations}
                 }}
                 server {{
                     listen 127.0.0.1:{control_port};
                     location = /ready {{ access_log off; return 200 {path}; }}
                 }}
             }}"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, configuration).unwrap();
        let mut nginx = Self {
            child: spawn(program, path),
            program: program.clone(),
            scheme: if listen.contains("ssl") {
                "https"
            } else {
                "http"
            },
            port,
            control_port,
            folder,
        };
        nginx.wait_until_ready().then_some(nginx)
    }

    /// Whether it is this nginx, and no other program, that answers on the port.
    fn wait_until_ready(&mut self) -> bool {
        let deadline = Instant::now() + STARTING;
        let name = self.folder.path().to_str().unwrap().to_owned();
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                eprintln!("nginx ended: {status}: {}", self.read("error.log"));
                return false;
            }
            match self.ask_ready() {
                Ok(answer) => return answer.ends_with(&name),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        false
    }

    fn ask_ready(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.control_port))?;
        stream.set_read_timeout(Some(STARTING))?;
        stream.write_all(b"GET /ready HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The URL of a path on the server.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}{path}", self.scheme, self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again where it was.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.program, self.folder.path().to_str().unwrap());
        assert!(self.wait_until_ready());
    }

    /// A file or folder below the server's root.
    pub(crate) fn www(&self, path: &str) -> PathBuf {
        self.folder.path().join("www").join(path)
    }

    /// The lines of the access log (connection, status, request), of so many requests at least: nginx writes one once the answer has left.
    pub(crate) fn access_log(&self, requests: usize) -> Vec<String> {
        let start = Instant::now();
        loop {
            let log = self.read("access.log");
            if log.lines().count() >= requests {
                return log.lines().map(str::to_owned).collect();
            }
            assert!(
                start.elapsed() < STARTING,
                "fewer than {requests} lines: {log}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(file)).unwrap_or_default()
    }
}

fn spawn(program: &PathBuf, path: &str) -> Child {
    Command::new(program)
        .args(["-e", &format!("{path}/error.log"), "-p", path, "-c"])
        .arg(format!("{path}/nginx.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.kill();
    }
}
