//! The library's level of single steps: plan, decide, execute, verify.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::deployer::{DeployCall, DeployFn, HealthChecker, ManagerError, Surroundings, run};
use super::ledger::{LedgerError, ReleaseChange, ReleaseKind, ReleaseLedger, ReleaseRow};
use super::plan::{DeploymentPlan, PlanInput};
use super::planner::plan_with;
use super::policy::{Decision, Verdict};
use super::state::{PlanEvent, PlanState, transition};
use super::strategy::{DeploymentStrategy, Strategies};

/// Plans releases and carries them out, with pluggable strategies, health checker and deploy function.
#[derive(Clone)]
pub struct DeploymentOrchestrator {
    ledger: Arc<dyn ReleaseLedger>,
    deployer: Arc<dyn DeployFn>,
    around: Arc<dyn Surroundings>,
    checker: Option<Arc<dyn HealthChecker>>,
    strategies: Strategies,
}

/// A plan and the release that it opened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlannedDeployment {
    /// The release, in state DRAFT.
    pub deployment_id: String,
    /// The plan.
    pub plan: DeploymentPlan,
}

/// Whether a release is well, and whether anybody looked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// Whether it is well; true also when nobody looked.
    pub healthy: bool,
    /// Whether a checker looked.
    pub verified: bool,
    /// What was seen, one sentence.
    pub detail: String,
}

impl DeploymentOrchestrator {
    /// An orchestrator over these parts, with the strategies that come with Tidegate and no health checker.
    pub fn new(ledger: Arc<dyn ReleaseLedger>, deployer: Arc<dyn DeployFn>, around: Arc<dyn Surroundings>) -> Self {
        Self { ledger, deployer, around, checker: None, strategies: Strategies::builtin() }
    }

    /// With a health checker.
    #[must_use]
    pub fn with_checker(mut self, checker: Arc<dyn HealthChecker>) -> Self {
        self.checker = Some(checker);
        self
    }

    /// With one more strategy.
    #[must_use]
    pub fn with_strategy(mut self, strategy: Arc<dyn DeploymentStrategy>) -> Self {
        self.strategies = self.strategies.with(strategy);
        self
    }

    /// Plans a release and opens its row as DRAFT. What is live is read from the ledger where `input` does not say it.
    ///
    /// # Errors
    /// When there is no plan (nothing is opened then), or the ledger cannot be used.
    pub async fn plan_deployment(&self, input: &PlanInput) -> Result<PlannedDeployment, ManagerError> {
        let mut input = input.clone();
        if input.live.is_none() {
            input.live = self.ledger.live(input.request.model.as_str()).await?.and_then(|row| row.as_live());
        }
        let plan = plan_with(&input, &self.strategies)?;
        let deployment_id = self.around.new_id();
        let row = ReleaseRow {
            model_version: plan.version.clone(),
            deployment_strategy: plan.strategy,
            previous_version: plan.previous_version().map(str::to_owned),
            plan: Some(plan.to_value()),
            requested_by: input.request.requested_by.clone(),
            environment: plan.environment.clone(),
            ..ReleaseRow::new(&deployment_id, plan.model.as_str(), ReleaseKind::Deploy, self.around.now())
        };
        self.ledger.open(row).await?;
        Ok(PlannedDeployment { deployment_id, plan })
    }

    /// Records a decision on a draft; its digest must be the plan's.
    ///
    /// # Errors
    /// When the decision does not count, the release is unknown, or it is not a draft.
    pub async fn decide(&self, deployment_id: &str, decision: &Decision) -> Result<ReleaseRow, ManagerError> {
        let row = self.row(deployment_id).await?;
        decision.check(&read_plan(&row)?.digest())?;
        let change = match decision.verdict {
            Verdict::Approve => ReleaseChange::to(PlanState::Approved, self.around.now()),
            Verdict::Reject => {
                let reason = decision.reason.as_deref().unwrap_or_default();
                ReleaseChange::failed(&format!("rejected by {}: {reason}", decision.by), self.around.now())
            }
        };
        let change = ReleaseChange { only_from: vec![PlanState::Draft], ..change };
        Ok(self.ledger.update(deployment_id, change).await?)
    }

