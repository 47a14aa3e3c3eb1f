//! One request through the gateway: to a slot that can take it, held while there is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Request, Response};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::access::{AccessLog, Entry, Line};
use super::board::Upstream;
use super::body::Answer;
use super::connections::Peer;
use super::ids::{self, REQUEST_ID};
use super::job::{Job, Way};
use super::table::RouteNow;
use super::ticket::Ticket;
use super::upstream_error::{self, Failure, Unanswered};
use super::wire::Wire;
use super::workers::Local;
use super::{answers, headers, health};
use crate::host::core::Core;

/// While a request is held it looks again this often even when nothing was announced: a port may open without anybody saying so.
const HELD_LOOK_EVERY: Duration = Duration::from_millis(25);
/// Replicas that are tried one after the other before a request is held: more that refuse at once are no accident.
const MAX_TRIES: usize = 3;

/// What every request shares.
#[derive(Debug)]
pub(crate) struct Proxy {
    core: Arc<Core>,
    hold_timeout: Duration,
    hold_places: Semaphore,
    access: Option<Arc<AccessLog>>,
}

impl Proxy {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        let settings = &core.settings;
        let hold_timeout = Duration::from_millis(settings.hold_timeout_ms);
        let hold_places = Semaphore::new(settings.hold_max.min(Semaphore::MAX_PERMITS));
        let access = settings.access_log.then(|| {
            let log = AccessLog::open(core.paths.access_log(), settings.access_log_max_bytes);
            // Traffic matters more than its log.
            log.inspect_err(|error| tracing::error!(%error, "cannot open the access log; serving without it")).ok()
        });
        let access = access.flatten();
        Self { core, hold_timeout, hold_places, access }
    }

    /// Answers a request. `both_lengths`: its head named a length beside its pieces.
    pub(crate) async fn handle(
        &self,
        mut request: Request<Incoming>,
        both_lengths: bool,
        peer: Peer,
        local: &Local,
    ) -> Response<Answer> {
        let id = ids::ensure(request.headers_mut());
        // From here on: a client that goes away before its answer has a line, too.
        let entry = self.access.as_ref().map(|log| Entry::new(log, line(&request, &id, peer)));
        let mut response = match both_lengths {
            true => self.both_lengths(),
            false => self.answer(request, peer, local).await,
        };
        response.headers_mut().insert(REQUEST_ID, id);
        if let Some(mut entry) = entry {
            entry.line.status = response.status().as_u16();
            response.body_mut().log(entry);
        }
        response
    }

    async fn answer(&self, request: Request<Incoming>, peer: Peer, local: &Local) -> Response<Answer> {
        if self.core.settings.tls.is_some() && !peer.secure && !peer.is_this_machine() {
            return answers::tls_required();
        }
        let by_host = headers::by_host(request.uri(), request.headers(), &self.core.settings.hosts);
        let Some(to) = by_host.or_else(|| headers::by_path(request.uri())) else { return answers::no_model() };
        if to.model == "-" {
            return self.own_page(to.path.path());
        }
        let job = Job::new(request, to, peer, &self.core.settings);
        if job.body.is_too_large() {
            return self.too_large();
        }
        self.forward(job, local).await
    }

    fn too_large(&self) -> Response<Answer> {
        self.core.board.metrics.refused("body_too_large");
        answers::body_too_large(self.core.settings.max_body_bytes)
    }

    fn both_lengths(&self) -> Response<Answer> {
        self.core.board.metrics.refused("both_lengths");
        answers::both_lengths()
    }

    fn own_page(&self, path: &str) -> Response<Answer> {
        match path {
            "/healthz" => answers::healthy(),
            "/metrics" => answers::metrics(self.core.board.metrics.text()),
            _ => answers::unknown_own_path(),
        }
    }

    /// Sends to a slot of the route; while there is none that can take it, waits.
    async fn forward(&self, mut job: Job, local: &Local) -> Response<Answer> {
        let started = Instant::now();
        let mut waiting = Waiting::default();
        let (mut tries, mut in_vain): (usize, Option<Arc<Upstream>>) = (0, None);
        loop {
            let Some(route) = self.core.board.route(&job.model) else { return answers::unknown_model(&job.model) };
            match job.choose(&route, in_vain.as_ref()) {
                Way::Refused(answer) => return *answer,
                Way::Wait => {}
                Way::Slot(upstream) => {
                    if !self.core.board.enter(&job.model, &route, upstream) {
                        continue;
                    }
                    job.consider_mirror(&route, upstream, &self.core.board.mirrors);
                    let ticket = Ticket::new(Arc::clone(upstream), started);
                    match self.attempt(&mut job, upstream.port(), ticket, local).await {
                        Ok(response) => return response,
                        Err(Failure::Lost) => return answers::upstream_died(&job.model),
                        Err(Failure::Client) => return answers::client_broke_off(),
                        Err(Failure::TooLarge) => return self.too_large(),
                        Err(Failure::TooLong) => return answers::took_too_long(&job.model),
                        Err(Failure::Refused(why)) => {
                            if upstream.health.refused(health::now()) {
                                upstream.meter.ejected();
                            }
                            self.core.unreachable(&upstream.token, &why);
                        }
                        Err(Failure::Unsent) => {}
                    }
                    in_vain = Some(Arc::clone(upstream));
                    tries += 1;
                    if tries < MAX_TRIES.min(route.slots()) {
                        continue;
                    }
                }
            }
            (tries, in_vain) = (0, None);
            if let Err(answer) = self.wait(&mut waiting, &job, &route, started).await {
                return *answer;
            }
        }
    }

    /// Waits a moment for something to change; the answer to give up with when it is over.
    async fn wait<'a>(
        &'a self,
        waiting: &mut Waiting<'a>,
        job: &Job,
        route: &RouteNow,
        started: Instant,
    ) -> Result<(), Box<Response<Answer>>> {
        if waiting.place.is_none() {
            match self.hold_places.try_acquire() {
                Ok(permit) => waiting.place = Some((permit, Held::new(&self.core))),
                Err(_) => return Err(Box::new(answers::too_many_held(&job.model))),
            }
        }
        let hold = route.plan.hold.map_or(self.hold_timeout, |hold| Duration::from_millis(hold.timeout_ms));
        let Some(left) = hold.checked_sub(started.elapsed()) else {
            return Err(Box::new(answers::held_too_long(&job.model)));
        };
        match &mut waiting.changes {
            // Either a change, or time to look again anyway.
            Some(changes) => drop(tokio::time::timeout(left.min(HELD_LOOK_EVERY), changes.changed()).await),
            // From now on no change is missed, but one may have been: look once more before waiting.
            None => waiting.changes = Some(self.core.board.changes()),
        }
        Ok(())
    }

    async fn attempt(
        &self,
        job: &mut Job,
        port: u16,
        mut ticket: Ticket,
        local: &Local,
    ) -> Result<Response<Answer>, Failure> {
        let answered = match job.deadline() {
            None => ask(job, port, local).await,
            Some(deadline) => match tokio::time::timeout_at(deadline, ask(job, port, local)).await {
                Ok(answered) => answered,
                Err(_) => {
                    ticket.broke_off();
                    return Err(Failure::TooLong);
                }
            },
        };
        match answered {
            Ok((response, wire)) => Ok(job.answer(response, wire, ticket, local).await),
            Err(error) => {
                let failure = upstream_error::read(&error, job);
                match failure {
                    Failure::Refused(_) | Failure::Unsent => ticket.never_sent(),
                    Failure::Lost | Failure::TooLong => ticket.broke_off(),
                    Failure::Client | Failure::TooLarge => {}
                }
                Err(failure)
            }
        }
    }
}

