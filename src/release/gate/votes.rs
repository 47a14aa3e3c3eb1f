//! What people have said at a gate, and whether it is enough.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{OnExpiry, OwnRequests, Person, Quorum, Role, Terms};
use crate::release::policy::{Policy, Verdict};

/// Who decided where nobody did in time, and the rule takes that for a yes.
pub const DEADLINE: &str = "policy: nobody decided in time";

/// One person's word at a gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Vote {
    /// Who.
    pub by: String,
    /// In whose place, where they decide for somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<String>,
    /// Yes or no.
    pub verdict: Verdict,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When.
    pub at: DateTime<Utc>,
    /// Through what.
    pub via: String,
    /// Which of the rule's quorums they counted for then, by position.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counts_for: Vec<usize>,
    /// The freeze that they override.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides: Option<String>,
}

/// Why somebody's word does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// They asked for the release.
    #[error("{by} asked for this release, and nobody approves what they asked for")]
    OwnRequest {
        /// Who.
        by: String,
    },
    /// The rule names others.
    #[error("the rule \"{rule}\" does not name {by}")]
    NotNamed {
        /// The rule.
        rule: String,
        /// Who.
        by: String,
    },
    /// A yes without a reason, where one is required.
    #[error("this approval says why")]
    Unexplained,
    /// It is a time in which nothing is released.
    #[error("nothing is released now: {freeze}")]
    Frozen {
        /// Its name.
        freeze: String,
    },
    /// They may not override a freeze.
    #[error("{by} may not override {freeze}")]
    MayNotOverride {
        /// Its name.
        freeze: String,
        /// Who.
        by: String,
    },
}

impl Refused {
    /// Stable code, documented in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OwnRequest { .. } => "own_request",
            Self::NotNamed { .. } => "not_an_approver",
            Self::Unexplained => "decision_unexplained",
            Self::Frozen { .. } => "frozen",
            Self::MayNotOverride { .. } => "not_an_approver",
        }
    }

    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::OwnRequest { .. } => "let somebody else decide",
            Self::NotNamed { .. } => "let one of those decide whom the rule names; `tidegate approvals` shows it",
            Self::Unexplained => "give a reason: --reason TEXT",
            Self::Frozen { .. } => "wait until it is over, or override it, with a reason: --override --reason TEXT",
            Self::MayNotOverride { .. } => "let one of those do it whom the freeze names under `may_override`",
        }
    }
}

/// How a question stands after what people have said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Enough have said yes.
    Approved,
    /// Somebody has said no.
    Rejected,
    /// More are needed: how many of whom.
    Open(Vec<Quorum>),
}

/// What somebody wants to say, and about what.
pub(crate) struct Casting<'a> {
    /// Who.
    pub person: &'a Person,
    /// Who asked for the release.
    pub requested_by: Option<&'a str>,
    /// To which environment it goes.
    pub environment: Option<&'a str>,
    /// Yes or no.
    pub verdict: Verdict,
    /// Why.
    pub reason: Option<&'a str>,
    /// Whether they mean to override a freeze.
    pub overrides: bool,
    /// When.
    pub at: DateTime<Utc>,
    /// Through what.
    pub via: &'a str,
}

