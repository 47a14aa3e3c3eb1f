//! Repeats live requests at a candidate, after they were answered. Never in the way of live traffic: everything here is bounded, and what
//! does not fit is dropped and counted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response, StatusCode, Uri};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::board::Upstream;
use super::copy::{Budget, Copy, RequestCopy};
use super::meter::Metrics;
use super::pairs::Pairs;
use super::pool::Pool;
use super::ticket::Ticket;
use super::wire::{Flow, Wire};
use super::{draw, headers, version};
use crate::host::core::Core;
use crate::host::{HostError, sys};
use crate::ports::{Mirror, MirrorAnswer, MirrorBody, MirrorPair};

/// Requests that wait to be repeated: some tenths of a second of a busy model; a candidate that is slower than that is behind anyway.
const QUEUE: usize = 256;
/// The first copy of some waits so long, and the others come to it: a burst of requests is over then, and whoever answers them wakes this thread
/// once.
const GATHER: Duration = Duration::from_millis(2);
/// Repeated at once: enough for a candidate as fast as the live version at a few hundred a second, and no load test for a slow one.
const AT_ONCE: usize = 16;
/// A candidate that takes longer gives no answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Larger requests are not repeated.
const MOST_REQUEST: usize = 1024 * 1024;
/// So much of an answer is kept to be compared.
const MOST_ANSWER: usize = 64 * 1024;
/// All copies together.
const MOST_COPIES: usize = 64 * 1024 * 1024;

/// What a route repeats, read from its plan once.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(super) to: String,
    share: u32,
    methods: Vec<Method>,
    paths: Vec<String>,
}

impl Rule {
    pub(super) fn new(mirror: &Mirror) -> Self {
        let methods = mirror.methods.iter().filter_map(|name| name.parse().ok()).collect();
        Self { to: mirror.to.clone(), share: mirror.share, methods, paths: mirror.paths.clone() }
    }

    /// Whether this request is one of those to be repeated; draws.
    pub(super) fn takes(&self, method: &Method, path: &str) -> bool {
        self.methods.contains(method)
            && self.paths.iter().any(|beginning| path.starts_with(beginning.as_str()))
            && draw::point() < self.share
    }
}

/// A request to be repeated, as long as it is under way.
#[derive(Debug)]
pub(super) struct Shadow {
    pub(super) model: String,
    pub(super) to: String,
    pub(super) method: Method,
    pub(super) path: PathAndQuery,
    pub(super) headers: HeaderMap,
    pub(super) body: RequestCopy,
    pub(super) mirrors: Arc<Mirrors>,
}

/// The same with the live answer, as far as it has passed.
#[derive(Debug)]
pub(super) struct Exchange {
    shadow: Shadow,
    live: MirrorAnswer,
    copy: Copy,
}

impl Shadow {
    /// The live version answers.
    pub(super) fn answered(self, upstream: &Upstream, status: StatusCode, headers: &HeaderMap) -> Exchange {
        let live = answer_of(upstream, status, headers);
        let copy = Copy::new(MOST_ANSWER, &self.mirrors.budget);
        Exchange { shadow: self, live, copy }
    }
}

fn answer_of(upstream: &Upstream, status: StatusCode, headers: &HeaderMap) -> MirrorAnswer {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    MirrorAnswer {
        version: upstream.version.clone(),
        slot: upstream.token.clone(),
        status: Some(status.as_u16()),
        content_type: kind.map(str::to_owned),
        body: MirrorBody::default(),
        latency_ms: 0.0,
    }
}

impl Exchange {
    /// A piece of the answer passes.
    pub(super) fn push(&mut self, data: &[u8]) {
        self.copy.push(data);
    }

    /// The answer is complete: now it may be repeated.
    pub(super) fn end(mut self: Box<Self>, latency: Duration) {
        self.live.latency_ms = ms(latency);
        let mirrors = Arc::clone(&self.shadow.mirrors);
        if let Err(error) = mirrors.queue.try_send(self) {
            mirrors.pairs.dropped(&error.into_inner().shadow.model, "busy");
        }
    }

    /// The answer will never be complete: there is nothing to compare with.
    pub(super) fn broke_off(self: Box<Self>) {
        self.shadow.mirrors.pairs.dropped(&self.shadow.model, "incomplete");
    }
}

fn ms(latency: Duration) -> f64 {
    latency.as_secs_f64() * 1000.0
}

/// The queue and what has come of it.
#[derive(Debug)]
pub(crate) struct Mirrors {
    queue: mpsc::Sender<Box<Exchange>>,
    waiting: Mutex<Option<mpsc::Receiver<Box<Exchange>>>>,
    budget: Arc<Budget>,
    pub(crate) pairs: Pairs,
}

impl Mirrors {
    pub(super) fn new(metrics: &Metrics) -> Arc<Self> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (waiting, budget) = (Mutex::new(Some(waiting)), Budget::new(MOST_COPIES));
        Arc::new(Self { queue, waiting, budget, pairs: Pairs::new(metrics.mirrored.clone()) })
    }

    /// A copy for the body of a request that is to be repeated.
    pub(super) fn request_copy(&self, is_empty: bool) -> RequestCopy {
        RequestCopy::new(MOST_REQUEST, &self.budget, is_empty)
    }
}

/// Repeats what is queued, until `stop`. In a thread of its own that gives way to those that carry live traffic: where the processor is
/// short, requests are dropped instead of repeated.
pub(crate) fn start(core: Arc<Core>, stop: CancellationToken) -> Result<(), HostError> {
    let doing = "starting the gateway's mirror";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(HostError::io(doing))?;
    let body = move || {
        sys::give_way();
        runtime.block_on(run(core, stop));
    };
    std::thread::Builder::new().name("gateway-mirror".to_owned()).spawn(body).map_err(HostError::io(doing))?;
    Ok(())
}

