//! The library's simple level: deploy, roll back, look.

use std::sync::Arc;

use super::deployer::{DeployCall, DeployFn, ManagerError, RollbackCall, Surroundings, record_failure, run};
use super::ledger::{ReleaseChange, ReleaseFilter, ReleaseKind, ReleaseLedger, ReleaseRow, Summary};
use super::state::PlanState;
use super::strategy::Strategy;
use super::way_back::rollback_target;

/// Deploys services and remembers what it did. It holds nothing itself: everything it knows is in the ledger.
#[derive(Clone)]
pub struct DeploymentManager {
    ledger: Arc<dyn ReleaseLedger>,
    deployer: Arc<dyn DeployFn>,
    around: Arc<dyn Surroundings>,
}

impl DeploymentManager {
    /// A manager over these parts.
    pub fn new(ledger: Arc<dyn ReleaseLedger>, deployer: Arc<dyn DeployFn>, around: Arc<dyn Surroundings>) -> Self {
        Self { ledger, deployer, around }
    }

    /// Deploys a version of `service`. The row is opened before anything is done.
    ///
    /// # Errors
    /// When the deploy fails: the row is FAILED with the reason, and what was live is live. When the ledger cannot be written: nothing
    /// was done.
    pub async fn deploy(
        &self,
        service: &str,
        version: Option<&str>,
        strategy: Strategy,
    ) -> Result<ReleaseRow, ManagerError> {
        let live = self.ledger.live(service).await?;
        let id = self.around.new_id();
        let mut row = ReleaseRow::new(&id, service, ReleaseKind::Deploy, self.around.now());
        row.model_version = version.map(str::to_owned);
        row.deployment_strategy = strategy;
        row.previous_version = live.and_then(|live| live.model_version);
        self.ledger.open(row).await?;
        let (service, version) = (service.to_owned(), version.map(str::to_owned));
        let call = DeployCall { deployment_id: id, service, version, strategy, plan: None };
        run(self.ledger.as_ref(), self.deployer.as_ref(), self.around.as_ref(), &call).await
    }

    /// Goes back to the version before the live one. `None` when nothing of `service` is active: then nothing is done.
    ///
    /// # Errors
    /// As [`rollback_to`](Self::rollback_to).
    pub async fn rollback(&self, service: &str) -> Result<Option<ReleaseRow>, ManagerError> {
        self.rollback_to(service, None, None).await
    }

    /// Goes back to `version`, or to the one before the live one, and says why in the record. `None` when nothing of `service` is active.
    ///
    /// # Errors
    /// When there is no such version to go back to, or going back fails: then the rollback's row is FAILED and what was live is live.
    pub async fn rollback_to(
        &self,
        service: &str,
        version: Option<&str>,
        reason: Option<&str>,
    ) -> Result<Option<ReleaseRow>, ManagerError> {
        let Some(live) = self.ledger.live(service).await? else { return Ok(None) };
        let history = self.ledger.history(service).await?;
        let Some(target) = rollback_target(&history, version) else {
            let wanted = version.map_or("earlier version".to_owned(), |version| format!("version {version}"));
            return Err(ManagerError::NoRollbackTarget { model: service.to_owned(), wanted });
        };
        let id = self.around.new_id();
        let row = ReleaseRow {
            model_version: target.model_version.clone(),
            endpoint_url: live.endpoint_url.clone(),
            deployment_strategy: target.deployment_strategy,
            previous_version: live.model_version.clone(),
            reason: reason.map(str::to_owned),
            content_digest: target.content_digest.clone(),
            release_dir: target.release_dir.clone(),
            slot: target.slot.clone(),
            slot_token: target.slot_token.clone(),
            metrics_baseline: target.metrics_baseline.clone(),
            environment: target.environment.clone(),
            ..ReleaseRow::new(&id, service, ReleaseKind::Rollback, self.around.now())
        };
        self.ledger.open(row).await?;
        let kept = self.deployer.keeps_ledger();
        if !kept {
            self.ledger.update(&id, ReleaseChange::start(self.around.now())).await?;
        }
        let reason = reason.map(str::to_owned);
        let call = RollbackCall { deployment_id: id.clone(), live, target: target.clone(), reason };
        if let Err(failure) = self.deployer.roll_back(&call).await {
            return Err(record_failure(self.ledger.as_ref(), self.around.as_ref(), &id, failure).await);
        }
        if kept {
            return Ok(self.ledger.get(&id).await?);
        }
        self.ledger.update(&id, ReleaseChange::to(PlanState::Completed, self.around.now())).await?;
        self.ledger.set_live(service, Some(&id), self.around.now()).await?;
        Ok(self.ledger.get(&id).await?)
    }

    /// One release; `None` for an unknown id.
    ///
    /// # Errors
    /// When the ledger cannot be read, as for every method below.
    pub async fn status(&self, deployment_id: &str) -> Result<Option<ReleaseRow>, ManagerError> {
        Ok(self.ledger.get(deployment_id).await?)
    }

    /// All releases that `filter` wants, newest first.
    pub async fn list_deployments(&self, filter: &ReleaseFilter) -> Result<Vec<ReleaseRow>, ManagerError> {
        Ok(self.ledger.list(filter).await?)
    }

    /// The release of `service` that serves.
    pub async fn get_active(&self, service: &str) -> Result<Option<ReleaseRow>, ManagerError> {
        Ok(self.ledger.live(service).await?)
    }

