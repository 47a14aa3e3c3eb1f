//! Asks a human, where the plan says so, with all the evidence; nothing that users see has changed by then.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::deployment_executor::package;
use super::effects::UpdateRelease;
use super::{Validated, World};
use crate::graph::{Context, Failure, Node, NodeError, Outcome};
use crate::ports::Expressions;
use crate::release::{
    DEADLINE, Decision, DeploymentPlan, Evidence, Findings, Format, OnExpiry, PlanState, ReleaseChange, Standing,
    Terms, Verdict,
};

/// Reads plan and findings, writes evidence and the decision.
pub struct ApprovalGate(pub Arc<World>);

/// What it reads.
#[derive(Deserialize, JsonSchema)]
pub struct Reads {
    plan: DeploymentPlan,
    package: Value,
    /// Absent where the new version can only be started once the live one has stopped: its checks come after the decision.
    validated: Option<Validated>,
}

/// What it writes.
#[derive(Serialize, JsonSchema)]
pub struct Writes {
    evidence: Evidence,
    approval: Option<Decision>,
}

/// What a human is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalQuestion {
    /// `approval`.
    pub kind: String,
    /// The model.
    pub model: String,
    /// The version.
    pub version: String,
    /// Everything that the decision rests on.
    pub evidence: Evidence,
    /// The evidence's digest, which the decision must carry.
    pub digest: String,
}

impl ApprovalQuestion {
    /// What a human is asked about this evidence.
    pub(super) fn about(evidence: &Evidence) -> Self {
        Self {
            kind: "approval".into(),
            model: evidence.model.clone(),
            version: evidence.version.clone(),
            digest: evidence.digest(),
            evidence: evidence.clone(),
        }
    }

    /// How long it stays open, in milliseconds.
    pub(super) fn open_ms(&self, plan: &DeploymentPlan) -> u64 {
        let asked = plan.approval.ttl_ms;
        self.evidence.terms.as_ref().map_or(asked, |terms| terms.open_ms(asked))
    }

    /// The decision in an answer, where it is a yes about what was shown. Where nobody answered in time, and the rule takes that for a
    /// yes, it is the rule's.
    ///
    /// # Errors
    /// `rejected`, `expired`; or why it does not count.
    pub(super) async fn approved(
        &self,
        cx: &Context,
        plan: &DeploymentPlan,
        answer: Result<Value, NodeError>,
    ) -> Result<Decision, NodeError> {
        let terms = self.evidence.terms.as_ref();
        match answer {
            Ok(answer) => Ok(self.read(answer)?),
            Err(NodeError::Failed(failure))
                if failure.code == "expired" && Standing::at_the_end(terms) == OnExpiry::Approve =>
            {
                let at = cx.now().await?;
                if plan.approval.frozen(at, plan.environment.as_deref()).is_some() {
                    // Silence overrides no freeze.
                    return Err(NodeError::Failed(failure));
                }
                Ok(Decision {
                    format: Format,
                    verdict: Verdict::Approve,
                    by: DEADLINE.to_owned(),
                    at,
                    reason: Some(failure.message.clone()),
                    digest: self.digest.clone(),
                    votes: Vec::new(),
                })
            }
            Err(error) => Err(error),
        }
    }

    fn read(&self, answer: Value) -> Result<Decision, Failure> {
        let decision: Decision = serde_json::from_value(answer)
            .map_err(|e| Failure::new("decision_unreadable", "the answer is no decision").because(e.to_string()))?;
        let counts = decision.check(&self.digest).and_then(|()| decision.meets(self.evidence.terms.as_ref()));
        counts.map_err(|e| Failure::new(e.code(), e.to_string()))?;
        match decision.verdict {
            Verdict::Approve => Ok(decision),
            Verdict::Reject => {
                let reason = decision.reason.unwrap_or_default();
                Err(Failure::new("rejected", format!("{} rejected the release: {reason}", decision.by)))
            }
        }
    }
}

