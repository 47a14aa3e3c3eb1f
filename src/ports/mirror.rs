//! What a candidate said to requests that another version has answered.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A stretch of a model's mirrored requests, in the order in which they were complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MirrorPage {
    /// Since when they are counted; a later time than before means that the numbers began anew at 1.
    pub since: DateTime<Utc>,
    /// The number of the last pair of this page, or the one that was asked after: ask after it next.
    pub last: u64,
    /// Pairs between the number asked after and the first of this page that are forgotten already.
    pub missed: u64,
    /// Requests that were to be repeated and were not, by reason, all in all: `busy`, `too_large`, `incomplete`, `no_candidate`.
    pub dropped: BTreeMap<String, u64>,
    /// At most a few hundred, and a few megabytes.
    pub pairs: Vec<MirrorPair>,
}

/// One request and what both versions made of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MirrorPair {
    /// From 1.
    pub number: u64,
    /// When the live version's answer was complete.
    pub at: DateTime<Utc>,
    /// The request's method.
    pub method: String,
    /// Its path and query, below the model's prefix.
    pub path: String,
    /// What the user got.
    pub live: MirrorAnswer,
    /// What the candidate said, and nobody got.
    pub candidate: MirrorAnswer,
}

/// One version's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MirrorAnswer {
    /// The version.
    pub version: String,
    /// Token of the slot that answered.
    pub slot: String,
    /// `None`: there was no answer, or it broke off, or it took too long.
    pub status: Option<u16>,
    /// The header `content-type`.
    pub content_type: Option<String>,
    /// The beginning of the body: as text where it is UTF-8, else in hex.
    pub body: MirrorBody,
    /// Time until the answer was complete.
    pub latency_ms: f64,
}

/// The beginning of a body.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MirrorBody {
    /// Where it is UTF-8.
    #[serde(default)]
    pub text: Option<String>,
    /// Where it is not.
    #[serde(default)]
    pub hex: Option<String>,
    /// Whether there was more of it.
    #[serde(default)]
    pub cut: bool,
}

impl MirrorBody {
    /// Of the first bytes of a body.
    pub fn new(bytes: &[u8], cut: bool) -> Self {
        // A character may be cut in the middle.
        let end = match std::str::from_utf8(bytes) {
            Err(error) if cut && error.error_len().is_none() => error.valid_up_to(),
            _ => bytes.len(),
        };
        match std::str::from_utf8(&bytes[..end]) {
            Ok(text) => Self { text: Some(text.to_owned()), hex: None, cut },
            Err(_) => Self { text: None, hex: Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect()), cut },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_text_where_they_can_be() {
        assert_eq!(MirrorBody::new("añb".as_bytes(), false).text.as_deref(), Some("añb"));
        assert_eq!(MirrorBody::new(&"añb".as_bytes()[..2], true).text.as_deref(), Some("a"));
        assert_eq!(MirrorBody::new(&"añb".as_bytes()[..2], false).hex.as_deref(), Some("61c3"));
        assert_eq!(MirrorBody::new(&[0xff, 1], true).hex.as_deref(), Some("ff01"));
    }
}
