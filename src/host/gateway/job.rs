//! A request on its way through: its head made ready for the slot, and the slot's answer made ours.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::answers;
use super::board::Upstream;
use super::body::{Answer, Lent, Passing, Untouched};
use super::connections::Peer;
use super::headers::Addressed;
use super::mirror::{Exchange, Mirrors, Shadow};
use super::sticky::Caller;
use super::table::{Choice, RouteNow, Wish};
use super::ticket::Ticket;
use super::version::Asked;
use super::wire::{Flow, Wire};
use super::workers::Local;
use super::{draw, headers, version};
use crate::host::Settings;

/// A request with its model found and its head made ready for the slot.
pub(super) struct Job {
    pub(super) model: String,
    path: PathAndQuery,
    /// What was taken from the path.
    prefix: String,
    head: Parts,
    pub(super) body: Untouched,
    peer: Peer,
    /// The version that it wants.
    asked: Option<Asked>,
    /// Where its caller lies in the whole; found out at the first look at a route.
    point: Option<u32>,
    /// Makes a new caller known.
    set_cookie: Option<HeaderValue>,
    /// The client's side of a change of protocol it asked for.
    upgrade: Option<OnUpgrade>,
    /// Whether it was decided already if it is repeated, and how.
    shadow: Option<Option<Shadow>>,
    /// When its answer has to be complete.
    deadline: Option<Instant>,
}

/// Where a job goes.
pub(super) enum Way<'a> {
    Slot(&'a Arc<Upstream>),
    Wait,
    Refused(Box<Response<Answer>>),
}

impl Job {
    pub(super) fn new(mut request: Request<Incoming>, to: Addressed, peer: Peer, settings: &Settings) -> Self {
        let wish = headers::upgrade_wish(request.headers()).filter(|_| request.version() == Version::HTTP_11);
        let upgrade = wish.is_some().then(|| hyper::upgrade::on(&mut request));
        let (mut head, body) = request.into_parts();
        let asked = version::take(&mut head.headers);
        headers::strip_hop_by_hop(&mut head.headers, wish.as_ref());
        headers::add_forwarded(&mut head.headers, &head.uri, head.version, peer, &to.prefix);
        let body = Untouched::new(body, settings.max_body_bytes);
        let deadline = settings.request_timeout_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
        let (point, set_cookie, shadow) = (None, None, None);
        let Addressed { model, path, prefix } = to;
        Self { model, path, prefix, head, body, peer, asked, point, set_cookie, upgrade, shadow, deadline }
    }

    /// When its answer has to be complete.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Decides, at the first slot, whether the request is to be repeated at a candidate.
    pub(super) fn consider_mirror(&mut self, route: &RouteNow, live: &Upstream, mirrors: &Arc<Mirrors>) {
        if self.shadow.is_some() {
            return;
        }
        self.shadow = Some(None);
        // Nobody repeats what somebody has sent to a version on purpose, or what is answered by the candidate anyway.
        let rule = route.mirror.as_ref().filter(|rule| self.asked.is_none() && live.version != rule.to);
        let Some(rule) = rule.filter(|rule| rule.takes(&self.head.method, self.path.path())) else { return };
        if self.upgrade.is_some() {
            return mirrors.pairs.dropped(&self.model, "streams");
        }
        let body = mirrors.request_copy(self.body.was_empty());
        self.body.copy_to(body.clone());
        self.shadow = Some(Some(Shadow {
            model: self.model.clone(),
            to: rule.to.clone(),
            method: self.head.method.clone(),
            path: self.path.clone(),
            headers: self.head.headers.clone(),
            body,
            mirrors: Arc::clone(mirrors),
        }));
    }

    fn exchange(&mut self, live: &Upstream, response: &Response<Incoming>, streams: bool) -> Option<Box<Exchange>> {
        let shadow = self.shadow.take().flatten()?;
        if streams {
            shadow.mirrors.pairs.dropped(&self.model, "streams");
            return None;
        }
        Some(Box::new(shadow.answered(live, response.status(), response.headers())))
    }

