//! What a node, an effect or the engine reports when it cannot go on: data, because it is stored and shown.

use std::ops::{Deref, DerefMut};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happened, why, and what to do next: its fields are those of [`FailureDetails`]. As small as a pointer, because nearly everything
/// that an engine passes on could be one instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(transparent)]
#[error("{}", self.0.message)]
pub struct Failure(Box<FailureDetails>);

impl Deref for Failure {
    type Target = FailureDetails;

    fn deref(&self) -> &FailureDetails {
        &self.0
    }
}

impl DerefMut for Failure {
    fn deref_mut(&mut self) -> &mut FailureDetails {
        &mut self.0
    }
}

impl From<FailureDetails> for Failure {
    fn from(details: FailureDetails) -> Self {
        Self(Box::new(details))
    }
}

/// What a [`Failure`] says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailureDetails {
    /// Stable snake_case code, e.g. `recursion_limit`.
    pub code: String,
    /// What happened, one sentence without a trailing full stop.
    pub message: String,
    /// Why, as far as known; may be several lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether repeating the same thing may help.
    #[serde(default)]
    pub retryable: bool,
    /// The node in which it happened, with its namespace, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// A stretch of a run used up its supersteps.
pub(super) const RECURSION_LIMIT: &str = "recursion_limit";
/// A superstep used up its time.
pub(super) const STEP_TIMEOUT: &str = "step_timeout";

impl Failure {
    /// Whether it is a limit of the run and no failure of what was done: then nothing is undone, and the thread can be continued.
    pub(super) fn is_pause(&self) -> bool {
        [RECURSION_LIMIT, STEP_TIMEOUT].contains(&self.code.as_str())
    }

    /// Whether it depends on the clock: a replay takes it as it is.
    pub(super) fn is_of_time(&self) -> bool {
        ["node_timeout", "node_idle", STEP_TIMEOUT].contains(&self.code.as_str())
    }

    /// Its fields, to be taken apart.
    pub fn into_details(self) -> FailureDetails {
        *self.0
    }

    /// A failure that repeating does not mend.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        let (code, message) = (code.to_owned(), message.into());
        FailureDetails { code, message, cause: None, hint: None, retryable: false, node: None }.into()
    }

    /// Adds why.
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

    /// Names the node, unless one is named already (the innermost is the one that matters).
    #[must_use]
    pub fn at(mut self, node: impl Into<String>) -> Self {
        self.node.get_or_insert_with(|| node.into());
        self
    }
}
