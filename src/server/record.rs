//! A run's record, read forward once: its events in portions that are bounded in number and in bytes, and the checkpoints that they speak of.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Server;
use super::error::Answer;
use super::project::speaks_of;
use crate::app::{Place, Spoken, Went};
use crate::graph::{EventRow, Name, ThreadId};

/// Events that are read at once.
const BATCH: usize = 64;
/// A portion ends with the commit that makes it as large as this: what a reader makes this process hold is one portion, a state, and the
/// parts of one event.
const BATCH_BYTES: usize = 256 * 1024;

/// Where a reader is in a thread's record.
pub(super) struct Record {
    server: Arc<Server>,
    thread: ThreadId,
    /// The newest event that was heard.
    pub heard: u64,
    waiting: VecDeque<EventRow>,
}

impl Record {
    /// From behind an event.
    pub fn behind(server: Arc<Server>, thread: ThreadId, heard: u64) -> Self {
        Self { server, thread, heard, waiting: VecDeque::new() }
    }

    /// The next event of those that were read.
    pub fn next(&mut self) -> Option<EventRow> {
        let row = self.waiting.pop_front()?;
        self.heard = row.seq;
        Some(row)
    }

    /// Reads on, at most to the event `last`. False: there is nothing new.
    pub async fn read(&mut self, last: Option<u64>) -> Answer<bool> {
        let database = self.server.app.database();
        let mut events = database.some_events(&self.thread, self.heard, BATCH, BATCH_BYTES).await?;
        events.retain(|row| last.is_none_or(|last| row.seq <= last));
        self.waiting.extend(events);
        Ok(!self.waiting.is_empty())
    }

    /// The checkpoint that is spoken of, and the place that was not gone on from.
    pub async fn go_on(&self, from: Option<Place>, to: Spoken) -> Answer<(Option<Place>, Option<Place>)> {
        Ok(match self.server.app.database().go_on(&self.thread, from, to).await? {
            Went::To(place) => (Some(place), None),
            Went::Nowhere(place) => (None, place),
        })
    }

    /// Where the root stands here, and the graphs inside the tasks that are due there: what was said of them since.
    pub async fn standing(&self) -> Answer<Vec<Place>> {
        let mut newest: BTreeMap<Name, Spoken> = BTreeMap::new();
        let mut upto = self.heard;
        'back: while upto > 0 {
            let commits = self.server.app.database().events_back(&self.thread, upto, BATCH).await?;
            let Some(oldest) = commits.last().and_then(|commit| commit.first()) else { break };
            upto = oldest.seq.saturating_sub(1);
            for spoken in commits.iter().flat_map(|commit| commit.iter().rev()).filter_map(speaks_of) {
                let is_root = spoken.ns.is_empty();
                newest.entry(spoken.ns.clone()).or_insert(spoken);
                if is_root {
                    break 'back;
                }
            }
        }
        let mut standing: Vec<Place> = Vec::new();
        // The root's name is empty: it comes first.
        for (ns, spoken) in newest {
            let due = |root: &Place| root.checkpoint.frontier.iter().any(|t| ns.starts_with(&format!("{}:", t.node)));
            if ns.is_empty() || standing.first().is_some_and(due) {
                standing.extend(self.go_on(None, spoken).await?.0);
            }
        }
        Ok(standing)
    }
}
