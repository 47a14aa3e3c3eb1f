//! What a webhook is told: made of a row of the audit and of what stands around it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::WebhookEvent;
use crate::app::{App, OpenQuestion};
use crate::graph::{Failure, InterruptId, ThreadId};
use crate::store::AuditedRow;

/// Longest text of a message, in characters.
const LONGEST: usize = 2_000;

/// Something to tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// The audit's row.
    pub row: u64,
    /// What.
    pub event: WebhookEvent,
    /// When.
    pub at: String,
    /// Whose.
    pub thread: String,
    /// `deploy`, `rollback`.
    pub kind: String,
    /// The model.
    pub model: String,
    /// The target environment.
    pub environment: Option<String>,
    /// The question, where it is about one.
    pub approval: Option<Value>,
    /// Who did it.
    pub by: Option<String>,
    /// What they said, or why it failed.
    pub said: Option<String>,
    /// Where people look at it.
    pub url: Option<String>,
    /// With what each of some people decides it.
    pub links: BTreeMap<String, String>,
}

impl App {
    /// What there is to tell of a row; `None`: nothing. Only releases and rollbacks are told of.
    pub(super) async fn notice(&self, row: &AuditedRow) -> Result<Option<Notice>, Failure> {
        let text = |key: &str| row.event.get(key).and_then(Value::as_str).map(str::to_owned);
        let event = match (text("type").as_deref(), text("status").as_deref()) {
            (Some("accepted"), _) => WebhookEvent::Started,
            (Some("interrupted"), _) => WebhookEvent::Requested,
            (Some("reminded"), _) => WebhookEvent::Reminder,
            (Some("voted"), _) => WebhookEvent::Voted,
            (Some("answered"), _) => WebhookEvent::Decided,
            (Some("status_changed"), Some("succeeded")) => WebhookEvent::Succeeded,
            (Some("status_changed"), Some("failed" | "cancelled")) => WebhookEvent::Failed,
            (Some("status_changed"), Some("stuck")) => WebhookEvent::Stuck,
            _ => return Ok(None),
        };
        let thread = text("thread").unwrap_or_else(|| row.thread.clone());
        let of = |e: crate::graph::StoreError| e.failure();
        let Some(known) = self.store.thread(&ThreadId::from(thread.as_str())).await.map_err(of)? else {
            return Ok(None);
        };
        let label = |key: &str| known.labels.get(key).cloned();
        let Some(model) = label("model") else { return Ok(None) };
        let question = match event {
            WebhookEvent::Requested | WebhookEvent::Reminder | WebhookEvent::Voted | WebhookEvent::Decided => {
                let Some(id) = text("id") else { return Ok(None) };
                let asked = self.store.interrupt(&InterruptId::from(id.as_str())).await.map_err(of)?;
                // It asks for something else than a release.
                let asked = asked.map(OpenQuestion::from).filter(|asked| asked.approval.is_some());
                let Some(asked) = asked else { return Ok(None) };
                Some(asked)
            }
            _ => None,
        };
        let approval = question.as_ref().map(approval);
        let answer = question.as_ref().and_then(|question| question.interrupt.answer.as_ref());
        let said = match event {
            WebhookEvent::Decided => {
                answer.and_then(|answer| answer.value.get("verdict")).and_then(Value::as_str).map(str::to_owned)
            }
            WebhookEvent::Voted => text("verdict"),
            WebhookEvent::Failed | WebhookEvent::Stuck => known.failure.as_ref().map(|f| f.message.clone()),
            _ => None,
        };
        let base = self.public_url.as_deref().map(|url| url.trim_end_matches('/').to_owned());
        let url = base.map(|base| match &question {
            Some(question) => format!("{base}/ui/approvals/{}", question.interrupt.id),
            None => format!("{base}/ui/runs/{thread}"),
        });
        let kind = label("kind").unwrap_or_default();
        let (by, environment) = (text("by"), label("environment"));
        let (row, at) = (row.seq, row.at.clone());
        Ok(Some(Notice {
            row,
            event,
            at,
            thread,
            kind,
            model,
            environment,
            approval,
            by,
            said,
            url,
            links: BTreeMap::new(),
        }))
    }
}

