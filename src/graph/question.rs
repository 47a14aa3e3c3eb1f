//! Questions to people: asked once, answered once, over at some time.

use std::time::Duration;

use serde_json::Value;

use super::journal::{Interrupt, JournalKey, digest};
use super::scope::Scope;
use super::{Context, Event, NodeError, Record};

/// A question that stands while its node goes on: [`Context::pose`].
pub struct Posed<'c> {
    pub(super) cx: &'c Context,
    pub(super) key: JournalKey,
    pub(super) value: Value,
    pub(super) ttl: Duration,
}

impl Posed<'_> {
    /// Whether there is an answer, or none comes in time any more. Nothing is recorded: it ends a reading early, [`Posed::answer`] tells
    /// which. In a replay a question never is: the reading that found it so has been recorded.
    pub async fn is_settled(&self) -> Result<bool, NodeError> {
        let scope = &self.cx.scope;
        if scope.recorded.is_some() {
            return Ok(false);
        }
        let asked = scope.store.interrupt(&self.key.interrupt_id(&scope.thread)).await?;
        Ok(asked.is_some_and(|asked| asked.answer.is_some() || asked.withdrawn || asked.is_over(scope.now())))
    }

    /// The answer; as [`Context::interrupt_within`] where there is none.
    pub async fn answer(self) -> Result<Value, NodeError> {
        self.cx.answer_to(self.key, self.value, Some(self.ttl)).await
    }
}

impl Scope {
    /// Asks, and does not wait.
    pub async fn pose(&self, key: JournalKey, value: Value, ttl: Duration) -> Result<(), NodeError> {
        if let Some(recorded) = &self.recorded {
            let id = key.interrupt_id(&self.thread);
            return recorded.asked(&id, &key, &value).map(drop);
        }
        match self.ask(key, value, Some(ttl)).await {
            Ok(_) | Err(NodeError::Suspended) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Learns of an answer that came while the run went on.
    pub async fn learn(&self, key: &JournalKey) -> Result<(), NodeError> {
        if self.recorded.is_none()
            && let Some(asked) = self.store.interrupt(&key.interrupt_id(&self.thread)).await?
        {
            self.memory().interrupts.insert(asked.id.clone(), asked);
        }
        Ok(())
    }

    /// The answer to a question, or `Suspended` after it was asked.
    pub async fn ask(&self, key: JournalKey, value: Value, ttl: Option<Duration>) -> Result<Value, NodeError> {
        let id = key.interrupt_id(&self.thread);
        if let Some(recorded) = &self.recorded {
            return recorded.answer(&id, &key, &value);
        }
        let known = self.memory().interrupts.get(&id).cloned();
        if let Some(answer) = known.as_ref().and_then(|k| k.answer.as_ref()) {
            return Ok(answer.value.clone());
        }
        let asked_at = known.as_ref().map_or_else(|| self.now(), |k| k.asked_at);
        let expires_at = ttl.and_then(|ttl| chrono::Duration::from_std(ttl).ok()).map(|ttl| asked_at + ttl);
        let node = key.node.clone();
        let digest = digest(&value);
        let thread = self.thread.clone();
        let asked = Interrupt {
            id: id.clone(),
            thread,
            key,
            value,
            digest,
            asked_at,
            expires_at,
            answer: None,
            withdrawn: false,
            expired: false,
        };
        if known.as_ref().is_some_and(|k| k.expired) || asked.is_over(self.now()) {
            return self.expire(asked).await;
        }
        if known.as_ref() != Some(&asked) {
            let mut records = vec![Record::Interrupt(Box::new(asked.clone()))];
            if known.is_none_or(|k| k.withdrawn) {
                records.push(Record::Event(Event::Interrupted { id: id.clone(), node }));
            }
            self.memory().interrupts.insert(id, asked);
            self.commit(records).await?;
        }
        Err(NodeError::Suspended)
    }

    /// Settles a question whose time is over: an answer that came at the last moment still counts.
    async fn expire(&self, asked: Interrupt) -> Result<Value, NodeError> {
        let asked = Interrupt { expired: true, withdrawn: true, ..asked };
        self.commit(vec![Record::Interrupt(Box::new(asked.clone()))]).await?;
        let settled = self.store.interrupt(&asked.id).await?.unwrap_or(asked);
        self.memory().interrupts.insert(settled.id.clone(), settled.clone());
        match settled.answer {
            Some(answer) => Ok(answer.value),
            None => Err(NodeError::Failed(settled.expiry())),
        }
    }
}
