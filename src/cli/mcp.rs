//! `mcp`: the tools of MCP for one client, over standard input and output.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::drive::no_signals;
use super::{Exit, Failed, plain, prompt};
use crate::app::App;
use crate::graph::Stop;
use crate::server::serve_stdio;

/// Serves until the client closes its end, or ctrl-C or SIGTERM. Nothing but messages goes to stdout.
pub async fn run(app: App) -> Result<Exit, Failed> {
    crate::host::init_log();
    let (ask, stop) = watch::channel(Stop::No);
    let mut terms = signal(SignalKind::terminate()).map_err(|e| plain(no_signals(&e)))?;
    let mut interrupts = signal(SignalKind::interrupt()).map_err(|e| plain(no_signals(&e)))?;
    tokio::spawn(async move {
        tokio::select! { _ = terms.recv() => (), _ = interrupts.recv() => () }
        ask.send_replace(Stop::Drain);
    });
    serve_stdio(Arc::new(app), prompt::user(), stop).await.map_err(plain)?;
    Ok(Exit::Done)
}
