//! Streams of server-sent events: read from the record at the reader's pace, woken by the thread's bell. Nothing of a run waits for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Server;
use super::error::{Answer, ApiError};
use super::project::{Part, PartId, Projection, Wanted, speaks_of};
use super::record::Record;
use super::stops::Cancel;
use crate::app::ServedRun;
use crate::graph::{EventRow, Stop};

/// So often a quiet stream says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often the record is looked at though no bell rang: should one be lost, nobody waits for ever.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// How a stream is told.
pub(super) struct Told {
    /// What of it.
    pub wanted: Wanted,
    /// Each part says its id.
    pub ids: bool,
    /// Only what comes behind this part.
    pub after: Option<PartId>,
    /// The run ends when its reader goes away.
    pub ends_with_client: bool,
}

/// The part that a reader has seen last. `0`, `-1` and nothing mean none of them.
pub(super) fn seen(last_event_id: Option<&HeaderValue>) -> Answer<Option<PartId>> {
    let Some(text) = last_event_id.and_then(|id| id.to_str().ok()).filter(|id| !["", "0", "-1"].contains(id)) else {
        return Ok(None);
    };
    let parsed = text.split_once('-').and_then(|(seq, sub)| Some((seq.parse().ok()?, sub.parse().ok()?)));
    parsed.map(Some).ok_or_else(|| ApiError::invalid(format!("`{text}` is no id of this server's events")))
}

