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
mod heard;
mod ids;
mod job;
mod meter;
mod mirror;
mod pairs;
mod pool;
mod proxy;
mod series;
mod sticky;
mod table;
mod ticket;
mod tls;
mod upstream_error;
mod version;
mod wire;
mod workers;

use std::convert::Infallible;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::Watcher;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub(crate) use board::Board;
use connections::{Connections, Peer};
use heard::{Heard, Listened};
pub(crate) use mirror::start as mirror;
use proxy::Proxy;
use tls::{Begun, Tls};
use workers::{Local, Workers};

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

/// Certificate and key, where the settings name them.
pub(crate) fn tls(settings: &Settings) -> Result<Option<Arc<Tls>>, HostError> {
    settings.tls.as_ref().map(Tls::load).transpose()
}

/// Serves the public endpoint until `stop`, then lets requests under way end, at most `grace`.
pub(crate) async fn serve(
    core: Arc<Core>,
    fd: OwnedFd,
    tls: Option<Arc<Tls>>,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), HostError> {
    let doing = "serving the public endpoint";
    let listener = TcpListener::from_std(std::net::TcpListener::from(fd)).map_err(HostError::io(doing))?;
    if let Some(tls) = &tls {
        tokio::spawn(Arc::clone(tls).follow(stop.clone()));
    }
    let (server, max_header_bytes) = (server(&core.settings), core.settings.max_header_bytes);
    let connections = Connections::new(listener, &core);
    let proxy = Proxy::new(core);
    let workers =
        Workers::start(&Arc::new(Serving { server, proxy, tls, stop: stop.clone(), max_header_bytes }), grace)?;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = connections.accept() => accepted,
        };
        match accepted {
            Some((stream, ip, place)) => workers.give(stream, ip, place).await,
            None => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    drop(connections);
    workers.end().await;
    Ok(())
}

/// What every connection shares.
struct Serving {
    server: auto::Builder<TokioExecutor>,
    proxy: Proxy,
    tls: Option<Arc<Tls>>,
    stop: CancellationToken,
    max_header_bytes: usize,
}

impl Serving {
    async fn begin(self: &Arc<Self>, stream: TcpStream, ip: IpAddr, watcher: Watcher, local: Local) {
        let plain = Peer { ip, secure: false };
        let Some(tls) = &self.tls else { return self.carry(stream, plain, watcher, local).await };
        let begun = tokio::select! {
            () = self.stop.cancelled() => return,
            begun = tls.begin(stream) => begun,
        };
        match begun {
            Begun::Plain(stream) => self.carry(stream, plain, watcher, local).await,
            Begun::Secure(stream) => self.carry(*stream, Peer { ip, secure: true }, watcher, local).await,
            Begun::Gone => {}
        }
    }

    async fn carry<S>(self: &Arc<Self>, stream: S, peer: Peer, watcher: Watcher, local: Local)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (serving, heard) = (Arc::clone(self), Heard::default());
        let stream = Listened::new(stream, heard.clone(), self.max_header_bytes);
        let service = service_fn(move |request| {
            let (serving, local) = (Arc::clone(&serving), local.clone());
            let both_lengths = heard.both_lengths(&request);
            // Boxed: what a request needs is some kilobytes, which would be moved about several times otherwise.
            Box::pin(
                async move { Ok::<_, Infallible>(serving.proxy.handle(request, both_lengths, peer, &local).await) },
            )
        });
        let connection = self.server.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        // How a client's connection ends is its own business.
        let _ = watcher.watch(connection).await;
    }
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
