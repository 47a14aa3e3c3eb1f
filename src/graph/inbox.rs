//! What others leave for a thread while somebody else advances it, or nobody does.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A request to whoever advances a thread: let go of it, resumably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopAsk {
    /// True: it waits for a person afterwards. False: the next runner goes on with it.
    pub hold: bool,
    /// Who asks, for people: the command's name.
    pub by: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// What has arrived at a thread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inbox {
    /// The lease's epoch now.
    pub epoch: u64,
    /// Somebody asks the owner of this very epoch to let go; a later owner is not meant.
    pub stop: Option<StopAsk>,
    /// A question was answered that no run has seen: only a run that has begun (its first commit) has.
    pub answered: bool,
    /// A signal lies there that a wait waits for: as its newest run ended, or somebody changed it from outside.
    pub signalled: bool,
}
