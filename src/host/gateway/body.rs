//! Bodies on their way through: none is ever held in memory as a whole.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::access::Entry;
use super::copy::RequestCopy;
use super::mirror::Exchange;
use super::ticket::Ticket;

/// Why a body did not pass to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// Whoever sent it broke off.
    #[error("the body broke off")]
    Sender(#[from] hyper::Error),
    /// The request's is larger than the settings allow.
    #[error("the body is larger than max_body_bytes")]
    TooLarge,
    /// The answer's took longer than the settings allow.
    #[error("the answer took longer than request_timeout_ms")]
    TooLong,
}

/// A request's body that stays with us until somebody begins to read it: an attempt that never got a connection leaves it untouched
/// for the next one.
#[derive(Debug, Clone)]
pub(crate) struct Untouched {
    shared: Arc<Shared>,
    empty: bool,
    most: u64,
    copy: Option<RequestCopy>,
}

#[derive(Debug)]
struct Shared {
    body: Mutex<Option<Incoming>>,
    too_large: AtomicBool,
}

impl Untouched {
    /// At most `most` bytes of it are let through.
    pub(crate) fn new(body: Incoming, most: u64) -> Self {
        let (empty, too_large) = (body.is_end_stream(), AtomicBool::new(body.size_hint().lower() > most));
        let shared = Arc::new(Shared { body: Mutex::new(Some(body)), too_large });
        Self { shared, empty, most, copy: None }
    }

    /// Copies it while it passes.
    pub(super) fn copy_to(&mut self, copy: RequestCopy) {
        self.copy = Some(copy);
    }

    /// Whether there is nothing in it at all.
    pub(crate) fn was_empty(&self) -> bool {
        self.empty
    }

    /// Whether it is, by what it says of itself or by what has passed, larger than allowed.
    pub(crate) fn is_too_large(&self) -> bool {
        self.shared.too_large.load(Ordering::Relaxed)
    }

    /// Whether nobody has begun to read it.
    pub(crate) fn is_whole(&self) -> bool {
        self.shared.body.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// A body for one attempt.
    pub(crate) fn lend(&self) -> Lent {
        let guard = self.shared.body.lock().unwrap_or_else(PoisonError::into_inner);
        let hint = guard.as_ref().map_or_else(SizeHint::default, Body::size_hint);
        Lent { from: self.clone(), taken: None, hint, passed: 0 }
    }
}

/// The body of one attempt.
#[derive(Debug)]
pub(crate) struct Lent {
    from: Untouched,
    taken: Option<Incoming>,
    hint: SizeHint,
    passed: u64,
}

impl Lent {
    /// Looks at a piece before it goes on.
    fn pass(&mut self, data: &Bytes) -> Result<(), Broken> {
        self.passed += data.len() as u64;
        if self.passed > self.from.most {
            self.from.shared.too_large.store(true, Ordering::Relaxed);
            return Err(Broken::TooLarge);
        }
        if let Some(copy) = &self.from.copy {
            copy.push(data);
            if self.taken.as_ref().is_some_and(Body::is_end_stream) {
                copy.end();
            }
        }
        Ok(())
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.taken.is_none() {
            let body = self.from.shared.body.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.taken = body;
        }
        let Some(body) = &mut self.taken else { return Poll::Ready(None) };
        let polled = ready!(Pin::new(body).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let passed = self.pass(data);
                    if let Err(broken) = passed {
                        return Poll::Ready(Some(Err(broken)));
                    }
                }
            }
            Some(Err(_)) => {}
            None => self.from.copy.iter().for_each(RequestCopy::end),
        }
        Poll::Ready(polled.map(|frame| frame.map_err(Broken::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.taken.as_ref().map_or(self.from.empty, Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.taken.as_ref().map_or(self.hint, Body::size_hint)
    }
}

/// The body of an answer, with what is to be done when it is over.
#[derive(Debug)]
pub(crate) struct Answer {
    source: Source,
    /// Its line in the access log.
    entry: Option<Box<Entry>>,
}

#[derive(Debug)]
enum Source {
    Own(Full<Bytes>),
    Slot(Box<Passing>),
}

/// A slot's answer, with the ticket that counts it.
#[derive(Debug)]
pub(super) struct Passing {
    pub(super) body: Incoming,
    pub(super) ticket: Ticket,
    /// To be repeated at a candidate when it is complete.
    pub(super) exchange: Option<Box<Exchange>>,
    /// When it has taken too long.
    pub(super) deadline: Option<Pin<Box<Sleep>>>,
}

impl Answer {
    /// The gateway's own.
    pub(super) fn own(body: impl Into<Bytes>) -> Self {
        Self { source: Source::Own(Full::new(body.into())), entry: None }
    }

    /// A slot's.
    pub(super) fn slot(passing: Passing) -> Self {
        Self { source: Source::Slot(Box::new(passing)), entry: None }
    }

    /// Writes this line when the answer is over.
    pub(super) fn log(&mut self, mut entry: Box<Entry>) {
        if let Source::Slot(passing) = &self.source {
            let upstream = passing.ticket.upstream();
            entry.line.version = Some(upstream.version.clone());
            entry.line.slot = Some(upstream.token.clone());
        }
        self.entry = Some(entry);
    }
}

impl Passing {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            self.ticket.broke_off();
            return Poll::Ready(Some(Err(Broken::TooLong)));
        }
        Poll::Ready(match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let (Some(exchange), Some(data)) = (&mut self.exchange, frame.data_ref()) {
                    exchange.push(data);
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.ticket.broke_off();
                Some(Err(error.into()))
            }
            None => {
                self.end();
                None
            }
        })
    }

    fn end(&mut self) {
        self.ticket.complete();
        if let Some(exchange) = self.exchange.take() {
            exchange.end(self.ticket.latency());
        }
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        // A body with a known length ends without being asked for its end.
        if self.body.is_end_stream() {
            self.end();
        } else if let Some(exchange) = self.exchange.take() {
            exchange.broke_off();
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        let polled = ready!(match &mut this.source {
            Source::Own(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Source::Slot(passing) => passing.poll(cx),
        });
        if let (Some(entry), Some(Ok(frame))) = (&mut this.entry, &polled) {
            entry.line.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(body) => body.is_end_stream(),
            Source::Slot(passing) => passing.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(body) => body.size_hint(),
            Source::Slot(passing) => passing.body.size_hint(),
        }
    }
}
