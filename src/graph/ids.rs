//! Names of things that are stored: opaque strings, time-ordered where order helps. Copies share the text.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        #[schemars(with = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// A fresh, time-ordered id (UUIDv7).
            #[expect(clippy::new_without_default, reason = "two calls never give the same value")]
            pub fn new() -> Self {
                Self::made(Utc::now())
            }

            /// The same, for whoever knows what time it is.
            pub fn made(at: DateTime<Utc>) -> Self {
                Self::from(&*fresh(at).hyphenated().encode_lower(&mut [0; 36]))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// A UUIDv7: the time in milliseconds, then a number that this process counts up from a random one, so that its ids of one millisecond
/// are in order too. As unlikely to meet another one as a random number, without a lock and a random number for each.
fn fresh(at: DateTime<Utc>) -> Uuid {
    const LOW_BITS: u32 = 50;
    static PROCESS: LazyLock<(AtomicU64, u64)> = LazyLock::new(|| {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        // Three bits of room above, so that it never comes to its end; and what tells processes apart.
        (AtomicU64::new(low & (u64::MAX >> 6)), (high >> 52) << LOW_BITS)
    });
    let (next, process) = &*PROCESS;
    let number = next.fetch_add(1, Ordering::Relaxed);
    let mut random = [0; 10];
    let [.., a, b] = (number >> LOW_BITS).to_be_bytes();
    random[..2].copy_from_slice(&[a, b]);
    random[2..].copy_from_slice(&(process | (number & ((1 << LOW_BITS) - 1))).to_be_bytes());
    let millis = u64::try_from(at.timestamp_millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// A name in a graph: of a node, a channel, a namespace. Copies share the text.
#[derive(Clone, Eq, Hash, JsonSchema)]
#[schemars(with = "String")]
#[expect(clippy::derived_hash_with_manual_eq, reason = "equality is that of the text; a shared text is not looked at")]
pub struct Name(Arc<str>);

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || *self.0 == *other.0
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        if Arc::ptr_eq(&self.0, &other.0) { std::cmp::Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a copy of `other`: then the texts need not be compared.
    pub(super) fn is_copy_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::ops::Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&Name> for Name {
    fn from(name: &Name) -> Self {
        name.clone()
    }
}

impl From<&String> for Name {
    fn from(text: &String) -> Self {
        Self(text.as_str().into())
    }
}

impl Default for Name {
    fn default() -> Self {
        Self("".into())
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl PartialEq<String> for Name {
    fn eq(&self, other: &String) -> bool {
        *self.0 == **other
    }
}

impl PartialEq<Name> for str {
    fn eq(&self, other: &Name) -> bool {
        *self == *other.0
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&*self.0, f)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self::from)
    }
}

id! {
    /// The durable life of one graph execution. A release's thread id is its `deployment_id`.
    ThreadId
}
id! {
    /// One checkpoint of a thread.
    CheckpointId
}
id! {
    /// One question to a human: 32 hex digits, derived from where it was asked.
    InterruptId
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn fresh_ids_are_in_order_and_of_version_seven() {
        let ids: Vec<Uuid> = (0..10_000).map(|_| fresh(Utc::now())).collect();
        // But for a clock that was set back.
        let millis = |id: &Uuid| id.as_u64_pair().0 >> 16;
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1] || millis(&pair[0]) > millis(&pair[1])));
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
        assert!(ids.iter().all(|id| id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122));
    }
}
