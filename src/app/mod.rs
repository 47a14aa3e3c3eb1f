//! The wiring: a home, its adapters, its store and the engine, and the library's levels on top of them.
//!
//! Level one is [`deploy`]: one call that does the job. Level two are the methods of [`App`]: plan, start, advance, decide, roll back,
//! look. Level three are the rooms below: ports, adapters, the engine itself.

mod audit;
mod crash;
mod database;
mod decide;
mod graphs;
mod home;
mod keys;
mod levels;
mod links;
mod manager;
mod paths;
mod releases;
mod request;
mod retention;
mod runner;
mod runs;
mod served;
mod serving;
mod settings;
mod stops;
mod text_file;
mod traces;
mod travel;
mod webhooks;
mod wiring;
mod workflows;

pub use crate::adapters::machine::ends_well;
pub use crate::nodes::RollbackRequest;
pub use audit::{AUDIT_FORMAT, AuditExport, AuditHead, verify_audit_export};
pub use database::{Checkup, Repaired, Salvaged, TableState, examine_database, repair_database, salvage_database};
pub use decide::{Decide, Decided, Said, is_refusal, missing_words};
pub use home::Home;
pub use keys::{KeyRow, KeyWanted, counts as key_counts, key_id};
pub use levels::deploy;
pub use links::{LINK_PATH, LINK_TTL_MS, LinkRow, LinkWanted, Linked, link_url};
pub use manager::{EndpointHealth, FindRequest, RealWorld, WorkflowDeployer};
pub use releases::{ReleaseTold, RowServing, host_client};
pub use request::{Overrides, read_request, request_of};
pub use runner::{keep_running, run_detached, spawn_detached};
pub use runs::{OpenQuestion, Start, error_document, export_text};
pub use served::{
    Accepted, AskedCancel, AssistantFilter, AssistantText, BornServed, Catalogue, Entry, Mark, NewRun, NewRunWebhook,
    Place, RunBody, RunEnded, RunRestsOn, RunStatus, ServedAssistant, ServedRun, ServedStatus, ServedThread, SortKey,
    Spoken, ThreadSearch, Went, run_stopped,
};
pub use serving::{ModelServing, RecentTraffic, Role, Serving, SlotHealth, TrafficPoint, VersionServing};
pub use settings::Settings;
pub use stops::Paused;
pub use text_file::{Unreadable, read_text};
pub use traces::flush_traces;
pub use travel::HistoryFilter;
pub use webhooks::{RunWebhookSettings, WebhookEvent, WebhookFormat, WebhookSettings, keep_telling, webhook_place};
pub use wiring::{App, host_failure};
pub use workflows::{MODEL_DEPLOYER, ROLLBACK};
