//! The nodes of a release, and the effects of the generic ones: each its own file, each readable alone. They speak to ports and to the journal, never to adapters.

mod approval_gate;
mod deployment_executor;
mod deployment_planner;
pub mod effects;
mod finalise;
mod make_room;
mod metrics;
mod packager;
mod readiness;
mod retire;
mod rollback;
mod state;
mod tools;
mod traffic_shift;
mod trial;
mod validation;
mod ward;
mod watch;
mod world;

pub use approval_gate::{ApprovalGate, ApprovalQuestion};
pub use deployment_executor::DeploymentExecutor;
pub use deployment_planner::{DeploymentPlanner, machine, seen};
pub use finalise::Finalise;
pub use make_room::MakeRoom;
pub use metrics::{Metric, MetricPoint, Metrics, check_metrics};
pub use packager::PackagerNode;
pub use retire::Retire;
pub use rollback::{Rollback, RollbackRequest};
pub use state::{BakeReport, LiveSlot, RouteState, Situation, Validated};
pub use tools::Tools;
pub use traffic_shift::TrafficShift;
pub use trial::{AbTest, Canary, Rolling, Shadow, TRIAL_SIGNALS, TrialState};
pub use validation::Validation;
pub use watch::Watch;
pub use world::World;
