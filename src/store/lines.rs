//! The writer's memory: each line's newest checkpoint, so that a commit writes changes without reading, and each thread's head.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::threads::Head;
use crate::graph::{Checkpoint, Name, ThreadId};

/// Which line: the thread's number and the namespace.
pub(super) type LineKey = (i64, Name);

/// What is known of a line.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// Its row.
    pub id: i64,
    /// Number of its newest row; 0: it has none.
    pub rows: i64,
    /// Its newest checkpoint.
    pub last: Option<Arc<Checkpoint>>,
    /// Size of the newest snapshot's row.
    pub base_bytes: usize,
    /// Size of the rows since.
    pub delta_bytes: usize,
    /// About the size of the newest state.
    pub state_bytes: usize,
    /// Whether results or attempts may be kept for it.
    pub partials: bool,
    /// When it was last known to be what the file holds; see [`Lines::foreign_write`].
    pub generation: u64,
}

/// What is known, as of a generation.
#[derive(Default)]
pub(super) struct Lines {
    lines: Layers<LineKey, Line>,
    heads: Layers<ThreadId, (Head, u64)>,
    generation: u64,
    hints: Hints,
    /// Room for a row's text.
    pub text: Vec<u8>,
}

/// Lines as readers saw them: a run has just read what its first commit builds on. To be held against the file.
#[derive(Default, Clone)]
pub(super) struct Hints(Arc<Mutex<HashMap<LineKey, Line>>>);

impl Hints {
    fn lines(&self) -> MutexGuard<'_, HashMap<LineKey, Line>> {
        // Nothing panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was read of a line.
    pub fn give(&self, key: LineKey, line: Line) {
        let mut lines = self.lines();
        if lines.len() >= MOST {
            // Runs that were read and never went on.
            lines.clear();
        }
        lines.insert(key, line);
    }
}

/// As many threads as one process advances at once, several times over.
const MOST: usize = 256;
/// A larger row's text is not kept as room for the next one.
const MOST_TEXT_BYTES: usize = 1 << 20;
/// What the states may take, measured by their rows; a larger single state is not kept and costs a read per commit.
const MOST_BYTES: usize = 64 << 20;

impl Lines {
    /// Nothing is known but what readers will hint at.
    pub fn new(hints: Hints) -> Self {
        Self { hints, ..Self::default() }
    }

    /// What a reader saw of the line; once.
    pub fn hint(&self, key: &LineKey) -> Option<Line> {
        self.hints.lines().remove(key)
    }

    /// Another connection has written: everything must be held against the file before it is used again.
    pub fn foreign_write(&mut self) {
        self.generation += 1;
    }

    /// Threads were removed, of these ids and numbers: others may get their numbers.
    pub fn forget(&mut self, gone: &HashMap<ThreadId, i64>) {
        let numbers: HashSet<i64> = gone.values().copied().collect();
        self.lines.forget(|(of, _)| numbers.contains(of), |line| line.base_bytes + line.delta_bytes);
        self.heads.forget(|of| gone.contains_key(of), |_| 0);
        self.hints.lines().retain(|(of, _), _| !numbers.contains(of));
    }

    /// The current generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A line as the running request sees it.
    pub fn get(&self, key: &LineKey) -> Option<&Line> {
        self.lines.get(key)
    }

    /// Sets a line for the running request.
    pub fn put(&mut self, key: LineKey, line: Line) {
        self.lines.request.insert(key, line);
    }

    /// A row's text was written; the next one may have its room.
    pub fn take_back(&mut self, text: Vec<u8>) {
        if text.capacity() <= MOST_TEXT_BYTES {
            self.text = text;
        }
    }

    /// A thread's head as the running request sees it, unless the file may have another.
    pub fn head(&self, thread: &ThreadId) -> Option<Head> {
        let (head, generation) = self.heads.get(thread)?;
        (*generation == self.generation).then_some(*head)
    }

    /// Sets a thread's head for the running request.
    pub fn put_head(&mut self, thread: &ThreadId, head: Head) {
        self.heads.request.insert(thread.clone(), (head, self.generation));
    }

    /// The request stays.
    pub fn keep_request(&mut self) {
        self.lines.keep_request();
        self.heads.keep_request();
    }

    /// The request was rolled back.
    pub fn drop_request(&mut self) {
        self.lines.request.clear();
        self.heads.request.clear();
    }

    /// The batch was committed.
    pub fn keep_batch(&mut self) {
        self.keep_request();
        self.lines.keep_batch(|line| line.base_bytes + line.delta_bytes);
        self.heads.keep_batch(|_| 0);
    }

    /// The batch was rolled back.
    pub fn drop_batch(&mut self) {
        self.drop_request();
        self.lines.batch.clear();
        self.heads.batch.clear();
    }
}

/// A cache in three layers: what is committed, what the batch has written, what the running request has written.
struct Layers<K, V> {
    committed: HashMap<K, (V, u64)>,
    batch: HashMap<K, V>,
    request: HashMap<K, V>,
    clock: u64,
    bytes: usize,
}

impl<K, V> Default for Layers<K, V> {
    fn default() -> Self {
        Self { committed: HashMap::new(), batch: HashMap::new(), request: HashMap::new(), clock: 0, bytes: 0 }
    }
}

impl<K: Hash + Eq + Clone, V> Layers<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.request
            .get(key)
            .or_else(|| self.batch.get(key))
            .or_else(|| self.committed.get(key).map(|(value, _)| value))
    }

    fn keep_request(&mut self) {
        self.batch.extend(self.request.drain());
    }

    fn forget(&mut self, is: impl Fn(&K) -> bool, weight: fn(&V) -> usize) {
        self.request.retain(|key, _| !is(key));
        self.batch.retain(|key, _| !is(key));
        let bytes = &mut self.bytes;
        self.committed.retain(|key, (value, _)| {
            let stays = !is(key);
            *bytes -= if stays { 0 } else { weight(value) };
            stays
        });
    }

    /// Forgets what was used longest ago where it is too much.
    fn keep_batch(&mut self, weight: fn(&V) -> usize) {
        for (key, value) in self.batch.drain() {
            self.clock += 1;
            self.bytes += weight(&value);
            if let Some((old, _)) = self.committed.insert(key, (value, self.clock)) {
                self.bytes -= weight(&old);
            }
        }
        while self.committed.len() > MOST || self.bytes > MOST_BYTES {
            let oldest = self.committed.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            let Some((value, _)) = oldest.and_then(|key| self.committed.remove(&key)) else { break };
            self.bytes -= weight(&value);
        }
    }
}
