//! What each slot of a model did, second by second: what a judge reads.

use serde::{Deserialize, Serialize};

use crate::judge::{Arm, Histogram};

/// A stretch of a model's traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesPage {
    /// The first second that could be counted; a later one than before: the gateway began anew, and what it had not handed out is lost.
    pub since: u64,
    /// The last second that is complete: ask after it next.
    pub until: u64,
    /// Each slot that the model has, with or without traffic.
    pub slots: Vec<SlotSeries>,
}

/// One slot's seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotSeries {
    /// The slot's token.
    pub token: String,
    /// Its version.
    pub version: String,
    /// Complete seconds in which a request ended, oldest first. A second that is absent had none.
    pub seconds: Vec<TrafficSecond>,
}

/// What one slot did in one second.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TrafficSecond {
    /// Seconds since 1970, by a clock that does not go back as long as the gateway runs.
    pub second: u64,
    /// Requests that ended in it.
    pub requests: u64,
    /// Answers with status 5xx, and requests that got no answer.
    pub errors: u64,
    /// Answers with status 4xx.
    pub client_errors: u64,
    /// How long the answers took.
    pub latencies: Histogram,
}

impl SeriesPage {
    /// What all slots of a version did in this stretch, together.
    pub fn arm(&self, version: &str) -> Arm {
        let mut arm = Arm::default();
        let slots = self.slots.iter().filter(|slot| slot.version == version);
        slots.flat_map(|slot| &slot.seconds).for_each(|second| arm.merge(&second.arm()));
        arm
    }
}

impl TrafficSecond {
    /// As the judge takes it.
    pub fn arm(&self) -> Arm {
        Arm { requests: self.requests, errors: self.errors, latencies: self.latencies.clone() }
    }
}
