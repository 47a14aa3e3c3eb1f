//! Bodies on their way through: none is ever held in memory as a whole.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use super::ticket::Ticket;

/// A request's body that stays with us until somebody begins to read it: an attempt that never got a connection leaves it untouched
/// for the next one.
#[derive(Debug, Clone)]
pub(crate) struct Untouched {
    body: Arc<Mutex<Option<Incoming>>>,
    empty: bool,
}

impl Untouched {
    pub(crate) fn new(body: Incoming) -> Self {
        Self { empty: body.is_end_stream(), body: Arc::new(Mutex::new(Some(body))) }
    }

    /// Whether there is nothing in it at all.
    pub(crate) fn was_empty(&self) -> bool {
        self.empty
    }

    /// Whether nobody has begun to read it.
    pub(crate) fn is_whole(&self) -> bool {
        self.body.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// A body for one attempt.
    pub(crate) fn lend(&self) -> Lent {
        let guard = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        let hint = guard.as_ref().map_or_else(SizeHint::default, Body::size_hint);
        Lent { from: self.clone(), taken: None, hint }
    }
}

/// The body of one attempt.
#[derive(Debug)]
pub(crate) struct Lent {
    from: Untouched,
    taken: Option<Incoming>,
    hint: SizeHint,
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.taken.is_none() {
            let body = self.from.body.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.taken = body;
        }
        match &mut self.taken {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.taken.as_ref().map_or(self.from.empty, Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.taken.as_ref().map_or(self.hint, Body::size_hint)
    }
}

/// The body of an answer: the gateway's own, or a slot's with the ticket that counts it.
#[derive(Debug)]
pub(crate) enum Answer {
    Own(Full<Bytes>),
    Slot { body: Incoming, ticket: Box<Ticket> },
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Own(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Slot { body, ticket } => {
                let polled = Pin::new(body).poll_frame(cx);
                if let Poll::Ready(frame) = &polled {
                    match frame {
                        Some(Ok(_)) => {}
                        Some(Err(_)) => ticket.broke_off(),
                        None => ticket.complete(),
                    }
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Slot { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Slot { body, .. } => body.size_hint(),
        }
    }
}