#[async_trait]
impl Node for ApprovalGate {
    const KIND: &'static str = "approval_gate";
    const VERSION: u32 = 1;
    type Reads = Reads;
    type Writes = Writes;

    async fn run(&self, cx: &Context, reads: Reads) -> Result<Outcome<Writes>, NodeError> {
        let package = package(reads.package)?;
        let found = reads.validated.map(|validated| (validated.checks, validated.diff_to_live));
        let (checks, diff_to_live) = found.unwrap_or_default();
        let (version, content_digest) = (package.model_version, package.content_digest);
        let findings = Findings { version, content_digest, checks, diff_to_live };
        let mut evidence = Evidence::new(&reads.plan, findings);
        evidence.terms = terms(&*self.0.expressions, &reads.plan, &evidence)?;
        let needed = needed(cx, &reads.plan, &mut evidence).await?;
        let approval = if needed { Some(ask(cx, &reads.plan, &evidence).await?) } else { None };
        let at = cx.now().await?;
        let change = ReleaseChange::to(PlanState::Approved, at);
        cx.effect("approved", UpdateRelease { deployment_id: cx.thread().to_string(), change }).await?;
        Ok(Outcome::update(Writes { evidence, approval }))
    }
}

/// Whether somebody must decide: the plan says so, a rule fits, or nothing is released at this time.
async fn needed(cx: &Context, plan: &DeploymentPlan, evidence: &mut Evidence) -> Result<bool, NodeError> {
    if plan.approval.required {
        return Ok(true);
    }
    if let Some(terms) = &evidence.terms {
        evidence.because = format!("the rule \"{}\" wants one", terms.rule);
        return Ok(true);
    }
    if plan.approval.freezes.is_empty() {
        return Ok(false);
    }
    let now = cx.now().await?;
    let Some(freeze) = plan.approval.frozen(now, plan.environment.as_deref()) else { return Ok(false) };
    evidence.because = format!("nothing is released now: {}", freeze.name);
    Ok(true)
}

/// The first of the plan's rules that comes before the same and fits what is known now.
///
/// # Errors
/// `gate_condition`: a condition that cannot be evaluated; it might have fitted.
pub(super) fn terms(
    expressions: &dyn Expressions,
    plan: &DeploymentPlan,
    evidence: &Evidence,
) -> Result<Option<Terms>, Failure> {
    let value = |of: serde_json::Result<Value>| of.map_err(|e| Failure::new("not_json", e.to_string()));
    let mut names = Map::new();
    for rule in plan.approval.gates.iter().filter(|rule| rule.before == evidence.before) {
        let Some(when) = &rule.when else { return Ok(Some(rule.into())) };
        if names.is_empty() {
            names.insert("plan".to_owned(), value(serde_json::to_value(plan))?);
            names.insert("evidence".to_owned(), value(serde_json::to_value(evidence))?);
            names.insert("environment".to_owned(), value(serde_json::to_value(&plan.environment))?);
        }
        let wrong = |why: String| {
            Failure::new("gate_condition", format!("the condition of the gate \"{}\" cannot be evaluated", rule.name))
                .because(why)
                .hint("mend `when` under `policy.gates` in config.yaml, then release again")
        };
        match expressions.value(when, &names).map_err(|e| wrong(e.message))? {
            Value::Bool(true) => return Ok(Some(rule.into())),
            Value::Bool(false) => {}
            other => return Err(wrong(format!("it is {other}, neither true nor false"))),
        }
    }
    Ok(None)
}

pub(super) async fn ask(cx: &Context, plan: &DeploymentPlan, evidence: &Evidence) -> Result<Decision, NodeError> {
    let question = ApprovalQuestion::about(evidence);
    let answer = cx.interrupt_within(&question, Duration::from_millis(question.open_ms(plan))).await;
    question.approved(cx, plan, answer).await
}
