//! What the daemon knows and must not forget: slots, routes, fences, the public address.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::identity::ProcessId;
use super::slot::Life;
use crate::ports::{Fence, Slot, SlotRequest, TrafficPlan};

/// Version of the file's format; a file of a later one is refused, an earlier one is read by [`super::format`].
pub(crate) const FORMAT: u32 = 2;

/// Everything that is durable, as `HOME/host/state.json` holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostState {
    pub(crate) format: u32,
    /// Where the public endpoint listens, or listened: it never moves by itself.
    pub(crate) public_addr: Option<SocketAddr>,
    /// Whether `down` was asked for, and no `up` since.
    pub(crate) down: bool,
    /// By token.
    pub(crate) slots: BTreeMap<String, SlotRecord>,
    /// By model. A removed route stays without legs, so that its generation never goes back.
    pub(crate) routes: BTreeMap<String, RouteRecord>,
    /// By thread.
    pub(crate) fences: BTreeMap<String, FenceRecord>,
    /// Counts fence records, to forget the oldest.
    pub(crate) fence_count: u64,
}

impl Default for HostState {
    fn default() -> Self {
        Self {
            format: FORMAT,
            public_addr: None,
            down: false,
            slots: BTreeMap::new(),
            routes: BTreeMap::new(),
            fences: BTreeMap::new(),
            fence_count: 0,
        }
    }
}

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SlotRecord {
    pub(crate) request: SlotRequest,
    pub(crate) port: u16,
    pub(crate) life: Life,
    /// The process, once it was seen to run; `None` between intent and start.
    pub(crate) process: Option<ProcessId>,
    pub(crate) restarts: u32,
    pub(crate) last_exit: Option<String>,
    /// When the process on record was started; `None` where its start is not one after an end of its own.
    pub(crate) started_at: Option<DateTime<Utc>>,
    /// When the process on record was first ready.
    pub(crate) ready_at: Option<DateTime<Utc>>,
}

impl SlotRecord {
    /// An intent: nothing runs yet.
    pub(crate) fn intent(request: SlotRequest, port: u16) -> Self {
        Self {
            request,
            port,
            life: Life::Starting { proven: false },
            process: None,
            restarts: 0,
            last_exit: None,
            started_at: None,
            ready_at: None,
        }
    }

    /// Whether a process of it runs, or would run again with the next daemon.
    pub(crate) fn is_wanted(&self) -> bool {
        self.process.is_some() || !self.life.is_over()
    }

    /// As callers see it.
    pub(crate) fn shown(&self) -> Slot {
        Slot {
            token: self.request.token.clone(),
            model: self.request.model.clone(),
            version: self.request.version.clone(),
            state: self.life.shown(),
            pid: self.process.as_ref().map(|process| process.pid),
            port: self.port,
            log: super::slot::log_path(&self.request),
            restarts: self.restarts,
            last_exit: self.last_exit.clone(),
            started_at: self.started_at,
            ready_at: self.ready_at,
        }
    }
}

/// One model's route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteRecord {
    pub(crate) generation: u64,
    pub(crate) traffic: TrafficPlan,
    pub(crate) changed_by_gateway: Option<String>,
    /// Who changed it last, to recognise a repeated request; `None` when the gateway did.
    pub(crate) by: Option<Fence>,
    /// How long its standby is kept, where somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) standby: Option<StandbyTerm>,
}

/// Until when a standby is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StandbyTerm {
    pub(crate) since: DateTime<Utc>,
    pub(crate) keep_ms: u64,
}

/// The highest epoch seen of a thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FenceRecord {
    pub(crate) epoch: u64,
    /// Value of `fence_count` when it was last touched.
    pub(crate) touched: u64,
}
