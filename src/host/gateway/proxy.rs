//! One request through the gateway.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;

use super::answers;
use super::body::{Answer, Lent, Untouched};
use super::headers;
use super::ticket::Ticket;
use crate::host::core::Core;

/// While a request is held it looks again this often even when nothing was announced: a port may open without anybody saying so.
const HELD_LOOK_EVERY: Duration = Duration::from_millis(25);

/// What every request shares.
#[derive(Debug)]
pub(crate) struct Proxy {
    core: Arc<Core>,
    client: Client<HttpConnector, Lent>,
    hold_timeout: Duration,
    hold_places: Semaphore,
}

/// A request with its model found and its head made ready for the slot.
struct Job {
    model: String,
    path: PathAndQuery,
    head: Parts,
    body: Untouched,
    /// The client's side of a change of protocol it asked for.
    upgrade: Option<OnUpgrade>,
}

/// Why an attempt brought no answer.
enum Failure {
    /// Nobody listens at the slot's port, so nothing was sent: try again, there or elsewhere.
    Refused(String),
    /// Nothing was sent, for a reason that says nothing of the slot (no descriptors left, its backlog full): try again.
    Unsent,
    /// The client's own body broke off.
    Client,
    /// The slot may have seen it.
    Lost,
}

impl Proxy {
    pub(crate) fn new(core: Arc<Core>, client: Client<HttpConnector, Lent>) -> Self {
        let settings = &core.settings;
        let hold_timeout = Duration::from_millis(settings.hold_timeout_ms);
        let hold_places = Semaphore::new(settings.hold_max.min(Semaphore::MAX_PERMITS));
        Self { core, client, hold_timeout, hold_places }
    }

    /// Answers a request.
    pub(crate) async fn handle(&self, request: Request<Incoming>, peer: IpAddr) -> Response<Answer> {
        let Some((model, path)) = headers::split_path(request.uri()) else { return answers::no_model() };
        if model == "-" {
            return self.own_page(path.path());
        }
        let (model, path) = (model.to_owned(), path);
        self.forward(prepare(request, model, path, peer)).await
    }

    fn own_page(&self, path: &str) -> Response<Answer> {
        match path {
            "/healthz" => answers::healthy(),
            "/metrics" => answers::metrics(self.core.board.metrics.text()),
            _ => answers::unknown_own_path(),
        }
    }

    /// Sends to the live slot; while there is none that can take it, waits.
    async fn forward(&self, mut job: Job) -> Response<Answer> {
        let started = Instant::now();
        let mut place = None;
        loop {
            let mut changes = self.core.board.changes();
            let Some(upstream) = self.core.board.enter(&job.model) else { return answers::unknown_model(&job.model) };
            let ticket = Ticket::new(Arc::clone(&upstream), started);
            if upstream.routable() {
                match self.attempt(&mut job, upstream.port(), ticket).await {
                    Ok(response) => return response,
                    Err(Failure::Lost) => return answers::upstream_died(&job.model),
                    Err(Failure::Client) => return answers::client_broke_off(),
                    Err(Failure::Refused(why)) => self.core.unreachable(&upstream.token, &why),
                    Err(Failure::Unsent) => {}
                }
            } else {
                ticket.never_sent();
            }
            if place.is_none() {
                match self.hold_places.try_acquire() {
                    Ok(permit) => place = Some((permit, Held::new(&self.core))),
                    Err(_) => return answers::too_many_held(&job.model),
                }
            }
            let Some(left) = self.hold_timeout.checked_sub(started.elapsed()) else {
                return answers::held_too_long(&job.model);
            };
            // Either a change, or time to look again anyway; both lead back to the top.
            let _ = tokio::time::timeout(left.min(HELD_LOOK_EVERY), changes.changed()).await;
        }
    }

    async fn attempt(&self, job: &mut Job, port: u16, mut ticket: Ticket) -> Result<Response<Answer>, Failure> {
        let Some(request) = job.request_to(port) else {
            ticket.broke_off();
            return Err(Failure::Lost);
        };
        match self.client.request(request).await {
            Ok(response) => Ok(answer(job, response, ticket)),
            Err(error) => {
                let unsent = error.is_connect() || any_source(&error, hyper::Error::is_canceled);
                if unsent && job.body.is_whole() {
                    ticket.never_sent();
                    return Err(if has_io_error(&error, ErrorKind::ConnectionRefused) {
                        Failure::Refused(innermost(&error))
                    } else {
                        Failure::Unsent
                    });
                }
                if job.is_safe() && has_io_error(&error, ErrorKind::ConnectionReset) {
                    // Reset, not closed: the kernel says that it threw away bytes which the process had not read. It died with
                    // our request still in its socket's queue, so nobody saw the request; a safe one may be sent again.
                    ticket.never_sent();
                    return Err(Failure::Unsent);
                }
                if any_source(&error, hyper::Error::is_user) {
                    return Err(Failure::Client);
                }
                tracing::debug!(model = job.model, error = innermost(&error), "no answer");
                ticket.broke_off();
                Err(Failure::Lost)
            }
        }
    }
}

