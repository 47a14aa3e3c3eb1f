//! Which strategy, and what it is told: from the request, the memory that two copies need, the traffic seen, and how earlier releases fared.

use super::super::canary::CanaryPlan;
use super::super::plan::PlanInput;
use super::super::request::DeployRequest;
use super::super::rolling::RollingPlan;
use super::super::strategy::{DeploymentStrategy, Strategies, Strategy};
use super::super::trial::{AbTestPlan, ShadowPlan, SplitBy, Trial};
use super::super::units::duration_text;
use super::size::{copy_mb, left_by_live, size};
use super::{CANARY_FROM_RPS, DEFAULT_HOLD_MS, PlanError, Reasons};
use crate::judge::{AvailabilityLimit, Check, DEFAULT_BLOCK_MS, LatencyLimit, Rule};

/// Longest that the gateway lets a request wait, in milliseconds.
const MOST_HOLD_MS: u64 = 3_600_000;

/// What the chosen strategy is told; at most one of them.
#[derive(Default)]
pub(super) struct Trials {
    pub(super) canary: Option<CanaryPlan>,
    pub(super) ab_test: Option<AbTestPlan>,
    pub(super) shadow: Option<ShadowPlan>,
    pub(super) rolling: Option<RollingPlan>,
}

impl Trials {
    /// How many further replicas stand beside the live version's, where it is not all of them at once.
    pub(super) fn copies_at_once(&self) -> Option<u32> {
        // The first new replica is started beside all the others, whatever may be missing later.
        self.rolling.as_ref().map(|rolling| rolling.max_surge.max(1))
    }

    pub(super) fn trial(&self, replicas: u32) -> Option<Trial> {
        let canary = self.canary.as_ref().map(CanaryPlan::trial);
        let ab_test = self.ab_test.as_ref().map(AbTestPlan::trial);
        let rolling = || self.rolling.as_ref().map(|rolling| rolling.trial(replicas));
        canary.or(ab_test).or_else(|| self.shadow.as_ref().map(ShadowPlan::trial)).or_else(rolling)
    }
}

/// The strategy that the request names, or the one that fits.
pub(super) fn choose_strategy<'a>(
    input: &PlanInput,
    strategies: &'a Strategies,
    why: &mut Reasons,
) -> Result<&'a dyn DeploymentStrategy, PlanError> {
    let (wanted, because) = match input.request.strategy {
        Some(asked) => (asked, "the request asks for it".to_owned()),
        None => fitting(input)?,
    };
    let found = strategies.get(wanted).ok_or_else(|| PlanError::StrategyUnavailable {
        strategy: wanted,
        available: strategies.available().iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", "),
    })?;
    why.add("strategy", format!("{wanted}: {because}"));
    Ok(found)
}

/// The strategy where the request names none.
fn fitting(input: &PlanInput) -> Result<(Strategy, String), PlanError> {
    let described: Vec<Strategy> = described(&input.request).collect();
    match described.as_slice() {
        [] => {}
        [one] => return Ok((*one, "the request says how".to_owned())),
        several => {
            let described = several.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", ");
            return Err(PlanError::StrategyUnclear { described });
        }
    }
    if input.live.is_none() {
        return Ok((Strategy::BlueGreen, "the first version has nothing to be compared with".to_owned()));
    }
    // Where not even its place would do, whoever plans on is refused with the figures.
    if let Some((needed, free)) = too_large(input)?.filter(|(needed, free)| *needed <= free + left_by_live(input)) {
        let because = format!(
            "a second copy needs {needed} MB and {free} MB are free, so the live version stops before the new one starts"
        );
        return Ok((Strategy::Recreate, because));
    }
    let seen =
        input.seen.rps.map_or_else(|| "no traffic was seen".to_owned(), |rps| format!("{rps:.1} requests/s were seen"));
    match (&input.seen.went_bad, input.seen.rps.is_some_and(|rps| rps >= CANARY_FROM_RPS)) {
        (Some(version), true) => Ok((
            Strategy::Canary,
            format!(
                "version {version} went bad in front of users not long ago, and {seen}: enough to judge a part of them first"
            ),
        )),
        (Some(version), false) => Ok((
            Strategy::BlueGreen,
            format!(
                "version {version} went bad not long ago, but {seen}: too little for a canary; it goes back at once"
            ),
        )),
        (None, _) => Ok((
            Strategy::BlueGreen,
            format!("the request leaves it open; it drops no request and goes back at once ({seen})"),
        )),
    }
}

/// The strategies whose own keys the request has.
fn described(request: &DeployRequest) -> impl Iterator<Item = Strategy> {
    let keys = [
        (Strategy::Canary, request.canary.is_some()),
        (Strategy::AbTest, request.ab_test.is_some()),
        (Strategy::Shadow, request.shadow.is_some()),
        (Strategy::Rolling, request.rolling.is_some()),
    ];
    keys.into_iter().filter_map(|(strategy, there)| there.then_some(strategy))
}

