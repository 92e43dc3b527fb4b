//! Messages on the standard input and output, each on a thread of its own.
//!
//! Messages have the types of `lsp-server`. Its own reader takes any length that a header announces for
//! an allocation, and ends with the first message that it cannot read; this one does neither.

use std::io::{self, BufRead, Read as _};
use std::thread;

use lsp_server::{Message, ResponseError};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

/// The longest message. Editors send whole files in one.
const MAX_MESSAGE: usize = 64 << 20;

/// The longest line of a header.
const MAX_HEADER: u64 = 1024;

/// How many messages wait to be handled, and to be written. Whoever has more waits.
const WAITING: usize = 64;

/// What came in.
#[derive(Debug)]
pub(crate) enum Incoming {
    Message(Message),
    /// Something else, which is answered with an error.
    Malformed(Malformed),
}

#[derive(Debug)]
pub(crate) struct Malformed {
    pub(crate) code: lsp_server::ErrorCode,
    pub(crate) reason: String,
}

/// The messages of the client, up to its end, or up to a header that says not how long a message is.
pub(crate) fn read_input() -> io::Result<mpsc::Receiver<Incoming>> {
    let (sender, incoming) = mpsc::channel(WAITING);
    let read = move || {
        let mut input = io::stdin().lock();
        loop {
            let next = match read_message(&mut input) {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "the client cannot be read any more");
                    break;
                }
            };
            if sender.blocking_send(next).is_err() {
                break;
            }
        }
    };
    thread::Builder::new()
        .name("read-messages".to_owned())
        .spawn(read)?;
    Ok(incoming)
}

/// `None` at the end of the input.
fn read_message(input: &mut impl BufRead) -> io::Result<Option<Incoming>> {
    let Some(length) = read_header(input)? else {
        return Ok(None);
    };
    if length > MAX_MESSAGE {
        // As much as it said it is, so that the next message is found.
        let skipped = io::copy(&mut input.by_ref().take(length as u64), &mut io::sink())?;
        if skipped < length as u64 {
            return Ok(None);
        }
        return Ok(Some(Incoming::Malformed(Malformed {
            code: lsp_server::ErrorCode::InvalidRequest,
            reason: format!("a message of {length} bytes: the most are {MAX_MESSAGE}"),
        })));
    }
    let mut body = Vec::new();
    input.by_ref().take(length as u64).read_to_end(&mut body)?;
    if body.len() < length {
        return Ok(None);
    }
    Ok(Some(match serde_json::from_slice(&body) {
        // A number that cannot be read would make a request a notification, which has no answer.
        Ok(Message::Notification(_)) if has_id(&body) => Incoming::Malformed(Malformed {
            code: lsp_server::ErrorCode::InvalidRequest,
            reason: "the id is neither a string nor a whole number of 32 bits".to_owned(),
        }),
        Ok(message) => Incoming::Message(message),
        Err(error) => Incoming::Malformed(Malformed {
            code: match error.classify() {
                serde_json::error::Category::Data => lsp_server::ErrorCode::InvalidRequest,
                _ => lsp_server::ErrorCode::ParseError,
            },
            reason: error.to_string(),
        }),
    }))
}

fn has_id(body: &[u8]) -> bool {
    let body: Option<serde_json::Map<String, Value>> = serde_json::from_slice(body).ok();
    body.is_some_and(|body| body.contains_key("id"))
}

/// The length of the message that follows. `None` at the end of the input.
fn read_header(input: &mut impl BufRead) -> io::Result<Option<usize>> {
    let mut length = None;
    loop {
        let mut line = Vec::new();
        input
            .by_ref()
            .take(MAX_HEADER)
            .read_until(b'\n', &mut line)?;
        let line = String::from_utf8_lossy(&line);
        match line.trim_end_matches(['\r', '\n']) {
            _ if line.is_empty() => return Ok(None),
            _ if !line.ends_with('\n') => return Err(bad_header("too long or broken off", &line)),
            "" => match length {
                Some(length) => return Ok(Some(length)),
                None => return Err(bad_header("no Content-Length before", &line)),
            },
            field => match field.split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("Content-Length") => {
                    let value = value.trim().parse();
                    length = Some(value.map_err(|_| bad_header("no length", field))?);
                }
                Some(_) => {}
                None => return Err(bad_header("no field of a header", field)),
            },
        }
    }
}

fn bad_header(what: &str, line: &str) -> io::Error {
    let line: String = line.chars().take(80).collect();
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {line:?}"))
}

/// What is written to the client, by all who have a clone.
#[derive(Debug, Clone)]
pub(crate) struct Outbox(mpsc::Sender<Outgoing>);

