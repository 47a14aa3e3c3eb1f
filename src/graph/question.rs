//! Questions to people: asked once, answered once, over at some time.

use serde_json::Value;

use super::journal::{Interrupt, JournalKey, digest};
use super::scope::Scope;
use super::{Event, NodeError, Record};

impl Scope {
    /// The answer to a question, or `Suspended` after it was asked.
    pub async fn ask(
        &self,
        key: JournalKey,
        value: Value,
        ttl: Option<std::time::Duration>,
    ) -> Result<Value, NodeError> {
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
