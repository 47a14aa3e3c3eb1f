//! The domain of a release, without I/O: what is asked for, what is planned, what may happen, what is handed back.

mod canary;
mod checks;
mod conformance;
mod contract;
mod deployer;
pub mod digest;
mod engineer;
mod evidence;
#[cfg(test)]
mod fixtures;
mod format;
mod gate;
mod golden;
mod ledger;
mod manager;
mod memory_ledger;
mod metric;
pub mod monitoring;
mod name;
mod orchestrator;
mod plan;
mod planner;
mod policy;
mod release_file;
mod request;
mod resources;
mod rolling;
mod sample;
pub mod schema;
mod spec;
mod state;
mod strategy;
mod summary;
mod trial;
pub mod units;
mod way_back;

pub use canary::{CanaryPlan, CanarySpec, CanaryStep, CanarySteps, WHOLE_WEIGHT};
pub use checks::metric_check;
pub use conformance::{Violation, ledger_conformance};
pub use contract::{
    ContractError, DeploymentConfig, DeploymentEngineerOutput, ModelDeployerOutput, Monitoring, ReleaseFacts,
    ServingEndpoint, TrafficConfig, finite_metrics,
};
pub use deployer::{
    DeployCall, DeployFailure, DeployFn, Deployed, Health, HealthChecker, ManagerError, RollbackCall, Surroundings,
};
pub use digest::{sha256_json, sha256_of};
pub use engineer::{EngineerInfrastructure, EngineerInput, EngineerServing, ModelArtifact};
pub use evidence::{AnswerDifference, CheckResult, Evidence, Findings, WORK_GATE};
pub use format::Format;
pub(crate) use gate::Casting;
pub use gate::{
    Before, DEADLINE, Delegation, Freeze, GateRule, OnExpiry, OwnRequests, Person, Quorum, Refused, Role, Standing,
    Terms, Vote, WeekTime, Weekly, Who,
};
pub use golden::{DEFAULT_TOLERANCE, Difference, MAX_DIFFERENCES, SmokeCase, compare};
pub use ledger::{
    LedgerError, ReleaseChange, ReleaseFilter, ReleaseKind, ReleaseLedger, ReleaseRow, Summary, slot_token,
};
pub use manager::DeploymentManager;
pub use memory_ledger::MemoryLedger;
pub use metric::{
    DEFAULT_METRIC_TIMEOUT_MS, During, METRIC_NAMES, MOST_METRICS, MetricPlan, MetricSource, MetricSpec,
    PrometheusQuery, fill, metric_plans,
};
pub use name::{ModelName, NameError};
pub use orchestrator::{DeploymentOrchestrator, PlannedDeployment, Verification};
pub use plan::{
    Bake, Bound, BuildSpec, CheckKind, DeploymentPlan, Limit, LiveRelease, Machine, PlanInput, PlanStep, PlannedCheck,
    Reason, Seen, Workers,
};
pub use planner::{
    CANARY_FROM_RPS, DEFAULT_BAKE_MS, DEFAULT_HOLD_MS, DEFAULT_MAX_ERROR_RATE, DEFAULT_MEMORY_MB,
    DEFAULT_READY_TIMEOUT_MS, MOST_RPS, PlanError, plan, plan_with, replicas_for,
};
pub use policy::{ApprovalNeed, ApprovalRule, Decision, DecisionError, Policy, Verdict};
pub use release_file::{Overlay, ReleaseFile, ReleaseFileError, Serving};
pub use request::{
    DEFAULT_REQUIREMENTS, DeployRequest, EnvSpec, Infrastructure, ModelSource, RequestError, ServingRequirements,
};
pub use rolling::{Batch, RollingPlan, RollingSpec};
pub use sample::sample_request;
pub use spec::{ApprovalMode, ApprovalSpec, BakeSpec};
pub use state::{IllegalTransition, PlanEvent, PlanState, transition};
pub use strategy::{
    AbTest, BlueGreen, Canary, DeploymentStrategy, Recreate, Rolling, Shadow, Situation, Slots, Strategies, Strategy,
    step_words,
};
pub use trial::{AbTestPlan, AbTestSpec, ShadowPlan, ShadowSpec, SplitBy, Trial};
pub use way_back::{leads_forward, rollback_target};