    /// Executes a plan. A draft may be executed: the deploy function holds the gate then, if its plan wants one.
    ///
    /// # Errors
    /// When the release is neither DRAFT nor APPROVED, or unknown; when the deploy fails: the row is FAILED with the reason.
    pub async fn execute_deployment(&self, deployment_id: &str) -> Result<ReleaseRow, ManagerError> {
        let row = self.row(deployment_id).await?;
        if let Err(error) = transition(row.status, PlanEvent::Start) {
            let (deployment_id, from) = (row.deployment_id, error.state);
            return Err(LedgerError::ReleaseState { deployment_id, from, to: PlanState::Executing }.into());
        }
        let plan = read_plan(&row)?;
        let call = DeployCall {
            deployment_id: row.deployment_id,
            service: row.model_name,
            version: plan.version.clone(),
            strategy: plan.strategy,
            plan: Some(plan),
        };
        run(self.ledger.as_ref(), self.deployer.as_ref(), self.around.as_ref(), &call).await
    }

    /// Looks whether a release is well. Without a health checker it counts as healthy and is reported as unverified.
    ///
    /// # Errors
    /// When the release is unknown.
    pub async fn verify_deployment(&self, deployment_id: &str) -> Result<Verification, ManagerError> {
        let row = self.row(deployment_id).await?;
        let Some(checker) = &self.checker else {
            let detail = "no health checker was given, so nobody looked".to_owned();
            return Ok(Verification { healthy: true, verified: false, detail });
        };
        let health = checker.check(&row).await;
        Ok(Verification { healthy: health.healthy, verified: true, detail: health.detail })
    }

    /// The state of a release.
    ///
    /// # Errors
    /// When it is unknown.
    pub async fn get_deployment_status(&self, deployment_id: &str) -> Result<PlanState, ManagerError> {
        Ok(self.row(deployment_id).await?.status)
    }

    async fn row(&self, deployment_id: &str) -> Result<ReleaseRow, LedgerError> {
        let unknown = || LedgerError::ReleaseUnknown { deployment_id: deployment_id.to_owned() };
        self.ledger.get(deployment_id).await?.ok_or_else(unknown)
    }
}

