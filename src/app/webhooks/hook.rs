//! One webhook of the settings: told row by row of the audit, in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::Utc;
use tokio::sync::watch;

use super::deliver::{Message, is_private, next_attempt};
use super::{Notice, WebhookEvent, WebhookFormat, WebhookSettings, pause};
use crate::adapters::secret_of;
use crate::app::links::{LINK_TTL_MS, LinkWanted, link_url};
use crate::app::{App, OpenQuestion};
use crate::graph::{Failure, InterruptId, Stop};
use crate::ports::SecretSource;
use crate::store::HookRow;

/// Rows of the audit in one look.
const ROWS: usize = 100;

/// Somebody who is told.
struct Teller {
    app: Arc<App>,
    hook: WebhookSettings,
    /// Where people reach the server.
    base: String,
    /// The links of the row that is told next: what is told again carries the same ones.
    links: Option<(u64, BTreeMap<String, String>)>,
}

/// Tells one webhook until it is asked to stop.
pub(super) async fn keep_telling(app: Arc<App>, hook: WebhookSettings, base: String, mut stop: watch::Receiver<Stop>) {
    let mut teller = Teller { app, hook, base, links: None };
    loop {
        if let Err(failure) = teller.tell().await {
            tracing::warn!(hook = teller.hook.name, code = failure.code, "a webhook waits: {failure}");
        }
        if !pause(&mut stop).await {
            return;
        }
    }
}

impl Teller {
    /// Tells what it has not been told of yet, as far as it answers.
    async fn tell(&mut self) -> Result<(), Failure> {
        let of = |e: crate::graph::StoreError| e.failure();
        let sqlite = self.app.sqlite.clone();
        let mut row = sqlite.hook(&self.hook.name, Utc::now()).await.map_err(of)?;
        if Utc::now() < row.next_at {
            return Ok(());
        }
        let rows = sqlite.audited_after(row.told, ROWS).await.map_err(of)?;
        for audited in &rows {
            let ended = match self.app.notice(audited).await {
                Ok(Some(notice)) if self.wants(notice.event) => self.send(notice).await,
                Ok(_) => {
                    row = HookRow { told: audited.seq, attempts: 0, ..row };
                    continue;
                }
                Err(failure) => Err(failure),
            };
            if let Err(failure) = ended {
                if let Some(next_at) = next_attempt(row.attempts, Utc::now()) {
                    sqlite.move_hook(HookRow { attempts: row.attempts + 1, next_at, ..row }).await.map_err(of)?;
                    return Err(failure);
                }
                let (hook, row) = (&self.hook.name, audited.seq);
                tracing::error!(hook, row, "a webhook was not told of this, and never will be");
            }
            row = HookRow { told: audited.seq, attempts: 0, ..row };
            sqlite.move_hook(row.clone()).await.map_err(of)?;
        }
        if rows.is_empty() { Ok(()) } else { sqlite.move_hook(row).await.map_err(of) }
    }

    fn wants(&self, event: WebhookEvent) -> bool {
        self.hook.events.is_empty() || self.hook.events.contains(&event)
    }

    async fn send(&mut self, mut notice: Notice) -> Result<(), Failure> {
        let (name, word) = (self.hook.name.clone(), notice.event.word());
        let failed = |why: String| {
            Failure::new("webhook_failed", format!("the webhook {name} was not told of {word}")).because(why)
        };
        let secret = |of: &SecretSource| secret_of(&name, of).map_err(|e| failed(e.message));
        let url = match (&self.hook.url, &self.hook.url_from) {
            (Some(url), _) => url.clone(),
            (None, Some(source)) => secret(source)?,
            (None, None) => return Err(failed("it has no address".to_owned())),
        };
        if !self.hook.links_for.is_empty() && !is_private(&url) {
            return Err(failed("links go to https://, or to this machine".to_owned()));
        }
        notice.links = self.links_of(&notice).await?;
        let body = match self.hook.format {
            WebhookFormat::Generic => notice.generic(),
            WebhookFormat::Slack => notice.slack(),
        };
        let id = format!("msg_{}", notice.row);
        let secret = self.hook.secret.as_ref();
        self.app.deliver(Message { name: &name, id, url: &url, secret, body }).await.map_err(failed)
    }

    /// A link for each whom the settings name, where a decision is asked for. Who cannot have one is left out: the message goes all the same.
    async fn links_of(&mut self, notice: &Notice) -> Result<BTreeMap<String, String>, Failure> {
        let asks = matches!(notice.event, WebhookEvent::Requested | WebhookEvent::Reminder);
        let Some(id) = notice.approval.as_ref().and_then(|about| about["id"].as_str()).filter(|_| asks) else {
            return Ok(BTreeMap::new());
        };
        if let Some((_, links)) = self.links.as_ref().filter(|(row, _)| *row == notice.row) {
            return Ok(links.clone());
        }
        let mut links = BTreeMap::new();
        if !self.hook.links_for.is_empty()
            && let Some(asked) = self.app.store.interrupt(&InterruptId::from(id)).await.map_err(|e| e.failure())?
        {
            let question = OpenQuestion::from(asked);
            for holder in &self.hook.links_for {
                let by = format!("webhook {}", self.hook.name);
                let wanted = LinkWanted { holder: holder.clone(), ttl_ms: LINK_TTL_MS, by, within: None };
                match self.app.make_link(&question, wanted).await {
                    Ok((_, token)) => drop(links.insert(holder.clone(), link_url(&self.base, &token))),
                    Err(failure) => {
                        let hook = &self.hook.name;
                        tracing::warn!(hook, holder, code = failure.code, "nobody is sent this link: {failure}");
                    }
                }
            }
        }
        self.links = Some((notice.row, links.clone()));
        Ok(links)
    }
}
