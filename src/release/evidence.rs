//! What a human is shown at the gate. A decision carries this evidence's digest, so it counts for nothing else.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::digest::own_digest;
use super::format::Format;
use super::gate::{Before, Terms};
use super::golden::Difference;
use super::plan::{DeploymentPlan, Limit};

/// The node that asks before work.
pub const WORK_GATE: &str = "work_gate";

/// The version before a build has given it a name.
const UNNAMED: &str = "to be built";

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckResult {
    /// The planned check's name.
    pub name: String,
    /// Whether it passed. What could not be checked did not pass.
    pub passed: bool,
    /// What was seen, one sentence.
    pub detail: String,
    /// What was measured, in the limit's unit.
    #[serde(default)]
    pub value: Option<f64>,
    /// The limit on it.
    #[serde(default)]
    pub limit: Option<Limit>,
}

impl CheckResult {
    /// A check without a measured value.
    pub fn new(name: &str, passed: bool, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), passed, detail: detail.into(), value: None, limit: None }
    }

    /// A measured value held against its limit; what is not a finite number does not pass.
    pub fn measured(name: &str, value: f64, limit: Limit) -> Self {
        let passed = value.is_finite() && limit.holds(value);
        let unit = limit.unit.as_str();
        let detail = format!("{value:.1} {unit}, limit {} {unit}", limit.value);
        Self { name: name.to_owned(), passed, detail, value: value.is_finite().then_some(value), limit: Some(limit) }
    }
}

/// One request that the candidate answers differently from the live version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerDifference {
    /// The golden case.
    pub case: String,
    /// Where the answers differ; `expected` is the live version's.
    pub differences: Vec<Difference>,
}

/// Everything that a decision rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Format of this structure.
    #[serde(default)]
    pub format: Format<1>,
    /// Digest of the plan.
    pub plan_digest: String,
    /// The model's public name.
    pub model: String,
    /// What the decision comes before.
    #[serde(default, skip_serializing_if = "Before::is_traffic")]
    pub before: Before,
    /// The version that was built, or is to be.
    pub version: String,
    /// The package's content, `sha256:<hex>`; before work the project's.
    pub content_digest: String,
    /// The version that serves now; absent at a first release.
    #[serde(default)]
    pub previous_version: Option<String>,
    /// The target environment, if one was named.
    #[serde(default)]
    pub environment: Option<String>,
    /// How each check ended.
    pub checks: Vec<CheckResult>,
    /// Where answers differ from the live version's; empty: nowhere. Absent: nothing was compared.
    #[serde(default)]
    pub diff_to_live: Option<Vec<AnswerDifference>>,
    /// What happens to the traffic after a yes, one sentence each.
    pub traffic_plan: Vec<String>,
    /// Why a human is asked.
    pub because: String,
    /// Who asked for the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    /// Who decides, where a rule of the operator's says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
}

/// What the validation knows beyond the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Findings {
    /// The version that was built.
    pub version: String,
    /// The package's content, `sha256:<hex>`.
    pub content_digest: String,
    /// How each check ended.
    pub checks: Vec<CheckResult>,
    /// See [`Evidence::diff_to_live`].
    #[serde(default)]
    pub diff_to_live: Option<Vec<AnswerDifference>>,
}

impl Evidence {
    /// The evidence for `plan`. A planned check without a result is added as not passed: no data is never a pass. Where the new version can
    /// only be started once the live one has stopped there are no checks yet, and the traffic plan says so.
    pub fn new(plan: &DeploymentPlan, findings: Findings) -> Self {
        let mut checks = findings.checks;
        for planned in plan.checks.iter().filter(|_| plan.hold_ms.is_none()) {
            if !checks.iter().any(|check| check.name == planned.name) {
                checks.push(CheckResult::new(&planned.name, false, "was planned and has no result"));
            }
        }
        Self {
            format: Format,
            plan_digest: plan.digest(),
            before: Before::Traffic,
            model: plan.model.to_string(),
            version: findings.version,
            content_digest: findings.content_digest,
            previous_version: plan.previous_version().map(str::to_owned),
            environment: plan.environment.clone(),
            checks,
            diff_to_live: findings.diff_to_live,
            traffic_plan: plan.traffic.clone(),
            because: plan.approval.because.clone(),
            requested_by: plan.requested_by.clone(),
            terms: None,
        }
    }

    /// The evidence before anything is built of a project whose files have this digest: what the plan will do.
    pub fn before_work(plan: &DeploymentPlan, content_digest: String) -> Self {
        let version = plan.version.clone().unwrap_or_else(|| UNNAMED.to_owned());
        let findings = Findings { version, content_digest, checks: Vec::new(), diff_to_live: None };
        let mut steps = vec![format!("takes what is in {}", plan.build.source.path())];
        steps.extend(plan.steps.iter().filter(|step| step.node != WORK_GATE).map(|step| step.does.clone()));
        steps.extend(plan.env_file.iter().map(|file| format!("gives the service the variables in {file}")));
        steps.extend(plan.metrics.iter().map(|metric| format!("looks at {}", metric.line())));
        Self { before: Before::Work, checks: Vec::new(), traffic_plan: steps, ..Self::new(plan, findings) }
    }

