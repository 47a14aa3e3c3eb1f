//! The writer's memory of each line's newest checkpoint, so that a commit writes changes without reading.

use std::collections::HashMap;
use std::sync::Arc;

use crate::graph::{Checkpoint, Name};

/// Which line: the thread's number and the namespace.
pub(super) type LineKey = (i64, Name);

/// What is known of a line.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// Its row.
    pub id: i64,
    /// Its newest checkpoint.
    pub last: Option<Arc<Checkpoint>>,
    /// Size of the newest snapshot's row.
    pub base_bytes: usize,
    /// Size of the rows since.
    pub delta_bytes: usize,
    /// Whether results or attempts may be kept for it.
    pub partials: bool,
    /// When it was last known to be what the file holds; see [`Lines::foreign_write`].
    pub generation: u64,
}

/// A cache in three layers: what is committed, what the batch has written, what the running request has written.
#[derive(Default)]
pub(super) struct Lines {
    committed: HashMap<LineKey, (Line, u64)>,
    batch: HashMap<LineKey, Line>,
    request: HashMap<LineKey, Line>,
    generation: u64,
    clock: u64,
    bytes: usize,
}

impl Lines {
    /// As many threads as one process advances at once, several times over.
    const MOST: usize = 256;
    /// What the states may take, measured by their rows; a larger single state is not kept and costs a read per commit.
    const MOST_BYTES: usize = 64 << 20;

    /// Another connection has written: every line must be held against the file before it is used again.
    pub fn foreign_write(&mut self) {
        self.generation += 1;
    }

    /// The current generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A line as the running request sees it.
    pub fn get(&self, key: &LineKey) -> Option<&Line> {
        self.request.get(key).or_else(|| self.batch.get(key)).or_else(|| self.committed.get(key).map(|(line, _)| line))
    }

    /// Sets a line for the running request.
    pub fn put(&mut self, key: LineKey, line: Line) {
        self.request.insert(key, line);
    }

    /// The request stays.
    pub fn keep_request(&mut self) {
        self.batch.extend(self.request.drain());
    }

    /// The request was rolled back.
    pub fn drop_request(&mut self) {
        self.request.clear();
    }

    /// The batch was committed.
    pub fn keep_batch(&mut self) {
        self.keep_request();
        for (key, line) in std::mem::take(&mut self.batch) {
            self.clock += 1;
            self.bytes += weight(&line);
            if let Some((old, _)) = self.committed.insert(key, (line, self.clock)) {
                self.bytes -= weight(&old);
            }
        }
        while self.committed.len() > Self::MOST || self.bytes > Self::MOST_BYTES {
            let oldest = self.committed.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            let Some((line, _)) = oldest.and_then(|key| self.committed.remove(&key)) else { break };
            self.bytes -= weight(&line);
        }
    }

    /// The batch was rolled back.
    pub fn drop_batch(&mut self) {
        self.request.clear();
        self.batch.clear();
    }
}

fn weight(line: &Line) -> usize {
    line.base_bytes + line.delta_bytes
}
