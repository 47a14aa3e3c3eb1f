//! Webhooks: whoever is named in the settings is told of what the audit tells, in its order, at least once, signed. Each hook has a task of its
//! own, so that one that is slow holds up nobody else's.
//!
//! What was told is a number in the database, so nothing is lost while nobody is there to tell it, or nobody to hear it. Headers and
//! signature are those of Standard Webhooks 1.0 (<https://www.standardwebhooks.com>).

mod deliver;
mod hook;
mod message;
mod runs;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::App;
use crate::graph::{Failure, InterruptId, Stop};
use crate::ports::SecretSource;
pub use message::Notice;
pub use runs::{RunWebhookSettings, webhook_place};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Most webhooks: each has a task, and a request under way.
pub(super) const MOST_HOOKS: usize = 100;

/// Somebody who is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    /// Its name; how far it was told is kept under it.
    pub name: String,
    /// Where to; or `url_from`, where the address is a secret itself, as Slack's are.
    #[serde(default)]
    pub url: Option<String>,
    /// Where the address stands.
    #[serde(default)]
    pub url_from: Option<SecretSource>,
    /// What the body looks like.
    #[serde(default)]
    pub format: WebhookFormat,
    /// What signs it: `whsec_` with base64, or any text.
    #[serde(default)]
    pub secret: Option<SecretSource>,
    /// Of which events; empty: of all.
    #[serde(default)]
    pub events: Vec<WebhookEvent>,
    /// For whom a message that asks for a decision carries a link with which they decide without a login. Whoever reads the message can decide
    /// in their names.
    #[serde(default)]
    pub links_for: Vec<String>,
}

/// What a body looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WebhookFormat {
    /// The event as JSON.
    #[default]
    Generic,
    /// A message as Slack, and what speaks like it, takes it.
    Slack,
}

/// What a webhook is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WebhookEvent {
    /// A release or a rollback was accepted.
    #[serde(rename = "release.started")]
    Started,
    /// A person is asked.
    #[serde(rename = "approval.requested")]
    Requested,
    /// Nobody has decided for a while.
    #[serde(rename = "approval.reminder")]
    Reminder,
    /// One of several has spoken.
    #[serde(rename = "approval.voted")]
    Voted,
    /// It is decided.
    #[serde(rename = "approval.decided")]
    Decided,
    /// It serves.
    #[serde(rename = "release.succeeded")]
    Succeeded,
    /// It failed, or was cancelled, and was undone.
    #[serde(rename = "release.failed")]
    Failed,
    /// A person must look.
    #[serde(rename = "release.stuck")]
    Stuck,
}

impl WebhookEvent {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Started => "release.started",
            Self::Requested => "approval.requested",
            Self::Reminder => "approval.reminder",
            Self::Voted => "approval.voted",
            Self::Decided => "approval.decided",
            Self::Succeeded => "release.succeeded",
            Self::Failed => "release.failed",
            Self::Stuck => "release.stuck",
        }
    }
}

impl WebhookSettings {
    /// What makes no sense in it.
    pub fn fault(&self) -> Option<String> {
        let sources = self.url_from.iter().chain(&self.secret);
        if let Some(fault) = sources.filter_map(SecretSource::fault).next() {
            return Some(fault.to_owned());
        }
        match (&self.url, &self.url_from) {
            (Some(url), None) if !self.links_for.is_empty() && !deliver::is_private(url) => {
                Some(format!("`{url}` carries links as plain text: they go to https://, or to this machine"))
            }
            (Some(url), None) if url.starts_with("https://") || url.starts_with("http://") => None,
            (Some(url), None) => Some(format!("`{url}` is no http:// or https:// URL")),
            (None, Some(_)) => None,
            _ => Some("it has either `url` or `url_from`".to_owned()),
        }
    }
}

/// Tells webhooks, reminds people of questions and tells of runs that have ended, until it is asked to stop. `base`: where people reach the
/// server.
pub async fn keep_telling(app: Arc<App>, base: String, stop: watch::Receiver<Stop>) {
    let mut tasks = JoinSet::new();
    tasks.spawn(keep_reminding(app.clone(), stop.clone()));
    tasks.spawn(runs::keep_telling(app.clone(), stop.clone()));
    for hook in &app.webhooks {
        tasks.spawn(hook::keep_telling(app.clone(), hook.clone(), base.clone(), stop.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "webhooks are told no more by one of their tasks");
        }
    }
}

/// False: it is to stop.
async fn pause(stop: &mut watch::Receiver<Stop>) -> bool {
    tokio::select! {
        () = tokio::time::sleep(LOOK_EVERY) => {}
        _ = stop.changed() => {}
    }
    *stop.borrow() == Stop::No
}

async fn keep_reminding(app: Arc<App>, mut stop: watch::Receiver<Stop>) {
    let mut reminded = HashSet::new();
    loop {
        if let Err(failure) = app.remind_of_questions(&mut reminded).await {
            tracing::warn!(code = failure.code, "nobody was reminded: {failure}");
        }
        if !pause(&mut stop).await {
            return;
        }
    }
}

impl App {
    /// Notes which open approvals have stood for as long as their rule lets them; the audit's row is what people are told of.
    async fn remind_of_questions(&self, reminded: &mut HashSet<InterruptId>) -> Result<(), Failure> {
        let now = Utc::now();
        for question in self.questions(None).await? {
            let asked = &question.interrupt;
            let terms = question.approval.as_ref().and_then(|approval| approval.evidence.terms.as_ref());
            let Some(after) = terms.and_then(|terms| terms.remind_after_ms) else { continue };
            let due = asked.asked_at + TimeDelta::milliseconds(i64::try_from(after).unwrap_or(i64::MAX / 2));
            if due <= now && !reminded.contains(&asked.id) {
                self.sqlite.remind(&asked.id, now).await.map_err(|e| e.failure())?;
                reminded.insert(asked.id.clone());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_has_one_address() {
        let of = |url: Option<&str>, env: Option<&str>| {
            let from = env.map(|env| SecretSource { env: Some(env.to_owned()), ..SecretSource::default() });
            let (name, format) = ("x".to_owned(), WebhookFormat::Slack);
            let url = url.map(str::to_owned);
            WebhookSettings {
                name,
                url,
                url_from: from,
                format,
                secret: None,
                events: Vec::new(),
                links_for: Vec::new(),
            }
            .fault()
        };
        assert!(of(Some("https://example.org/x"), None).is_none() && of(None, Some("HOOK")).is_none());
        assert!(of(None, None).is_some() && of(Some("https://x"), Some("Y")).is_some());
        assert!(of(Some("ftp://x"), None).is_some() && of(None, Some("A=B")).is_some());
    }
}
