//! When a human must decide, and what a decision is.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::format::Format;
use super::gate::{Before, DEADLINE, Delegation, Freeze, GateRule, OnExpiry, Standing, Terms, Vote};
use super::spec::{ApprovalMode, ApprovalSpec};

/// How long an approval stays open where nobody says otherwise, in milliseconds: 24 hours.
pub const DEFAULT_APPROVAL_TTL_MS: u64 = 86_400_000;

/// The operator's rules about approvals. A request can ask for more than they demand, never for less.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Per target environment.
    #[serde(default)]
    pub environments: BTreeMap<String, ApprovalMode>,
    /// Whether the first release of a model always needs one.
    #[serde(default)]
    pub first_release_required: bool,
    /// For everything else, where the request is silent; absent: required.
    #[serde(default)]
    pub otherwise: Option<ApprovalMode>,
    /// Who decides; the first rule that fits a release counts for it.
    #[serde(default)]
    pub gates: Vec<GateRule>,
    /// Groups of people, by name.
    #[serde(default)]
    pub groups: BTreeMap<String, BTreeSet<String>>,
    /// Who decides in whose place.
    #[serde(default)]
    pub delegations: Vec<Delegation>,
    /// When nothing is released.
    #[serde(default)]
    pub freezes: Vec<Freeze>,
}

/// The rule that decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalRule {
    /// The operator's rule for the target environment.
    Environment,
    /// The operator's rule for first releases.
    FirstRelease,
    /// The request or the release file says so.
    Explicit,
    /// Nothing else applied.
    Default,
}

/// Whether a human must decide on a plan, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalNeed {
    /// Whether.
    pub required: bool,
    /// By which rule.
    pub rule: ApprovalRule,
    /// Why, in words.
    pub because: String,
    /// How long the question stays open, in milliseconds.
    pub ttl_ms: u64,
    /// The operator's rules about who decides, as they were when the plan was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateRule>,
    /// When nothing is released, as it was said when the plan was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freezes: Vec<Freeze>,
    /// Whether one of the gates may come before anything is built.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub before_work: bool,
}

impl ApprovalNeed {
    /// The freeze of the plan's that holds at `now`.
    pub fn frozen(&self, now: DateTime<Utc>, environment: Option<&str>) -> Option<&Freeze> {
        self.freezes.iter().find(|freeze| freeze.holds(now, environment))
    }
}

impl Policy {
    /// What stands before a release to `environment` at `now` that no request can waive, in words: a rule of the operator's, or a freeze.
    pub fn stands_before(&self, environment: Option<&str>, now: DateTime<Utc>) -> Option<String> {
        if let Some(freeze) = self.freezes.iter().find(|freeze| freeze.holds(now, environment)) {
            return Some(format!("nothing is released now: {}", freeze.name));
        }
        if let Some(rule) = self.gates.first() {
            return Some(format!("the operator has rules for who decides ({})", rule.name));
        }
        let ruled = environment.and_then(|name| Some((name, *self.environments.get(name)?)));
        match ruled {
            Some((name, ApprovalMode::Required)) => {
                Some(format!("policy requires an approval for the environment {name}"))
            }
            None if self.otherwise == Some(ApprovalMode::Required) => Some("policy requires an approval".to_owned()),
            _ => None,
        }
    }

