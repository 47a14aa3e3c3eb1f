//! The data plane: accepts connections on the public address and carries each request to the slot that is live for its model.

mod access;
mod answers;
mod board;
mod body;
mod connections;
mod copy;
mod draw;
mod headers;
mod health;
mod ids;
mod job;
mod meter;
mod mirror;
mod pairs;
mod proxy;
mod series;
mod sticky;
mod table;
mod ticket;
mod upstream_error;
mod version;

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(crate) use board::Board;
use connections::Connections;
pub(crate) use mirror::run as mirror;
use proxy::Proxy;

use super::core::Core;
use super::{HostError, Settings};

/// An idle client, or one that sends its head slowly, is let go after this; as nginx does.
const CLIENT_IDLE: Duration = Duration::from_secs(75);
/// Below the 5 s after which uvicorn closes an idle connection, so that we close first and never send into a closing one.
const UPSTREAM_IDLE: Duration = Duration::from_secs(3);
/// On this machine a connect takes microseconds; longer means that the slot's backlog is full, and the hold decides.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Requests at once in one HTTP/2 connection; as nginx and Envoy.
const MAX_STREAMS: u32 = 128;
/// After a failed accept (no descriptors left): time for connections to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the public endpoint until `stop`, then lets requests under way end, at most `grace`.
pub(crate) async fn serve(
    core: Arc<Core>,
    fd: OwnedFd,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), HostError> {
    let doing = "serving the public endpoint";
    let listener = TcpListener::from_std(std::net::TcpListener::from(fd)).map_err(HostError::io(doing))?;
    let server = server(&core.settings);
    let connections = Connections::new(listener, &core);
    let proxy = Arc::new(Proxy::new(core, client()));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = connections.accept() => accepted,
        };
        let Some((stream, peer, place)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let proxy = Arc::clone(&proxy);
        let service = service_fn(move |request| {
            let proxy = Arc::clone(&proxy);
            async move { Ok::<_, Infallible>(proxy.handle(request, peer).await) }
        });
        let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // How a client's connection ends is its own business.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(connections);
    // Whoever has not ended by then goes on beside us, and ends with its slot.
    let _ = tokio::time::timeout(grace, graceful.shutdown()).await;
    Ok(())
}

fn server(settings: &Settings) -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    let mut http1 = server.http1();
    http1.timer(TokioTimer::new()).header_read_timeout(CLIENT_IDLE).max_buf_size(settings.max_header_bytes);
    if settings.max_headers != Settings::default().max_headers {
        // hyper keeps its own number of them on the stack, any other on the heap.
        http1.max_headers(settings.max_headers);
    }
    let list = u32::try_from(settings.max_header_bytes).unwrap_or(u32::MAX);
    server.http2().timer(TokioTimer::new()).max_header_list_size(list).max_concurrent_streams(MAX_STREAMS);
    server
}

fn client<B>() -> Client<HttpConnector, B>
where
    B: hyper::body::Body + Send,
    B::Data: Send,
{
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(UPSTREAM_IDLE)
        .build(connector)
}
