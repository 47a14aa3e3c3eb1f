//! What Tidegate asks of the world: one trait per role, data in, data out.
//!
//! Nodes speak to these traits only; `adapters/` implements them. Every call is safe to repeat under the same `token`
//! (an idempotency key that the engine derives from the effect's key), because a crash may repeat it.

mod env;
mod error;
mod machine;
mod packager;
mod progress;
mod registry;
mod router;
mod secrets;
mod service;
mod target;

pub use env::{EnvBackend, EnvRequest, PythonEnv};
pub use error::PortError;
pub use machine::MachineFacts;
pub use packager::{
    GeneratedProject, ModelArtifact, PackageRequest, PackagedModel, Packager, ServeCommand, ServiceRoute,
};
pub use progress::{Progress, Quiet};
pub use registry::{ModelRegistry, RegisteredModel};
pub use router::{Fence, LatencySummary, Route, SwitchRequest, TrafficRouter, VersionTraffic};
pub use secrets::{SecretFiles, Secrets, parse_env_file};
pub use service::{ServiceAnswer, ServiceCall, ServiceClient};
pub use target::{STARTED_ANEW, Slot, SlotRequest, SlotState, Target};