fn approval(question: &OpenQuestion) -> Value {
    let asked = &question.interrupt;
    let about = question.approval.as_ref();
    json!({
        "id": asked.id, "version": about.map(|about| &about.version), "digest": about.map(|about| &about.digest),
        "asked_at": asked.asked_at, "expires_at": asked.expires_at,
        "requested_by": about.and_then(|about| about.evidence.requested_by.as_ref()),
        "rule": about.and_then(|about| about.evidence.terms.as_ref()).map(|terms| &terms.rule),
    })
}

impl Notice {
    /// The event as JSON.
    pub fn generic(&self) -> Value {
        let mut told = json!({
            "type": self.event.word(), "timestamp": self.at,
            "data": {
                "thread_id": self.thread, "kind": self.kind, "model": self.model, "environment": self.environment,
                "approval": self.approval, "by": self.by, "said": self.said, "url": self.url,
            },
        });
        if !self.links.is_empty() {
            told["data"]["links"] = json!(self.links);
        }
        told
    }

    /// A message as Slack takes it.
    pub fn slack(&self) -> Value {
        let text = self.sentence();
        let mut shown = escaped(&text);
        if let Some(url) = &self.url {
            shown.push_str(&format!("\n<{}|Look at it>", escaped(url)));
        }
        for (holder, link) in &self.links {
            shown.push_str(&format!("\n<{}|Decide as {}>", escaped(link), escaped(holder)));
        }
        json!({"text": escaped(&text), "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": shown}}]})
    }

    fn sentence(&self) -> String {
        let environment = self.environment.as_ref().map(|e| format!(" for {e}")).unwrap_or_default();
        let noun = if self.kind == "rollback" { "rollback" } else { "release" };
        let by = self.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        let said = self.said.as_ref().map(|said| format!(": {said}")).unwrap_or_default();
        let what = match self.event {
            WebhookEvent::Started => "has begun",
            WebhookEvent::Requested => "waits for an approval",
            WebhookEvent::Reminder => "still waits for an approval",
            WebhookEvent::Voted => "has a further word",
            WebhookEvent::Decided => "is decided",
            WebhookEvent::Succeeded => "is complete",
            WebhookEvent::Failed => "failed and was undone",
            WebhookEvent::Stuck => "is stuck: somebody must look",
        };
        let text = format!("The {noun} of {}{environment} {what}{by}{said}", self.model);
        text.chars().take(LONGEST).collect()
    }
}

/// Slack's own signs are no text's.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_read() {
        let notice = Notice {
            row: 7,
            event: WebhookEvent::Failed,
            at: "2026-11-20T12:00:00Z".into(),
            thread: "t".into(),
            kind: "deploy".into(),
            model: "iris".into(),
            environment: Some("prod".into()),
            approval: None,
            by: None,
            said: Some("p99 <b>doubled</b> & more".into()),
            url: Some("https://tidegate.example.org/ui/runs/t".into()),
            links: BTreeMap::new(),
        };
        assert_eq!(notice.sentence(), "The release of iris for prod failed and was undone: p99 <b>doubled</b> & more");
        let shown = notice.slack()["blocks"][0]["text"]["text"].as_str().unwrap().to_owned();
        assert!(shown.contains("&lt;b&gt;doubled") && shown.ends_with("|Look at it>"), "{shown}");
        assert_eq!(notice.generic()["type"], "release.failed");
        assert!(notice.generic()["data"].get("links").is_none());
        let links = BTreeMap::from([("ann".to_owned(), "https://tidegate.example.org/l/tgl_a_b".to_owned())]);
        let asking = Notice { links, ..notice };
        let shown = asking.slack()["blocks"][0]["text"]["text"].as_str().unwrap().to_owned();
        assert!(shown.ends_with("\n<https://tidegate.example.org/l/tgl_a_b|Decide as ann>"), "{shown}");
        assert_eq!(asking.generic()["data"]["links"]["ann"], "https://tidegate.example.org/l/tgl_a_b");
    }
}
