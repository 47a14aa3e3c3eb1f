//! What gives slots: this machine's host daemon first, other machines later.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::PortError;

/// A slot that is wanted. The same `token` always means the same slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotRequest {
    /// Idempotency key, `[a-z0-9-]{1,64}`.
    pub token: String,
    /// The model's name; also the path prefix of its endpoint.
    pub model: String,
    /// The version that runs here.
    pub version: String,
    /// Program and arguments; `{port}` stands for the slot's port.
    pub argv: Vec<String>,
    /// Working directory, absolute.
    pub cwd: PathBuf,
    /// The slot's own folder, absolute: made by the target, removed when the slot is removed.
    pub slot_dir: PathBuf,
    /// Environment, on top of a minimal one (PATH, HOME, LANG).
    pub env: BTreeMap<String, String>,
    /// A file of `KEY=value` lines with the service's variables and secrets, absolute. Read when the process starts, never copied
    /// into any state, log or answer.
    #[serde(default)]
    pub env_file: Option<PathBuf>,
    /// Path that answers 200 when the slot is ready, e.g. `/readyz`.
    pub ready_path: String,
}

/// The line that begins what a slot's next process says in the slot's log.
pub const STARTED_ANEW: &str = "--- tidegate: started anew ---";
/// What the C library says of EADDRINUSE, in lower case; Python, Node and Go say it in these words too.
pub const ADDRESS_TAKEN: &str = "address already in use";

/// What a slot is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// The process runs, readiness not seen yet.
    Starting,
    /// The readiness path answered 200 lately.
    Ready,
    /// It was ready and is not now.
    Unready,
    /// The process ended and will be started again.
    Restarting,
    /// The process ended by itself and will not be started again.
    Exited,
    /// It was stopped on request.
    Stopped,
}

/// A slot as the target sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// The request's token.
    pub token: String,
    /// The model's name.
    pub model: String,
    /// The version that runs here.
    pub version: String,
    /// What it is doing.
    pub state: SlotState,
    /// Process id of the group's leader while it runs.
    pub pid: Option<u32>,
    /// The port it listens on, on 127.0.0.1.
    pub port: u16,
    /// Where its output goes, absolute.
    pub log: PathBuf,
    /// How often it was started again after it ended by itself; not counted are `down` and the machine's own restarts.
    pub restarts: u32,
    /// How the last process ended, in words (`exit code 1`, `signal 9`).
    pub last_exit: Option<String>,
    /// When the current process was started.
    pub started_at: Option<DateTime<Utc>>,
    /// When the current process was first ready.
    pub ready_at: Option<DateTime<Utc>>,
}

/// Starts, shows and stops slots.
#[async_trait]
pub trait Target: Send + Sync {
    /// Starts the slot, or returns the one that its token already has. Returns once the process runs, not once it is ready.
    async fn start_slot(&self, request: &SlotRequest) -> Result<Slot, PortError>;
    /// The slot of `token`, if there is one.
    async fn slot(&self, token: &str) -> Result<Option<Slot>, PortError>;
    /// All slots.
    async fn slots(&self) -> Result<Vec<Slot>, PortError>;
    /// Ends the slot's processes (SIGTERM, then SIGKILL after `grace_ms`), forgets it and removes its folder. Fine when it is gone.
    /// Refused while traffic is routed to it.
    async fn remove_slot(&self, token: &str, grace_ms: u64) -> Result<(), PortError>;
    /// The last `lines` lines of the slot's log, oldest first.
    async fn slot_log(&self, token: &str, lines: usize) -> Result<Vec<String>, PortError>;
}
