//! Connections: bounded in number, with a time for their head.

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::identity::Peer;
use crate::graph::Stop;

/// Most connections at once: a thousand streams and those that come and go beside them; each costs some ten kilobytes.
const MOST: usize = 4_096;
/// A head that takes longer is nobody's.
const HEAD_WITHIN: Duration = Duration::from_secs(15);
/// How long answers get that are under way when the server ends.
const FINISH_WITHIN: Duration = Duration::from_secs(5);
/// Pause after a failed accept: descriptors are short, which passes.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the server is to stop, then lets those under way come to their end.
pub(super) async fn accept(listener: TcpListener, router: Router, mut stop: watch::Receiver<Stop>) {
    let places = Arc::new(Semaphore::new(MOST));
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).keep_alive(true);
    let graceful = GracefulShutdown::new();
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            _ = stop.wait_for(|stop| *stop != Stop::No) => break,
        };
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop != Stop::No) => break,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // A small event of a stream must not wait for the next one.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone().layer(Extension(Peer(peer.ip()))));
        let connection = http.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // Whoever broke off knows it.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(FINISH_WITHIN, graceful.shutdown()).await;
}
