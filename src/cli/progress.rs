//! Live lines in a terminal, nothing when piped. Sees events only.

use std::io::{IsTerminal, Write as _};
use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, Utc};
use indicatif::{ProgressBar, ProgressStyle};

use super::out::visible;
use crate::graph::{Event, EventSink, ThreadId, ThreadStatus};

/// Longest line of progress that is shown.
const MAX_LINE: usize = 100;

/// Shows which node runs and what it says.
pub struct Live {
    bar: Mutex<Option<ProgressBar>>,
    on: bool,
}

impl Live {
    /// Shows nothing unless stderr is a terminal and people read it.
    pub fn new(json: bool) -> Self {
        Self { bar: Mutex::new(None), on: !json && std::io::stderr().is_terminal() }
    }

    fn start(&self, node: &str) {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(visible(node));
        bar.enable_steady_tick(Duration::from_millis(120));
        self.replace(Some(bar));
    }

    fn replace(&self, bar: Option<ProgressBar>) {
        let mut held = self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(old) = std::mem::replace(&mut *held, bar) {
            old.finish_and_clear();
        }
    }

    fn say(&self, line: &str) {
        let held = self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(bar) = &*held {
            bar.set_message(visible(&line.chars().take(MAX_LINE).collect::<String>()));
        }
    }

    fn end(&self, mark: &str, node: &str, duration_ms: Option<u64>) {
        self.replace(None);
        let took = duration_ms.map(|ms| format!("{:>8.1} s", seconds(ms))).unwrap_or_default();
        told(&format!("{mark} {:<22}{took}", visible(node)));
    }
}

/// A terminal that has gone hears nothing, and the run goes on: `eprintln!` would panic.
fn told(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

impl EventSink for Live {
    fn event(&self, _thread: &ThreadId, _at: DateTime<Utc>, event: &Event) {
        if !self.on {
            return;
        }
        match event {
            Event::NodeStarted { node, .. } => self.start(node),
            Event::NodeFinished { node, duration_ms, .. } => self.end("✔", node, Some(*duration_ms)),
            Event::NodeFailed { node, retry_in_ms: Some(ms), failure, .. } => {
                self.end("↻", node, None);
                told(&format!("  {}; again in {:.1} s", visible(&failure.message), seconds(*ms)));
            }
            Event::NodeFailed { node, .. } => self.end("✘", node, None),
            Event::UndoStarted { .. } => {
                self.replace(None);
                told("↩ undoing what was done");
            }
            Event::EffectUndone { effect, .. } => told(&format!("  undone: {}", visible(effect))),
            Event::Interrupted { .. } => self.replace(None),
            Event::Custom { name, data, .. } if name == "progress" => self.say(data.as_str().unwrap_or_default()),
            Event::EffectIntended { effect, .. } => self.say(effect),
            Event::Cached { node, .. } => self.end("✔", node, None),
            Event::StatusChanged { status: ThreadStatus::Sleeping, .. } => {
                self.replace(None);
                told("… sleeps");
            }
            Event::Accepted { .. }
            | Event::Advancing { .. }
            | Event::Checkpointed { .. }
            | Event::EffectDone { .. }
            | Event::EffectFailed { .. }
            | Event::UndoFailed { .. }
            | Event::UndoAccepted { .. }
            | Event::Answered { .. }
            | Event::Voted { .. }
            | Event::StopAsked { .. }
            | Event::Signalled { .. }
            | Event::Woke { .. }
            | Event::Forked { .. }
            | Event::Migrated { .. }
            | Event::CommitPoint { .. }
            | Event::Imported { .. }
            | Event::StatusChanged { .. }
            | Event::Custom { .. }
            | Event::Wrote { .. }
            | Event::Unknown => {}
        }
    }
}

/// Milliseconds as seconds, for people.
pub fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}
