//! The wiring: a home, its adapters, its store and the engine, and the library's levels on top of them.
//!
//! Level one is [`deploy`]: one call that does the job. Level two are the methods of [`App`]: plan, start, advance, decide, roll back,
//! look. Level three are the rooms below: ports, adapters, the engine itself.

mod audit;
mod crash;
mod database;
mod home;
mod levels;
mod manager;
mod paths;
mod request;
mod retention;
mod runner;
mod runs;
mod served;
mod serving;
mod settings;
mod stops;
mod text_file;
mod travel;
mod wiring;
mod workflows;

pub use crate::adapters::machine::ends_well;
pub use audit::{AUDIT_FORMAT, AuditExport, AuditHead, verify_audit_export};
pub use database::{Checkup, Repaired, Salvaged, TableState, examine_database, repair_database, salvage_database};
pub use home::Home;
pub use levels::deploy;
pub use manager::{EndpointHealth, FindRequest, RealWorld, WorkflowDeployer};
pub use request::{Overrides, read_request};
pub use runner::{keep_running, run_detached, spawn_detached};
pub use runs::{Decide, Decided, OpenQuestion, Start, error_document};
pub use served::{
    Accepted, AssistantFilter, AssistantText, Catalogue, Entry, NewRun, RunBody, RunStatus, ServedAssistant, ServedRun,
    ServedStatus, ServedThread, SortKey, ThreadSearch,
};
pub use serving::{ModelServing, RecentTraffic, Role, Serving, SlotHealth, TrafficPoint, VersionServing};
pub use settings::Settings;
pub use stops::Paused;
pub use text_file::{Unreadable, read_text};
pub use travel::HistoryFilter;
pub use wiring::{App, host_failure};
pub use workflows::{MODEL_DEPLOYER, ROLLBACK};
