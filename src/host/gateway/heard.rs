//! What a client's connection said at the beginning of its request, as it stood there.
//!
//! Of a request with `Content-Length` and `Transfer-Encoding` hyper shows the latter only, follows it and closes the connection: one of the two answers that
//! RFC 9112, 6.1 allows. Whoever sends both may want another server on the way to follow the length, so it is refused here, which is the
//! other one; and for that the head has to be read as it came.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hyper::{Request, Version, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// More room than this is given back once a head was looked at. What follows an answer and is no head, as of a websocket, takes as much as a head may
/// until the next answer.
const KEPT_BYTES: usize = 1024;

/// Shared by a connection, which listens, and its service, which asks.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Head>>);

#[derive(Debug, Default)]
struct Head {
    bytes: Vec<u8>,
    /// The request is being answered: what comes now belongs to its body, or to one that does not wait for its turn.
    asked: bool,
    /// It is HTTP/2, which has no such heads.
    deaf: bool,
}

impl Head {
    fn begin_anew(&mut self, asked: bool) {
        self.asked = asked;
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }
}

impl Heard {
    fn head(&self) -> MutexGuard<'_, Head> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the request that has just come named a length beside its pieces. To be asked once for each.
    ///
    /// A request that was sent before the one in front of it was answered is not known to the byte, and is as hyper takes it.
    pub(super) fn both_lengths<B>(&self, request: &Request<B>) -> bool {
        let mut head = self.head();
        head.deaf |= request.version() == Version::HTTP_2;
        let in_pieces =
            request.version() == Version::HTTP_11 && request.headers().contains_key(header::TRANSFER_ENCODING);
        let both = in_pieces && names_length(&head.bytes, request.method().as_str());
        head.begin_anew(true);
        both
    }
}

/// Whether these bytes are the head of a request with this method that has a line with a length.
fn names_length(bytes: &[u8], method: &str) -> bool {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).skip_while(|line| line.is_empty());
    let is_ours = |line: &[u8]| line.strip_prefix(method.as_bytes()).is_some_and(|rest| rest.starts_with(b" "));
    lines.next().is_some_and(is_ours)
        && lines.take_while(|line| !line.is_empty()).any(|line| {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            name.eq_ignore_ascii_case(header::CONTENT_LENGTH.as_str().as_bytes())
        })
}

/// A connection that is listened to.
pub(super) struct Listened<S> {
    stream: S,
    heard: Heard,
    /// No head is longer.
    most: usize,
}

impl<S> Listened<S> {
    pub(super) fn new(stream: S, heard: Heard, most: usize) -> Self {
        Self { stream, heard, most }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listened<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let come = buf.filled().get(before..).unwrap_or_default();
        if !come.is_empty() {
            let mut head = self.heard.head();
            if !head.asked && !head.deaf {
                let room = self.most.saturating_sub(head.bytes.len());
                head.bytes.extend_from_slice(&come[..come.len().min(room)]);
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listened<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.heard.head().begin_anew(false);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.heard.head().begin_anew(false);
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::names_length;

    #[test]
    fn a_length_is_found_in_the_head_and_nowhere_else() {
        let both = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\ncontent-LENGTH: 5\r\n\r\n";
        assert!(names_length(both, "POST"));
        assert!(names_length(b"\r\nPOST /a HTTP/1.1\nContent-Length: 5\n\n", "POST"));
        for none in [
            &b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nContent-Length: 5\r\n"[..],
            b"POST /a HTTP/1.1\r\nX-Content-Length: 5\r\n\r\n",
            b"POST /a HTTP/1.1\r\nX: Content-Length: 5\r\n\r\n",
            // The end of another request's body.
            b"hello\r\nPOST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
            b"",
        ] {
            assert!(!names_length(none, "POST"), "{}", String::from_utf8_lossy(none));
        }
    }
}