    /// Asks the route for a slot. `not`: where it has just been in vain.
    pub(super) fn choose<'a>(&mut self, route: &'a RouteNow, not: Option<&Arc<Upstream>>) -> Way<'a> {
        if let Some(asked) = &self.asked
            && !route.gate.as_ref().is_some_and(|gate| gate.admits(asked))
        {
            return Way::Refused(Box::new(answers::version_refused(&self.model)));
        }
        let point = self.point(route);
        let wish = self.asked.as_ref().map_or(Wish::Point(point), |asked| Wish::Version(&asked.version));
        match route.choose(wish, not) {
            Choice::Slot(upstream) => Way::Slot(upstream),
            Choice::Wait => Way::Wait,
            Choice::NoSuchVersion => Way::Refused(Box::new(answers::unknown_version(&self.model))),
        }
    }

    /// Where the caller lies in the whole; the same over all attempts.
    fn point(&mut self, route: &RouteNow) -> u32 {
        if let Some(point) = self.point {
            return point;
        }
        let caller = match &route.key {
            // Nobody is made known by a version that he chose himself.
            Some(key) if self.asked.is_none() => key.caller(&self.head.headers, self.peer.ip),
            _ => Caller::Unknown,
        };
        let point = match &caller {
            Caller::Known(key) => route.point_of(key),
            Caller::New(value) => {
                let secure = self.head.headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
                let key = route.key.as_ref();
                self.set_cookie = key.and_then(|key| key.set_cookie(value, &self.prefix, secure));
                route.point_of(value.as_bytes())
            }
            Caller::Unknown => draw::point(),
        };
        self.point = Some(point);
        point
    }

    /// Whether asking twice is as good as once, and can be done.
    pub(super) fn is_safe(&self) -> bool {
        self.head.method.is_safe() && self.body.was_empty()
    }

    /// The request for one attempt. What can be asked twice is kept; anything else goes along, and comes back by [`Job::take_back`] only.
    pub(super) fn request_to(&mut self, port: u16) -> Request<Lent> {
        let headers = if self.is_safe() { self.head.headers.clone() } else { mem::take(&mut self.head.headers) };
        let mut request = Request::new(self.body.lend());
        *request.uri_mut() = Uri::from(self.path.clone());
        *request.method_mut() = self.head.method.clone();
        *request.headers_mut() = headers;
        headers::ensure_host(request.headers_mut(), port);
        request
    }

    /// Nothing of this request was sent.
    pub(super) fn take_back(&mut self, request: Request<Lent>) {
        self.head.headers = request.into_parts().0.headers;
    }

    /// Makes the slot's answer ours.
    pub(super) async fn answer(
        &mut self,
        mut response: Response<Incoming>,
        wire: Wire,
        mut ticket: Ticket,
        local: &Local,
    ) -> Response<Answer> {
        let status = response.status();
        let switching = status == StatusCode::SWITCHING_PROTOCOLS;
        let streams = switching || is_event_stream(response.headers());
        ticket.answered(status.as_u16(), streams);
        let exchange = self.exchange(ticket.upstream(), &response, streams);
        let granted = headers::upgrade_wish(response.headers()).filter(|_| switching);
        let slot_side = granted.is_some().then(|| hyper::upgrade::on(&mut response));
        let (mut head, body) = response.into_parts();
        // A slot that speaks HTTP/1.0 must not make our connection to the client one.
        head.version = Version::HTTP_11;
        headers::strip_hop_by_hop(&mut head.headers, granted.as_ref());
        headers::prefix_location(&mut head.headers, &self.prefix);
        if let Some(cookie) = self.set_cookie.take() {
            head.headers.append(header::SET_COOKIE, cookie);
        }
        match (slot_side, self.upgrade.take()) {
            (Some(slot_side), Some(client_side)) => {
                wire.hand_over();
                local.tasks.spawn(tunnel(client_side, slot_side, ticket));
                Response::from_parts(head, Answer::own(Bytes::new()))
            }
            _ => {
                // A stream lasts as long as its client likes.
                let deadline = self.deadline.filter(|_| !streams);
                let deadline = deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
                let body = Flow::new(body, wire, &local.pool).await;
                Response::from_parts(head, Answer::slot(Passing { body, ticket, exchange, deadline }))
            }
        }
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

/// Carries bytes both ways after a change of protocol (websockets) until both sides are done, or the slot is drained and its grace over;
/// counts as under way until then.
async fn tunnel(client_side: OnUpgrade, slot_side: OnUpgrade, ticket: Ticket) {
    let both = async {
        if let (Ok(client), Ok(slot)) = tokio::join!(client_side, slot_side) {
            // How such a connection ends is the business of its two ends.
            let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(slot)).await;
        }
    };
    tokio::select! {
        () = both => {}
        () = ticket.upstream().tunnels.notified() => tracing::debug!(slot = ticket.upstream().token, "drained: tunnel ended"),
    }
    drop(ticket);
}
