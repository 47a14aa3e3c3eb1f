//! Connections: bounded in number and for each address, with a time for their heads, their bodies, and for saying nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::activity::{Activity, InTime, Until};
use super::identity::Peer;
use crate::graph::Stop;

/// How long answers get that are under way when the server ends.
const FINISH_WITHIN: Duration = Duration::from_secs(5);
/// Pause after a failed accept: descriptors are short, which passes.
const PAUSE: Duration = Duration::from_millis(50);
/// What an address is told that has too many.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 57\r\n\
    retry-after: 5\r\nconnection: close\r\n\r\n{\"detail\": \"too many connections come from this address\"}";

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Most at once.
    pub most: usize,
    /// Most of one other machine. This one's are not counted: a proxy has everybody's.
    pub most_of_one: usize,
    /// Whether this machine counts as any other; for tests.
    pub counts_local: bool,
    /// Until a connection's first head is there.
    pub first_head: Duration,
    /// For a head that has begun, and between an answer's end and the next head.
    pub idle: Duration,
    /// For a whole body, from its request's head on.
    pub body: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            // A thousand streams and those that come and go beside them; each costs some ten kilobytes.
            most: 4_096,
            most_of_one: 1_024,
            counts_local: false,
            first_head: Duration::from_secs(10),
            // Longer than the pools of clients keep one.
            idle: Duration::from_secs(75),
            // The largest body at a megabit a second.
            body: Duration::from_secs(40),
        }
    }
}

/// How many connections each address has.
#[derive(Default)]
struct Addresses(Mutex<HashMap<IpAddr, usize>>);

impl Addresses {
    /// One more; `None`: it has too many.
    fn take(self: &Arc<Self>, address: IpAddr, bounds: &Bounds) -> Option<Counted> {
        if address.to_canonical().is_loopback() && !bounds.counts_local {
            return Some(Counted(None));
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let many = all.entry(address).or_default();
        if *many >= bounds.most_of_one {
            return None;
        }
        *many += 1;
        Some(Counted(Some((self.clone(), address))))
    }
}

/// A connection that is counted for as long as this is held.
struct Counted(Option<(Arc<Addresses>, IpAddr)>);

impl Drop for Counted {
    fn drop(&mut self) {
        let Some((all, address)) = self.0.take() else { return };
        let mut all = all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(many) = all.get_mut(&address) {
            *many -= 1;
            if *many == 0 {
                all.remove(&address);
            }
        }
    }
}

/// Accepts until the server is to stop, then lets those under way come to their end.
pub(super) async fn accept(listener: TcpListener, router: Router, bounds: Bounds, mut stop: watch::Receiver<Stop>) {
    let (places, addresses) = (Arc::new(Semaphore::new(bounds.most)), Arc::new(Addresses::default()));
    // One request at a time on a connection: what is bounded for each is bounded.
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1().timer(TokioTimer::new()).header_read_timeout(bounds.idle).keep_alive(true);
    let (http, graceful) = (Arc::new(http), GracefulShutdown::new());
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
        let Some(counted) = addresses.take(peer.ip(), &bounds) else {
            // As far as it goes at once.
            let _ = stream.try_write(TOO_MANY);
            continue;
        };
        let serving = serve(&http, &graceful, stream, router.clone().layer(Extension(Peer(peer.ip()))), bounds);
        tokio::spawn(async move {
            serving.await;
            drop((place, counted));
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(FINISH_WITHIN, graceful.shutdown()).await;
}

/// One connection, to its end or to the end of its time.
fn serve(
    http: &Arc<Builder<TokioExecutor>>,
    graceful: &GracefulShutdown,
    stream: TcpStream,
    router: Router,
    bounds: Bounds,
) -> impl Future<Output = ()> + Send + use<> {
    // A small event of a stream must not wait for the next one.
    let _ = stream.set_nodelay(true);
    let activity = Activity::new();
    let (noted, router) = (activity.clone(), TowerToHyperService::new(router));
    let service = service_fn(move |request: Request<Incoming>| {
        let (under_way, router) = (noted.begin(), router.clone());
        let answer = router.call(request.map(|body| InTime::new(body, bounds.body)));
        async move { answer.await.map(|answer| answer.map(|body| Until::new(body, under_way))) }
    });
    let connection = http.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    let connection = graceful.watch(connection);
    async move {
        tokio::select! {
            // Whoever broke off knows it.
            _ = connection => {}
            () = activity.silence(bounds.first_head, bounds.idle) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SHORT: Duration = Duration::from_millis(300);

    /// A server that waits for bodies and says how long they are.
    async fn server(bounds: Bounds) -> (std::net::SocketAddr, watch::Sender<Stop>) {
        let read = async |body: Body| match crate::server::body::read(body).await {
            Ok(bytes) => Ok(bytes.len().to_string()),
            Err(refused) => Err(refused),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, (stop, stopping)) = (listener.local_addr().unwrap(), watch::channel(Stop::No));
        tokio::spawn(accept(listener, Router::new().route("/", post(read)), bounds, stopping));
        (address, stop)
    }

    async fn said(stream: &mut TcpStream) -> String {
        let mut said = String::new();
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_string(&mut said)).await;
        read.expect("it is closed in time").ok();
        said
    }

    #[tokio::test]
    async fn who_says_nothing_or_little_is_not_waited_for() {
        let bounds = Bounds { first_head: SHORT, idle: SHORT, body: SHORT, ..Bounds::default() };
        let (address, _stop) = server(bounds).await;
        for sent in ["", "P", "PRI * HTTP/2.0", "POST / HTTP/1.1\r\nhost: x\r\n"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            let said = said(&mut stream).await;
            assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{sent:?}: {said}");
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nab").await.unwrap();
        let told = said(&mut stream).await;
        assert!(told.starts_with("HTTP/1.1 408") && told.contains("{\"detail\":"), "{told}");
        // One that has been answered, and says nothing more.
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab").await.unwrap();
        let told = said(&mut stream).await;
        assert!(told.starts_with("HTTP/1.1 200") && told.ends_with('2'), "{told}");
    }

    #[tokio::test]
    async fn an_answer_that_takes_long_is_waited_for() {
        let bounds = Bounds { first_head: SHORT, idle: SHORT, ..Bounds::default() };
        let (address, _stop) = server(bounds).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\na").await.unwrap();
        tokio::time::sleep(SHORT * 3).await;
        stream.write_all(b"b").await.unwrap();
        assert!(said(&mut stream).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn one_address_does_not_take_all() {
        let bounds = Bounds { most_of_one: 2, counts_local: true, ..Bounds::default() };
        let (address, _stop) = server(bounds).await;
        let request = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let first = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut third = TcpStream::connect(address).await.unwrap();
        let refused = said(&mut third).await;
        let (head, body) = refused.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 503") && head.contains(&format!("content-length: {}", body.len())),
            "{refused}"
        );
        drop(first);
        second.write_all(request).await.unwrap();
        assert!(said(&mut second).await.starts_with("HTTP/1.1 200"));
        // Places that were left are free again, as soon as the server has seen it.
        let mut is_free = false;
        for _ in 0..1_000 {
            let mut fourth = TcpStream::connect(address).await.unwrap();
            // A refusal may be there before it is asked.
            let _ = fourth.write_all(request).await;
            is_free = said(&mut fourth).await.starts_with("HTTP/1.1 200");
            if is_free {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(is_free);
    }
}