type Repeaters = Arc<Pool<Full<Bytes>>>;

async fn run(core: Arc<Core>, stop: CancellationToken) {
    let waiting = core.board.mirrors.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut waiting) = waiting else { return };
    let pool = Repeaters::default();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let repeating = async {
        while let Some(exchange) = next(&mut waiting).await {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (core, pool) = (Arc::clone(&core), Arc::clone(&pool));
            tokio::spawn(async move {
                let model = exchange.shadow.model.clone();
                match repeat(&core, &pool, *exchange).await {
                    Ok(pair) => core.board.mirrors.pairs.push(&model, pair),
                    Err(reason) => core.board.mirrors.pairs.dropped(&model, reason),
                }
                drop(place);
            });
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = pool.sweep() => {}
        () = repeating => {}
    }
}

/// The next one; where none is there, after a moment in which more may come.
async fn next(waiting: &mut mpsc::Receiver<Box<Exchange>>) -> Option<Box<Exchange>> {
    if let Ok(exchange) = waiting.try_recv() {
        return Some(exchange);
    }
    let first = waiting.recv().await?;
    tokio::time::sleep(GATHER).await;
    Some(first)
}

/// Asks the candidate the same; says why not.
async fn repeat(core: &Core, pool: &Repeaters, exchange: Exchange) -> Result<MirrorPair, &'static str> {
    let Exchange { shadow, mut live, copy } = exchange;
    let body = shadow.body.whole()?;
    live.body = MirrorBody::new(copy.bytes(), copy.is_cut());
    let at = Utc::now();
    // The route as it is now: it may have changed while this waited.
    let route = core.board.route(&shadow.model).ok_or("no_candidate")?;
    if route.mirror.as_ref().is_none_or(|rule| rule.to != shadow.to) {
        return Err("no_candidate");
    }
    let upstream = route.pick_version(&shadow.to).ok_or("no_candidate")?;
    let body = Bytes::from(body);
    if !core.board.enter(&shadow.model, &route, upstream) {
        return Err("no_candidate");
    }
    let candidate = ask(pool, upstream, || request(&shadow, upstream.port(), body.clone())).await;
    let (method, path) = (shadow.method.to_string(), shadow.path.to_string());
    Ok(MirrorPair { number: 0, at, method, path, live, candidate })
}

fn request(shadow: &Shadow, port: u16, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.uri_mut() = Uri::from(shadow.path.clone());
    *request.method_mut() = shadow.method.clone();
    *request.headers_mut() = shadow.headers.clone();
    request.headers_mut().insert(version::MIRROR, HeaderValue::from_static("1"));
    headers::ensure_host(request.headers_mut(), port);
    request
}

/// One repeated request; it counts as the candidate's own, in its figures and in what a drain waits for.
async fn ask(pool: &Repeaters, upstream: &Arc<Upstream>, request: impl Fn() -> Request<Full<Bytes>>) -> MirrorAnswer {
    let began = Instant::now();
    let mut ticket = Ticket::new(Arc::clone(upstream), began);
    let whole = async {
        let (response, wire) = exchange(pool, upstream.port(), request).await?;
        let (head, body) = response.into_parts();
        let mut answer = answer_of(upstream, head.status, &head.headers);
        answer.body = beginning(Flow::new(body, wire, pool).await).await?;
        Some(answer)
    };
    let answer = tokio::time::timeout(TIMEOUT, whole).await.ok().flatten();
    let mut answer = answer
        .unwrap_or_else(|| MirrorAnswer { status: None, ..answer_of(upstream, StatusCode::OK, &HeaderMap::new()) });
    match answer.status {
        Some(status) => ticket.answered(status, false),
        None => ticket.broke_off(),
    }
    answer.latency_ms = ms(began.elapsed());
    answer
}

/// Sends it over a connection that is there, else over a new one; `None` where no head of an answer came. A candidate that closes a connection
/// while it is used again has not failed: what is mirrored was declared to be safe to repeat.
async fn exchange(
    pool: &Repeaters,
    port: u16,
    request: impl Fn() -> Request<Full<Bytes>>,
) -> Option<(Response<Incoming>, Wire<Full<Bytes>>)> {
    if let Some(mut wire) = pool.take(port)
        && let Ok(response) = wire.send(request()).await
    {
        return Some((response, wire));
    }
    let mut wire = Wire::connect(port).await.ok()?;
    let response = wire.send(request()).await.ok()?;
    Some((response, wire))
}

/// Reads a body to its end, and keeps its beginning; `None` when it breaks off.
async fn beginning<B: Body<Data = Bytes> + Unpin>(mut body: B) -> Option<MirrorBody> {
    let mut kept = Vec::new();
    let mut cut = false;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        let fits = data.len().min(MOST_ANSWER - kept.len());
        kept.extend_from_slice(&data[..fits]);
        cut |= fits < data.len();
    }
    Some(MirrorBody::new(&kept, cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_declared_is_repeated() {
        let rule = |share| {
            let (methods, paths) = (vec!["GET".to_owned(), "POST".to_owned()], vec!["/predict".to_owned()]);
            Rule::new(&Mirror { to: "v2".to_owned(), share, methods, paths })
        };
        let all = rule(crate::ports::WHOLE);
        assert!(all.takes(&Method::POST, "/predict") && all.takes(&Method::GET, "/predict/x"));
        assert!(!all.takes(&Method::DELETE, "/predict") && !all.takes(&Method::POST, "/train"));
        let some = rule(20_000);
        let taken = (0..10_000).filter(|_| some.takes(&Method::POST, "/predict")).count();
        // 2000 with a deviation of 40.
        assert!((1_760..2_240).contains(&taken), "{taken}");
    }
}
