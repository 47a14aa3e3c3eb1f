//! What commands say: data to stdout (text for people, JSON for machines), errors as three lines to stderr.

use std::io::{ErrorKind, IsTerminal, Write};

use serde::Serialize;

use super::{Exit, Failed};
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

    /// The command's result: the value for machines, the text for people. Whoever reads nothing of it must not be told that all is well.
    pub fn data<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) -> Result<(), Failed> {
        let shown = if self.json { pretty(value) } else { visible(&text()) };
        printed(print(&shown)).map_err(|failure| (failure.hint("mend where the output goes, then repeat it"), None))
    }

    /// The result of a run. What cannot be printed has happened all the same.
    pub fn data_of<T: Serialize>(
        self,
        thread: &ThreadId,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failed> {
        let shown = if self.json { pretty(value) } else { visible(&text()) };
        let hint = || format!("do not repeat it: `tidegate run show {thread}` has the result");
        printed(print(&shown)).map_err(|failure| (failure.hint(hint()), Some(thread.clone())))
    }

    /// Something for people beside the result.
    pub fn note(self, text: &str) {
        if !self.json {
            let _ = writeln!(std::io::stderr().lock(), "{}", visible(text));
        }
    }

    /// Warnings, for people, beside the result: each with its place, its line and its mend.
    pub fn warn(self, warnings: &[Failure]) {
        for warning in warnings {
            let cause = warning.cause.iter().flat_map(|cause| cause.lines()).map(|line| format!("\n   {line}"));
            let hint = warning.hint.iter().map(|hint| format!("\n   -> {hint}"));
            let rest: String = cause.chain(hint).collect();
            self.note(&format!("warning: {} ({}){rest}", warning.message, warning.code));
        }
    }

    /// The end of a command that failed.
    pub fn failed(self, failure: &Failure, thread: Option<&ThreadId>) -> Exit {
        self.failed_as(failure, thread, Exit::of(failure))
    }

    /// The end of a command that failed, with an exit code of its own.
    pub fn failed_as(self, failure: &Failure, thread: Option<&ThreadId>, exit: Exit) -> Exit {
        // An error that stdout does not take is still an error: then people's words, on stderr.
        let told = self.json && printed(print(&pretty(&error_document(failure, thread)))).is_ok();
        if !told {
            let _ = write!(std::io::stderr().lock(), "{}", lines(failure, thread));
        }
        exit
    }
}

/// Text that may come from anywhere, for a terminal: control characters but new lines and tabs are shown instead of obeyed, and so are
/// those that turn the direction of writing, which hide what is there.
pub(super) fn visible(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if (c.is_control() && c != '\n' && c != '\t') || turns(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", text.trim_end_matches('\n'))?;
    // Else the last of it would fail where nobody looks, at the end of the process.
    stdout.flush()
}

/// What became of writing to stdout. A closed pipe is the reader's business.
pub fn printed(wrote: std::io::Result<()>) -> Result<(), Failure> {
    match wrote {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new("stdout_unwritable", "the result cannot be written to standard output")
                .because(error.to_string()))
        }
        Ok(()) | Err(_) => Ok(()),
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
    let mut text = format!("{}\n", failure.message);
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
    format!("{on}error{off}: {}", visible(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_moves_no_cursor() {
        let failure = Failure::new("odd", "a\u{1b}[2Jb\u{9b}31mc\r\u{7}").because("one\n\ttwo\u{202e}ä").hint("\u{0}");
        let told = lines(&failure, None);
        assert!(told.contains("a\\u{1b}[2Jb\\u{9b}31mc\\r\\u{7}\n"), "{told}");
        assert!(told.contains("two\\u{202e}ä") && told.contains("\\u{0}"), "{told}");
        assert_eq!(visible("a\n\tä…"), "a\n\tä…");
    }
}
