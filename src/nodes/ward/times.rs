//! How long a version's answers take while it is watched, held by the judge.

use chrono::{DateTime, Utc};

use crate::graph::NodeError;
use crate::judge::{Arm, Monitor, Report, Sample, Verdict};
use crate::nodes::world::port_err;
use crate::ports::{TrafficRouter, first_of};
use crate::release::DeploymentPlan;

/// The judge, and the last second that it has seen.
pub(super) struct Times {
    monitor: Monitor,
    /// Of the last window that is whole.
    over: Option<Report>,
    seen: u64,
}

impl Times {
    /// Where the plan has a rule for the bake.
    pub(super) fn of(plan: &DeploymentPlan, since: DateTime<Utc>) -> Option<Self> {
        // The planner has held the rule against what makes sense.
        let monitor = Monitor::new(plan.bake_rule.clone()?).ok()?;
        Some(Self { monitor, over: None, seen: u64::try_from(since.timestamp()).unwrap_or(0) })
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
            match judgement {
                Some(judgement) if judgement.verdict == Verdict::Fail => return Ok(Some(judgement.reason)),
                // The rule's window is over and the bake is not: what the judge says stands, and it goes on looking.
                Some(judgement) if judgement.decided => {
                    if let Ok(fresh) = Monitor::new(self.monitor.rule().clone()) {
                        self.over = Some(std::mem::replace(&mut self.monitor, fresh).report());
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// What the judge has seen and found.
    pub(super) fn report(&self) -> Report {
        self.over.clone().unwrap_or_else(|| self.monitor.report())
    }
}
