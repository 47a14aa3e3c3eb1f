//! Streams of server-sent events: read from the record at the reader's pace, woken by the thread's bell. Nothing of a run waits for them.

use std::collections::{BTreeMap, HashMap, VecDeque};
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
use super::execute::Cancel;
use super::project::{Part, PartId, Projection, Spoken, Wanted, speaks_of};
use crate::app::ServedRun;
use crate::graph::{Checkpoint, EventRow, Interrupt, Name, Stop, StoreError};

/// Events that are read at once: what a slow reader makes this process hold is the parts of these.
const BATCH: usize = 64;
/// So often a quiet stream says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often the record is looked at beside the bell: another process may have written it.
const LOOK_EVERY: Duration = Duration::from_millis(500);

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
        cursor: None,
        projection: None,
        lines: HashMap::new(),
        ready: VecDeque::new(),
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
    /// The newest event that was heard; `None`: the run has not begun.
    cursor: Option<u64>,
    projection: Option<Projection>,
    /// Checkpoints that were read already.
    lines: HashMap<Name, Vec<Checkpoint>>,
    ready: VecDeque<Bytes>,
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
            match self.read().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    // The reader comes again with the id that it has seen last.
                    tracing::warn!(run = self.run.id, "a stream breaks off: {}", error.detail);
                    (self.done, self.broken) = (true, true);
                    return None;
                }
            }
            tokio::select! {
                changed = self.bell.changed() => drop(changed),
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = self.stop.wait_for(|stop| *stop != Stop::No) => (self.done, self.broken) = (true, true),
                () = tokio::time::sleep_until(quiet) => return Some(Bytes::from_static(b": heartbeat\r\n\r\n")),
            }
        }
    }

    /// Reads on in the record. False: there is nothing new.
    async fn read(&mut self) -> Answer<bool> {
        // Before the events: then everything up to its end is there.
        let Some(now) = self.server.app.database().api_run(&self.run.id).await? else {
            self.done = true;
            return Ok(true);
        };
        let Some(first) = now.first else {
            // It waits in its queue; one that was stopped there says nothing.
            self.done = now.status.is_over();
            if self.done && self.cursor.is_none() {
                self.begin(&now).await?;
            }
            return Ok(self.done);
        };
        let news = self.cursor.is_none();
        if news {
            self.begin(&now).await?;
        }
        let cursor = self.cursor.unwrap_or(first);
        let store = self.server.app.store().clone();
        let mut events = match store.events(&now.thread, cursor, BATCH).await {
            Err(StoreError::NoThread(_)) => Vec::new(),
            events => events?,
        };
        events.retain(|row| now.last.is_none_or(|last| row.seq <= last));
        let heard = events.last().map_or(cursor, |row| row.seq);
        let asked = if events.is_empty() { Vec::new() } else { store.interrupts(Some(&now.thread), false).await? };
        self.hear(&events, &asked).await?;
        self.cursor = Some(heard);
        if now.status.is_over() && now.last.is_none_or(|last| heard >= last || events.is_empty()) {
            if let Some(projection) = &mut self.projection {
                projection.end(&now);
            }
            self.show();
            self.done = true;
        }
        Ok(news || !events.is_empty() || self.done)
    }

    async fn begin(&mut self, run: &ServedRun) -> Answer<()> {
        let first = run.first.unwrap_or(0);
        let standing = if first == 0 { Vec::new() } else { self.standing(run, first).await? };
        let projection = Projection::new(run.clone(), self.told.wanted.clone(), standing);
        if self.told.after.is_none() {
            let beginning = self.text(&projection.beginning());
            self.ready.push_back(beginning);
        }
        self.projection = Some(projection);
        self.cursor = Some(first);
        Ok(())
    }

    /// Where the root stood when the run began, and the graphs inside the tasks that were due there.
    async fn standing(&self, run: &ServedRun, first: u64) -> Answer<Vec<Checkpoint>> {
        let store = self.server.app.store();
        let events = match store.events(&run.thread, 0, usize::try_from(first).unwrap_or(usize::MAX)).await {
            Err(StoreError::NoThread(_)) => return Ok(Vec::new()),
            events => events?,
        };
        let mut newest: BTreeMap<Name, Spoken> = BTreeMap::new();
        for spoken in events.iter().filter(|row| row.seq <= first).filter_map(speaks_of) {
            newest.insert(spoken.ns.clone(), spoken);
        }
        let mut standing: Vec<Checkpoint> = Vec::new();
        // The root's name is empty: it comes first.
        for (ns, spoken) in newest {
            let due = |root: &Checkpoint| root.frontier.iter().any(|task| ns.starts_with(&format!("{}:", task.node)));
            if !ns.is_empty() && !standing.first().is_some_and(due) {
                continue;
            }
            let latest = store.latest(&run.thread, &ns).await?;
            let found = match latest.as_ref().and_then(|latest| spoken.find(std::slice::from_ref(latest))) {
                Some(found) => Some(found),
                None => spoken.find(&store.history(&run.thread, &ns).await?),
            };
            standing.extend(found);
        }
        Ok(standing)
    }

    async fn hear(&mut self, events: &[EventRow], asked: &[Interrupt]) -> Answer<()> {
        for row in events {
            let checkpoint = match speaks_of(row) {
                Some(spoken) => self.checkpoint(&spoken).await?,
                None => None,
            };
            if let Some(projection) = &mut self.projection {
                projection.hear(row, checkpoint, asked);
            }
        }
        self.lines.clear();
        self.show();
        Ok(())
    }

    async fn checkpoint(&mut self, spoken: &Spoken) -> Answer<Option<Checkpoint>> {
        if let Some(found) = self.lines.get(&spoken.ns).and_then(|line| spoken.find(line)) {
            return Ok(Some(found));
        }
        let store = self.server.app.store();
        let latest = store.latest(&self.run.thread, &spoken.ns).await?;
        if let Some(found) = latest.as_ref().and_then(|latest| spoken.find(std::slice::from_ref(latest))) {
            return Ok(Some(found));
        }
        let line = store.history(&self.run.thread, &spoken.ns).await?;
        let found = spoken.find(&line);
        self.lines.insert(spoken.ns.clone(), line);
        Ok(found)
    }

    /// Makes what was told ready to be sent.
    fn show(&mut self) {
        let Some(projection) = &mut self.projection else { return };
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
            if let Err(failure) = server.executor.cancel(&run, Cancel::Interrupt).await {
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