/// Sends to a slot, over a connection that is there or a new one, and waits for the head of its answer.
async fn ask(job: &mut Job, port: u16, local: &Local) -> Result<(Response<Incoming>, Wire), Unanswered> {
    job.body.begin().await?;
    if let Some(mut wire) = local.pool.take(port) {
        match wire.send(job.request_to(port)).await {
            Ok(response) => return Ok((response, wire)),
            // The slot closed it in this moment.
            Err((Unanswered::NotSent, Some(request))) => job.take_back(request),
            Err((error, _)) => return Err(error),
        }
    }
    let mut wire = Wire::connect(port).await?;
    match wire.send(job.request_to(port)).await {
        Ok(response) => Ok((response, wire)),
        Err((error, request)) => {
            request.into_iter().for_each(|request| job.take_back(request));
            Err(error)
        }
    }
}

/// What is known of a request before it is answered.
fn line(request: &Request<Incoming>, id: &HeaderValue, peer: Peer) -> Line {
    let path = request.uri().path();
    Line {
        at: chrono::Utc::now(),
        request_id: String::from_utf8_lossy(id.as_bytes()).into_owned(),
        peer: peer.ip.to_string(),
        method: request.method().to_string(),
        path: path.to_owned(),
        model: path.split('/').nth(1).unwrap_or_default().to_owned(),
        ..Line::default()
    }
}

/// What a request has as long as it is held.
#[derive(Default)]
struct Waiting<'a> {
    place: Option<(SemaphorePermit<'a>, Held)>,
    changes: Option<watch::Receiver<()>>,
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
