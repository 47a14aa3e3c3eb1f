//! Everything durable in one SQLite file: threads, checkpoints, journal, questions, events, the audit, `ml_deployments`.
//!
//! One writing connection with group commit (`writer`), a few reading ones beside it (`readers`). Several processes use the same
//! file at once: every check that a write depends on happens inside the writing transaction.

mod audit;
mod batch;
mod cache;
mod checkpoints;
mod checkup;
mod conformance;
mod delta;
mod events;
mod fault;
mod floor;
mod import;
mod inbox;
mod interrupts;
mod items;
mod journal;
mod json;
mod ledger;
mod lines;
mod liveness;
mod log;
mod migrate;
mod open;
mod past;
mod people;
mod prune;
mod readers;
mod records;
mod releases;
mod repair;
mod salvage;
mod served;
mod sqlite;
mod threads;
mod writer;

pub use audit::{AUDIT_FORMAT, AuditError, AuditExport, AuditHead, AuditRow};
pub use checkup::{Checkup, TableState, examine};
pub use conformance::{Harness, StoreViolation, store_conformance};
pub use floor::Floor;
pub use liveness::{MachineClock, ProcLiveness, this_process};
pub use open::{Options, Synchronous};
pub use past::{Mark, Place, Spoken, Went};
pub use people::{
    AuditedRow, HookRow, KeyRow, LinkBounds, LinkRow, LinkUse, NewKey, NewRunWebhook, NewVote, RunWebhookDue,
    RunWebhookRow, Settle, Voted,
};
pub use prune::{Prune, Pruned, RETENTION};
pub use readers::Watch;
pub use repair::{RepairError, Repaired, repair};
pub use salvage::{Salvaged, salvage};
pub use served::{
    Accepted, AskedCancel, AssistantFilter, AssistantText, NewRun, RunBody, RunEnded, RunRestsOn, RunStatus,
    ServedAssistant, ServedRun, ServedStatus, ServedThread, SortKey, ThreadSearch, stopped as run_stopped,
};
pub use sqlite::SqliteStore;
