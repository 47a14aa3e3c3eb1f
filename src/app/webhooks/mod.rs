//! Webhooks: whoever is named in the settings is told of what the audit tells, in its order, at least once, signed.
//!
//! What was told is a number in the database, so nothing is lost while nobody is there to tell it, or nobody to hear it. Headers and
//! signature are those of Standard Webhooks 1.0 (<https://www.standardwebhooks.com>).

mod message;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, TimeDelta, Utc};
use ring::hmac;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::App;
use crate::adapters::secret_of;
use crate::graph::{Failure, InterruptId, Stop};
use crate::ports::{HttpCall, HttpMethod, SecretSource};
use crate::store::HookRow;
pub use message::Notice;

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Rows of the audit in one look.
const ROWS: usize = 100;
/// How long a hook has for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Pauses after failed attempts, in seconds; after the last one the row is passed over.
const PAUSES: [i64; 10] = [2, 5, 15, 60, 300, 900, 3_600, 7_200, 14_400, 28_800];
/// Keys of Standard Webhooks begin so, and are base64 behind it.
const SECRET_PREFIX: &str = "whsec_";

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
            (Some(url), None) if url.starts_with("https://") || url.starts_with("http://") => None,
            (Some(url), None) => Some(format!("`{url}` is no http:// or https:// URL")),
            (None, Some(_)) => None,
            _ => Some("it has either `url` or `url_from`".to_owned()),
        }
    }
}

/// Tells webhooks, and reminds people of questions, until it is asked to stop.
pub async fn keep_telling(app: Arc<App>, mut stop: watch::Receiver<Stop>) {
    let mut reminded = HashSet::new();
    while *stop.borrow() == Stop::No {
        if let Err(failure) = app.remind_of_questions(&mut reminded).await {
            tracing::warn!(code = failure.code, "nobody was reminded: {failure}");
        }
        for hook in &app.webhooks {
            if let Err(failure) = app.tell(hook).await {
                tracing::warn!(hook = hook.name, code = failure.code, "a webhook waits: {failure}");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = stop.changed() => {}
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

    /// Tells a webhook what it has not been told of yet, as far as it answers.
    async fn tell(&self, hook: &WebhookSettings) -> Result<(), Failure> {
        let of = |e: crate::graph::StoreError| e.failure();
        let mut row = self.sqlite.hook(&hook.name, Utc::now()).await.map_err(of)?;
        if Utc::now() < row.next_at {
            return Ok(());
        }
        let rows = self.sqlite.audited_after(row.told, ROWS).await.map_err(of)?;
        for audited in &rows {
            let ended = match self.notice(audited).await {
                Ok(Some(notice)) if is_wanted(hook, notice.event) => self.send(hook, &notice).await,
                Ok(_) => {
                    row = HookRow { told: audited.seq, attempts: 0, ..row };
                    continue;
                }
                Err(failure) => Err(failure),
            };
            let passed_over = ended.is_err() && row.attempts as usize >= PAUSES.len();
            if let Err(failure) = ended
                && !passed_over
            {
                let pause = PAUSES.get(row.attempts as usize).copied().unwrap_or_default();
                let next_at = Utc::now() + TimeDelta::seconds(pause);
                self.sqlite.move_hook(HookRow { attempts: row.attempts + 1, next_at, ..row }).await.map_err(of)?;
                return Err(failure);
            }
            if passed_over {
                tracing::error!(
                    hook = hook.name,
                    row = audited.seq,
                    "a webhook was not told of this, and never will be"
                );
            }
            row = HookRow { told: audited.seq, attempts: 0, ..row };
            self.sqlite.move_hook(row.clone()).await.map_err(of)?;
        }
        if rows.is_empty() { Ok(()) } else { self.sqlite.move_hook(row).await.map_err(of) }
    }

    async fn send(&self, hook: &WebhookSettings, notice: &Notice) -> Result<(), Failure> {
        let failed = |why: String| {
            Failure::new("webhook_failed", format!("the webhook {} was not told of {}", hook.name, notice.event.word()))
                .because(why)
        };
        let secret = |of: &SecretSource| secret_of(&hook.name, of).map_err(|e| failed(e.message));
        let url = match (&hook.url, &hook.url_from) {
            (Some(url), _) => url.clone(),
            (None, Some(source)) => secret(source)?,
            (None, None) => return Err(failed("it has no address".to_owned())),
        };
        let body = match hook.format {
            WebhookFormat::Generic => notice.generic(),
            WebhookFormat::Slack => notice.slack(),
        };
        let (id, at) = (format!("msg_{}", notice.row), Utc::now());
        let mut headers = BTreeMap::from([
            ("webhook-id".to_owned(), id.clone()),
            ("webhook-timestamp".to_owned(), at.timestamp().to_string()),
        ]);
        if let Some(source) = &hook.secret {
            headers.insert("webhook-signature".to_owned(), signature(&secret(source)?, &id, at, &body.to_string()));
        }
        let call = HttpCall { method: HttpMethod::Post, headers, body: Some(body), ..HttpCall::get(&url) };
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.tools.http.caller.call(&call, None)).await;
        let answer = answer.map_err(|_| failed("it does not answer in time".to_owned()))?;
        // The address may be a secret: an error of the call may hold it.
        let answer = answer.map_err(|e| failed(e.code))?;
        match answer.status {
            200..300 => Ok(()),
            // It asks not to be told any more of this.
            410 => Ok(()),
            status => Err(failed(format!("it answers {status}"))),
        }
    }
}

fn is_wanted(hook: &WebhookSettings, event: WebhookEvent) -> bool {
    hook.events.is_empty() || hook.events.contains(&event)
}

/// `v1,` and the base64 of HMAC-SHA256 over id, time and body.
fn signature(secret: &str, id: &str, at: DateTime<Utc>, body: &str) -> String {
    let plain = secret.strip_prefix(SECRET_PREFIX).and_then(|text| BASE64.decode(text).ok());
    let key = hmac::Key::new(hmac::HMAC_SHA256, &plain.unwrap_or_else(|| secret.as_bytes().to_vec()));
    let signed = hmac::sign(&key, format!("{id}.{}.{body}", at.timestamp()).as_bytes());
    format!("v1,{}", BASE64.encode(signed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_standard() {
        // The specification's own example.
        let at = DateTime::from_timestamp(1_614_265_330, 0).unwrap();
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", at, "{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_hook_has_one_address() {
        let of = |url: Option<&str>, env: Option<&str>| {
            let from = env.map(|env| SecretSource { env: Some(env.to_owned()), ..SecretSource::default() });
            let (name, format) = ("x".to_owned(), WebhookFormat::Slack);
            let url = url.map(str::to_owned);
            WebhookSettings { name, url, url_from: from, format, secret: None, events: Vec::new() }.fault()
        };
        assert!(of(Some("https://example.org/x"), None).is_none() && of(None, Some("HOOK")).is_none());
        assert!(of(None, None).is_some() && of(Some("https://x"), Some("Y")).is_some());
        assert!(of(Some("ftp://x"), None).is_some() && of(None, Some("A=B")).is_some());
    }
}
