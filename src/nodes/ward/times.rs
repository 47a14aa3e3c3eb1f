//! How long a version's answers take while it is watched, held by the judge.

use chrono::Utc;

use crate::graph::NodeError;
use crate::judge::{Arm, Monitor, Report, Sample, Verdict};
use crate::nodes::world::port_err;
use crate::ports::{TrafficRouter, first_of};
use crate::release::DeploymentPlan;

/// The judge, and the last second that it has seen.
pub(super) struct Times {
    monitor: Monitor,
    seen: u64,
}

impl Times {
    /// Where the plan has a rule for the bake.
    pub(super) fn of(plan: &DeploymentPlan) -> Option<Self> {
        // The planner has held the rule against what makes sense.
        let monitor = Monitor::new(plan.bake_rule.clone()?).ok()?;
        Some(Self { monitor, seen: u64::try_from(Utc::now().timestamp()).unwrap_or(0) })
    }

    /// Shows the judge the seconds that are new; what harm it finds.
    pub(super) async fn look(
        &mut self,
        router: &dyn TrafficRouter,
        plan: &DeploymentPlan,
        token: &str,
    ) -> Result<Option<String>, NodeError> {
        let page = router.series(plan.model.as_str(), self.seen).await.map_err(port_err)?;
        for second in self.seen + 1..=page.until {
            let mut candidate = Arm::default();
            let slots = page.slots.iter().filter(|slot| first_of(&slot.token) == token);
            let counted = slots.flat_map(|slot| &slot.seconds).filter(|counted| counted.second == second);
            counted.for_each(|counted| candidate.merge(&counted.arm()));
            // Only the order could be wrong, and it is kept.
            let judgement = self.monitor.look(&Sample { at_ms: second * 1000, candidate, ..Sample::default() }).ok();
            self.seen = second;
            if let Some(judgement) = judgement.filter(|judgement| judgement.verdict == Verdict::Fail) {
                return Ok(Some(judgement.reason));
            }
        }
        Ok(None)
    }

    /// What the judge has seen and found.
    pub(super) fn report(&self) -> Report {
        self.monitor.report()
    }
}