/// A place for one message.
#[derive(Debug)]
pub(crate) struct Place<'a>(mpsc::Permit<'a, Outgoing>);

#[derive(Debug)]
enum Outgoing {
    Message(Message),
    /// The answer to what had no number that could be read.
    Error(ResponseError),
}

impl Outbox {
    /// Waits for a place. `None` once the client reads no more.
    pub(crate) async fn place(&self) -> Option<Place<'_>> {
        self.0.reserve().await.ok().map(Place)
    }

    /// Waits until the message has a place. Without a client it goes nowhere.
    pub(crate) async fn send(&self, message: impl Into<Message>) {
        if let Some(place) = self.place().await {
            place.fill(message);
        }
    }

    pub(crate) async fn send_error(&self, malformed: Malformed) {
        if let Some(Place(permit)) = self.place().await {
            permit.send(Outgoing::Error(ResponseError {
                code: malformed.code as i32,
                message: malformed.reason,
                data: None,
            }));
        }
    }
}

impl Place<'_> {
    pub(crate) fn fill(self, message: impl Into<Message>) {
        self.0.send(Outgoing::Message(message.into()));
    }
}

/// Writes messages until each clone of the outbox is dropped. The receiver is told when all are
/// written.
pub(crate) fn write_output() -> io::Result<(Outbox, oneshot::Receiver<()>)> {
    let (sender, mut outgoing) = mpsc::channel(WAITING);
    let (all_written, told) = oneshot::channel();
    let write = move || {
        let mut output = io::stdout().lock();
        while let Some(next) = outgoing.blocking_recv() {
            let written = match next {
                Outgoing::Message(message) => message.write(&mut output),
                Outgoing::Error(error) => write_error(&mut output, &error),
            };
            if written.is_err() {
                // The client is gone, as the end of the input will tell.
                break;
            }
        }
        let _ = all_written.send(());
    };
    thread::Builder::new()
        .name("write-messages".to_owned())
        .spawn(write)?;
    Ok((Outbox(sender), told))
}

fn write_error(output: &mut impl io::Write, error: &ResponseError) -> io::Result<()> {
    let text = json!({ "jsonrpc": "2.0", "id": null, "error": error }).to_string();
    write!(output, "Content-Length: {}\r\n\r\n{text}", text.len())?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(body: &str) -> String {
        format!("Content-Length: {}\r\n\r\n{body}", body.len())
    }

    #[test]
    fn a_message_that_cannot_be_read_costs_itself_alone() {
        let good = r#"{"jsonrpc":"2.0","method":"exit"}"#;
        let request = |id| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"shutdown"}}"#);
        let bad = ["4294967296", "1.5", "null"].map(request);
        let input = ["{\"jsonrpc\":", "{}", &bad[0], &bad[1], &bad[2], good];
        let input = input.map(framed).concat();
        let mut input = input.as_bytes();
        for code in [
            lsp_server::ErrorCode::ParseError,
            lsp_server::ErrorCode::InvalidRequest,
            lsp_server::ErrorCode::InvalidRequest,
            lsp_server::ErrorCode::InvalidRequest,
            lsp_server::ErrorCode::InvalidRequest,
        ] {
            match read_message(&mut input).unwrap().unwrap() {
                Incoming::Malformed(malformed) => assert_eq!(malformed.code as i32, code as i32),
                other => panic!("{other:?}"),
            }
        }
        let message = read_message(&mut input).unwrap().unwrap();
        assert!(matches!(message, Incoming::Message(_)), "{message:?}");
        assert!(read_message(&mut input).unwrap().is_none());
    }

    #[test]
    fn no_header_makes_the_reader_allocate_or_hang() {
        for header in [
            "Content-Length: 99999999999999999999999\r\n\r\n",
            "Content-Length: -1\r\n\r\n",
            "Content-Type: x\r\n\r\n",
            "nothing\r\n\r\n",
            &"x".repeat(5000),
        ] {
            let read = read_message(&mut header.as_bytes());
            assert!(read.is_err(), "{header:.40}: {read:?}");
        }
        let huge = format!("Content-Length: {}\r\n\r\n{{", u64::MAX / 2);
        let read = read_message(&mut huge.as_bytes()).unwrap();
        assert!(read.is_none(), "broken off: {read:?}");
        let long = format!("content-length:{}\r\n\r\n", MAX_MESSAGE + 1);
        let long = [long, " ".repeat(MAX_MESSAGE + 1), framed("{}")].concat();
        let mut long = long.as_bytes();
        for _ in 0..2 {
            let read = read_message(&mut long).unwrap().unwrap();
            assert!(matches!(read, Incoming::Malformed(_)));
        }
    }
}