/// What a second copy needs and what is free, in MB, where it does not fit.
fn too_large(input: &PlanInput) -> Result<Option<(u64, u64)>, PlanError> {
    let size = size(input, &mut Reasons::default())?;
    let (one, _) = copy_mb(input, size.workers)?;
    let all = one.saturating_mul(u64::from(size.replicas));
    Ok(input.machine.memory_free_mb.filter(|free| all > *free).map(|free| (all, free)))
}

/// What the strategy is told, where there is something to compare with.
pub(super) fn trials(
    request: &DeployRequest,
    strategy: Strategy,
    is_live: bool,
    replicas: u32,
    why: &mut Reasons,
) -> Result<Trials, PlanError> {
    for unused in described(request).filter(|described| *described != strategy) {
        why.add(unused.as_str(), format!("what the request says of it is not used: the strategy is {strategy}"));
    }
    let invalid = |key: &str| {
        let key = key.to_owned();
        move |message| PlanError::TrialInvalid { key, message }
    };
    let mut trials = Trials::default();
    match strategy {
        Strategy::Canary => {
            let mut canary = request.canary.clone().unwrap_or_default().plan();
            if request.canary.as_ref().is_none_or(|asked| asked.analysis.is_none()) {
                hold_requirements(&mut canary.analysis, request, true);
            }
            canary.check().map_err(invalid("canary"))?;
            if canary.analysis_from > 0 {
                let from = crate::release::CanaryStep::Weight(canary.analysis_from);
                why.add("canary", format!("the judge looks from {from} of the traffic on, as the request says"));
            }
            canary.by.iter().try_for_each(SplitBy::check).map_err(invalid("canary"))?;
            trials.canary = Some(canary);
        }
        Strategy::AbTest => {
            let mut test = request.ab_test.clone().unwrap_or_default().plan();
            if request.ab_test.as_ref().is_none_or(|asked| asked.analysis.is_none()) {
                hold_requirements(&mut test.analysis, request, true);
            }
            test.check().map_err(invalid("ab_test"))?;
            trials.ab_test = Some(test);
        }
        Strategy::Shadow => {
            let mut shadow = request.shadow.clone().unwrap_or_default().plan();
            if request.shadow.as_ref().is_none_or(|asked| asked.analysis.is_none()) {
                hold_requirements(&mut shadow.analysis, request, false);
            }
            shadow.check().map_err(invalid("shadow"))?;
            trials.shadow = Some(shadow);
        }
        Strategy::Rolling => {
            let mut rolling = request.rolling.clone().unwrap_or_default().plan(replicas);
            if request.rolling.as_ref().is_none_or(|asked| asked.analysis.is_none()) {
                hold_requirements(&mut rolling.analysis, request, true);
            }
            rolling.check(replicas).map_err(invalid("rolling"))?;
            trials.rolling = Some(rolling);
        }
        Strategy::BlueGreen | Strategy::Recreate => return Ok(trials),
    }
    if !is_live {
        let because = "nothing serves that it could be compared with: the first version gets all traffic at once";
        why.add(strategy.as_str(), because);
        return Ok(Trials::default());
    }
    let source = if described(request).any(|described| described == strategy) { "as asked for" } else { "by default" };
    let trial = trials.trial(replicas);
    let steps: Vec<String> = trial.iter().flat_map(|trial| &trial.steps).map(ToString::to_string).collect();
    let because = format!("{} {source}; the judge looks all the while, and no data is never a pass", steps.join(", "));
    why.add(strategy.as_str(), because);
    Ok(trials)
}

/// What the version must be able to do is held while it is on trial, too, where the request does not say what is held. How long the answers
/// to repeated requests take says little, so only `timed` trials hold that.
fn hold_requirements(rule: &mut Rule, request: &DeployRequest, timed: bool) {
    if let Some(at_least) = request.serving.availability {
        rule.checks.push(Check::AvailabilityLimit(AvailabilityLimit { at_least, block_ms: DEFAULT_BLOCK_MS }));
    }
    if let Some(at_most_ms) = request.serving.latency_p99_ms.filter(|_| timed) {
        let limit = LatencyLimit { quantile: 0.99, at_most_ms, block_ms: DEFAULT_BLOCK_MS };
        rule.checks.push(Check::LatencyLimit(limit));
    }
}

/// How long a request may wait, in milliseconds.
pub(super) fn hold(request: &DeployRequest, why: &mut Reasons) -> Result<u64, PlanError> {
    let (ms, source) = match request.hold_ms {
        Some(ms) => (ms, "as the request says"),
        None => (DEFAULT_HOLD_MS, "by default"),
    };
    if ms > MOST_HOLD_MS {
        let message = format!("hold: at most {}; no client waits longer", duration_text(MOST_HOLD_MS));
        return Err(PlanError::TrialInvalid { key: "recreate".to_owned(), message });
    }
    why.add("hold", format!("a request waits at most {} {source}, then it is answered 503", duration_text(ms)));
    Ok(ms)
}
