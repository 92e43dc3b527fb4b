//! A link to a server that passes on, delays, holds back or refuses, as it is told.

use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkFault {
    None,
    /// Each connection is closed, also one that is new.
    Refuses,
    /// Connections stay, and nothing moves.
    Hangs,
    /// All that the server says comes so much later.
    Slow(Duration),
}

pub(crate) struct FaultyLink {
    pub(crate) port: u16,
    fault: Arc<watch::Sender<LinkFault>>,
    task: AbortHandle,
}

impl FaultyLink {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let fault = Arc::new(watch::Sender::new(LinkFault::None));
        let faults = Arc::clone(&fault);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass_on(client, server, faults.subscribe()));
            }
        });
        Self {
            port,
            fault,
            task: task.abort_handle(),
        }
    }

    pub(crate) fn set(&self, fault: LinkFault) {
        self.fault.send_replace(fault);
    }
}

impl Drop for FaultyLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(client: TcpStream, server: u16, fault: watch::Receiver<LinkFault>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
        return;
    };
    let (client, server) = (client.into_split(), server.into_split());
    let mut refuses = fault.clone();
    tokio::select! {
        () = one_way(client.0, server.1, fault.clone(), false) => {}
        () = one_way(server.0, client.1, fault, true) => {}
        _ = refuses.wait_for(|fault| *fault == LinkFault::Refuses) => {}
    }
}

async fn one_way(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut fault: watch::Receiver<LinkFault>,
    is_answer: bool,
) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let moves = fault.wait_for(|fault| *fault != LinkFault::Hangs).await;
        let fault = moves.map_or(LinkFault::Refuses, |fault| *fault);
        if let (LinkFault::Slow(time), true) = (fault, is_answer) {
            sleep(time).await;
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
