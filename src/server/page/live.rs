//! A stream that says when a run has changed. What has changed the page itself says: the script fetches it again.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Shown;
use super::frame::Visitor;
use super::run::known;
use crate::graph::{Stop, ThreadId, ThreadStatus};
use crate::server::Server;

/// So often a quiet stream says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often the record is looked at though no bell rang.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Least time between two words: a page is not fetched faster than it can be read.
const PAUSE: Duration = Duration::from_millis(250);

/// How a run stands: its newest event, its status, its open questions.
type Mark = (u64, ThreadStatus, usize);

struct Listener {
    server: Arc<Server>,
    thread: ThreadId,
    bell: watch::Receiver<u64>,
    stop: watch::Receiver<Stop>,
    seen: Option<Mark>,
    over: bool,
}

/// Says `changed` whenever the run has, from what it is now on; `over` once it has ended.
pub(in crate::server) async fn stream(visitor: Visitor, Path(id): Path<String>) -> Shown {
    let thread = known(&visitor, &id).await?.id;
    let server = visitor.server.clone();
    let bell = server.bell.listen(&thread);
    let stop = server.stop.clone();
    let listener = Listener { server, thread, bell, stop, seen: None, over: false };
    let body = stream::unfold(listener, |mut listener| async move {
        let chunk = listener.next().await?;
        Some((Ok::<_, std::io::Error>(chunk), listener))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

impl Listener {
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let quiet = Instant::now() + HEARTBEAT;
        loop {
            let Some(now) = self.mark().await else {
                // It was removed, or cannot be read: whoever looks is told by the page.
                self.over = true;
                return Some(Bytes::from_static(b"event: over\ndata: \n\n"));
            };
            let first = self.seen.is_none();
            let changed = self.seen.is_some_and(|seen| seen != now);
            self.seen = Some(now);
            self.over = now.1.is_terminal();
            match (self.over, changed) {
                (true, _) => return Some(Bytes::from_static(b"event: over\ndata: \n\n")),
                (false, true) => return Some(Bytes::from_static(b"event: changed\ndata: \n\n")),
                // The page was rendered before this stream began.
                (false, false) if first => return Some(Bytes::from_static(b"event: changed\ndata: \n\n")),
                (false, false) => {}
            }
            tokio::select! {
                changed = self.bell.changed() => drop(changed),
                () = tokio::time::sleep(LOOK_EVERY) => continue,
                _ = self.stop.wait_for(|stop| *stop != Stop::No) => return None,
                () = tokio::time::sleep_until(quiet) => return Some(Bytes::from_static(b": \n\n")),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn mark(&self) -> Option<Mark> {
        let app = &self.server.app;
        let status = app.store().thread(&self.thread).await.ok()??.status;
        let open = app.store().interrupts(Some(&self.thread), true).await.ok()?.len();
        Some((app.database().last_event(&self.thread).await.ok()?, status, open))
    }
}
