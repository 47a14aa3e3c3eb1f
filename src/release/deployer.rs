//! What the library's manager and orchestrator are plugged together from, and how they record the end of a release.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{ContractError, ModelDeployerOutput, ReleaseFacts, finite_metrics};
use super::ledger::{LedgerError, ReleaseChange, ReleaseLedger, ReleaseRow};
use super::plan::DeploymentPlan;
use super::planner::PlanError;
use super::policy::DecisionError;
use super::state::PlanState;
use super::strategy::Strategy;

/// One deploy that is to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct DeployCall {
    /// The release; its row is open.
    pub deployment_id: String,
    /// The model's public name.
    pub service: String,
    /// The version; absent: the build makes one.
    pub version: Option<String>,
    /// The strategy.
    pub strategy: Strategy,
    /// The plan, where one was made.
    pub plan: Option<DeploymentPlan>,
}

/// One rollback that is to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct RollbackCall {
    /// The rollback's own release; its row is open.
    pub deployment_id: String,
    /// What serves.
    pub live: ReleaseRow,
    /// What is gone back to.
    pub target: ReleaseRow,
    /// Why.
    pub reason: Option<String>,
}

/// What a deploy came to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deployed {
    /// The version that serves.
    pub model_version: String,
    /// The model's public URL.
    pub endpoint_url: String,
    /// The slot's name.
    #[serde(default)]
    pub slot: Option<String>,
    /// The slot's token.
    #[serde(default)]
    pub slot_token: Option<String>,
    /// The package's content, `sha256:<hex>`.
    #[serde(default)]
    pub content_digest: Option<String>,
    /// The unpacked package, absolute.
    #[serde(default)]
    pub release_dir: Option<String>,
    /// Whether every check passed.
    pub health_check_passed: bool,
    /// What was measured, by name.
    #[serde(default)]
    pub metrics_baseline: BTreeMap<String, f64>,
}

/// Why a deploy or a rollback failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
#[serde(deny_unknown_fields)]
pub struct DeployFailure {
    /// Stable snake_case code, documented in `docs/errors/`.
    pub code: String,
    /// What happened, one sentence.
    pub message: String,
}

/// Does a deploy for real, gate included where the plan wants one.
#[async_trait]
pub trait DeployFn: Send + Sync {
    /// Brings a version to its traffic.
    async fn deploy(&self, call: &DeployCall) -> Result<Deployed, DeployFailure>;
    /// Brings the traffic back to the version of `call.target`, without a build.
    async fn roll_back(&self, call: &RollbackCall) -> Result<(), DeployFailure>;
    /// Whether it keeps the row itself, states and `live` included, as the workflow does. The caller then opens the row and
    /// reads it; it writes only a failure that is not recorded.
    fn keeps_ledger(&self) -> bool {
        false
    }
}

/// What a health checker saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Whether it is well.
    pub healthy: bool,
    /// What was seen, one sentence.
    pub detail: String,
}

/// Looks whether a release is well.
#[async_trait]
pub trait HealthChecker: Send + Sync {
    /// Looks once. What cannot be seen is not healthy.
    async fn check(&self, release: &ReleaseRow) -> Health;
}

/// The time and new ids: this room has neither clock nor chance.
pub trait Surroundings: Send + Sync {
    /// Now.
    fn now(&self) -> DateTime<Utc>;
    /// An id that was never given before.
    fn new_id(&self) -> String;
}

/// Why the manager or the orchestrator could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// The ledger refused or failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// There is no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The decision does not count.
    #[error(transparent)]
    Decision(#[from] DecisionError),
    /// The deploy failed; its row is FAILED and has the reason.
    #[error("release {} of {} failed", row.deployment_id, row.model_name)]
    DeployFailed {
        /// The row as recorded.
        row: Box<ReleaseRow>,
        /// Why.
        #[source]
        failure: DeployFailure,
    },
    /// The deploy failed and that could not be recorded.
    #[error("release {deployment_id} failed ({failure}), and that could not be recorded")]
    FailureNotRecorded {
        /// The release.
        deployment_id: String,
        /// Why it failed.
        failure: DeployFailure,
        /// Why it is not recorded.
        #[source]
        ledger: Box<LedgerError>,
    },
    /// There is nothing to go back to.
    #[error("{model} has no {wanted} to go back to")]
    NoRollbackTarget {
        /// The model.
        model: String,
        /// What was wanted, in words.
        wanted: String,
    },
    /// The stored plan cannot be read.
    #[error("the plan of release {deployment_id} cannot be read: {message}")]
    PlanUnreadable {
        /// The release.
        deployment_id: String,
        /// Why not.
        message: String,
    },
}

