//! What commands say: data to stdout (text for people, JSON for machines), errors as three lines to stderr.

use std::io::{IsTerminal, Write};

use serde::Serialize;

use super::Exit;
use crate::app::error_document;
use crate::graph::{Failure, ThreadId};

/// Where a command's words go.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    json: bool,
}

impl Out {
    /// For machines (`json`) or for people.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether machines read it.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// The command's result: the value for machines, the text for people.
    pub fn data<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) {
        let shown = if self.json { pretty(value) } else { text() };
        let mut stdout = std::io::stdout().lock();
        // A closed pipe is the reader's business.
        let _ = writeln!(stdout, "{}", shown.trim_end_matches('\n'));
    }

    /// Something for people beside the result.
    pub fn note(self, text: &str) {
        if !self.json {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }

    /// The end of a command that failed.
    pub fn failed(self, failure: &Failure, thread: Option<&ThreadId>) -> Exit {
        self.failed_as(failure, thread, Exit::of(failure))
    }

    /// The end of a command that failed, with an exit code of its own.
    pub fn failed_as(self, failure: &Failure, thread: Option<&ThreadId>, exit: Exit) -> Exit {
        if self.json {
            let mut stdout = std::io::stdout().lock();
            let _ = writeln!(stdout, "{}", pretty(&error_document(failure, thread)));
        } else {
            let _ = write!(std::io::stderr().lock(), "{}", lines(failure, thread));
        }
        exit
    }
}

/// Indented JSON.
pub fn pretty<T: Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value)
        .unwrap_or_else(|e| format!("{{\"error\":{{\"code\":\"not_json\",\"message\":\"{e}\"}}}}"))
}

/// What happened, why, what to do next.
fn lines(failure: &Failure, thread: Option<&ThreadId>) -> String {
    let red = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (on, off) = if red { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    let mut text = format!("{on}error{off}: {}\n", failure.message);
    if let Some(cause) = &failure.cause {
        let indented: Vec<String> = cause.trim_end().lines().map(|line| format!("         {line}")).collect();
        text.push_str(&format!("   why: {}\n", indented.join("\n").trim_start()));
    }
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("  next: {hint}\n"));
    }
    let place = failure.node.as_ref().map(|node| format!(", in {node}")).unwrap_or_default();
    let thread = thread.map(|id| format!(", thread {id}")).unwrap_or_default();
    text.push_str(&format!("        ({}{place}{thread})\n", failure.code));
    text
}
