//! The user's own figures: each for itself, and what is compared with what compares it.

use super::{PlanError, Reasons};
use crate::release::metric::{During, MetricPlan, metric_plans};
use crate::release::units::duration_text;
use crate::release::{DeployRequest, Trial};

/// The request's metrics, with their defaults.
pub(super) fn metrics(
    request: &DeployRequest,
    trial: Option<&Trial>,
    why: &mut Reasons,
) -> Result<Vec<MetricPlan>, PlanError> {
    let metrics = metric_plans(&request.metrics);
    let metrics = metrics.map_err(|(metric, message)| PlanError::MetricInvalid { metric, message })?;
    if let Some(trial) = trial {
        compared(trial, &metrics)?;
    }
    let never = metrics.iter().filter(|metric| trial.is_none() && metric.during == [During::Trial]);
    let never: Vec<&str> = never.map(|metric| metric.threshold.name.as_str()).collect();
    if !never.is_empty() {
        why.add("metrics", format!("{}: held on trial only, and there is no trial", never.join(", ")));
    }
    Ok(metrics)
}

/// What is compared is measured, often enough, and what is measured for that is compared.
fn compared(trial: &Trial, metrics: &[MetricPlan]) -> Result<(), PlanError> {
    let invalid = |name: &str, message: String| Err(PlanError::MetricInvalid { metric: name.to_owned(), message });
    for (name, needed) in trial.analysis.own_metrics() {
        let Some(metric) = metrics.iter().find(|metric| metric.compare && metric.threshold.name == name) else {
            let message = "a kayenta check compares it, so it is needed among `metrics` with `compare: true`";
            return invalid(name, message.to_owned());
        };
        if metric.threshold.dry_run {
            return invalid(name, "dry_run: a kayenta check compares it, and that decides".to_owned());
        }
        let points = points(metric, trial.analysis.window_ms);
        if points < needed as u64 {
            let window = duration_text(trial.analysis.window_ms);
            let message = format!(
                "compare: {points} measurement(s) in the analysis' window of {window}, and the kayenta check needs {needed} \
                 (min_points): a shorter interval, or a longer window_ms"
            );
            return invalid(name, message);
        }
    }
    let idle = |metric: &&MetricPlan| {
        let own = trial.analysis.own_metrics().any(|(own, _)| own == metric.threshold.name);
        metric.compare && !metric.has_condition() && !metric.threshold.dry_run && !own
    };
    match metrics.iter().find(idle) {
        Some(metric) => {
            let message = "compare: nothing compares it; name it with `own: true` in a kayenta check of the strategy's `analysis`, or give \
                           it a condition";
            invalid(&metric.threshold.name, message.to_owned())
        }
        None => Ok(()),
    }
}

/// Measurements that can be made in a window.
fn points(metric: &MetricPlan, window_ms: u64) -> u64 {
    let threshold = &metric.threshold;
    let left_ms = window_ms.saturating_sub(threshold.initial_delay_ms);
    let in_time = threshold.interval_ms.map_or(1, |interval_ms| left_ms / interval_ms.max(1));
    threshold.count.map_or(in_time, |count| in_time.min(count.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::release::fixtures::input_of_iris;
    use crate::release::{DeploymentPlan, PlanError, plan};

    fn planned(strategy: &str, metric: &Value, checks: &Value) -> Result<DeploymentPlan, PlanError> {
        let mut input = input_of_iris(Some("1"));
        input.request.strategy = serde_json::from_value(json!(strategy)).expect("a strategy");
        input.request.canary = serde_json::from_value(json!({"analysis": {"checks": checks}})).expect("a canary");
        input.request.metrics = serde_json::from_value(json!([metric])).expect("metrics");
        plan(&input)
    }

    #[test]
    fn what_is_compared_is_measured_and_the_other_way_round() {
        let metric = |more: &[&str]| {
            let mut metric = json!({"name": "memory", "command": ["true"], "interval": "1s"});
            for key in more {
                metric[*key] = true.into();
            }
            metric
        };
        let more = |mut metric: Value, key: &str, value: Value| {
            metric[key] = value;
            metric
        };
        let kayenta = json!([{"kayenta": {"metrics": [{"name": "memory", "own": true}]}}]);
        let other = json!([{"error_ratio": {}}]);
        let good = planned("canary", &metric(&["compare"]), &kayenta).expect("a plan");
        assert!(good.metrics[0].compare);
        for (metric, checks, part) in [
            (metric(&["dry_run"]), &kayenta, "needed among `metrics` with `compare: true`"),
            (metric(&["compare"]), &other, "nothing compares it"),
            (metric(&["compare", "dry_run"]), &kayenta, "that decides"),
            (
                more(metric(&["compare"]), "interval", json!("20s")),
                &kayenta,
                "30 measurement(s) in the analysis' window of 10m",
            ),
            (more(metric(&["compare"]), "initial_delay", json!("570s")), &kayenta, "30 measurement(s)"),
            (more(metric(&["compare"]), "count", json!(5)), &kayenta, "needs 50"),
        ] {
            let error = planned("canary", &metric, checks).expect_err(part);
            assert!(error.code() == "metric_invalid" && error.to_string().contains(part), "{error}");
            assert!(error.to_string().contains("memory"), "{error}");
        }
        // To be looked at only; and without a trial nothing is compared, which the plan says.
        planned("canary", &metric(&["compare", "dry_run"]), &other).expect("a plan");
        let without = planned("blue-green", &metric(&["compare"]), &kayenta).expect("a plan");
        assert!(
            without.reasons.iter().any(|reason| reason.because.contains("memory: held on trial only")),
            "{without:?}"
        );
    }
}