    /// `sha256:<hex>` over all of it; what a [`Decision`](super::Decision) carries.
    pub fn digest(&self) -> String {
        own_digest(self)
    }

    /// Whether every check passed; no check at all is no pass.
    pub fn passed(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.passed)
    }

    /// The measured values by name, for the contract's `metrics_baseline`.
    pub fn baseline(&self) -> BTreeMap<String, f64> {
        let name = |check: &CheckResult| match &check.limit {
            Some(limit) => format!("{}_{}", check.name, limit.unit),
            None => check.name.clone(),
        };
        self.checks.iter().filter_map(|check| Some((name(check), check.value?))).collect()
    }

    /// For people: plain lines, without colour.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("release   {} version {}", self.model, self.version),
            format!("content   {}", self.content_digest),
            format!("replaces  {}", self.previous_version.as_deref().unwrap_or("nothing: first release")),
        ];
        if let Some(environment) = &self.environment {
            lines.push(format!("for       {environment}"));
        }
        lines.push(
            if self.before == Before::Work { "checks    none: nothing is built yet" } else { "checks" }.to_owned(),
        );
        for check in &self.checks {
            lines.push(format!("  {} {}: {}", if check.passed { "pass" } else { "FAIL" }, check.name, check.detail));
        }
        match &self.diff_to_live {
            None if self.before == Before::Work => {}
            None => lines.push("answers   not compared with a live version".to_owned()),
            Some(cases) if cases.is_empty() => lines.push("answers   as the live version's".to_owned()),
            Some(cases) => {
                lines.push("answers that differ from the live version's".to_owned());
                for case in cases {
                    let places = case.differences.iter();
                    lines.extend(places.map(|place| format!("  {} {} {}", case.case, place.path, place.why)));
                }
            }
        }
        lines.push("after a yes".to_owned());
        lines.extend(self.traffic_plan.iter().map(|step| format!("  {step}")));
        lines.push(format!("asked     because {}", self.because));
        if let Some(terms) = &self.terms {
            lines.push(format!("decided   by the rule \"{}\": {}", terms.rule, terms.lines().join(", ")));
        }
        if let Some(who) = &self.requested_by {
            lines.push(format!("wanted    by {who}"));
        }
        lines.push(format!("digest    {}", self.digest()));
        lines
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::release::compare;
    use crate::release::fixtures::plan_of_iris;
    use crate::release::plan::Bound;

    fn findings() -> Findings {
        let limit = Limit { bound: Bound::AtMost, value: 100.0, unit: "ms".into() };
        Findings {
            version: "v2".into(),
            content_digest: "sha256:11".into(),
            checks: vec![
                CheckResult::new("liveness", true, "200"),
                CheckResult::new("readiness", true, "200 after 3 s"),
                CheckResult::new("smoke:generated", true, "1 of 1 answered"),
                CheckResult::new("difference_to_live", true, "compared"),
                CheckResult::measured("latency_p99", 12.0, limit),
            ],
            diff_to_live: Some(vec![AnswerDifference {
                case: "setosa".into(),
                differences: compare(&json!([0]), &json!([1]), 0.0),
            }]),
        }
    }

    #[test]
    fn the_lines_say_what_counts() {
        let evidence = Evidence::new(&plan_of_iris(Some("v1")), findings());
        assert!(evidence.passed());
        let text = evidence.lines().join("\n");
        for part in
            ["iris version v2", "sha256:11", "replaces  v1", "pass latency_p99: 12.0 ms, limit 100 ms", "setosa $[0]"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(text.contains(&evidence.digest()));
        assert_eq!(evidence.baseline(), [("latency_p99_ms".to_owned(), 12.0)].into());
    }

    #[test]
    fn a_check_without_result_did_not_pass() {
        let mut findings = findings();
        findings.checks.retain(|check| check.name != "readiness");
        let evidence = Evidence::new(&plan_of_iris(Some("v1")), findings);
        assert!(!evidence.passed());
        assert!(evidence.lines().join("\n").contains("FAIL readiness: was planned and has no result"));
    }

    #[test]
    fn what_is_not_a_number_does_not_pass() {
        let limit = Limit { bound: Bound::AtMost, value: 100.0, unit: "ms".into() };
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let check = CheckResult::measured("p", value, limit.clone());
            assert!(!check.passed && check.value.is_none());
        }
    }

    #[test]
    fn another_plan_or_finding_is_another_digest() {
        let evidence = Evidence::new(&plan_of_iris(Some("v1")), findings());
        let mut other = findings();
        other.content_digest = "sha256:22".into();
        assert_ne!(evidence.digest(), Evidence::new(&plan_of_iris(Some("v1")), other).digest());
        assert_ne!(evidence.digest(), Evidence::new(&plan_of_iris(Some("v0")), findings()).digest());
        let stored = serde_json::to_string(&evidence).expect("json");
        let back: Evidence = serde_json::from_str(&stored).expect("same");
        assert_eq!(back.digest(), evidence.digest());
    }
}
