//! A slot's log file: appended to by its processes, rotated by us, read from its end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::ports::{ADDRESS_TAKEN, STARTED_ANEW};

/// Rotated files kept beside the current one.
const KEPT: u32 = 3;
/// Lines in which a process that could not start says why.
const START_LINES: usize = 200;
/// As much of a log's end as is ever read: some ten thousand lines.
const MAX_TAIL_BYTES: u64 = 2 * 1024 * 1024;

/// Opens a log for a process. In append mode, so that truncating it under the process works.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Sets what the next process says apart from what those before it said.
pub(crate) fn begin_anew(mut log: &File) -> io::Result<()> {
    // On a line of its own, also after a process that was killed in the middle of one.
    log.write_all(format!("\n{STARTED_ANEW}\n").as_bytes())
}

fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

/// Copies the log to `.1` and truncates it when it is larger than `max_bytes`; older ones move up, the oldest goes.
///
/// Copy and truncate rather than rename: the process keeps the file open and would go on writing into the renamed one. What is
/// written between copy and truncation is lost; a few lines at most, once per `max_bytes`.
pub(crate) fn rotate(path: &Path, max_bytes: u64) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() > max_bytes => {}
        Ok(_) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    }
    for n in (1..KEPT).rev() {
        match std::fs::rename(numbered(path, n), numbered(path, n + 1)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    let copied = std::fs::copy(path, numbered(path, 1)).map(|_| ());
    // Also when copying failed: a full disk is freed by nothing else.
    OpenOptions::new().write(true).open(path)?.set_len(0)?;
    copied
}

/// The last `lines` lines, oldest first; bytes that are not UTF-8 are replaced. A missing log has none.
pub(crate) fn tail(path: &Path, lines: usize) -> io::Result<Vec<String>> {
    let mut text = tail_bytes(path)?;
    if text.iter().filter(|byte| **byte == b'\n').count() < lines {
        // Just rotated: the rest is in the file before.
        let mut earlier = tail_bytes(&numbered(path, 1))?;
        earlier.append(&mut text);
        text = earlier;
    }
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    Ok(all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect())
}

/// Whether the newest process says that an address which it wanted was taken.
pub(crate) fn tells_of_taken_address(path: &Path) -> io::Result<bool> {
    let lines = tail(path, START_LINES)?;
    let of_this_start = lines.iter().rev().take_while(|line| *line != STARTED_ANEW);
    Ok(of_this_start.into_iter().any(|line| line.to_lowercase().contains(ADDRESS_TAKEN)))
}

fn tail_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(MAX_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotates_under_an_open_writer_and_keeps_three() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slot.log");
        let mut writer = open(&path).unwrap();
        for round in 0..6 {
            writeln!(writer, "round {round} {}", "x".repeat(50)).unwrap();
            rotate(&path, 20).unwrap();
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        let kept = |n| std::fs::read_to_string(numbered(&path, n)).unwrap();
        assert!(kept(1).starts_with("round 5") && kept(2).starts_with("round 4") && kept(3).starts_with("round 3"));
        assert!(!numbered(&path, 4).exists());
        writeln!(writer, "after").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after\n");
        assert_eq!(tail(&path, 2).unwrap().last().unwrap(), "after");
        assert_eq!(tail(&path, 2).unwrap().len(), 2);
    }

    #[test]
    fn only_the_newest_start_tells_of_a_taken_address() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slot.log");
        assert!(!tells_of_taken_address(&path).unwrap());
        let mut log = open(&path).unwrap();
        writeln!(log, "zmq.error.ZMQError: Address already in use (addr='tcp://127.0.0.1:36801')\nexiting").unwrap();
        assert!(tells_of_taken_address(&path).unwrap());
        begin_anew(&log).unwrap();
        writeln!(log, "ValueError: no such model").unwrap();
        assert!(!tells_of_taken_address(&path).unwrap());
    }

    #[test]
    fn tail_of_nothing_is_nothing() {
        assert!(tail(Path::new("/nonexistent/log"), 5).unwrap().is_empty());
    }
}