/// The stream of a run.
pub(super) async fn follow(server: &Arc<Server>, run: ServedRun, told: Told, location: &str) -> Answer {
    let bell = server.bell.listen(&run.thread);
    let follower = Follower {
        server: server.clone(),
        stop: server.stop.clone(),
        story: None,
        ready: VecDeque::new(),
        idle_until: None,
        done: false,
        broken: false,
        bell,
        run,
        told,
    };
    let body = stream::unfold(follower, |mut follower| async move {
        let chunk = follower.next().await;
        if chunk.is_none() && std::mem::take(&mut follower.broken) {
            // Not the end of the run: who reads on comes again.
            return Some((Err(std::io::Error::other("the stream breaks off")), follower));
        }
        Some((Ok(chunk?), follower))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    located(&mut response, location, "stream");
    Ok(response)
}

/// Where the run is, and where it can be followed again.
pub(super) fn located(response: &mut Response, location: &str, again: &str) {
    let headers = response.headers_mut();
    if let (Ok(run), Ok(again)) = (location.parse(), format!("{location}/{again}").parse()) {
        headers.insert(header::CONTENT_LOCATION, run);
        headers.insert(header::LOCATION, again);
    }
}

struct Follower {
    server: Arc<Server>,
    run: ServedRun,
    told: Told,
    bell: watch::Receiver<u64>,
    stop: watch::Receiver<Stop>,
    /// The run's record and what was told of it; `None`: the run has not begun.
    story: Option<(Record, Projection)>,
    ready: VecDeque<Bytes>,
    /// Nothing is new until a bell rings, or until then.
    idle_until: Option<Instant>,
    done: bool,
    /// It ends before its run does.
    broken: bool,
}

impl Follower {
    async fn next(&mut self) -> Option<Bytes> {
        let quiet = Instant::now() + HEARTBEAT;
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Some(chunk);
            }
            if self.done {
                return None;
            }
            let Some(until) = self.idle_until else {
                match self.read().await {
                    Ok(true) => {}
                    Ok(false) => self.idle_until = Some(Instant::now() + LOOK_EVERY),
                    Err(error) => {
                        // The reader comes again with the id that it has seen last.
                        tracing::warn!(run = self.run.id, "a stream breaks off: {}", error.detail);
                        (self.done, self.broken) = (true, true);
                        return None;
                    }
                }
                continue;
            };
            tokio::select! {
                _ = self.bell.changed() => self.idle_until = None,
                () = tokio::time::sleep_until(until) => self.idle_until = None,
                _ = self.stop.wait_for(|stop| *stop != Stop::No) => (self.done, self.broken) = (true, true),
                () = tokio::time::sleep_until(quiet) => return Some(Bytes::from_static(b": heartbeat\r\n\r\n")),
            }
        }
    }

    /// Tells the next event, or reads on in the record. False: there is nothing new.
    async fn read(&mut self) -> Answer<bool> {
        if let Some((record, _)) = &mut self.story
            && let Some(row) = record.next()
        {
            return self.hear(&row).await.map(|()| true);
        }
        // Before the events: then everything up to its end is there.
        let Some(now) = self.server.app.database().api_run(&self.run.id).await? else {
            self.done = true;
            return Ok(true);
        };
        let Some(first) = now.first else {
            // It waits in its queue; one that was stopped there says nothing.
            self.done = now.status.is_over();
            if self.done && self.story.is_none() {
                self.begin(&now, 0).await?;
            }
            return Ok(self.done);
        };
        if self.story.is_none() {
            self.begin(&now, first).await?;
            return Ok(true);
        }
        let Some((record, projection)) = &mut self.story else { return Ok(false) };
        let is_new = record.read(now.last).await?;
        if now.status.is_over() && !is_new {
            projection.end(&now);
            self.show();
            self.done = true;
        }
        Ok(is_new || self.done)
    }

    async fn begin(&mut self, run: &ServedRun, first: u64) -> Answer<()> {
        let record = Record::behind(self.server.clone(), run.thread.clone(), first);
        let standing = record.standing().await?;
        let projection = Projection::new(run.clone(), self.told.wanted.clone(), self.told.after, standing);
        if self.told.after.is_none() {
            let beginning = self.text(&projection.beginning());
            self.ready.push_back(beginning);
        }
        self.story = Some((record, projection));
        Ok(())
    }

    async fn hear(&mut self, row: &EventRow) -> Answer<()> {
        let Some((record, projection)) = &mut self.story else { return Ok(()) };
        let checkpoint = match speaks_of(row) {
            Some(spoken) => {
                let from = projection.lend(&spoken.ns);
                let (found, back) = record.go_on(from, spoken).await?;
                projection.put_back(back);
                found
            }
            None => None,
        };
        let asked = match projection.needs_questions(row) {
            true => self.server.app.store().interrupts(Some(&self.run.thread), false).await?,
            false => Vec::new(),
        };
        projection.hear(row, checkpoint, &asked);
        self.show();
        Ok(())
    }

    /// Makes what was told ready to be sent.
    fn show(&mut self) {
        let Some((_, projection)) = &mut self.story else { return };
        for part in projection.take() {
            if self.told.after.is_none_or(|after| part.id > after) {
                let text = self.text(&part);
                self.ready.push_back(text);
            }
        }
    }

    fn text(&self, part: &Part) -> Bytes {
        let id = if self.told.ids { format!("id: {}-{}\r\n", part.id.0, part.id.1) } else { String::new() };
        Bytes::from(format!("event: {}\r\ndata: {}\r\n{id}\r\n", part.event, part.data))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if self.done || !self.told.ends_with_client {
            return;
        }
        let (server, run) = (self.server.clone(), self.run.clone());
        tokio::spawn(async move {
            if let Err(failure) = server.executor.cancel(&run, Cancel::Interrupt, &run.body.by).await {
                tracing::warn!(run = run.id, code = failure.code, "{failure}");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_mean_none_and_ids_that_are_none() {
        let of = |text: &'static str| seen(Some(&HeaderValue::from_static(text)));
        assert_eq!((of("0"), of("-1"), of("")), (Ok(None), Ok(None), Ok(None)));
        assert_eq!((of("7-2"), seen(None)), (Ok(Some((7, 2))), Ok(None)));
        assert!(of("x").is_err() && of("1795196816606").is_err());
    }
}
