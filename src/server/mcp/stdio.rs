//! MCP over standard input and output: a process for one client.

use std::sync::Arc;
use std::time::Duration;

use rmcp::service::{ServerInitializeError, serve_server_with_ct};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::authorise::Caller;
use super::{Mcp, Reached};
use crate::app::App;
use crate::graph::{Failure, Stop};

/// How long what was begun for a client gets when it has gone: somebody who holds a release is given a minute to let go of it.
const FINISH_WITHIN: Duration = Duration::from_secs(90);

/// Serves `user`'s client until it closes its end, or `stop` says so. Releases go on.
pub async fn serve_stdio(app: Arc<App>, user: String, mut stop: watch::Receiver<Stop>) -> Result<(), Failure> {
    let mcp = Mcp::new(app.clone(), Reached::Stdio(Caller::Local(user)));
    let (shared, token) = (mcp.shared.clone(), CancellationToken::new());
    let (end, stopped) = (token.clone(), async move { stop.wait_for(|stop| *stop != Stop::No).await.map(drop) });
    let ends = tokio::spawn(async move {
        if stopped.await.is_ok() {
            end.cancel();
        }
    });
    let served = match serve_server_with_ct(mcp, rmcp::transport::stdio(), token).await {
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

fn broken() -> Failure {
    Failure::new("mcp_broken", "the MCP client and this server do not understand each other")
        .hint("begin with `initialize`, one JSON-RPC message a line")
}
