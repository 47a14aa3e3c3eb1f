//! The one error that crosses every port: data, because it is stored in the journal and shown to people.

use serde::{Deserialize, Serialize};

/// What went wrong outside, in the three lines a person needs: what happened, why, what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(deny_unknown_fields)]
pub struct PortError {
    /// Stable snake_case code, documented in `docs/errors/`, e.g. `bento_build_failed`.
    pub code: String,
    /// What happened, one sentence without a trailing full stop.
    pub message: String,
    /// Why, as far as known: often the service's own last traceback (several lines).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What to do next, one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether the same call may succeed later without anybody changing anything.
    #[serde(default)]
    pub retryable: bool,
}

impl PortError {
    /// An error that will not go away by itself.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), cause: None, hint: None, retryable: false }
    }

    /// Adds why it happened.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Marks it as worth repeating.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }
}