fn read_plan(row: &ReleaseRow) -> Result<DeploymentPlan, ManagerError> {
    let unreadable =
        |message: String| ManagerError::PlanUnreadable { deployment_id: row.deployment_id.clone(), message };
    let plan = row.plan.clone().ok_or_else(|| unreadable("none is stored".to_owned()))?;
    serde_json::from_value(plan).map_err(|error| unreadable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::release::fixtures::{Scripted, Ticking, at, input_of_iris, wait};
    use crate::release::{Format, Health, MemoryLedger, ModelDeployerOutput, Situation, Slots, Strategy};

    fn orchestrator(deployer: Scripted) -> DeploymentOrchestrator {
        let ledger = Arc::new(MemoryLedger::default());
        DeploymentOrchestrator::new(ledger, Arc::new(deployer), Arc::new(Ticking::default()))
    }

    fn decision(verdict: Verdict, digest: String) -> Decision {
        let reason = Some("as seen".to_owned());
        Decision { format: Format, verdict, by: "ada".into(), at: at(0), reason, digest, votes: Vec::new() }
    }

    #[test]
    fn plan_approve_execute_verify() {
        let orchestrator = orchestrator(Scripted::default());
        let planned = wait(orchestrator.plan_deployment(&input_of_iris(None))).expect("planned");
        let id = planned.deployment_id.as_str();
        assert_eq!(wait(orchestrator.get_deployment_status(id)).expect("known"), PlanState::Draft);
        wait(orchestrator.decide(id, &decision(Verdict::Approve, planned.plan.digest()))).expect("approved");
        assert_eq!(wait(orchestrator.get_deployment_status(id)).expect("known"), PlanState::Approved);
        let row = wait(orchestrator.execute_deployment(id)).expect("executed");
        assert_eq!((row.status, row.live), (PlanState::Completed, true));
        let output: ModelDeployerOutput = serde_json::from_value(row.output.expect("output")).expect("the contract");
        assert_eq!((output.deployment_id.as_str(), output.health_check_passed), (id, true));
        let verified = wait(orchestrator.verify_deployment(id)).expect("known");
        assert_eq!((verified.healthy, verified.verified), (true, false));
        let next = wait(orchestrator.plan_deployment(&input_of_iris(None))).expect("planned");
        assert_eq!(next.plan.previous_version(), Some("built"), "what is live is read from the ledger");
        assert_eq!(next.plan.slots.candidate, "green");
    }

    #[test]
    fn only_drafts_and_approved_ones_are_executed() {
        let orchestrator = orchestrator(Scripted::default());
        let id = wait(orchestrator.plan_deployment(&input_of_iris(None))).expect("planned").deployment_id;
        wait(orchestrator.execute_deployment(&id)).expect("a draft may be");
        let error = wait(orchestrator.execute_deployment(&id)).expect_err("completed");
        assert!(error.to_string().contains("COMPLETED"), "{error}");
        assert_eq!(wait(orchestrator.execute_deployment("nobody")).expect_err("unknown").code(), "release_unknown");
    }

    #[test]
    fn rejected_and_outdated() {
        let orchestrator = orchestrator(Scripted::default());
        let planned = wait(orchestrator.plan_deployment(&input_of_iris(None))).expect("planned");
        let id = planned.deployment_id.as_str();
        let error =
            wait(orchestrator.decide(id, &decision(Verdict::Approve, "sha256:other".into()))).expect_err("other");
        assert_eq!(error.code(), "decision_outdated");
        let row = wait(orchestrator.decide(id, &decision(Verdict::Reject, planned.plan.digest()))).expect("rejected");
        assert_eq!((row.status, row.reason.as_deref()), (PlanState::Failed, Some("rejected by ada: as seen")));
        let late = wait(orchestrator.decide(id, &decision(Verdict::Approve, planned.plan.digest())));
        assert_eq!(late.expect_err("decided").code(), "release_state");
        assert!(wait(orchestrator.execute_deployment(id)).is_err());
    }

    #[test]
    fn a_failure_is_recorded() {
        let orchestrator = orchestrator(Scripted { fails_always: true, ..Scripted::default() });
        let id = wait(orchestrator.plan_deployment(&input_of_iris(None))).expect("planned").deployment_id;
        assert_eq!(wait(orchestrator.execute_deployment(&id)).expect_err("fails").code(), "broken");
        assert_eq!(wait(orchestrator.get_deployment_status(&id)).expect("known"), PlanState::Failed);
    }

    struct Sick;

    #[async_trait]
    impl HealthChecker for Sick {
        async fn check(&self, release: &ReleaseRow) -> Health {
            Health { healthy: false, detail: format!("{} answers 503", release.model_name) }
        }
    }

    struct Rolling;

    impl DeploymentStrategy for Rolling {
        fn strategy(&self) -> Strategy {
            Strategy::Rolling
        }
        fn slots(&self, situation: &Situation<'_>) -> Slots {
            Slots { candidate: "blue".into(), live: situation.live_slot.map(str::to_owned) }
        }
        fn additional_copies(&self) -> u32 {
            0
        }
        fn traffic(&self, _: &Situation<'_>) -> Vec<String> {
            vec!["the old one stops, the new one starts".into()]
        }
    }

    #[test]
    fn checker_and_strategy_are_pluggable() {
        let plain = orchestrator(Scripted::default());
        let mut input = input_of_iris(None);
        input.request.strategy = Some(Strategy::Rolling);
        let own = |plan: &DeploymentPlan| plan.traffic == ["the old one stops, the new one starts"];
        assert!(!own(&wait(plain.plan_deployment(&input)).expect("planned").plan));
        let plain = orchestrator(Scripted::default());
        let plugged = plain.with_checker(Arc::new(Sick)).with_strategy(Arc::new(Rolling));
        let planned = wait(plugged.plan_deployment(&input)).expect("planned");
        assert!(own(&planned.plan), "the own strategy takes the place of the built-in one of its word");
        let verified = wait(plugged.verify_deployment(&planned.deployment_id)).expect("known");
        assert_eq!((verified.healthy, verified.verified, verified.detail.as_str()), (false, true, "iris answers 503"));
    }
}
