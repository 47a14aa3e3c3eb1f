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
use super::upstream_error::Unanswered;
use super::wire::Flow;

/// Bodies up to this are sent to a slot together with their heads, if they come together: as much as arrives in one read.
const SMALL: u64 = 64 * 1024;

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
    body: Mutex<Option<Begun>>,
    too_large: AtomicBool,
}

/// A body, and what of it has been read from the client.
#[derive(Debug)]
struct Begun {
    first: Option<Bytes>,
    rest: Incoming,
}

impl Begun {
    fn is_end(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        with_first(self.first.as_ref(), &self.rest.size_hint())
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }
}

/// The size of a body whose first piece was taken from it.
pub(super) fn with_first(first: Option<&Bytes>, rest: &SizeHint) -> SizeHint {
    let first = first.map_or(0, |first| first.len() as u64);
    let mut hint = SizeHint::new();
    hint.set_lower(rest.lower() + first);
    if let Some(upper) = rest.upper() {
        hint.set_upper(upper + first);
    }
    hint
}

impl Untouched {
    /// At most `most` bytes of it are let through.
    pub(crate) fn new(body: Incoming, most: u64) -> Self {
        let (empty, too_large) = (body.is_end_stream(), AtomicBool::new(body.size_hint().lower() > most));
        let body = Mutex::new(Some(Begun { first: None, rest: body }));
        Self { shared: Arc::new(Shared { body, too_large }), empty, most, copy: None }
    }

    /// Waits for the first piece of a body that is small, by what it says of itself: so head and body leave together. Who sends more, or
    /// does not know how much, is not waited for.
    pub(super) async fn begin(&self) -> Result<(), Unanswered> {
        if self.empty {
            return Ok(());
        }
        let poll = |cx: &mut Context<'_>| {
            let mut guard = self.shared.body.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(begun) = guard.as_mut().filter(|begun| begun.first.is_none()) else { return Poll::Ready(Ok(())) };
            if begun.rest.size_hint().exact().is_none_or(|size| size > SMALL) {
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(match ready!(Pin::new(&mut begun.rest).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    begun.first = frame.into_data().ok();
                    Ok(())
                }
                Some(Err(_)) => Err(Unanswered::ByClient),
                None => Ok(()),
            })
        };
        std::future::poll_fn(poll).await
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

    /// A body for one attempt.
    pub(crate) fn lend(&self) -> Lent {
        let guard = self.shared.body.lock().unwrap_or_else(PoisonError::into_inner);
        let hint = guard.as_ref().map_or_else(SizeHint::default, Begun::size_hint);
        Lent { from: self.clone(), taken: None, hint, passed: 0 }
    }
}

/// The body of one attempt.
#[derive(Debug)]
pub(crate) struct Lent {
    from: Untouched,
    taken: Option<Begun>,
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
            if self.taken.as_ref().is_some_and(Begun::is_end) {
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
        let polled = ready!(body.poll_frame(cx));
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
        self.taken.as_ref().map_or(self.from.empty, Begun::is_end)
    }

    fn size_hint(&self) -> SizeHint {
        self.taken.as_ref().map_or(self.hint, Begun::size_hint)
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
    pub(super) body: Flow,
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
                Some(Err(error))
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