impl Policy {
    /// The word of a person, if it counts under these terms. Without terms one yes is enough, of whoever has the right; who has shown a key
    /// does not approve what they asked for.
    ///
    /// # Errors
    /// Why it does not count.
    pub(crate) fn cast(&self, terms: Option<&Terms>, said: &Casting<'_>) -> Result<Vote, Refused> {
        let overrides = self.overridden(said)?;
        let own = terms
            .map_or(if said.person.local { OwnRequests::Allowed } else { OwnRequests::Refused }, |t| t.own_requests);
        let refuses_own = |name: &str| {
            said.verdict == Verdict::Approve && own == OwnRequests::Refused && said.requested_by == Some(name)
        };
        let by = said.person.name.clone();
        if refuses_own(&by) {
            return Err(Refused::OwnRequest { by });
        }
        let unexplained = said.reason.is_none_or(|reason| reason.trim().is_empty());
        if said.verdict == Verdict::Approve
            && unexplained
            && (overrides.is_some() || terms.is_some_and(|t| t.reason_required))
        {
            return Err(Refused::Unexplained);
        }
        let quorums = terms.map(|terms| terms.approvals.as_slice()).unwrap_or_default();
        let own_right = matching(quorums, |quorum| quorum.of.includes(said.person, &self.groups));
        let (counts_for, instead_of) = if own_right.is_empty() && !quorums.is_empty() {
            let delegators =
                self.delegations.iter().filter(|d| d.to == by && d.counts(said.at) && !refuses_own(&d.from));
            let found = delegators
                .map(|d| (matching(quorums, |quorum| quorum.of.names(&d.from, &self.groups)), d.from.clone()))
                .find(|(counts_for, _)| !counts_for.is_empty());
            let Some((counts_for, from)) = found else {
                let rule = terms.map(|terms| terms.rule.clone()).unwrap_or_default();
                return Err(Refused::NotNamed { rule, by });
            };
            (counts_for, Some(from))
        } else {
            (own_right, None)
        };
        Ok(Vote {
            by,
            instead_of,
            verdict: said.verdict,
            reason: said.reason.map(str::to_owned),
            at: said.at,
            via: said.via.to_owned(),
            counts_for,
            overrides,
        })
    }

    /// The freeze that a yes overrides; a no is never held up.
    fn overridden(&self, said: &Casting<'_>) -> Result<Option<String>, Refused> {
        if said.verdict == Verdict::Reject {
            return Ok(None);
        }
        let mut names = Vec::new();
        for freeze in self.freezes.iter().filter(|freeze| freeze.holds(said.at, said.environment)) {
            let name = freeze.name.clone();
            if !said.overrides {
                return Err(Refused::Frozen { freeze: name });
            }
            let may = match freeze.may_override.is_anyone() {
                true => said.person.roles.contains(&Role::Admin),
                false => freeze.may_override.includes(said.person, &self.groups),
            };
            if !may {
                return Err(Refused::MayNotOverride { freeze: name, by: said.person.name.clone() });
            }
            names.push(name);
        }
        Ok((!names.is_empty()).then(|| names.join(", ")))
    }
}

fn matching(quorums: &[Quorum], fits: impl Fn(&Quorum) -> bool) -> Vec<usize> {
    quorums.iter().enumerate().filter(|(_, quorum)| fits(quorum)).map(|(i, _)| i).collect()
}

impl Standing {
    /// After these words, each of a person of its own.
    pub fn after(terms: Option<&Terms>, votes: &[Vote]) -> Self {
        if votes.iter().any(|vote| vote.verdict == Verdict::Reject) {
            return Self::Rejected;
        }
        let quorums = terms.map(|terms| terms.approvals.as_slice()).unwrap_or_default();
        if quorums.is_empty() {
            let one = Quorum { count: 1, of: super::Who::default() };
            return if votes.is_empty() { Self::Open(vec![one]) } else { Self::Approved };
        }
        let missing: Vec<Quorum> = quorums
            .iter()
            .enumerate()
            .filter_map(|(i, quorum)| {
                let people: BTreeSet<&str> =
                    votes.iter().filter(|vote| vote.counts_for.contains(&i)).map(Vote::person).collect();
                let have = u32::try_from(people.len()).unwrap_or(u32::MAX);
                (have < quorum.count).then(|| Quorum { count: quorum.count - have, of: quorum.of.clone() })
            })
            .collect();
        if missing.is_empty() { Self::Approved } else { Self::Open(missing) }
    }

    /// What it means that the time is over.
    pub fn at_the_end(terms: Option<&Terms>) -> OnExpiry {
        terms.map(|terms| terms.on_expiry).unwrap_or_default()
    }
}

impl Vote {
    /// Whose right it uses: nobody's counts twice.
    fn person(&self) -> &str {
        self.instead_of.as_deref().unwrap_or(&self.by)
    }
}

#[cfg(test)]
mod tests;
