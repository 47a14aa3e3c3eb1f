//! The domain of a release, without I/O: what is asked for, what is planned, what may happen, what is handed back.

pub mod digest;
mod engineer;
mod format;
mod golden;
mod name;
mod plan;
mod planner;
mod policy;
mod release_file;
mod request;
mod spec;
mod state;
mod strategy;
pub mod units;

pub use digest::{sha256_json, sha256_of};
pub use engineer::{EngineerInfrastructure, EngineerInput, EngineerServing, ModelArtifact};
pub use format::Format;
pub use golden::{DEFAULT_TOLERANCE, Difference, MAX_DIFFERENCES, SmokeCase, compare};
pub use name::{ModelName, NameError};
pub use plan::{
    Bake, Bound, BuildSpec, CheckKind, DeploymentPlan, Limit, LiveRelease, Machine, PlanInput, PlanStep, PlannedCheck,
    Reason,
};
pub use planner::{
    DEFAULT_BAKE_MS, DEFAULT_MAX_ERROR_RATE, DEFAULT_MEMORY_MB, DEFAULT_READY_TIMEOUT_MS, PlanError, plan, plan_with,
};
pub use policy::{ApprovalNeed, ApprovalRule, Decision, DecisionError, Policy, Verdict};
pub use release_file::{Overlay, ReleaseFile, ReleaseFileError, Serving};
pub use request::{
    DEFAULT_REQUIREMENTS, DeployRequest, EnvSpec, Infrastructure, ModelSource, RequestError, ServingRequirements,
};
pub use spec::{ApprovalMode, ApprovalSpec, BakeSpec};
pub use state::{IllegalTransition, PlanEvent, PlanState, transition};
pub use strategy::{BlueGreen, DeploymentStrategy, Situation, Slots, Strategies, Strategy};
