//! The newest runs.

use askama::Template;
use axum::extract::Query;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::Shown;
use super::frame::{Frame, Live, Place, Visitor};
use super::words::{When, count, short};
use crate::graph::{Thread, ThreadFilter, ThreadStatus, length};

/// Between two looks, in milliseconds.
const EVERY_MS: u32 = 3_000;
/// Most runs that are listed.
const MOST: usize = 100;

/// Which runs.
#[derive(Deserialize)]
pub(in crate::server) struct Which {
    show: Option<String>,
}

#[derive(Template)]
#[template(path = "runs.html")]
struct RunsPage {
    frame: Frame,
    choices: Vec<Choice>,
    runs: Vec<RunLine>,
    /// There are older ones.
    more: bool,
    most: usize,
}

struct Choice {
    word: &'static str,
    name: &'static str,
    current: bool,
}

struct RunLine {
    thread: String,
    short_thread: String,
    what: String,
    status: Status,
    began: When,
    took: String,
    why: String,
}

/// A run's status in words, with its mark: never told by colour alone.
pub(super) struct Status {
    pub class: &'static str,
    pub mark: &'static str,
    pub word: &'static str,
}

impl Status {
    /// Of a thread.
    pub fn of(status: ThreadStatus) -> Self {
        let (class, mark, word) = match status {
            ThreadStatus::Pending => ("now", "○", "pending"),
            ThreadStatus::Running => ("now", "▸", "running"),
            ThreadStatus::Interrupted => ("waits", "?", "waits for a person"),
            ThreadStatus::Sleeping => ("now", "◷", "sleeping"),
            ThreadStatus::Succeeded => ("good", "✓", "succeeded"),
            ThreadStatus::Failed => ("bad", "✗", "failed"),
            ThreadStatus::Cancelled => ("off", "–", "cancelled"),
            ThreadStatus::Stuck => ("bad", "!", "stuck"),
        };
        Self { class, mark, word }
    }
}

/// What a run is about: a release's model, else its workflow.
pub(super) fn what(thread: &Thread) -> String {
    match (thread.labels.get("kind").map(String::as_str), thread.labels.get("model")) {
        (Some("deploy"), Some(model)) => format!("Release of {model}"),
        (Some("rollback"), Some(model)) => format!("Rollback of {model}"),
        _ => format!("Run of {}", thread.workflow),
    }
}

/// How long a run has taken, or takes.
pub(super) fn took(thread: &Thread, now: DateTime<Utc>) -> String {
    let until = if thread.status.is_terminal() { thread.updated_at } else { now };
    length(u64::try_from((until - thread.created_at).num_milliseconds()).unwrap_or(0))
}

fn statuses(word: &str) -> Vec<ThreadStatus> {
    use ThreadStatus::{Cancelled, Failed, Interrupted, Pending, Running, Sleeping, Stuck, Succeeded};
    match word {
        "under-way" => vec![Pending, Running, Sleeping],
        "waiting" => vec![Interrupted, Stuck],
        "ended" => vec![Succeeded],
        "failed" => vec![Failed, Cancelled, Stuck],
        _ => Vec::new(),
    }
}

/// The newest runs, of all kinds or of one.
pub(in crate::server) async fn list(visitor: Visitor, Query(which): Query<Which>) -> Shown {
    let word = which.show.as_deref().unwrap_or("all");
    let filter = ThreadFilter { statuses: statuses(word), label: None, limit: MOST + 1 };
    let mut threads = visitor.server.app.store().threads(&filter).await?;
    let more = threads.len() > MOST;
    threads.truncate(MOST);
    threads.retain(|thread| visitor.sees(&thread.id));
    let mut frame = visitor.frame(Place::Runs, "Runs", Live::Every(EVERY_MS)).await?;
    frame.says = count(threads.iter().filter(|t| !t.status.is_terminal()).count(), "run under way", "runs under way");
    let names = [
        ("all", "All"),
        ("under-way", "Under way"),
        ("waiting", "Waiting"),
        ("ended", "Succeeded"),
        ("failed", "Failed"),
    ];
    let choices = names.map(|(own, name)| Choice { word: own, name, current: own == word });
    let runs = threads.iter().map(|thread| line(thread, visitor.now)).collect();
    visitor.shown(StatusCode::OK, &RunsPage { frame, choices: choices.into(), runs, more, most: MOST })
}

fn line(thread: &Thread, now: DateTime<Utc>) -> RunLine {
    RunLine {
        short_thread: short(thread.id.as_str(), 13),
        thread: thread.id.to_string(),
        what: what(thread),
        status: Status::of(thread.status),
        began: When::at(thread.created_at, now),
        took: took(thread, now),
        why: thread.failure.as_ref().map(|failure| short(&failure.message, 120)).unwrap_or_default(),
    }
}
