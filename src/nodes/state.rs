//! What release nodes hand each other through channels.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Metric;
use crate::judge::Report;
use crate::release::{AnswerDifference, CheckResult, LiveRelease, Machine, Seen};

/// What was the case when the plan was made; everything later expects it to be so still.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Situation {
    /// What serves.
    pub live: Option<LiveRelease>,
    /// The machine.
    pub machine: Machine,
    /// The route's generation; 0 without a route.
    pub generation: u64,
    /// Token of the slot that answers.
    pub live_slot: Option<String>,
    /// What was seen of the model.
    #[serde(default)]
    pub seen: Seen,
}

/// The slot of the new version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LiveSlot {
    /// Its token.
    pub token: String,
    /// Its own address, `http://127.0.0.1:<port>`.
    pub address: String,
    /// The port that its process was started with.
    pub port: u16,
    /// How long it took from start to ready, in milliseconds.
    pub ready_ms: u64,
}

/// What validation found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Validated {
    /// Every check with its result.
    pub checks: Vec<CheckResult>,
    /// Where the new version answers golden cases otherwise than the live one; absent without a live one.
    pub diff_to_live: Option<Vec<AnswerDifference>>,
    /// What was measured, by name; becomes `metrics_baseline`.
    pub metrics: BTreeMap<String, f64>,
}

/// Where the traffic goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteState {
    /// The model's public name.
    pub model: String,
    /// The public URL.
    pub endpoint_url: String,
    /// The route's generation after the switch.
    pub generation: u64,
    /// Token of the slot that answers.
    pub live: Option<String>,
    /// Token of the warm standby.
    pub standby: Option<String>,
}

/// How the new version fared while it was watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BakeReport {
    /// Whether it may stay.
    pub passed: bool,
    /// Why, a sentence with numbers.
    pub reason: String,
    /// How long it was watched, in milliseconds.
    pub watched_ms: u64,
    /// Requests that users (and the watch itself) made of it.
    pub requests: u64,
    /// How many of them failed.
    pub errors: u64,
    /// 99th percentile of latency at the gateway, in milliseconds.
    pub p99_ms: Option<f64>,
    /// The service's own last traceback, where it failed and there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Where the user's own figures stand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    /// What the judge says of its times, where it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
}
