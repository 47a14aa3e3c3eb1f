//! What a connection is at: whether a request of it is under way, and bodies that come in time or not at all.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

/// What one connection is at.
#[derive(Clone)]
pub(super) struct Activity(Arc<watch::Sender<At>>);

#[derive(Debug, Clone, Copy, Default)]
struct At {
    /// Its heads so far.
    heads: u64,
    /// Requests whose answers have not ended.
    under_way: usize,
}

impl Activity {
    /// Of a fresh one.
    pub fn new() -> Self {
        Self(Arc::new(watch::channel(At::default()).0))
    }

    /// A head is there; its answer has ended when the result is dropped.
    pub fn begin(&self) -> UnderWay {
        self.0.send_modify(|at| {
            at.heads += 1;
            at.under_way += 1;
        });
        UnderWay(self.clone())
    }

    /// Returns when no head came in time: the first one within `first`, each further one within `idle` of the answer before.
    pub async fn silence(&self, first: Duration, idle: Duration) {
        let mut heard = self.0.subscribe();
        loop {
            let now = *heard.borrow_and_update();
            let limit = if now.heads == 0 { first } else { idle };
            tokio::select! {
                changed = heard.changed() => drop(changed),
                () = tokio::time::sleep(limit), if now.under_way == 0 => return,
            }
        }
    }
}

/// A request that is under way.
pub(super) struct UnderWay(Activity);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.send_modify(|at| at.under_way -= 1);
    }
}

/// An answer's body: its request is under way until it has ended.
pub(super) struct Until<B> {
    body: B,
    _under_way: UnderWay,
}

impl<B> Until<B> {
    pub fn new(body: B, under_way: UnderWay) -> Self {
        Self { body, _under_way: under_way }
    }
}

impl<B: Body + Unpin> Body for Until<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body did not come in time.
#[derive(Debug, thiserror::Error)]
#[error("the body did not come within {} s", .0.as_secs_f64())]
pub(super) struct TooSlow(Duration);

/// A request's body, which comes in time or breaks off.
pub(super) struct InTime<B> {
    body: B,
    within: Duration,
    end: Instant,
    /// Set where somebody waits for more of it.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<B> InTime<B> {
    /// From now on.
    pub fn new(body: B, within: Duration) -> Self {
        Self { body, within, end: Instant::now() + within, alarm: None }
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for InTime<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let end = this.end;
        let alarm = this.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        alarm.as_mut().poll(cx).map(|()| Some(Err(TooSlow(this.within).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
