//! What Tidegate asks of the world: one trait per role, data in, data out.
//!
//! Nodes speak to these traits only; `adapters/` implements them. Every call is safe to repeat under the same `token`
//! (an idempotency key that the engine derives from the effect's key), because a crash may repeat it.

mod command;
mod env;
mod error;
mod expressions;
mod http_call;
mod machine;
mod mirror;
mod packager;
mod pool;
mod progress;
mod registry;
mod router;
mod secret_source;
mod secrets;
mod series;
mod service;
mod statuses;
mod target;
mod traffic;

pub use command::{CUT_OFF, CommandRunner, LastRun, Program, ProgramCall, ProgramEnd, Purpose, Stdout};
pub use env::{EnvBackend, EnvRequest, PythonEnv};
pub use error::PortError;
pub use expressions::Expressions;
pub use http_call::{HttpAnswer, HttpCall, HttpCaller, HttpMethod};
pub use machine::MachineFacts;
pub use mirror::{MirrorAnswer, MirrorBody, MirrorPage, MirrorPair};
pub use packager::{
    GeneratedProject, ModelArtifact, PackageRequest, PackagedModel, Packager, ServeCommand, ServiceRoute, SourceCopy,
};
pub use pool::{first_of, number_of, replica_token};
pub use progress::{Progress, Quiet};
pub use registry::{ModelRegistry, RegisteredModel};
pub use router::{
    Fence, LatencySummary, RenewRequest, Route, RouteRequest, StandbyRequest, SwitchRequest, TrafficRouter,
    VersionTraffic, together,
};
pub use secret_source::SecretSource;
pub use secrets::{SecretFiles, Secrets, parse_env_file};
pub use series::{SeriesPage, SlotSeries, TrafficSecond};
pub use service::{ServiceAnswer, ServiceCall, ServiceClient};
pub use statuses::Statuses;
pub use target::{ADDRESS_TAKEN, STARTED_ANEW, Slot, SlotRequest, SlotState, Target};
pub use traffic::{Hold, Leg, Mirror, Sticky, TrafficPlan, VersionHeader, WHOLE};