    /// Whether a release needs a human. The strictest applying rule wins: the environment's demand, the first release's demand, the
    /// request's own word, the environment's waiver, the default.
    pub fn decide(&self, environment: Option<&str>, first_release: bool, asked: ApprovalSpec) -> ApprovalNeed {
        let by_environment = environment.and_then(|name| Some((name, *self.environments.get(name)?)));
        let (required, rule, because) = match (by_environment, asked.mode) {
            (Some((name, ApprovalMode::Required)), _) => {
                (true, ApprovalRule::Environment, format!("policy requires one for the environment {name}"))
            }
            _ if first_release && self.first_release_required => {
                (true, ApprovalRule::FirstRelease, "policy requires one for the first release of a model".to_owned())
            }
            (_, Some(ApprovalMode::Required)) => (true, ApprovalRule::Explicit, "the request asks for one".to_owned()),
            (None, Some(ApprovalMode::None)) if self.otherwise == Some(ApprovalMode::Required) => {
                let because = "policy requires one where it says nothing else, whatever the request asks for";
                (true, ApprovalRule::Default, because.to_owned())
            }
            (_, Some(ApprovalMode::None)) => (false, ApprovalRule::Explicit, "the request asks for none".to_owned()),
            (Some((name, ApprovalMode::None)), None) => {
                (false, ApprovalRule::Environment, format!("policy needs none for the environment {name}"))
            }
            (None, None) => {
                let required = self.otherwise != Some(ApprovalMode::None);
                let because =
                    if required { "nothing says that none is needed" } else { "policy needs none by default" };
                (required, ApprovalRule::Default, because.to_owned())
            }
        };
        let ttl_ms = asked.ttl.map_or(DEFAULT_APPROVAL_TTL_MS, |ttl| ttl.0);
        let (gates, freezes) = (self.gates.clone(), self.freezes.clone());
        let before_work = gates.iter().any(|gate| gate.before == Before::Work);
        ApprovalNeed { required, rule, because, ttl_ms, gates, freezes, before_work }
    }

    /// What makes no sense in it, if anything does.
    pub fn fault(&self) -> Option<String> {
        let quorum = |rule: &GateRule| rule.approvals.iter().any(|quorum| quorum.count == 0);
        if let Some(rule) = self.gates.iter().find(|rule| quorum(rule)) {
            return Some(format!("gate \"{}\": an approval of nobody is none; `count` is 1 or more", rule.name));
        }
        let freeze = |freeze: &Freeze| freeze.fault().map(|why| format!("freeze \"{}\": {why}", freeze.name));
        self.freezes.iter().find_map(freeze)
    }
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It may go on.
    Approve,
    /// It may not.
    Reject,
}

/// A human's decision, bound to what was shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Format of this structure.
    #[serde(default)]
    pub format: Format<1>,
    /// Yes or no.
    pub verdict: Verdict,
    /// Who decided.
    pub by: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Why; needed for a no.
    #[serde(default)]
    pub reason: Option<String>,
    /// Digest of the evidence that was shown, `sha256:<hex>`.
    pub digest: String,
    /// What each of several people has said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<Vote>,
}

/// Why a decision does not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum DecisionError {
    /// It was made on something else.
    #[error("the decision by {by} was made on {decided}, but what is to be decided now is {current}")]
    DecisionOutdated {
        /// Who decided.
        by: String,
        /// Digest that was decided on.
        decided: String,
        /// Digest that counts.
        current: String,
    },
    /// Nobody is named.
    #[error("a decision names who made it")]
    DecisionAnonymous,
    /// A no without a reason.
    #[error("a rejection says why")]
    DecisionUnexplained,
    /// A yes that the rule does not take for enough.
    #[error("the rule \"{rule}\" wants more than the word of {by}")]
    DecisionIncomplete {
        /// The rule.
        rule: String,
        /// Who decided.
        by: String,
    },
}

impl DecisionError {
    /// Stable code, documented in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::DecisionOutdated { .. } => "decision_outdated",
            Self::DecisionAnonymous => "decision_anonymous",
            Self::DecisionUnexplained => "decision_unexplained",
            Self::DecisionIncomplete { .. } => "decision_incomplete",
        }
    }
}

impl Decision {
    /// Checks that this decision counts for the evidence whose digest is `current`.
    ///
    /// # Errors
    /// When it was made on other evidence, by nobody, or rejects without a reason.
    pub fn check(&self, current: &str) -> Result<(), DecisionError> {
        if self.by.trim().is_empty() {
            return Err(DecisionError::DecisionAnonymous);
        }
        if self.verdict == Verdict::Reject && self.reason.as_deref().is_none_or(|reason| reason.trim().is_empty()) {
            return Err(DecisionError::DecisionUnexplained);
        }
        if self.digest != current {
            let (by, decided) = (self.by.clone(), self.digest.clone());
            return Err(DecisionError::DecisionOutdated { by, decided, current: current.to_owned() });
        }
        Ok(())
    }

