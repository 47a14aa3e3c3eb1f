//! The user's own figures: each for itself, and what is compared with what compares it.

use super::{PlanError, Reasons};
use crate::release::metric::{During, MetricPlan, metric_plans};
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

/// What is compared is measured, and what is measured for that is compared.
fn compared(trial: &Trial, metrics: &[MetricPlan]) -> Result<(), PlanError> {
    let name = |metric: &MetricPlan| metric.threshold.name.clone();
    let own: Vec<&str> = trial.analysis.own_metrics().collect();
    if let Some(lost) = own.iter().find(|own| !metrics.iter().any(|metric| metric.compare && name(metric) == **own)) {
        let message = "a kayenta check compares it, so it is needed among `metrics` with `compare: true`".to_owned();
        return Err(PlanError::MetricInvalid { metric: (*lost).to_owned(), message });
    }
    let idle = |metric: &&MetricPlan| {
        metric.compare
            && !metric.has_condition()
            && !metric.threshold.dry_run
            && !own.contains(&metric.threshold.name.as_str())
    };
    match metrics.iter().find(idle) {
        Some(metric) => {
            let message = "compare: nothing compares it; name it with `own: true` in a kayenta check of the strategy's `analysis`, or give \
                           it a condition";
            Err(PlanError::MetricInvalid { metric: name(metric), message: message.to_owned() })
        }
        None => Ok(()),
    }
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
        let kayenta = json!([{"kayenta": {"metrics": [{"name": "memory", "own": true}]}}]);
        let other = json!([{"error_ratio": {}}]);
        let good = planned("canary", &metric(&["compare"]), &kayenta).expect("a plan");
        assert!(good.metrics[0].compare);
        for (metric, checks, part) in [
            (metric(&["dry_run"]), &kayenta, "needed among `metrics` with `compare: true`"),
            (metric(&["compare"]), &other, "nothing compares it"),
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
