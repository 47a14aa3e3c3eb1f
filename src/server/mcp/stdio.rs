//! MCP over standard input and output: a process for one client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rmcp::service::{ServerInitializeError, serve_server_with_ct};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::authorise::Caller;
use super::{Mcp, Reached};
use crate::app::App;
use crate::graph::{Failure, Stop};
use crate::release::Person;

/// How long what was begun for a client gets when it has gone: somebody who holds a release is given a minute to let go of it.
const FINISH_WITHIN: Duration = Duration::from_secs(90);
/// Largest message, as over HTTP.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// Serves `user`'s client until it closes its end, or `stop` says so. Releases go on.
pub async fn serve_stdio(app: Arc<App>, user: String, mut stop: watch::Receiver<Stop>) -> Result<(), Failure> {
    let mcp = Mcp::new(app.clone(), Reached::Stdio(Caller::of(Person::local(user))));
    let (shared, token) = (mcp.shared.clone(), CancellationToken::new());
    let (end, stopped) = (token.clone(), async move { stop.wait_for(|stop| *stop != Stop::No).await.map(drop) });
    let ends = tokio::spawn(async move {
        if stopped.await.is_ok() {
            end.cancel();
        }
    });
    let served = match serve_server_with_ct(mcp, (Lines::new(tokio::io::stdin()), tokio::io::stdout()), token).await {
        Ok(service) => service.waiting().await.map(drop).map_err(|e| broken().because(e.to_string())),
        // It went before it had begun.
        Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => Ok(()),
        Err(error) => Err(broken().because(error.to_string())),
    };
    ends.abort();
    shared.work.close();
    if tokio::time::timeout(FINISH_WITHIN, shared.work.wait()).await.is_err() {
        tracing::warn!("something that was begun is not over; the next command goes on with it");
    }
    // What a cancel left in the middle, for instance.
    app.pick_up_orphans().await?;
    served
}

/// A reader that ends at a line which is longer than any message: it would be kept until its end.
struct Lines<R> {
    inner: R,
    length: usize,
}

impl<R> Lines<R> {
    fn new(inner: R) -> Self {
        Self { inner, length: 0 }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Lines<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = to.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, to);
        let new = &to.filled()[before..];
        self.length = match new.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => new.len() - at - 1,
            None => self.length + new.len(),
        };
        if self.length > MOST_BYTES {
            // Whoever is told of an error has read nothing.
            to.set_filled(before);
            let why = format!("a message has more than {MOST_BYTES} bytes");
            return Poll::Ready(Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why)));
        }
        read
    }
}

fn broken() -> Failure {
    Failure::new("mcp_broken", "the MCP client and this server do not understand each other")
        .hint("begin with `initialize`, one JSON-RPC message a line")
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_message_that_never_ends_is_not_kept() {
        let lines = b"{}\n".repeat(MOST_BYTES / 2);
        let mut all = Vec::new();
        Lines::new(&lines[..]).read_to_end(&mut all).await.expect("short lines, however many");
        assert_eq!(all.len(), lines.len());
        let refused = Lines::new(tokio::io::repeat(b'x')).read_to_end(&mut Vec::new()).await;
        assert_eq!(refused.map_err(|e| e.kind()), Err(std::io::ErrorKind::InvalidData));
    }
}