impl ManagerError {
    /// Stable code, documented in `docs/errors/`; a failed deploy has its own.
    pub fn code(&self) -> &str {
        match self {
            Self::Ledger(error) => error.code(),
            Self::Plan(error) => error.code(),
            Self::Decision(error) => error.code(),
            Self::DeployFailed { failure, .. } | Self::FailureNotRecorded { failure, .. } => &failure.code,
            Self::NoRollbackTarget { .. } => "no_rollback_target",
            Self::PlanUnreadable { .. } => "plan_unreadable",
        }
    }
}

/// Calls the deploy function for a row that is open, and records how it ended.
pub(super) async fn run(
    ledger: &dyn ReleaseLedger,
    deployer: &dyn DeployFn,
    around: &dyn Surroundings,
    call: &DeployCall,
) -> Result<ReleaseRow, ManagerError> {
    if !deployer.keeps_ledger() {
        ledger.update(&call.deployment_id, ReleaseChange::start(around.now())).await?;
    }
    match deployer.deploy(call).await {
        Ok(_) if deployer.keeps_ledger() => {
            let row = ledger.get(&call.deployment_id).await?;
            row.ok_or_else(|| LedgerError::ReleaseUnknown { deployment_id: call.deployment_id.clone() }.into())
        }
        Ok(deployed) => match success(call, deployed, around.now()) {
            Ok(change) => {
                let row = ledger.update(&call.deployment_id, change).await?;
                ledger.set_live(&row.model_name, Some(&row.deployment_id), around.now()).await?;
                Ok(ledger.get(&row.deployment_id).await?.unwrap_or(row))
            }
            Err(error) => {
                let failure = DeployFailure { code: "contract_broken".to_owned(), message: error.to_string() };
                Err(record_failure(ledger, around, &call.deployment_id, failure).await)
            }
        },
        Err(failure) => Err(record_failure(ledger, around, &call.deployment_id, failure).await),
    }
}

/// Makes the row FAILED, unless it has ended already.
pub(super) async fn record_failure(
    ledger: &dyn ReleaseLedger,
    around: &dyn Surroundings,
    deployment_id: &str,
    failure: DeployFailure,
) -> ManagerError {
    let recorded = async {
        match ledger.get(deployment_id).await? {
            Some(row) if row.status.is_terminal() => Ok(row),
            _ => ledger.update(deployment_id, ReleaseChange::failed(&failure.message, around.now())).await,
        }
    };
    match recorded.await {
        Ok(row) => ManagerError::DeployFailed { row: Box::new(row), failure },
        Err(ledger) => ManagerError::FailureNotRecorded {
            deployment_id: deployment_id.to_owned(),
            failure,
            ledger: Box::new(ledger),
        },
    }
}

fn success(call: &DeployCall, deployed: Deployed, at: DateTime<Utc>) -> Result<ReleaseChange, ContractError> {
    let (metrics_baseline, _) = finite_metrics(deployed.metrics_baseline);
    let facts = ReleaseFacts {
        deployment_id: call.deployment_id.clone(),
        model_version: deployed.model_version.clone(),
        endpoint_url: deployed.endpoint_url.clone(),
        finished_at: at,
        health_check_passed: deployed.health_check_passed,
        metrics_baseline: metrics_baseline.clone(),
        artifact: deployed.content_digest.clone(),
    };
    let output = call.plan.as_ref().map(|plan| ModelDeployerOutput::new(plan, &facts)).transpose()?;
    Ok(ReleaseChange {
        model_version: Some(deployed.model_version),
        endpoint_url: Some(deployed.endpoint_url),
        content_digest: deployed.content_digest,
        release_dir: deployed.release_dir,
        slot: deployed.slot,
        slot_token: deployed.slot_token,
        output: output.and_then(|output| serde_json::to_value(output).ok()),
        metrics_baseline: Some(metrics_baseline),
        ..ReleaseChange::to(PlanState::Completed, at)
    })
}
