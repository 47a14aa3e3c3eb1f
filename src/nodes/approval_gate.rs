//! Asks a human, where the plan says so, with all the evidence; nothing that users see has changed by then.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::deployment_executor::package;
use super::effects::UpdateRelease;
use super::{Validated, World};
use crate::graph::{Context, Failure, Node, NodeError, Outcome};
use crate::release::{Decision, DeploymentPlan, Evidence, Findings, PlanState, ReleaseChange, Verdict};

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

    /// The decision in an answer, where it is a yes about what was shown.
    ///
    /// # Errors
    /// `rejected`; or why it does not count.
    pub(super) fn approved(&self, answer: Value) -> Result<Decision, Failure> {
        let decision: Decision = serde_json::from_value(answer)
            .map_err(|e| Failure::new("decision_unreadable", "the answer is no decision").because(e.to_string()))?;
        decision.check(&self.digest).map_err(|e| Failure::new(e.code(), e.to_string()))?;
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
        let evidence = Evidence::new(&reads.plan, findings);
        let approval = if reads.plan.approval.required { Some(ask(cx, &reads.plan, &evidence).await?) } else { None };
        let at = cx.now().await?;
        let change = ReleaseChange::to(PlanState::Approved, at);
        cx.effect("approved", UpdateRelease { deployment_id: cx.thread().to_string(), change }).await?;
        Ok(Outcome::update(Writes { evidence, approval }))
    }
}

async fn ask(cx: &Context, plan: &DeploymentPlan, evidence: &Evidence) -> Result<Decision, NodeError> {
    let question = ApprovalQuestion::about(evidence);
    let answer = cx.interrupt_within(&question, Duration::from_millis(plan.approval.ttl_ms)).await?;
    Ok(question.approved(answer)?)
}
