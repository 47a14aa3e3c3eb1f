//! The admin API's words: HTTP and JSON over the home's unix socket.
//!
//! Slots, routes, switches and figures are the types of `ports` themselves: the port and the wire mean the same, and a second set of
//! types would only be a place for the two to part. What exists on the wire alone is here.

use std::net::SocketAddr;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::config::Settings;
use crate::ports::{PortError, Route, Slot};

/// How the host daemon fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Version of the binary that runs.
    pub version: String,
    /// The home it serves.
    pub home: PathBuf,
    /// The daemon's pid.
    pub pid: u32,
    /// The keeper's pid; `None` in the moment in which there is none.
    pub keeper_pid: Option<u32>,
    /// When this daemon (not the slots) was started.
    pub started_at: DateTime<Utc>,
    /// Whether `down` was asked for.
    pub down: bool,
    /// Where the public endpoint listens, or will listen again after `up`.
    pub public_addr: Option<SocketAddr>,
    /// Requests under way at all slots.
    pub in_flight: u64,
    /// All slots.
    pub slots: Vec<Slot>,
    /// All routes.
    pub routes: Vec<Route>,
    /// The tuning in effect.
    pub settings: Settings,
    /// What was wrong with the state's file when this daemon began, where the copy had to do; somebody should look.
    #[serde(default)]
    pub recovered: Option<String>,
}

/// Body of `POST /v1/drain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// The slot's token.
    pub token: String,
    /// At most this long.
    pub timeout_ms: u64,
}

/// Answer of `POST /v1/drain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Requests still under way.
    pub in_flight: u64,
}

/// Query of `DELETE /v1/slots/TOKEN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveQuery {
    /// Time between SIGTERM and SIGKILL.
    pub grace_ms: u64,
}

/// Query of `POST /v1/down`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DownQuery {
    /// Whether the daemon ends with it: nothing comes in between.
    #[serde(default)]
    pub end: bool,
}

/// Body of `POST /v1/secrets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretsRequest {
    /// Absolute.
    pub env_file: PathBuf,
}

/// Answer of `POST /v1/secrets`: only for the owner, who can read the same in `/proc/PID/environ`. Has no `Debug`.
#[derive(Serialize, Deserialize)]
pub struct KnownSecrets {
    /// Names and values.
    pub vars: Vec<(String, String)>,
}

/// Query of `GET /v1/mirror/MODEL` and `GET /v1/series/MODEL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AfterQuery {
    /// The last one that is known already.
    #[serde(default)]
    pub after: u64,
}

/// Query of the log calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    /// How many lines at most.
    pub lines: usize,
}

/// Every failure on the wire: `{error:{code,message,cause,hint,retryable}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: PortError,
}
