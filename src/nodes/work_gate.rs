//! Asks a human before anything is built, where a rule of the operator's wants that: none of the project's code has run by then.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::World;
use super::approval_gate::{ask, terms};
use super::world::port_err;
use crate::graph::{Context, Failure, Node, NodeError, Outcome};
use crate::ports::SourceCopy;
use crate::release::{Decision, DeploymentPlan, EnvSpec, Evidence};

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
    /// What was shown. Its `content_digest` is that of the project's files: a copy of these is what is built.
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
        let path = Path::new(plan.build.source.path());
        let digest = async { self.0.packager.digest_of_source(path).await.map_err(port_err) };
        let source = cx.pin("source", digest).await?;
        let mut evidence = Evidence::before_work(&plan, source);
        evidence.terms = terms(&*self.0.expressions, &plan, &evidence)?;
        let Some(terms) = &evidence.terms else { return Ok(Outcome::update(Writes { cleared: None })) };
        all_inside(&plan.build.env)?;
        evidence.because = format!("the rule \"{}\" wants one before anything is built", terms.rule);
        let approval = ask(cx, &plan, &evidence).await?;
        Ok(Outcome::update(Writes { cleared: Some(Cleared { evidence, approval }) }))
    }
}

impl Cleared {
    /// A copy of the project's files, held against what somebody said yes to: it is what is built, whatever becomes of the project meanwhile.
    /// Made anew at each attempt.
    ///
    /// # Errors
    /// `source_changed`.
    pub(super) async fn copy(&self, cx: &Context, world: &World, plan: &DeploymentPlan) -> Result<PathBuf, NodeError> {
        let (path, of) = (plan.build.source.path(), cx.thread().to_string());
        let copy = async { world.packager.copy_source(Path::new(path), &of).await.map_err(port_err) };
        let SourceCopy { path: copy, digest: now } = cx.observe("copy", copy).await?;
        let approved = &self.evidence.content_digest;
        if now == *approved {
            return Ok(copy);
        }
        let changed = Failure::new("source_changed", format!("{path} is not what {} approved", self.approval.by))
            .because(format!("the files approved have the digest {approved}, those there now {now}"))
            .hint("release again, and leave the files alone from the question to the beginning of the build");
        Err(NodeError::Failed(changed))
    }
}

/// Nobody could see on what is shown what lies elsewhere.
fn all_inside(env: &EnvSpec) -> Result<(), Failure> {
    let inside = Path::new(&env.requirements).components().all(|part| matches!(part, Component::Normal(_)));
    let is_of_git = env.requirements == ".git" || env.requirements.starts_with(".git/");
    let outside = match &env.python {
        _ if !inside || is_of_git => format!("requirements: {}", env.requirements),
        Some(python) if python.contains('/') => format!("python: {python}"),
        _ => return Ok(()),
    };
    Err(Failure::new("outside_source", "something that this release runs is not among the project's files")
        .because(outside)
        .hint("a rule with `before: work` shows the project's files: keep the requirements among them, and name a Python by its version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_release_runs_is_among_its_files() {
        let with = |requirements: &str, python: Option<&str>| {
            let env = EnvSpec { requirements: requirements.to_owned(), python: python.map(str::to_owned) };
            all_inside(&env).map_err(|failure| failure.code.clone())
        };
        assert_eq!((with("requirements.txt", None), with("locks/r.txt", Some("3.11"))), (Ok(()), Ok(())));
        for requirements in ["/tmp/r.txt", "../r.txt", "a/../../r.txt", ".git/r.txt"] {
            assert_eq!(with(requirements, None), Err("outside_source".to_owned()), "{requirements}");
        }
        assert_eq!(with("r.txt", Some("/tmp/python")), Err("outside_source".to_owned()));
    }
}