    /// All releases of `service`, newest first.
    pub async fn history(&self, service: &str) -> Result<Vec<ReleaseRow>, ManagerError> {
        Ok(self.ledger.history(service).await?)
    }

    /// The releases that serve, one per service.
    pub async fn active_deployments(&self) -> Result<Vec<ReleaseRow>, ManagerError> {
        Ok(self.ledger.active().await?)
    }

    /// Counts over all releases.
    pub async fn summary(&self) -> Result<Summary, ManagerError> {
        Ok(self.ledger.summary().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::fixtures::{Scripted, Ticking, wait};
    use crate::release::{LedgerError, MemoryLedger};

    fn manager(deployer: Scripted) -> DeploymentManager {
        DeploymentManager::new(Arc::new(MemoryLedger::default()), Arc::new(deployer), Arc::new(Ticking::default()))
    }

    #[test]
    fn two_deploys_and_back() {
        let manager = manager(Scripted::default());
        let first = wait(manager.deploy("iris", Some("v1"), Strategy::BlueGreen)).expect("deployed");
        assert_eq!((first.status, first.live, first.previous_version), (PlanState::Completed, true, None));
        let second = wait(manager.deploy("iris", Some("v2"), Strategy::BlueGreen)).expect("deployed");
        assert_eq!(second.previous_version.as_deref(), Some("v1"));
        let back = wait(manager.rollback("iris")).expect("rolled back").expect("something was active");
        assert_eq!((back.kind, back.model_version.as_deref(), back.live), (ReleaseKind::Rollback, Some("v1"), true));
        assert_eq!(back.previous_version.as_deref(), Some("v2"));
        assert_eq!(back.slot_token, first.slot_token);
        assert_eq!(wait(manager.get_active("iris")).expect("read"), Some(back.clone()));
        assert_eq!(wait(manager.history("iris")).expect("read").len(), 3);
        assert_eq!(wait(manager.active_deployments()).expect("read"), vec![back]);
        let again = wait(manager.rollback("iris")).expect_err("v2 was found bad, v1 is live");
        assert_eq!(again.code(), "no_rollback_target");
        let named =
            wait(manager.rollback_to("iris", Some("v2"), Some("it was not v2"))).expect("named").expect("active");
        assert_eq!(named.model_version.as_deref(), Some("v2"));
        let summary = wait(manager.summary()).expect("read");
        assert_eq!((summary.total, summary.active, summary.completed, summary.rollbacks), (4, 1, 4, 2));
    }

    #[test]
    fn a_rollback_of_nothing_is_nothing() {
        let manager = manager(Scripted::default());
        assert_eq!(wait(manager.rollback("iris")).expect("fine"), None);
        assert_eq!(wait(manager.summary()).expect("read").total, 0);
    }

    #[test]
    fn a_failed_deploy_is_recorded() {
        let manager = manager(Scripted { fails_on: Some("v2".into()), ..Scripted::default() });
        wait(manager.deploy("iris", Some("v1"), Strategy::BlueGreen)).expect("deployed");
        let error = wait(manager.deploy("iris", Some("v2"), Strategy::BlueGreen)).expect_err("fails");
        let ManagerError::DeployFailed { row, failure } = error else { panic!("{error}") };
        assert_eq!((row.status, row.live, row.reason.as_deref()), (PlanState::Failed, false, Some("it broke")));
        assert_eq!(failure.code, "broken");
        assert_eq!(wait(manager.status(&row.deployment_id)).expect("read"), Some(*row));
        let live = wait(manager.get_active("iris")).expect("read").expect("v1 serves on");
        assert_eq!(live.model_version.as_deref(), Some("v1"));
    }

    #[test]
    fn a_failed_rollback_is_recorded_and_changes_nothing() {
        let manager = manager(Scripted { fails_back: true, ..Scripted::default() });
        wait(manager.deploy("iris", Some("v1"), Strategy::BlueGreen)).expect("deployed");
        wait(manager.deploy("iris", Some("v2"), Strategy::BlueGreen)).expect("deployed");
        assert!(matches!(wait(manager.rollback("iris")), Err(ManagerError::DeployFailed { .. })));
        let live = wait(manager.get_active("iris")).expect("read").expect("v2 serves on");
        assert_eq!(live.model_version.as_deref(), Some("v2"));
        assert_eq!(wait(manager.summary()).expect("read").failed, 1);
    }

    #[test]
    fn a_deployer_that_keeps_the_ledger_is_left_to_it() {
        let manager = manager(Scripted { keeps: true, ..Scripted::default() });
        let row = wait(manager.deploy("iris", Some("v1"), Strategy::BlueGreen)).expect("handed over");
        assert_eq!(row.status, PlanState::Draft, "the scripted one writes nothing");
        let failing = self::manager(Scripted { keeps: true, fails_on: Some("v1".into()), ..Scripted::default() });
        let error = wait(failing.deploy("iris", Some("v1"), Strategy::BlueGreen)).expect_err("fails");
        assert!(matches!(error, ManagerError::DeployFailed { row, .. } if row.status == PlanState::Failed));
    }

    #[test]
    fn an_unusable_ledger_stops_before_anything_is_done() {
        let error = ManagerError::from(LedgerError::LedgerUnavailable { message: "disk full".into() });
        assert_eq!(error.code(), "ledger_unavailable");
        assert!(error.to_string().contains("disk full"));
    }
}
