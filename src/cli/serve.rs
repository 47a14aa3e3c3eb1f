//! `serve`: the server, until somebody stops it.

use std::net::SocketAddr;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::args::ServeArgs;
use super::drive::no_signals;
use super::out::Out;
use super::{Exit, Failed, plain};
use crate::app::Home;
use crate::graph::Stop;
use crate::server::{Options, serve};

/// Serves until ctrl-C or SIGTERM, then lets what is under way come to the end of its superstep.
pub async fn run(home: Home, public_addr: Option<SocketAddr>, args: ServeArgs, out: &Out) -> Result<Exit, Failed> {
    crate::host::init_log();
    let (ask, stop) = watch::channel(Stop::No);
    let mut terms = signal(SignalKind::terminate()).map_err(|e| plain(no_signals(&e)))?;
    let mut interrupts = signal(SignalKind::interrupt()).map_err(|e| plain(no_signals(&e)))?;
    tokio::spawn(async move {
        tokio::select! { _ = terms.recv() => (), _ = interrupts.recv() => () }
        ask.send_replace(Stop::Drain);
    });
    let ServeArgs { listen, workflows, rate_limit, allow_origin: origins } = args;
    let options = Options { listen, workflows, public_addr, rate_limit, origins };
    let said = |address: std::net::SocketAddr| {
        let url = format!("http://{address}");
        // Nobody to tell: the server serves all the same.
        let _ = out.data(&json!({"url": url}), || format!("serving on {url}; ctrl-C ends it"));
    };
    serve(home, options, stop, said).await.map_err(plain)?;
    Ok(Exit::Done)
}
