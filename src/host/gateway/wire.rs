//! One connection to a slot, driven by the request that uses it.
//!
//! No task of its own: where a client's and a slot's side are one task, a request wakes nobody but itself on its way there and back, and
//! what the slot sends in one packet leaves in one.

use std::error::Error;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::CONNECT_TIMEOUT;
use super::body::{Broken, Lent, with_first};
use super::pool::Pool;
use super::upstream_error::Unanswered;

/// A body that can be sent to a slot.
pub(super) trait Sent:
    Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static
{
}

impl<B> Sent for B where B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static {}

/// A connection, and what is said over it; `B` is what requests carry.
pub(super) struct Wire<B = Lent> {
    pub(super) port: u16,
    sender: SendRequest<B>,
    driver: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
    /// The driver has come to its end.
    over: bool,
    /// When it was last used.
    pub(super) idle_since: Instant,
}

impl<B> std::fmt::Debug for Wire<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("port", &self.port).field("over", &self.over).finish_non_exhaustive()
    }
}

impl<B: Sent> Wire<B> {
    /// A new one.
    pub(super) async fn connect(port: u16) -> Result<Self, Unanswered> {
        let connect = TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port));
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect).await;
        let stream = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let stream = stream.map_err(Unanswered::NoConnection)?;
        // Without it small requests may wait 40 ms; where it cannot be set they still arrive.
        let _ = stream.set_nodelay(true);
        let shaken = http1::Builder::new().handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(Unanswered::Broke)?;
        let driver = Box::pin(connection.with_upgrades());
        Ok(Self { port, sender, driver, over: false, idle_since: Instant::now() })
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.over {
            self.over = self.driver.as_mut().poll(cx).is_ready();
        }
    }

    /// Sends a request and waits for the head of its answer. `Err` with the request: nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        request: Request<B>,
    ) -> Result<Response<Incoming>, (Unanswered, Option<Request<B>>)> {
        let mut answered = pin!(self.sender.try_send_request(request));
        let answered = std::future::poll_fn(|cx| {
            self.drive(cx);
            // Only the driver makes an answer, so nobody has to be woken for it.
            match answered.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                // The driver's end is told to whoever waits for an answer; this is for the case that hyper forgets it.
                Poll::Pending if self.over => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
                Poll::Ready(answered) => Poll::Ready(Some(answered)),
            }
        });
        match answered.await {
            Some(Ok(response)) => Ok(response),
            Some(Err(mut error)) => match error.take_message() {
                Some(request) => Err((Unanswered::NotSent, Some(request))),
                None => Err((Unanswered::Broke(error.into_error()), None)),
            },
            None => Err((Unanswered::Gone, None)),
        }
    }

    fn poll_frame(&mut self, body: &mut Incoming, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let mut unheard = Context::from_waker(Waker::noop());
        // Asked for first: the driver reads only what somebody wants.
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(&mut unheard) {
            return Poll::Ready(frame);
        }
        self.drive(cx);
        if self.over {
            // What it has left behind is there, and nothing else will come.
            return Pin::new(body).poll_frame(cx);
        }
        Pin::new(body).poll_frame(&mut unheard)
    }

    /// Whether it can be used for another request, after this one.
    pub(super) fn is_free(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.over && self.sender.is_ready()
    }

    /// After an agreed change of protocol: carries the connection over.
    pub(super) fn hand_over(self) {
        if !self.over {
            // How it ends is for whoever uses the new protocol.
            tokio::spawn(self.driver);
        }
    }
}

/// The body of an answer together with the connection that it comes from, which goes back to the pool at its end.
#[derive(Debug)]
pub(super) struct Flow<B = Lent> {
    body: Incoming,
    wire: Option<Wire<B>>,
    pool: Arc<Pool<B>>,
    /// What was there together with the head.
    first: Option<hyper::Result<Frame<Bytes>>>,
    /// It ended before its end.
    torn: bool,
}

impl<B: Sent> Flow<B> {
    /// Takes along what has come with the head: most answers are whole by then.
    pub(super) async fn new(body: Incoming, wire: Wire<B>, pool: &Arc<Pool<B>>) -> Self {
        let mut flow = Self { body, wire: Some(wire), pool: Arc::clone(pool), first: None, torn: false };
        if flow.body.is_end_stream() {
            flow.let_go();
            return flow;
        }
        std::future::poll_fn(|cx| {
            if let Poll::Ready(Some(frame)) = flow.poll_slot(cx) {
                flow.first = Some(frame);
            }
            Poll::Ready(())
        })
        .await;
        flow
    }

    fn poll_slot(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let Some(wire) = &mut self.wire else { return Poll::Ready(None) };
        let polled = ready!(wire.poll_frame(&mut self.body, cx));
        match &polled {
            Some(Ok(_)) if !self.body.is_end_stream() => {}
            Some(Ok(_)) | None => self.let_go(),
            Some(Err(_)) => (self.wire, self.torn) = (None, true),
        }
        Poll::Ready(polled)
    }

    fn let_go(&mut self) {
        self.wire.take().into_iter().for_each(|wire| self.pool.give(wire));
    }
}

impl<B: Sent> Body for Flow<B> {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let frame = match self.first.take() {
            Some(first) => Some(first),
            None => ready!(self.poll_slot(cx)),
        };
        Poll::Ready(frame.map(|frame| frame.map_err(Broken::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && !self.torn && (self.wire.is_none() || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().and_then(|first| first.as_ref().ok()?.data_ref());
        with_first(first, &self.body.size_hint())
    }
}
