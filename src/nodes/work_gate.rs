//! Asks a human before anything is built, where a rule of the operator's wants that: none of the project's code has run by then.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::World;
use super::approval_gate::{ask, terms};
use super::world::port_err;
use crate::graph::{Context, Failure, Node, NodeError, Outcome};
use crate::release::{Decision, DeploymentPlan, Evidence, ModelSource};

/// Reads the plan, writes the decision.
pub struct WorkGate(pub Arc<World>);

/// What it reads.
#[derive(Deserialize, JsonSchema)]
pub struct Reads {
    plan: DeploymentPlan,
}

/// What it writes.
#[derive(Serialize, JsonSchema)]
pub struct Writes {
    /// Absent where no rule fits.
    cleared: Option<Cleared>,
}

/// A yes to beginning work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cleared {
    /// What was shown. Its `content_digest` is that of the project's files: nothing else is built.
    pub evidence: Evidence,
    /// Who said yes.
    pub approval: Decision,
}

#[async_trait]
impl Node for WorkGate {
    const KIND: &'static str = crate::release::WORK_GATE;
    const VERSION: u32 = 1;
    type Reads = Reads;
    type Writes = Writes;

    async fn run(&self, cx: &Context, reads: Reads) -> Result<Outcome<Writes>, NodeError> {
        let plan = reads.plan;
        let source = cx.pin("source", digest(&self.0, &plan.build.source)).await?;
        let mut evidence = Evidence::before_work(&plan, source);
        evidence.terms = terms(&*self.0.expressions, &plan, &evidence)?;
        let Some(terms) = &evidence.terms else { return Ok(Outcome::update(Writes { cleared: None })) };
        evidence.because = format!("the rule \"{}\" wants one before anything is built", terms.rule);
        let approval = ask(cx, &plan, &evidence).await?;
        Ok(Outcome::update(Writes { cleared: Some(Cleared { evidence, approval }) }))
    }
}

impl Cleared {
    /// Holds the project's files against what somebody said yes to; looked at once, as the build may change them itself.
    ///
    /// # Errors
    /// `source_changed`.
    pub(super) async fn holds(&self, cx: &Context, world: &World, plan: &DeploymentPlan) -> Result<(), NodeError> {
        let now: String = cx.pin("source", digest(world, &plan.build.source)).await?;
        let approved = &self.evidence.content_digest;
        if now == *approved {
            return Ok(());
        }
        let path = plan.build.source.path();
        let changed = Failure::new("source_changed", format!("{path} is not what {} approved", self.approval.by))
            .because(format!("the files approved have the digest {approved}, those there now {now}"))
            .hint("release again, and leave the files alone from the question to the end of the build");
        Err(NodeError::Failed(changed))
    }
}

async fn digest(world: &World, source: &ModelSource) -> Result<String, NodeError> {
    world.packager.digest_of_source(Path::new(source.path())).await.map_err(port_err)
}
