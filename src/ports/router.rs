//! Which slot gets the traffic of a model, and how it fares.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{MirrorPage, PortError, SeriesPage, TrafficPlan};

/// Who asks for a change: a stale owner of a thread is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fence {
    /// The thread on whose behalf the change is made.
    pub thread: String,
    /// The lease epoch of its owner; an epoch lower than one seen before for this thread is refused.
    pub epoch: u64,
}

/// Moves all traffic of a model to one slot, atomically.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchRequest {
    /// The model's name.
    pub model: String,
    /// Token of the slot that answers from now on; `None` removes the route.
    pub live: Option<String>,
    /// Token of a slot kept warm, to which the gateway falls back by itself when the live one is gone.
    pub standby: Option<String>,
    /// The route's generation that the caller has seen (0: no route yet); another one is refused.
    pub expected_generation: u64,
    /// On whose behalf.
    pub fence: Fence,
}

/// Divides the traffic of a model anew, atomically. [`SwitchRequest`] is its simple form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteRequest {
    /// The model's name.
    pub model: String,
    /// How its traffic is divided from now on.
    pub traffic: TrafficPlan,
    /// The route's generation that the caller has seen (0: no route yet); another one is refused.
    pub expected_generation: u64,
    /// On whose behalf.
    pub fence: Fence,
}

/// Renews the lease on a partial weight: its owner lives and still wants it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// The model's name.
    pub model: String,
    /// The route's generation that the caller has seen; another one is refused. It stays as it is.
    pub generation: u64,
    /// On whose behalf; only the thread that divided the traffic may renew.
    pub fence: Fence,
}

/// How long the standby of a route is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandbyRequest {
    /// The model's name.
    pub model: String,
    /// The route's generation that the caller has seen; another one is refused. It stays as it is.
    pub generation: u64,
    /// From now on, in milliseconds; then its replicas are drained and removed, unless the route has changed.
    pub keep_ms: u64,
    /// On whose behalf.
    pub fence: Fence,
}

/// Where a model's traffic goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The model's name.
    pub model: String,
    /// Counts every change of this route, from 1; never goes back, also not over a removal.
    pub generation: u64,
    /// Token of the slot that answers: of the stable leg the first.
    pub live: Option<String>,
    /// Token of the warm standby.
    pub standby: Option<String>,
    /// How the traffic is divided.
    #[serde(default)]
    pub traffic: TrafficPlan,
    /// The public URL of the model, e.g. `http://127.0.0.1:7311/iris`.
    pub endpoint_url: String,
    /// Why the gateway changed it by itself, if it did (a fall-back to the standby, a lease that was not renewed).
    #[serde(default)]
    pub changed_by_gateway: Option<String>,
}

/// Latency of answered requests, in milliseconds, over the whole life of the slot's route.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// Median.
    pub p50_ms: f64,
    /// 95th percentile.
    pub p95_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// Largest.
    pub max_ms: f64,
}

/// What the gateway measured of one slot since it first got traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionTraffic {
    /// The slot's token.
    pub token: String,
    /// Its version.
    pub version: String,
    /// Requests answered or failed.
    pub requests: u64,
    /// Answers with status 5xx, and requests that got no answer from the slot.
    pub errors: u64,
    /// Answers with status 4xx.
    pub client_errors: u64,
    /// Requests under way now.
    pub in_flight: u64,
    /// Latency; `None` while nothing was answered.
    pub latency: Option<LatencySummary>,
}

/// What the replicas of a version did together; of their latencies the worst, because quantiles cannot be added.
pub fn together(replicas: impl Iterator<Item = VersionTraffic>) -> Option<VersionTraffic> {
    let worst = |a: LatencySummary, b: LatencySummary| LatencySummary {
        p50_ms: a.p50_ms.max(b.p50_ms),
        p95_ms: a.p95_ms.max(b.p95_ms),
        p99_ms: a.p99_ms.max(b.p99_ms),
        max_ms: a.max_ms.max(b.max_ms),
    };
    replicas.reduce(|all, one| VersionTraffic {
        requests: all.requests + one.requests,
        errors: all.errors + one.errors,
        client_errors: all.client_errors + one.client_errors,
        in_flight: all.in_flight + one.in_flight,
        latency: match (all.latency, one.latency) {
            (Some(a), Some(b)) => Some(worst(a, b)),
            (a, b) => a.or(b),
        },
        ..all
    })
}

/// What a router says to what it does not offer: one that only switches is a router, too.
fn cannot(what: &str) -> PortError {
    PortError::new("router_cannot", format!("this router cannot {what}"))
}

/// Routes traffic and measures it.
#[async_trait]
pub trait TrafficRouter: Send + Sync {
    /// The model's route; `None` when it never had one.
    async fn route(&self, model: &str) -> Result<Option<Route>, PortError>;
    /// All routes.
    async fn routes(&self) -> Result<Vec<Route>, PortError>;
    /// Changes a route atomically: requests under way end where they began, new ones go to the new slot.
    async fn switch(&self, request: &SwitchRequest) -> Result<Route, PortError>;
    /// Divides a model's traffic anew, atomically; the same request again, from the same owner and with nothing in between, succeeds.
    async fn put_route(&self, request: &RouteRequest) -> Result<Route, PortError> {
        Err(cannot(&format!("divide the traffic of {}", request.model)))
    }
    /// Renews the lease of a route.
    async fn renew(&self, request: &RenewRequest) -> Result<Route, PortError> {
        Err(cannot(&format!("lease the traffic of {}", request.model)))
    }
    /// Says how long the standby of a route is kept; without that as long as the route stays as it is.
    async fn keep_standby(&self, request: &StandbyRequest) -> Result<(), PortError> {
        Err(cannot(&format!("retire the standby of {}", request.model)))
    }
    /// Waits until no request is under way at `token`, at most `timeout_ms`; returns how many still are.
    async fn drain(&self, token: &str, timeout_ms: u64) -> Result<u64, PortError>;
    /// What was measured of each slot of `model`.
    async fn traffic(&self, model: &str) -> Result<Vec<VersionTraffic>, PortError>;
    /// What each slot of `model` did in the complete seconds after this one (since 1970; 0 from the oldest kept).
    async fn series(&self, model: &str, after: u64) -> Result<SeriesPage, PortError> {
        Err(cannot(&format!("measure {model} by seconds, as after {after}")))
    }
    /// The answers to mirrored requests of `model` after the pair of this number, oldest first; 0 from the oldest kept.
    async fn mirrored(&self, model: &str, after: u64) -> Result<MirrorPage, PortError> {
        Err(cannot(&format!("mirror {model}, as after {after}")))
    }
    /// The URL that `model` has or would have.
    async fn endpoint_url(&self, model: &str) -> Result<String, PortError>;
}
