//! What all threads of a store share: JSON values by namespace and key, LangGraph's `BaseStore`. A node writes in one transaction with the
//! journal's note of it, so once; what it reads stays as it was first read.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::effect::{decode, encode};
use super::journal::EntryKind;
use super::{Context, Failure, NodeError, Record};

/// Most items that one search gives.
pub const MOST_FOUND: usize = 1_000;
/// Longest text of a value, in bytes: what is larger belongs into a file, with its path here.
const MOST_BYTES: usize = 1 << 20;
/// Longest key and longest namespace, in bytes.
const MOST_NAME: usize = 512;
/// Between the parts of a namespace.
const BETWEEN: char = '/';

/// A value that threads share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Its namespace, the parts joined by `/`.
    pub namespace: String,
    /// Its key in the namespace.
    pub key: String,
    /// What is kept.
    pub value: Value,
    /// When the key was first written.
    pub created_at: DateTime<Utc>,
    /// When it was written last.
    pub updated_at: DateTime<Utc>,
    /// When it is over; `None`: never.
    pub expires_at: Option<DateTime<Utc>>,
}

impl Item {
    /// Whether it is still there at `now`.
    pub fn is_there(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_none_or(|over| now < over)
    }

    /// Whether its namespace is `prefix`, or inside it.
    pub fn is_in(&self, prefix: &str) -> bool {
        let rest = self.namespace.strip_prefix(prefix);
        prefix.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(BETWEEN))
    }
}

/// A node's way to the shared items.
pub struct Shared<'c> {
    cx: &'c Context,
}

impl<'c> Shared<'c> {
    pub(super) fn of(cx: &'c Context) -> Self {
        Self { cx }
    }

    /// Writes a value under a key, over what is there. Not undone by the saga.
    pub async fn put(&self, namespace: &[&str], key: &str, value: Value) -> Result<(), NodeError> {
        self.write(namespace, key, Some(value), None).await
    }

    /// The same, for a length of time.
    pub async fn put_for(&self, namespace: &[&str], key: &str, value: Value, ttl: Duration) -> Result<(), NodeError> {
        self.write(namespace, key, Some(value), Some(ttl)).await
    }

    /// Takes a key away; fine if it is not there.
    pub async fn delete(&self, namespace: &[&str], key: &str) -> Result<(), NodeError> {
        self.write(namespace, key, None, None).await
    }

    /// What is kept under a key. Read once: when the node runs again it gets the same.
    pub async fn get(&self, namespace: &[&str], key: &str) -> Result<Option<Item>, NodeError> {
        let (ns, key) = (joined(namespace, 1)?, named(key)?);
        let scope = &self.cx.scope;
        let read = async {
            let found = scope.store.item(&ns, &key, scope.now()).await?;
            // As a list: a file cannot tell null from nothing.
            Ok(encode(&found.into_iter().collect::<Vec<_>>(), "store")?)
        };
        let found = scope.reading(self.cx.key("store get"), EntryKind::Pin, read).await?;
        Ok(decode::<Vec<Item>>(found, "store")?.pop())
    }

    /// Items in this namespace and those inside it, by namespace and key; `limit` at most, and never more than [`MOST_FOUND`]. Read once, as
    /// with [`Shared::get`].
    pub async fn search(&self, prefix: &[&str], limit: usize) -> Result<Vec<Item>, NodeError> {
        let prefix = joined(prefix, 0)?;
        let scope = &self.cx.scope;
        let read = async {
            let found = scope.store.items(&prefix, scope.now(), limit.min(MOST_FOUND)).await?;
            Ok(encode(&found, "store")?)
        };
        let found = scope.reading(self.cx.key("store search"), EntryKind::Pin, read).await?;
        Ok(decode(found, "store")?)
    }

    async fn write(
        &self,
        namespace: &[&str],
        key: &str,
        value: Option<Value>,
        ttl: Option<Duration>,
    ) -> Result<(), NodeError> {
        let (namespace, key) = (joined(namespace, 1)?, named(key)?);
        let input =
            json!({"namespace": namespace, "key": key, "value": value, "ttl_ms": ttl.map(|ttl| ttl.as_millis())});
        let record = |at: DateTime<Utc>| match value {
            None => Ok(Record::Forget { namespace, key }),
            Some(value) => {
                let bytes = value.to_string().len();
                if bytes > MOST_BYTES {
                    let failure = Failure::new("item_too_large", format!("a value of {bytes} bytes is not kept"));
                    return Err(failure.hint(format!("at most {MOST_BYTES} bytes; keep a path instead")));
                }
                let over = |ttl: Duration| TimeDelta::from_std(ttl).ok().and_then(|ttl| at.checked_add_signed(ttl));
                let expires_at = ttl.and_then(over);
                Ok(Record::Keep(Box::new(Item { namespace, key, value, created_at: at, updated_at: at, expires_at })))
            }
        };
        self.cx.scope.once(self.cx.key("store put"), "store", input, record).await
    }
}

/// A namespace of at least `least` parts as it is kept.
fn joined(parts: &[&str], least: usize) -> Result<String, Failure> {
    let joined = parts.join("/");
    let odd = |part: &&str| part.is_empty() || part.contains(BETWEEN) || part.chars().any(char::is_control);
    if parts.len() < least || parts.iter().any(odd) || joined.len() > MOST_NAME {
        let failure = Failure::new("bad_namespace", format!("{parts:?} is no namespace"));
        let hint = format!("parts that are not empty and have no `/`, {MOST_NAME} bytes at most");
        return Err(failure.hint(hint));
    }
    Ok(joined)
}

fn named(key: &str) -> Result<String, Failure> {
    if key.is_empty() || key.len() > MOST_NAME {
        let failure = Failure::new("bad_key", format!("a key of {} bytes", key.len()));
        return Err(failure.hint(format!("1 to {MOST_NAME} bytes")));
    }
    Ok(key.to_owned())
}
