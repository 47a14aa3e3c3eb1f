//! Who decides at a gate: the operator's rules, what they come to for one release, and when the people who have spoken are enough.

mod freeze;
mod people;
mod votes;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::DEFAULT_APPROVAL_TTL_MS;
use super::units::Millis;
pub use freeze::{Freeze, WeekTime, Weekly};
pub use people::{Delegation, Person, Role, Who};
pub(crate) use votes::Casting;
pub use votes::{DEADLINE, Refused, Standing, Vote};

/// A rule of the operator's: who decides on the releases that it is for. Of several the first that fits counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GateRule {
    /// Its name, which the person who decides is shown.
    pub name: String,
    /// What it comes before.
    #[serde(default, skip_serializing_if = "Before::is_traffic")]
    pub before: Before,
    /// For which releases: a CEL expression over `plan`, `environment` and `evidence`; absent: for all. Where it fits, a release needs an
    /// approval, whatever else says that it needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// How many of whom; all of them must be met, and one person may count for several. Empty: one person who has the right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Quorum>,
    /// Whether whoever asked for a release may approve it.
    #[serde(default)]
    pub own_requests: OwnRequests,
    /// What it means when nobody has decided in time.
    #[serde(default)]
    pub on_expiry: OnExpiry,
    /// How long its questions stay open, whatever a request says; absent: as the request says, and where silence is a yes no shorter than a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Millis>,
    /// How long a question may stand until people are reminded of it; absent: nobody is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remind_after: Option<Millis>,
    /// Whether a yes must say why, as a no always must.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reason_required: bool,
}

/// What a decision comes before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Before {
    /// Before users see the new version; everything is checked by then, and the project's code has run.
    #[default]
    Traffic,
    /// Before anything is built: until then none of the project's code runs. Nothing is checked yet, so `evidence.checks` is empty.
    Work,
}

impl Before {
    /// Whether it is the usual one, which is not written down.
    pub fn is_traffic(&self) -> bool {
        *self == Self::Traffic
    }
}

/// So many of these people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quorum {
    /// How many.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub count: u32,
    /// Of whom.
    #[serde(default)]
    pub of: Who,
}

fn one() -> u32 {
    1
}

/// Whether whoever asked for a release may approve it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OwnRequests {
    /// Nobody approves what they asked for.
    #[default]
    Refused,
    /// They may.
    Allowed,
}

/// What it means when nobody has decided in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExpiry {
    /// The release fails and is undone.
    #[default]
    Reject,
    /// Silence is a yes.
    Approve,
}

/// What the rules come to for one release. It is part of what is shown, and so of the digest that a decision carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// The rule's name.
    pub rule: String,
    /// See [`GateRule::approvals`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Quorum>,
    /// See [`GateRule::own_requests`].
    pub own_requests: OwnRequests,
    /// See [`GateRule::on_expiry`].
    pub on_expiry: OnExpiry,
    /// In milliseconds; see [`GateRule::ttl`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// In milliseconds; see [`GateRule::remind_after`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remind_after_ms: Option<u64>,
    /// See [`GateRule::reason_required`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reason_required: bool,
}

impl From<&GateRule> for Terms {
    fn from(rule: &GateRule) -> Self {
        Self {
            rule: rule.name.clone(),
            approvals: rule.approvals.clone(),
            own_requests: rule.own_requests,
            on_expiry: rule.on_expiry,
            ttl_ms: rule.ttl.map(|ttl| ttl.0),
            remind_after_ms: rule.remind_after.map(|after| after.0),
            reason_required: rule.reason_required,
        }
    }
}

impl Terms {
    /// How long a question stays open, in milliseconds, where the request asks for `asked_ms`: nobody shortens the time after which silence is
    /// a yes.
    pub fn open_ms(&self, asked_ms: u64) -> u64 {
        let least = if self.on_expiry == OnExpiry::Approve { DEFAULT_APPROVAL_TTL_MS } else { 0 };
        self.ttl_ms.unwrap_or(asked_ms.max(least))
    }

    /// For people: one sentence each.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.approvals.iter().map(ToString::to_string).collect();
        if lines.is_empty() {
            lines.push("one approval".to_owned());
        }
        if self.own_requests == OwnRequests::Refused {
            lines.push("not by whoever asked for it".to_owned());
        }
        if self.reason_required {
            lines.push("with a reason".to_owned());
        }
        if self.on_expiry == OnExpiry::Approve {
            lines.push("silence is a yes".to_owned());
        }
        lines
    }
}

impl std::fmt::Display for Quorum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let noun = if self.count == 1 { "approval" } else { "approvals" };
        if self.of.is_anyone() {
            write!(f, "{} {noun}", self.count)
        } else {
            write!(f, "{} {noun} of {}", self.count, self.of)
        }
    }
}
