//! Connections of clients: a bounded number, and a word to those that are too many.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::host::core::Core;

/// Connections that are told at once that there are too many; beyond that they are just closed.
const REFUSALS: usize = 256;
/// A refused client reads its answer within this, or not at all.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);
/// So much of what a refused client has sent is read, so that the kernel does not throw our answer away with it.
const REFUSED_BYTES: usize = 64 * 1024;

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) ip: IpAddr,
    /// By TLS that ends here.
    pub(super) secure: bool,
}

impl Peer {
    pub(super) fn is_this_machine(&self) -> bool {
        self.ip.to_canonical().is_loopback()
    }
}

/// The public address.
pub(super) struct Connections {
    listener: TcpListener,
    core: Arc<Core>,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

impl Connections {
    pub(super) fn new(listener: TcpListener, core: &Arc<Core>) -> Self {
        let places = core.settings.max_connections.min(Semaphore::MAX_PERMITS);
        let (places, refusals) = (Arc::new(Semaphore::new(places)), Arc::new(Semaphore::new(REFUSALS)));
        Self { listener, core: Arc::clone(core), places, refusals }
    }

    /// The next one that has a place; `None` when the system could not give us one.
    pub(super) async fn accept(&self) -> Option<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
        loop {
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    return None;
                }
            };
            // Without it small answers may wait 40 ms; where it cannot be set they still arrive.
            let _ = stream.set_nodelay(true);
            match Arc::clone(&self.places).try_acquire_owned() {
                Ok(place) => return Some((stream, peer.ip(), place)),
                Err(_) => self.refuse(stream),
            }
        }
    }

    fn refuse(&self, stream: TcpStream) {
        self.core.board.metrics.refused("too_many_connections");
        if let Ok(turn) = Arc::clone(&self.refusals).try_acquire_owned() {
            tokio::spawn(async move {
                // Whoever does not take it is refused all the same.
                let _ = tokio::time::timeout(REFUSED_WITHIN, tell(stream)).await;
                drop(turn);
            });
        }
    }
}

async fn tell(mut stream: TcpStream) -> std::io::Result<()> {
    let body = concat!(
        r#"{"error":{"code":"too_many_connections","message":"the gateway has as many connections as it may","#,
        r#""hint":"repeat it in a moment, on connections that you keep"}}"#
    );
    let length = body.len();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         retry-after: 1\r\nconnection: close\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).await?;
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    for _ in 0..REFUSED_BYTES / rest.len() {
        if stream.read(&mut rest).await? == 0 {
            break;
        }
    }
    Ok(())
}
