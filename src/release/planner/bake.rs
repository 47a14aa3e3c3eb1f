//! How the new version is watched with all of the traffic.

use super::super::plan::Bake;
use super::super::request::DeployRequest;
use super::super::units::duration_text;
use super::{DEFAULT_BAKE_MS, DEFAULT_MAX_ERROR_RATE, PlanError, Reasons};
use crate::judge::{Check, DEFAULT_BLOCK_MS, LatencyLimit, Rule};

/// How long, and with how many errors.
pub(super) fn bake(request: &DeployRequest, why: &mut Reasons) -> Bake {
    let (for_ms, source) = match request.bake.duration {
        Some(duration) => (duration.0, "as the request says"),
        None => (DEFAULT_BAKE_MS, "by default"),
    };
    let (max_error_rate, limit) = match (request.bake.max_error_rate, request.serving.availability) {
        (Some(rate), _) => (rate.0, "as the request says"),
        // Rounded: 1 - 0.999 is not 0.001 in binary.
        (None, Some(availability)) => (((1.0 - availability) * 1e9).round() / 1e9, "what the availability leaves"),
        (None, None) => (DEFAULT_MAX_ERROR_RATE, "by default"),
    };
    why.add(
        "bake",
        format!("{} {source}, at most {max_error_rate} of requests may fail, {limit}", duration_text(for_ms)),
    );
    Bake { for_ms, max_error_rate }
}

/// What the judge holds during the bake: the request's own rule; else p99, as it takes time to say something of it. How many may fail is
/// the bake's own limit.
pub(super) fn bake_rule(request: &DeployRequest, bake: Bake, why: &mut Reasons) -> Result<Option<Rule>, PlanError> {
    // A short bake has short blocks: with less than about ten of them nothing can be said.
    let block_ms = (bake.for_ms / 20).clamp(1_000, DEFAULT_BLOCK_MS);
    let rule = match (&request.bake.analysis, request.serving.latency_p99_ms.filter(|_| bake.for_ms > 0)) {
        (Some(asked), _) => {
            let invalid = |message| PlanError::TrialInvalid { key: "bake".to_owned(), message };
            asked.validate().map_err(|e| invalid(format!("analysis: {e}")))?;
            if bake.for_ms == 0 {
                return Err(invalid("analysis: without a time (`for`) there is nothing to look at".to_owned()));
            }
            if let Some(check) = asked.checks.iter().find(|check| check.compares()) {
                let name = check.name();
                let message =
                    format!("analysis: {name} needs the version before beside it, which gets no traffic then");
                return Err(invalid(message));
            }
            let names: Vec<_> = asked.checks.iter().map(Check::name).collect();
            why.add("bake", format!("the judge looks at {} meanwhile, as the request says", names.join(", ")));
            asked.clone().with_blocks_within(block_ms)
        }
        (None, Some(at_most_ms)) => {
            why.add("bake", format!("the judge looks whether p99 stays at most {at_most_ms} ms meanwhile"));
            let limit = LatencyLimit { quantile: 0.99, at_most_ms, block_ms };
            Rule { checks: vec![Check::LatencyLimit(limit)], ..Rule::default() }
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(Rule { window_ms: bake.for_ms, ..rule }))
}