    /// Checks that what people have said is enough for these terms: whatever way the decision came.
    ///
    /// # Errors
    /// A yes that is not.
    pub fn meets(&self, terms: Option<&Terms>) -> Result<(), DecisionError> {
        let Some(terms) = terms.filter(|_| self.verdict == Verdict::Approve) else { return Ok(()) };
        let silent = self.by == DEADLINE && terms.on_expiry == OnExpiry::Approve;
        if silent || Standing::after(Some(terms), &self.votes) == Standing::Approved {
            return Ok(());
        }
        Err(DecisionError::DecisionIncomplete { rule: terms.rule.clone(), by: self.by.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: ApprovalSpec = ApprovalSpec { mode: Some(ApprovalMode::None), ttl: None };
    const REQUIRED: ApprovalSpec = ApprovalSpec { mode: Some(ApprovalMode::Required), ttl: None };
    const SILENT: ApprovalSpec = ApprovalSpec { mode: None, ttl: None };

    #[test]
    fn the_strictest_rule_wins() {
        let policy = Policy {
            environments: [("prod".into(), ApprovalMode::Required), ("dev".into(), ApprovalMode::None)].into(),
            first_release_required: true,
            ..Policy::default()
        };
        for (environment, first, asked, required, rule) in [
            (Some("prod"), false, NONE, true, ApprovalRule::Environment),
            (Some("dev"), true, NONE, true, ApprovalRule::FirstRelease),
            (Some("dev"), false, REQUIRED, true, ApprovalRule::Explicit),
            (Some("dev"), false, SILENT, false, ApprovalRule::Environment),
            (None, false, NONE, false, ApprovalRule::Explicit),
            (None, false, SILENT, true, ApprovalRule::Default),
        ] {
            let need = policy.decide(environment, first, asked);
            assert_eq!((need.required, need.rule), (required, rule), "{environment:?} {first} {asked:?}");
        }
    }

    #[test]
    fn what_stands_before_a_release_is_the_operator_s_word_alone() {
        let stands = |policy: serde_json::Value, environment| {
            let policy: Policy = serde_json::from_value(policy).unwrap();
            policy.stands_before(environment, DateTime::UNIX_EPOCH)
        };
        let modes = serde_json::json!({"environments": {"prod": "required", "dev": "none"}, "otherwise": "required"});
        assert_eq!(stands(serde_json::json!({"first_release_required": true}), Some("prod")), None);
        assert!(stands(modes.clone(), Some("prod")).unwrap().contains("environment prod"));
        assert_eq!(stands(modes.clone(), Some("dev")), None);
        assert!(stands(modes, None).is_some());
        assert!(stands(serde_json::json!({"gates": [{"name": "leads"}]}), None).unwrap().contains("leads"));
        let freeze =
            |until| serde_json::json!({"freezes": [{"name": "sale", "from": "1969-01-01T00:00:00Z", "until": until}]});
        assert!(stands(freeze("1971-01-01T00:00:00Z"), None).unwrap().contains("sale"));
        assert_eq!(stands(freeze("1969-06-01T00:00:00Z"), None), None);
    }

    #[test]
    fn a_decision_binds_to_what_was_shown() {
        let at = DateTime::UNIX_EPOCH;
        let mut decision = Decision {
            format: Format,
            verdict: Verdict::Reject,
            by: "ada".into(),
            at,
            reason: None,
            digest: "sha256:a".into(),
            votes: Vec::new(),
        };
        assert_eq!(decision.check("sha256:a"), Err(DecisionError::DecisionUnexplained));
        decision.reason = Some("too slow".into());
        assert_eq!(decision.check("sha256:a"), Ok(()));
        assert_eq!(decision.check("sha256:b").expect_err("other").code(), "decision_outdated");
        decision.by = " ".into();
        assert_eq!(decision.check("sha256:a"), Err(DecisionError::DecisionAnonymous));
    }
}
