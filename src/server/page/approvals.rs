//! What waits for a person.

use askama::Template;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};

use super::Shown;
use super::frame::{Frame, Live, Place, Visitor};
use super::words::{When, count, short};
use crate::app::OpenQuestion;

/// Between two looks, in milliseconds.
const EVERY_MS: u32 = 3_000;
/// Longest text of a question in a list.
const ABOUT_CHARS: usize = 120;

#[derive(Template)]
#[template(path = "approvals.html")]
struct ApprovalsPage {
    frame: Frame,
    open: Vec<QuestionLine>,
}

/// A question in a list.
pub(super) struct QuestionLine {
    pub id: String,
    pub about: String,
    /// What kind of question, in words.
    pub kind: String,
    pub asked: When,
    pub expires: Option<When>,
    pub thread: String,
    pub short_thread: String,
}

impl QuestionLine {
    /// Of an open question.
    pub fn of(question: &OpenQuestion, now: DateTime<Utc>) -> Self {
        let asked = &question.interrupt;
        let (about, kind) = match &question.approval {
            Some(approval) => {
                let failed = approval.evidence.checks.iter().filter(|check| !check.passed).count();
                let checks = match (approval.evidence.checks.len(), failed) {
                    (0, _) => "no checks yet".to_owned(),
                    (all, 0) => format!("✓ {} passed", count(all, "check", "checks")),
                    (_, failed) => format!("✗ {} failed", count(failed, "check", "checks")),
                };
                (format!("Release {} {}", approval.model, approval.version), checks)
            }
            None => (about(&asked.value), format!("node {}", asked.key.node)),
        };
        Self {
            id: asked.id.to_string(),
            about,
            kind,
            asked: When::at(asked.asked_at, now),
            expires: asked.expires_at.map(|at| When::at(at, now)),
            short_thread: short(asked.thread.as_str(), 13),
            thread: asked.thread.to_string(),
        }
    }
}

/// A question of a workflow, in a line.
pub(super) fn about(value: &serde_json::Value) -> String {
    let text = ["question", "prompt", "text", "title"].iter().find_map(|key| value.get(key)?.as_str());
    let text = text.or(value.as_str()).map_or_else(|| value.to_string(), str::to_owned);
    short(&text, ABOUT_CHARS)
}

/// The open questions.
pub(in crate::server) async fn list(visitor: Visitor) -> Shown {
    let open = visitor.open_questions().await?;
    let mut frame = visitor.frame_with(Place::Approvals, "Approvals", Live::Every(EVERY_MS), open.len());
    frame.says = count(open.len(), "decision waits", "decisions wait");
    let open = open.iter().map(|question| QuestionLine::of(question, visitor.now)).collect();
    visitor.shown(StatusCode::OK, &ApprovalsPage { frame, open })
}
