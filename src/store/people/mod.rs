//! Who may ask the server, what several people have said of one question, links that decide one, and what was told to whom.

mod hooks;
mod keys;
mod links;
pub(super) mod run_webhooks;
mod votes;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::Value;

pub use hooks::{AuditedRow, HookRow};
pub use keys::{KeyRow, NewKey};
pub use links::{LinkBounds, LinkRow, LinkUse};
pub use run_webhooks::{NewRunWebhook, RunWebhookDue, RunWebhookRow};
pub use votes::{NewVote, Settle, Voted};

use super::SqliteStore;
use crate::graph::{Claim, InterruptId, StoreError};

impl SqliteStore {
    /// Adds a key; the audit is told who made it for whom.
    pub async fn add_key(&self, key: NewKey) -> Result<KeyRow, StoreError> {
        self.writer.run(move |tx| keys::add(tx.conn, &key)).await
    }

    /// One key, whatever became of it.
    pub async fn key(&self, id: &str) -> Result<Option<KeyRow>, StoreError> {
        let id = id.to_owned();
        self.readers.read_few(move |conn| keys::one(conn, &id)).await
    }

    /// All keys, oldest first, revoked ones too.
    pub async fn keys(&self) -> Result<Vec<KeyRow>, StoreError> {
        self.readers.read(keys::list).await
    }

    /// Whether there has ever been a key: then nobody is let in without one.
    pub async fn has_keys(&self) -> Result<bool, StoreError> {
        self.readers.read_few(keys::any).await
    }

    /// Revokes a key; `None`: there is none of that id.
    pub async fn revoke_key(&self, id: &str, by: &str, at: DateTime<Utc>) -> Result<Option<KeyRow>, StoreError> {
        let (id, by) = (id.to_owned(), by.to_owned());
        self.writer.run(move |tx| keys::revoke(tx.conn, &id, &by, at)).await
    }

    /// Adds what one person says of an open question. In the same transaction `settle` is shown everything that has been said of it, and
    /// what it gives is the question's answer. `None`: it was said with a link that had been used before; nothing was recorded.
    pub async fn vote(&self, vote: NewVote, settle: Arc<Settle>) -> Result<Option<Voted>, StoreError> {
        self.writer.run(move |tx| votes::cast(tx, &vote, &*settle)).await
    }

    /// What has been said of a question as it stands, oldest first.
    pub async fn votes(&self, question: &InterruptId, digest: &str) -> Result<Vec<Value>, StoreError> {
        let (question, digest) = (question.clone(), digest.to_owned());
        self.readers.read(move |conn| votes::list(conn, &question, &digest)).await
    }

    /// Records answers with a link, which is used up by them. False: it had been before; nothing was recorded.
    pub async fn answer_by_link(&self, link: LinkUse, claims: Vec<Claim>) -> Result<bool, StoreError> {
        self.writer.run(move |tx| votes::answer_by_link(tx, &link, &claims)).await
    }

    /// Adds a link; the audit is told who made it for whom. False: the question has so many already that no more is made.
    pub async fn add_link(&self, link: LinkRow) -> Result<bool, StoreError> {
        self.writer.run(move |tx| links::add(tx.conn, &link)).await
    }

    /// One link, whatever became of it.
    pub async fn link(&self, id: &str) -> Result<Option<LinkRow>, StoreError> {
        let id = id.to_owned();
        self.readers.read(move |conn| links::one(conn, &id)).await
    }

    /// Ends a link that nobody has used yet; `None`: there is none of that id.
    pub async fn revoke_link(&self, id: &str, by: &str, at: DateTime<Utc>) -> Result<Option<LinkRow>, StoreError> {
        let (id, by) = (id.to_owned(), by.to_owned());
        self.writer.run(move |tx| links::revoke(tx.conn, &id, &by, at)).await
    }

    /// How far a webhook was told; one that nobody has heard of is told from now on.
    pub async fn hook(&self, name: &str, at: DateTime<Utc>) -> Result<HookRow, StoreError> {
        let wanted = name.to_owned();
        if let Some(known) = self.readers.read(move |conn| hooks::known(conn, &wanted)).await? {
            return Ok(known);
        }
        let name = name.to_owned();
        self.writer.run(move |tx| hooks::begin(tx.conn, &name, at)).await
    }

    /// What became of an attempt to tell a webhook.
    pub async fn move_hook(&self, hook: HookRow) -> Result<(), StoreError> {
        self.writer.run(move |tx| hooks::put(tx.conn, &hook)).await
    }

    /// What is to be told of runs at `now`, the longest due first.
    pub async fn run_webhooks_due(&self, now: DateTime<Utc>, of_each: usize) -> Result<Vec<RunWebhookDue>, StoreError> {
        self.readers.read(move |conn| run_webhooks::due(conn, now, of_each)).await
    }

    /// What is to be told of one run; `None`: nothing any more.
    pub async fn run_webhook(&self, run: &str) -> Result<Option<RunWebhookRow>, StoreError> {
        let run = run.to_owned();
        self.readers.read(move |conn| run_webhooks::one(conn, &run)).await
    }

    /// Of how many runs something is still to be told.
    pub async fn run_webhooks_waiting(&self) -> Result<u64, StoreError> {
        self.readers.read(run_webhooks::waiting).await
    }

    /// An attempt has failed; the next one is not before `until`.
    pub async fn delay_run_webhook(&self, run: &str, until: DateTime<Utc>) -> Result<(), StoreError> {
        let run = run.to_owned();
        self.writer.run(move |tx| run_webhooks::delay(tx.conn, &run, until)).await
    }

    /// There is nothing to be told of this run any more.
    pub async fn drop_run_webhook(&self, run: &str) -> Result<(), StoreError> {
        let run = run.to_owned();
        self.writer.run(move |tx| run_webhooks::remove(tx.conn, &run)).await
    }

    /// Rows of the audit after one of them, oldest first.
    pub async fn audited_after(&self, seq: u64, limit: usize) -> Result<Vec<AuditedRow>, StoreError> {
        self.readers.read(move |conn| hooks::after(conn, seq, limit)).await
    }

    /// Notes that people were reminded of a question; the audit is told. False: they had been before.
    pub async fn remind(&self, question: &InterruptId, at: DateTime<Utc>) -> Result<bool, StoreError> {
        let question = question.clone();
        self.writer.run(move |tx| hooks::remind(tx.conn, &question, at)).await
    }
}
