//! What a program says, line by line, with its secrets taken out.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::ports::Secrets;

/// Lines kept for a failure's cause: enough for a traceback, and still readable.
const TAIL_LINES: usize = 30;
/// A longer line is cut: a progress bar without line breaks must not fill the memory.
const LINE_BYTES: usize = 2048;
/// So much is gathered before a line is cleaned and cut, so that no secret is cut in two before it is found.
const GATHER_BYTES: usize = 8 * LINE_BYTES;

/// Cuts bytes into lines, cleans them, hands them on and keeps the last ones.
pub(super) struct Lines {
    partial: Vec<u8>,
    tail: VecDeque<String>,
    to: mpsc::Sender<String>,
    secrets: Secrets,
}

impl Lines {
    pub fn new(to: mpsc::Sender<String>, secrets: Secrets) -> Self {
        Self { partial: Vec::new(), tail: VecDeque::new(), to, secrets }
    }

    pub fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                _ if self.partial.len() < GATHER_BYTES => self.partial.push(byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        let mut line = String::from_utf8_lossy(&self.partial).trim_end().to_owned();
        self.partial.clear();
        self.secrets.clean(&mut line);
        cut(&mut line, LINE_BYTES);
        // Lines that nobody has looked at yet may be lost; the program must not wait for a slow terminal.
        let _ = self.to.try_send(line.clone());
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    /// The last lines that are not empty, as one text.
    pub fn tail(&mut self) -> String {
        if !self.partial.is_empty() {
            self.end_line();
        }
        let lines: Vec<&str> = self.tail.iter().map(String::as_str).filter(|line| !line.is_empty()).collect();
        lines.join("\n")
    }
}

/// Cuts a text to at most so many bytes, at a character's boundary, and says so.
pub(super) fn cut(text: &mut String, most: usize) {
    if text.len() <= most {
        return;
    }
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    text.push('…');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cleaned_before_they_are_cut() {
        let (to, mut said) = mpsc::channel(8);
        let secrets = Secrets::new(vec![("KEY".into(), "sekrit-value".into())]);
        let mut lines = Lines::new(to, secrets);
        lines.take(b"one sek");
        lines.take(b"rit-value\r\n\n\xff\xf0\x9f\n");
        lines.take("ü".repeat(2000).as_bytes());
        assert_eq!(said.try_recv().unwrap(), "one [KEY]");
        let tail = lines.tail();
        assert!(tail.starts_with("one [KEY]\n\u{fffd}") && tail.ends_with("ü…"), "{tail}");
        assert!(tail.len() < LINE_BYTES + 100);
    }
}
