//! An HTTP/1.1 server that does exactly what a test's script says, bytes and all.
//!
//! It runs on threads of its own, so that a runtime that stands still, or whose clock is paused,
//! does not stop it. Nothing in it sleeps to synchronise: a hang lasts until the client leaves.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

/// What the server does next on a connection.
#[derive(Clone)]
pub(crate) enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends these bytes again and again until the client leaves.
    Endless(Vec<u8>),
    /// Sends these bytes one by one, with a pause after each.
    Drip(Vec<u8>, Duration),
    /// Sends nothing more until the client leaves.
    Hang,
    /// Closes the connection in good order.
    Close,
    /// Closes it with a reset.
    Reset,
}

/// A request as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

type Script = dyn Fn(&Request) -> Vec<Step> + Send + Sync;

struct Shared {
    script: Box<Script>,
    requests: Mutex<Vec<Request>>,
    connections: AtomicUsize,
    streams: Mutex<Vec<Weak<TcpStream>>>,
    most_open: AtomicUsize,
    bytes_sent: AtomicUsize,
    stopped: AtomicBool,
}

/// The server. It stops with the value.
pub(crate) struct ScriptedServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl ScriptedServer {
    /// Serves each request as `script` says. The connection stays open unless it says otherwise.
    pub(crate) fn start(script: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            streams: Mutex::default(),
            most_open: AtomicUsize::new(0),
            bytes_sent: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { break };
                let stream = Arc::new(stream);
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                accepting
                    .streams
                    .lock()
                    .unwrap()
                    .push(Arc::downgrade(&stream));
                let serving = Arc::clone(&accepting);
                // A client that leaves ends the connection's thread, and is no failure.
                thread::spawn(move || serving.serve(&stream));
            }
        });
        Self { address, shared }
    }

    /// Answers every request with the same steps.
    pub(crate) fn always(steps: Vec<Step>) -> Self {
        Self::start(move |_| steps.clone())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// All connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The connections that the client has open.
    pub(crate) fn open(&self) -> usize {
        self.shared.open()
    }

    /// The most connections that the client had open whenever a request had come.
    pub(crate) fn most_open(&self) -> usize {
        self.shared.most_open.load(Ordering::SeqCst)
    }

    /// Bytes that the system took for delivery.
    pub(crate) fn bytes_sent(&self) -> usize {
        self.shared.bytes_sent.load(Ordering::SeqCst)
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        while let Some(request) = read_request(&mut reader)? {
            self.most_open.fetch_max(self.open(), Ordering::SeqCst);
            self.requests.lock().unwrap().push(request.clone());
            for step in (self.script)(&request) {
                match step {
                    Step::Send(bytes) => self.send(&mut stream, &bytes)?,
                    Step::Endless(bytes) => loop {
                        self.send(&mut stream, &bytes)?;
                    },
                    Step::Drip(bytes, pause) => {
                        for byte in bytes {
                            self.send(&mut stream, &[byte])?;
                            thread::sleep(pause);
                        }
                    }
                    Step::Hang => {
                        std::io::copy(&mut reader, &mut std::io::sink())?;
                        return Ok(());
                    }
                    Step::Close => return Ok(()),
                    // Without time to linger, a close is a reset.
                    Step::Reset => {
                        return socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
                    }
                }
            }
        }
        Ok(())
    }

    /// The connections that the client has not closed, as the system knows before any thread of
    /// this server does.
    fn open(&self) -> usize {
        let mut streams = self.streams.lock().unwrap();
        streams.retain(|stream| stream.strong_count() > 0);
        let open = streams.iter().filter_map(Weak::upgrade);
        open.filter(|stream| !is_closed_by_peer(stream)).count()
    }

    fn send(&self, writer: &mut &TcpStream, bytes: &[u8]) -> std::io::Result<()> {
        writer.write_all(bytes)?;
        self.bytes_sent.fetch_add(bytes.len(), Ordering::SeqCst);
        Ok(())
    }
}

/// Whether nothing but the end is left to read.
fn is_closed_by_peer(stream: &TcpStream) -> bool {
    // Linux: to look, and not to wait.
    const MSG_PEEK: i32 = 0x02;
    const MSG_DONTWAIT: i32 = 0x40;
    let mut byte = [MaybeUninit::uninit()];
    let socket = socket2::SockRef::from(stream);
    match socket.recv_with_flags(&mut byte, MSG_PEEK | MSG_DONTWAIT) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request {
        method,
        path,
        headers,
        body: Vec::new(),
    };
    let length = request
        .header("content-length")
        .map_or(0, |l| l.parse().unwrap_or(0));
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body)?;
    Ok(Some(request))
}

/// A whole answer with its true `Content-Length`.
pub(crate) fn answer(status: &str, body: &[u8]) -> Vec<Step> {
    answer_of_length(status, body, body.len())
}

/// An answer that announces another length than it has.
pub(crate) fn answer_of_length(status: &str, body: &[u8], length: usize) -> Vec<Step> {
    let mut bytes = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    vec![Step::Send(bytes)]
}

/// The head of an answer in chunks.
pub(crate) fn chunked_head() -> Step {
    Step::Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec())
}

/// One chunk; an empty one ends the body.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

/// An answer that sends the client elsewhere.
pub(crate) fn redirect(status: &str, location: &str) -> Vec<Step> {
    let head = format!("HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
    vec![Step::Send(head.into_bytes())]
}