fn prepare(mut request: Request<Incoming>, model: String, path: PathAndQuery, peer: IpAddr) -> Job {
    let wish = headers::upgrade_wish(request.headers()).filter(|_| request.version() == Version::HTTP_11);
    let upgrade = wish.is_some().then(|| hyper::upgrade::on(&mut request));
    let (mut head, body) = request.into_parts();
    headers::strip_hop_by_hop(&mut head.headers, wish.as_ref());
    headers::add_forwarded(&mut head.headers, &head.uri, head.version, peer, &model);
    Job { model, path, head, body: Untouched::new(body), upgrade }
}

impl Job {
    /// Whether asking twice is as good as once, and can be done.
    fn is_safe(&self) -> bool {
        self.head.method.is_safe() && self.body.was_empty()
    }

    fn request_to(&self, port: u16) -> Option<Request<Lent>> {
        let mut request = Request::new(self.body.lend());
        let mut uri = Uri::default().into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(Authority::try_from(format!("127.0.0.1:{port}")).ok()?);
        uri.path_and_query = Some(self.path.clone());
        *request.uri_mut() = Uri::from_parts(uri).ok()?;
        *request.method_mut() = self.head.method.clone();
        *request.headers_mut() = self.head.headers.clone();
        Some(request)
    }
}

/// Makes the slot's answer ours.
fn answer(job: &mut Job, mut response: Response<Incoming>, mut ticket: Ticket) -> Response<Answer> {
    let status = response.status();
    let switching = status == StatusCode::SWITCHING_PROTOCOLS;
    ticket.answered(status.as_u16(), switching || is_event_stream(response.headers()));
    let granted = headers::upgrade_wish(response.headers()).filter(|_| switching);
    let slot_side = granted.is_some().then(|| hyper::upgrade::on(&mut response));
    let (mut head, body) = response.into_parts();
    // A slot that speaks HTTP/1.0 must not make our connection to the client one.
    head.version = Version::HTTP_11;
    headers::strip_hop_by_hop(&mut head.headers, granted.as_ref());
    headers::prefix_location(&mut head.headers, &job.model);
    match (slot_side, job.upgrade.take()) {
        (Some(slot_side), Some(client_side)) => {
            tokio::spawn(tunnel(client_side, slot_side, ticket));
            Response::from_parts(head, Answer::Own(http_body_util::Full::default()))
        }
        _ => Response::from_parts(head, Answer::Slot { body, ticket: Box::new(ticket) }),
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

/// Carries bytes both ways after a change of protocol (websockets) until both sides are done; counts as under way until then.
async fn tunnel(client_side: OnUpgrade, slot_side: OnUpgrade, ticket: Ticket) {
    if let (Ok(client), Ok(slot)) = tokio::join!(client_side, slot_side) {
        // How such a connection ends is the business of its two ends.
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(slot)).await;
    }
    drop(ticket);
}

/// Everything that an error says it was caused by.
fn sources<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |error| error.source())
}

/// Whether one of hyper's errors behind this one says so.
fn any_source(error: &hyper_util::client::legacy::Error, says: impl Fn(&hyper::Error) -> bool) -> bool {
    sources(error).filter_map(|source| source.downcast_ref::<hyper::Error>()).any(says)
}

fn has_io_error(error: &hyper_util::client::legacy::Error, kind: ErrorKind) -> bool {
    let mut io = sources(error).filter_map(|source| source.downcast_ref::<std::io::Error>());
    io.any(|error| error.kind() == kind)
}

fn innermost(error: &hyper_util::client::legacy::Error) -> String {
    sources(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Counts a held request as long as it is.
struct Held(prometheus_client::metrics::gauge::Gauge);

impl Held {
    fn new(core: &Core) -> Self {
        let gauge = core.board.metrics.held.clone();
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}
