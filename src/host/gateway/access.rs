//! The access log, where it is asked for: a line of JSON for each answer, written by a thread of its own. Who carries traffic never waits
//! for it: what the thread cannot take in time is lost, and counted.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::Serialize;

/// A fifth of a second of 40,000 answers a second; each takes a few hundred bytes.
const QUEUE: usize = 8192;

/// One answer. No query and no header: they may hold what belongs in no log.
#[derive(Debug, Default, Serialize)]
pub(super) struct Line {
    pub(super) at: DateTime<Utc>,
    pub(super) request_id: String,
    pub(super) peer: String,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) model: String,
    /// Of the slot that answered; none where the gateway did itself.
    pub(super) version: Option<String>,
    pub(super) slot: Option<String>,
    pub(super) status: u16,
    /// Bytes of the answer's body.
    pub(super) bytes: u64,
    pub(super) duration_ms: f64,
}

/// Where lines go.
#[derive(Debug)]
pub(super) struct AccessLog {
    lines: SyncSender<Line>,
    lost: AtomicU64,
}

impl AccessLog {
    /// Appends to the file from now on; beyond `max_bytes` it becomes `PATH.1`, and the one before that is gone.
    pub(super) fn open(path: PathBuf, max_bytes: u64) -> std::io::Result<Arc<Self>> {
        let file = append(&path)?;
        let (lines, queue) = sync_channel(QUEUE);
        let write = move || write_all(&queue, file, &path, max_bytes);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(write)?;
        Ok(Arc::new(Self { lines, lost: AtomicU64::new(0) }))
    }

    fn say(&self, line: Line) {
        // Said once for each thousand, so that the daemon's log does not become what the access log could not be.
        if self.lines.try_send(line).is_err() && self.lost.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
            tracing::warn!("the access log cannot follow; lines are lost");
        }
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().create(true).append(true).mode(0o600).open(path)
}

fn write_all(queue: &Receiver<Line>, mut file: File, path: &Path, max_bytes: u64) {
    while let Ok(first) = queue.recv() {
        let rotated = match write_some(queue, first, &file).and_then(|()| Ok(file.metadata()?.len())) {
            Ok(len) if len > max_bytes => rotate(path),
            Ok(_) => continue,
            Err(error) => Err(error),
        };
        match rotated {
            Ok(new) => file = new,
            // A full disk: what comes next is tried again.
            Err(error) => tracing::warn!(%error, "cannot write the access log"),
        }
    }
}

fn rotate(path: &Path) -> std::io::Result<File> {
    std::fs::rename(path, path.with_extension("log.1"))?;
    append(path)
}

/// Writes what is there, at most a queue of it, as few large writes.
fn write_some(queue: &Receiver<Line>, first: Line, file: &File) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(64 * 1024, file);
    let mut next = Some(first);
    for _ in 0..QUEUE {
        let Some(line) = next.take() else { break };
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
        next = queue.try_recv().ok();
    }
    if let Some(line) = next {
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// An answer on its way out; its line is written when it is over.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) line: Line,
    started: Instant,
    log: Arc<AccessLog>,
}

impl Entry {
    pub(super) fn new(log: &Arc<AccessLog>, line: Line) -> Box<Self> {
        Box::new(Self { line, started: Instant::now(), log: Arc::clone(log) })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        line.duration_ms = self.started.elapsed().as_secs_f64() * 1000.0;
        self.log.say(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_and_the_file_is_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let (lines, queue) = sync_channel(QUEUE);
        for n in 0..100_u16 {
            lines.send(Line { status: n, path: "/predict".to_owned(), ..Line::default() }).unwrap();
        }
        drop(lines);
        write_all(&queue, append(&path).unwrap(), &path, 1_000);
        let rotated = std::fs::read_to_string(path.with_extension("log.1")).unwrap();
        let statuses = rotated.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        assert!(statuses.map(|line| line["status"].as_u64().unwrap()).eq(0..100));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn nobody_waits_for_a_log_that_cannot_follow() {
        let (lines, _queue) = sync_channel(1);
        let log = Arc::new(AccessLog { lines, lost: AtomicU64::new(0) });
        (0..5).for_each(|_| drop(Entry::new(&log, Line::default())));
        assert_eq!(log.lost.load(Ordering::Relaxed), 4);
    }
}
