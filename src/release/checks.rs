//! The checks and the steps of a plan.

use super::evidence::WORK_GATE;
use super::metric::{During, MetricPlan};
use super::plan::{Bound, CheckKind, DeploymentPlan, Limit, PlanInput, PlanStep, PlannedCheck};
use super::planner::Reasons;
use super::request::ModelSource;
use super::strategy::Strategy;
use super::units::duration_text;

/// What is checked before users see anything.
pub(super) fn checks(
    input: &PlanInput,
    ready_timeout_ms: u64,
    metrics: &[MetricPlan],
    why: &mut Reasons,
) -> Vec<PlannedCheck> {
    let check = |name: &str, kind, what: String, limit| PlannedCheck { name: name.to_owned(), kind, what, limit };
    let request = &input.request;
    let mut checks = vec![
        check("liveness", CheckKind::Liveness, "/livez answers 200".to_owned(), None),
        check(
            "readiness",
            CheckKind::Readiness,
            format!("/readyz answers 200 within {}", duration_text(ready_timeout_ms)),
            None,
        ),
    ];
    for case in &request.smoke {
        let what = match &case.expect {
            Some(_) => format!("{} answers {} and the expected JSON", case.path, case.expected_status()),
            None => format!("{} answers {}", case.path, case.expected_status()),
        };
        checks.push(check(&format!("smoke:{}", case.name), CheckKind::Smoke, what, None));
    }
    if request.smoke.is_empty() {
        let what = "each route answers a request made from its own schema".to_owned();
        checks.push(check("smoke:generated", CheckKind::GeneratedSmoke, what, None));
        why.add("smoke", "no golden case is given, so requests are made from the service's schema");
    } else {
        why.add("smoke", format!("{} golden case(s)", request.smoke.len()));
    }
    if let Some(value) = request.serving.latency_p99_ms {
        let limit = Limit { bound: Bound::AtMost, value, unit: "ms".to_owned() };
        checks.push(check("latency_p99", CheckKind::LatencyP99, format!("p99 is at most {value} ms"), Some(limit)));
    }
    if let Some(value) = request.serving.throughput_rps {
        let limit = Limit { bound: Bound::AtLeast, value, unit: "rps".to_owned() };
        checks.push(check("throughput", CheckKind::Throughput, format!("at least {value} requests/s"), Some(limit)));
    }
    if let Some(value) = request.serving.availability {
        let value = (value * 1e8).round() / 1e6;
        let limit = Limit { bound: Bound::AtLeast, value, unit: "%".to_owned() };
        let what = format!("at least {value} % of the calls of a short load succeed");
        checks.push(check("availability", CheckKind::Availability, what, Some(limit)));
    }
    for metric in metrics.iter().filter(|metric| metric.during.contains(&During::Validation)) {
        checks.push(check(&metric_check(&metric.threshold.name), CheckKind::Metric, metric.line(), None));
    }
    if let Some(live) = &input.live {
        let what = format!("answers are shown beside those of version {}", live.model_version);
        checks.push(check("difference_to_live", CheckKind::DifferenceToLive, what, None));
    }
    checks
}

/// The name of a metric's check.
pub fn metric_check(name: &str) -> String {
    format!("metric:{name}")
}

/// Whether a training command is run before the build, in words. The model store is looked at when the build begins, not now.
fn training(plan: &DeploymentPlan) -> String {
    let Some(train) = plan.build.train.as_ref().filter(|argv| !argv.is_empty()) else { return String::new() };
    let command = train.join(" ");
    match plan.build.needs_models.as_slice() {
        [] => format!("never runs `{command}`, as `needs_models` names no model that could be missing; "),
        [model] => format!("runs `{command}` only if {model} is missing from the model store; "),
        models => format!("runs `{command}` only if one of {} is missing from the model store; ", models.join(", ")),
    }
}

/// What happens, in order.
pub(super) fn steps(plan: &DeploymentPlan) -> Vec<PlanStep> {
    let step = |node: &str, does: String| PlanStep { node: node.to_owned(), does };
    let build = match &plan.build.source {
        ModelSource::Project { .. } => format!("{}builds the project with BentoML in its environment", training(plan)),
        ModelSource::Artifact { .. } => "writes a service for the model and builds it with BentoML".to_owned(),
    };
    let mut steps = Vec::new();
    if plan.approval.before_work {
        steps.push(step(WORK_GATE, "asks before anything is built, where a rule wants that".to_owned()));
    }
    steps.push(step("packager", build));
    // Where the live version has to stop first both come after the decision: the traffic plan says so.
    if plan.hold_ms.is_none() {
        let starts = format!("starts it in slot {} and waits until it is ready", plan.slots.candidate);
        steps.push(step("deployment_executor", starts));
        steps.push(step("validation", format!("makes {} check(s); users see nothing of it", plan.checks.len())));
    }
    if plan.approval.required {
        let open = duration_text(plan.approval.ttl_ms);
        steps.push(step("approval_gate", format!("shows the evidence and waits up to {open} for a decision")));
    }
    let node = match plan.strategy {
        Strategy::Canary | Strategy::AbTest | Strategy::Shadow | Strategy::Rolling | Strategy::Recreate => {
            plan.strategy.as_str()
        }
        Strategy::BlueGreen => "traffic_shift",
    };
    steps.extend(plan.traffic.iter().map(|does| step(node, does.clone())));
    steps.push(step("finalise", "records the release and hands back the contract".to_owned()));
    steps
}

#[cfg(test)]
mod tests {
    use crate::release::fixtures::input_of_iris;
    use crate::release::plan;

    #[test]
    fn a_plan_says_when_the_training_runs() {
        let step = |train: bool, models: &[&str]| {
            let mut input = input_of_iris(None);
            input.request.train = train.then(|| vec!["python".to_owned(), "train.py".to_owned()]);
            input.request.needs_models = models.iter().map(|model| (*model).to_owned()).collect();
            plan(&input).expect("a plan").steps.remove(0).does
        };
        let builds = "builds the project with BentoML in its environment";
        assert_eq!(step(false, &["clf:latest"]), builds);
        let only_if = format!("runs `python train.py` only if clf:latest is missing from the model store; {builds}");
        assert_eq!(step(true, &["clf:latest"]), only_if);
        assert!(step(true, &["clf:latest", "enc:1"]).contains("only if one of clf:latest, enc:1 is missing"));
        assert!(step(true, &[]).starts_with("never runs `python train.py`"));
    }
}
