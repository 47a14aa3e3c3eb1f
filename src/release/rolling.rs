//! Rolling: replica by replica, in batches, each ready and judged before the next.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::canary::{CanaryStep, WHOLE_WEIGHT};
use super::trial::Trial;
use super::units::Millis;
use crate::judge::Rule;

/// How many replicas more than wanted may run meanwhile, where nobody says.
pub const DEFAULT_MAX_SURGE: u32 = 1;
/// How long a batch is judged before the next one, where nobody says, in milliseconds: with half of the traffic the judge needs about as
/// long to be sure of a version that often fails.
pub const DEFAULT_BATCH_MS: u64 = 120_000;

/// How a rolling release is asked for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollingSpec {
    /// How many replicas more than wanted may run meanwhile; absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_surge: Option<u32>,
    /// How many fewer than wanted may serve meanwhile; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<u32>,
    /// How long each batch is judged before the next; absent: two minutes.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub batch: Option<Millis>,
    /// What is held meanwhile; absent: error rate and p99 are no higher than the live version's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Rule>,
}

/// A rolling release as it will be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollingPlan {
    /// How many replicas more than wanted may run meanwhile.
    pub max_surge: u32,
    /// How many fewer than wanted may serve meanwhile.
    pub max_unavailable: u32,
    /// How long each batch is judged before the next, in milliseconds.
    pub batch_ms: u64,
    /// What is held meanwhile.
    pub analysis: Rule,
}

/// How many replicas of each version there are while a share of the traffic goes to the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Of the version before: as many as stay until the new ones are ready.
    pub before: u32,
    /// Of the new version.
    pub new: u32,
    /// Of the version before, once the new ones serve.
    pub left: u32,
}

impl RollingSpec {
    /// With its defaults; the judge watches as long as all batches take.
    #[must_use]
    pub fn plan(&self, replicas: u32) -> RollingPlan {
        let max_unavailable = self.max_unavailable.unwrap_or(0);
        // Somebody who lets one be missing needs no further one.
        let max_surge = self.max_surge.unwrap_or(if max_unavailable > 0 { 0 } else { DEFAULT_MAX_SURGE });
        let batch_ms = self.batch.map_or(DEFAULT_BATCH_MS, |batch| batch.0);
        let plan = RollingPlan { max_surge, max_unavailable, batch_ms, analysis: Rule::default() };
        let window_ms = plan.trial(replicas).watched_ms().max(1);
        let analysis = self.analysis.clone().unwrap_or_else(|| Rule { window_ms, ..Rule::default() });
        RollingPlan { analysis, ..plan }
    }

    /// The same with what `over` says differently.
    #[must_use]
    pub fn overlaid(self, over: Self) -> Self {
        Self {
            max_surge: over.max_surge.or(self.max_surge),
            max_unavailable: over.max_unavailable.or(self.max_unavailable),
            batch: over.batch.or(self.batch),
            analysis: over.analysis.or(self.analysis),
        }
    }
}

impl RollingPlan {
    /// The batches before the last one: the last one's replicas get all of the traffic.
    pub fn batches(&self, replicas: u32) -> Vec<Batch> {
        let size = (self.max_surge + self.max_unavailable).max(1);
        let mut batches = Vec::new();
        let mut new = size.min(replicas);
        let mut left = replicas;
        while new < replicas {
            // Before the new ones are there as few may be missing as are allowed to.
            let at_least = replicas.saturating_sub(self.max_unavailable);
            let ready = new.saturating_sub(size);
            let before = left.min(at_least.saturating_sub(ready)).max(1);
            left = replicas - new;
            batches.push(Batch { before, new, left });
            new = (new + size).min(replicas);
        }
        batches
    }

    /// What is done.
    pub fn trial(&self, replicas: u32) -> Trial {
        let share = |new: u32| CanaryStep::Weight(WHOLE_WEIGHT / replicas.max(1) * new);
        let steps =
            self.batches(replicas).into_iter().flat_map(|batch| [share(batch.new), CanaryStep::Wait(self.batch_ms)]);
        let (steps, analysis) = (steps.collect(), self.analysis.clone());
        Trial { word: "rolling", called: "rolling release", steps, analysis, by: None, shadow: None, judged_from: 0 }
    }

    /// Why it makes no sense, if it does not.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self, replicas: u32) -> Result<(), String> {
        if self.max_surge == 0 && self.max_unavailable == 0 {
            return Err(
                "max_surge and max_unavailable: one of them is more than 0, or nothing could be replaced".to_owned()
            );
        }
        if self.max_unavailable >= replicas && replicas > 1 {
            return Err(format!("max_unavailable: fewer than the {replicas} replicas, or nobody would serve"));
        }
        if self.max_surge > replicas {
            return Err(format!("max_surge: at most the {replicas} replicas"));
        }
        self.analysis.validate().map_err(|e| format!("analysis: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(max_surge: u32, max_unavailable: u32) -> RollingPlan {
        RollingPlan { max_surge, max_unavailable, batch_ms: 1000, analysis: Rule::default() }
    }

    #[test]
    fn batches_keep_surge_and_availability() {
        for (surge, unavailable) in [(1, 0), (0, 1), (2, 0), (1, 1), (2, 1)] {
            for replicas in 2..=9 {
                let plan = plan(surge, unavailable);
                if plan.check(replicas).is_err() {
                    continue;
                }
                let (mut left, mut new) = (replicas, 0);
                for batch in plan.batches(replicas) {
                    assert!(batch.before <= left && batch.before + new >= replicas - unavailable, "{plan:?} {batch:?}");
                    assert!(batch.before + batch.new <= replicas + surge, "{plan:?} {replicas} {batch:?}");
                    assert!(batch.new > new && batch.left + batch.new == replicas, "{plan:?} {batch:?}");
                    (left, new) = (batch.left, batch.new);
                }
                assert!(left >= 1, "somebody serves until the last batch");
            }
        }
    }

    #[test]
    fn one_replica_at_a_time_is_the_default() {
        let plan = RollingSpec::default().plan(3);
        assert_eq!((plan.max_surge, plan.max_unavailable, plan.analysis.window_ms), (1, 0, 240_000));
        assert_eq!(plan.batches(3), [Batch { before: 3, new: 1, left: 2 }, Batch { before: 2, new: 2, left: 1 }]);
        assert_eq!(plan.trial(3).steps[0], CanaryStep::Weight(33_333));
        assert!(plan.batches(1).is_empty());
        let unavailable = RollingSpec { max_unavailable: Some(1), ..RollingSpec::default() }.plan(3);
        assert_eq!(unavailable.max_surge, 0);
        assert_eq!(unavailable.batches(3)[0], Batch { before: 2, new: 1, left: 2 });
    }

    #[test]
    fn what_cannot_be_done_is_told() {
        assert!(plan(0, 0).check(3).expect_err("nothing").contains("more than 0"));
        assert!(plan(0, 3).check(3).expect_err("nobody serves").contains("nobody would serve"));
        assert!(plan(4, 0).check(3).expect_err("too many").contains("at most"));
        assert_eq!(plan(1, 1).check(3), Ok(()));
    }
}
