use serde_json::json;

use super::*;
use crate::judge::{Check, ErrorRatio, Rule};
use crate::release::fixtures::input_of_iris;
use crate::release::units::Share;
use crate::release::{AbTestSpec, CanarySpec, CheckKind, Seen, Workers};

fn because<'a>(plan: &'a DeploymentPlan, rule: &str) -> &'a str {
    plan.reasons.iter().find(|reason| reason.rule == rule).map_or("", |reason| &reason.because)
}

#[test]
fn a_first_release_is_planned_and_explained() {
    let plan = plan(&input_of_iris(None)).expect("a plan");
    assert_eq!((plan.strategy, plan.slots.candidate.as_str(), plan.replicas), (Strategy::BlueGreen, "blue", 1));
    assert_eq!((plan.ready_timeout_ms, plan.bake.for_ms, plan.memory_mb), (60_000, 10_000, DEFAULT_MEMORY_MB));
    assert!(plan.approval.required && plan.previous.is_none());
    for rule in
        ["strategy", "package", "platform", "version", "previous", "memory", "bake", "approval", "slot", "smoke"]
    {
        assert!(!because(&plan, rule).is_empty(), "{rule}");
    }
    let nodes: Vec<_> = plan.steps.iter().map(|step| step.node.as_str()).collect();
    let (first, last) = (nodes.first().copied(), nodes.last().copied());
    assert_eq!((first, last), (Some("packager"), Some("finalise")));
    assert!(nodes.contains(&"approval_gate"));
    assert!(plan.lines().join("\n").contains("replaces   nothing: first release"));
}

#[test]
fn the_same_input_is_the_same_plan_and_every_part_counts() {
    let input = input_of_iris(Some("v1"));
    let one = plan(&input).expect("a plan");
    assert_eq!(one.digest(), plan(&input).expect("a plan").digest());
    let stored: DeploymentPlan = serde_json::from_value(one.to_value()).expect("same");
    assert_eq!(stored.digest(), one.digest());
    let mut other = input;
    other.request.env_file = Some("/p/secrets.env".into());
    assert_ne!(plan(&other).expect("a plan").digest(), one.digest());
    assert_eq!((one.slots.candidate.as_str(), one.previous_version()), ("green", Some("v1")));
    assert!(one.checks.iter().any(|check| check.kind == CheckKind::DifferenceToLive));
}

#[test]
fn another_strategy_is_refused_and_not_replaced() {
    for strategy in Strategy::ALL.into_iter().filter(|strategy| Strategies::builtin().get(*strategy).is_none()) {
        let mut input = input_of_iris(None);
        input.request.strategy = Some(strategy);
        let error = plan(&input).expect_err("unavailable");
        assert_eq!(error.code(), "strategy_unavailable");
        assert!(error.to_string().contains(strategy.as_str()) && error.to_string().contains("blue-green"), "{error}");
    }
}

#[test]
fn frameworks_platforms_versions_and_replicas_are_checked() {
    let mut input = input_of_iris(Some("v1"));
    input.request.source = ModelSource::Artifact { path: "m.pt".into(), framework: "pytorch".into() };
    let error = plan(&input).expect_err("framework");
    assert_eq!(error.code(), "framework_unavailable");
    assert!(error.hint().contains("@bentoml.service"));
    input.request.source = ModelSource::Artifact { path: "m.joblib".into(), framework: "Scikit-Learn".into() };
    assert!(because(&plan(&input).expect("a plan"), "package").contains("generated"));
    input.request.infrastructure.platform = Some("kubernetes".into());
    assert_eq!(plan(&input).expect_err("platform").code(), "platform_unavailable");
    input.request.infrastructure.platform = Some("local".into());
    input.request.version = Some("v1".into());
    assert_eq!(plan(&input).expect_err("version").code(), "version_is_live");
    input.request.version = None;
    input.request.infrastructure.resources.insert("replicas".into(), json!(3));
    assert_eq!(plan(&input).map(|plan| (plan.replicas, plan.memory_mb)), Ok((3, 3 * DEFAULT_MEMORY_MB)));
    input.request.strategy = Some(Strategy::Rolling);
    let rolling = plan(&input).expect("a plan");
    assert_eq!((rolling.memory_mb, rolling.first_replicas()), (DEFAULT_MEMORY_MB, 1), "one more than before at a time");
    input.request.infrastructure.resources.insert("replicas".into(), json!(65));
    assert_eq!(plan(&input).expect_err("replicas").code(), "replicas_unavailable");
}

#[test]
fn memory_must_be_there() {
    let mut input = input_of_iris(None);
    input.machine.memory_free_mb = Some(1000);
    input.machine.memory_needed_mb = Some(400);
    assert_eq!(plan(&input).expect("fits").memory_mb, 400);
    input.request.infrastructure.resources.insert("memory".into(), json!("1Gi"));
    let error = plan(&input).expect_err("1074 MB do not fit");
    assert_eq!((error.code(), error.retryable()), ("insufficient_memory", true));
    assert!(error.to_string().contains("1074"), "{error}");
    input.request.infrastructure.resources.insert("memory".into(), json!("lots"));
    assert!(plan(&input).expect_err("lots").to_string().contains("`lots`"));
}

#[test]
fn availability_limits_errors_while_baking() {
    let mut input = input_of_iris(None);
    input.request.serving.availability = Some(0.999);
    assert!((plan(&input).expect("a plan").bake.max_error_rate - 0.001).abs() < 1e-12);
    input.request.bake.max_error_rate = Some(Share(0.05));
    assert!((plan(&input).expect("a plan").bake.max_error_rate - 0.05).abs() < 1e-12);
}

#[test]
fn the_strategy_is_chosen_from_what_was_seen() {
    let chosen = |change: &dyn Fn(&mut PlanInput)| {
        let mut input = input_of_iris(Some("v1"));
        change(&mut input);
        plan(&input).map(|plan| (plan.strategy, because(&plan, "strategy").to_owned()))
    };
    let (strategy, why) = chosen(&|input| input.seen.rps = Some(12.0)).expect("a plan");
    assert!(strategy == Strategy::BlueGreen && why.contains("12.0 requests/s"), "{why}");
    let bad = |rps: f64| {
        move |input: &mut PlanInput| {
            input.seen = Seen { rps: Some(rps), went_bad: Some("v0".into()), ..Seen::default() }
        }
    };
    let (strategy, why) = chosen(&bad(12.0)).expect("a plan");
    assert!(strategy == Strategy::Canary && why.contains("version v0 went bad"), "{why}");
    let (strategy, why) = chosen(&bad(0.1)).expect("a plan");
    assert!(strategy == Strategy::BlueGreen && why.contains("too little for a canary"), "{why}");
    let described = |input: &mut PlanInput| input.request.ab_test = Some(AbTestSpec::default());
    assert_eq!(chosen(&described).expect("a plan").0, Strategy::AbTest);
    let both = |input: &mut PlanInput| {
        input.request.ab_test = Some(AbTestSpec::default());
        input.request.canary = Some(CanarySpec::default());
    };
    assert_eq!(chosen(&both).expect_err("unclear").code(), "strategy_unclear");
}

#[test]
fn where_two_copies_do_not_fit_one_takes_the_place_of_the_other() {
    let mut input = input_of_iris(Some("v1"));
    input.machine.memory_free_mb = Some(500);
    input.machine.memory_needed_mb = Some(800);
    let chosen = plan(&input).expect("a plan");
    assert_eq!((chosen.strategy, chosen.hold_ms), (Strategy::Recreate, Some(DEFAULT_HOLD_MS)));
    assert!(because(&chosen, "strategy").contains("800 MB and 500 MB are free"), "{:?}", chosen.reasons);
    let nodes: Vec<_> = chosen.steps.iter().map(|step| step.node.as_str()).collect();
    assert_eq!(nodes[..3], ["packager", "approval_gate", "recreate"], "what users see comes after the decision");
    // Who wants two copies is told that they do not fit.
    input.request.strategy = Some(Strategy::BlueGreen);
    assert_eq!(plan(&input).expect_err("too large").code(), "insufficient_memory");
    // A first version has no place to take.
    let mut first = input_of_iris(None);
    first.machine = input.machine;
    assert_eq!(plan(&first).expect_err("too large").code(), "insufficient_memory");
}

#[test]
fn what_it_must_be_able_to_do_is_held_while_it_is_on_trial() {
    let mut input = input_of_iris(Some("v1"));
    input.request.strategy = Some(Strategy::Canary);
    input.request.serving.latency_p99_ms = Some(80.0);
    input.request.serving.availability = Some(0.995);
    let names = |input: &PlanInput| {
        let trial = plan(input).expect("a plan").trial().expect("a trial");
        trial.analysis.checks.iter().map(|check| check.name()).collect::<Vec<_>>()
    };
    assert_eq!(names(&input), ["error_ratio", "latency_ratio", "availability_limit", "latency_limit"]);
    let own = Rule { checks: vec![Check::ErrorRatio(ErrorRatio::default())], ..Rule::default() };
    input.request.canary = Some(CanarySpec { analysis: Some(own), ..CanarySpec::default() });
    assert_eq!(names(&input), ["error_ratio"], "who says what is held means it");
}

#[test]
fn limits_of_the_user_s_own_are_held_during_the_bake() {
    let mut input = input_of_iris(Some("v1"));
    let limit = |analysis: serde_json::Value| {
        let bake = json!({"for": "1m", "analysis": {"alpha": 0.02, "checks": [analysis]}});
        serde_json::from_value::<super::super::BakeSpec>(bake).expect("a bake")
    };
    input.request.serving.latency_p99_ms = Some(80.0);
    input.request.bake = limit(json!({"latency_limit": {"quantile": 0.5, "at_most_ms": 20}}));
    let rule = plan(&input).expect("a plan").bake_rule.expect("a rule");
    assert_eq!((rule.window_ms, rule.alpha, rule.checks.len()), (60_000, 0.02, 1));
    let Check::LatencyLimit(held) = &rule.checks[0] else { panic!("{rule:?}") };
    assert_eq!((held.quantile, held.at_most_ms, held.block_ms), (0.5, 20.0, 3_000), "short blocks for a short bake");
    for (check, part) in
        [(json!({"error_ratio": {}}), "no traffic then"), (json!({"error_limit": {"at_most": 2}}), "at_most")]
    {
        input.request.bake = limit(check);
        let error = plan(&input).expect_err(part);
        assert!(error.code() == "trial_invalid" && error.to_string().contains(part), "{error}");
    }
}

#[test]
fn what_does_not_fit_even_in_the_place_of_the_other_is_refused_with_the_figures() {
    let mut input = input_of_iris(Some("v1"));
    input.machine.memory_free_mb = Some(1000);
    input.request.infrastructure.resources.insert("memory".into(), json!("2GB"));
    for strategy in [None, Some(Strategy::Recreate), Some(Strategy::BlueGreen)] {
        input.request.strategy = strategy;
        let error = plan(&input).expect_err("too large");
        assert!(error.code() == "insufficient_memory" && error.to_string().contains("2000 MB"), "{error}");
    }
    // The live version's replicas count as what they are.
    input.live.as_mut().expect("live").replicas = Some(4);
    input.request.strategy = None;
    assert_eq!(plan(&input).map(|plan| plan.strategy), Ok(Strategy::Recreate));
    input.request.hold_ms = Some(7_200_000);
    assert!(plan(&input).expect_err("too long").to_string().contains("1h"));
}

#[test]
fn replicas_are_sized_from_what_was_measured() {
    let sized = |rps: f64, most: Option<f64>, before: u32, cpus: Option<u32>, free: Option<u64>| {
        let mut input = input_of_iris(None);
        input.request.serving.throughput_rps = Some(rps);
        (input.seen.most_rps, input.seen.replicas) = (most, Some(before));
        (input.machine.cpu_count, input.machine.memory_free_mb) = (cpus, free);
        plan(&input).expect("a plan")
    };
    let eight = Some(8);
    assert_eq!(sized(200.0, None, 1, eight, None).replicas, 1);
    assert_eq!(sized(100.0, Some(130.0), 1, eight, None).replicas, 1);
    let two = sized(200.0, Some(130.0), 1, eight, None);
    assert_eq!((two.replicas, two.memory_mb), (2, 2 * DEFAULT_MEMORY_MB));
    let because = two.reasons.iter().find(|reason| reason.rule == "replicas").expect("a reason");
    assert_eq!(because.because, "2: 1 answered 130 requests/s at most when last measured, 200 need 2");
    // Two that share processors do less each, and were enough.
    assert_eq!(sized(200.0, Some(210.0), 2, eight, None).replicas, 2);
    assert_eq!(sized(200.0, Some(190.0), 2, eight, None).replicas, 3);
    assert_eq!(sized(50.0, Some(210.0), 2, eight, None).replicas, 1);
    assert_eq!(sized(10_000.0, Some(130.0), 1, Some(2), None).replicas, 2);
    assert_eq!(sized(10_000.0, Some(130.0), 1, eight, Some(3 * DEFAULT_MEMORY_MB + 1)).replicas, 3);
    let far = [replicas_for(100.0, 0.0), replicas_for(100.0, f64::NAN), replicas_for(100.0, 100.0)];
    assert_eq!(far, [None, None, Some(2)]);
}

/// Iris, measured with so many replicas of so many workers at `most`, asked for `rps`; `free` MB, eight processors.
fn measured(rps: f64, most: f64, replicas: u32, workers: Workers, free: Option<u64>) -> PlanInput {
    let mut input = input_of_iris(None);
    input.request.serving.throughput_rps = Some(rps);
    (input.seen.most_rps, input.seen.replicas, input.seen.workers) = (Some(most), Some(replicas), Some(workers));
    (input.machine.cpu_count, input.machine.memory_free_mb) = (Some(8), free);
    input
}

fn size_of(input: &PlanInput) -> (u32, Option<u32>, u64) {
    let plan = plan(input).expect("a plan");
    (plan.replicas, plan.workers, plan.memory_mb)
}

#[test]
fn workers_come_where_replicas_do_not_fit() {
    let own = Workers { each: 1, own: 1 };
    // Four are needed, and memory has a place for four, two of two, one of four, three, one of three, one.
    for (free, size) in [
        (None, (4, None, 4 * 262)),
        (Some(4 * 262), (4, None, 4 * 262)),
        (Some(4 * 262 - 1), (2, Some(2), 2 * (83 + 2 * 179))),
        (Some(2 * (83 + 2 * 179) - 1), (1, Some(4), 83 + 4 * 179)),
        (Some(83 + 4 * 179 - 1), (3, None, 3 * 262)),
        (Some(3 * 262 - 1), (1, Some(3), 83 + 3 * 179)),
        (Some(262), (1, None, 262)),
    ] {
        assert_eq!(size_of(&measured(400.0, 130.0, 1, own, free)), size, "{free:?}");
    }
    let input = measured(400.0, 130.0, 1, own, Some(1000));
    let plan = plan(&input).expect("a plan");
    assert_eq!(because(&plan, "replicas"), "2: 4 are needed, at 262 MB each they do not fit into memory");
    assert_eq!(
        because(&plan, "workers"),
        "2 in each of 2 replica(s): one answered 130 requests/s at most when last measured, 400 need 4"
    );
    assert!(
        plan.lines().contains(&"memory     882 MB for 2 replica(s) of 2 worker(s)".to_owned()),
        "{:?}",
        plan.lines()
    );
    // What a worker takes now is what the next ones will: 83 for the arbiter, 500 for each of two.
    let mut large = measured(400.0, 260.0, 1, Workers { each: 2, own: 1 }, Some(2100));
    (large.machine.memory_needed_mb, large.machine.workers) = (Some(1083), Some(Workers { each: 2, own: 1 }));
    assert_eq!(size_of(&large), (1, Some(4), 2083));
    // Who says what a replica needs says it of a replica as it is.
    let mut said = measured(400.0, 130.0, 1, own, Some(1000));
    said.request.infrastructure.resources.insert("memory".into(), json!(300));
    assert_eq!(size_of(&said), (3, None, 900));
}

#[test]
fn workers_fill_the_replicas_that_were_asked_for() {
    let own = Workers { each: 1, own: 1 };
    let asked = |mut input: PlanInput, key: &str, count: u32| {
        input.request.infrastructure.resources.insert(key.into(), json!(count));
        input
    };
    assert_eq!(size_of(&asked(measured(400.0, 130.0, 1, own, None), "replicas", 1)), (1, Some(4), 799));
    assert_eq!(size_of(&asked(measured(400.0, 130.0, 1, own, None), "replicas", 3)).1, Some(2));
    assert_eq!(size_of(&asked(measured(100.0, 130.0, 1, own, None), "replicas", 1)).1, None);
    assert_eq!(size_of(&asked(measured(9000.0, 130.0, 1, own, None), "replicas", 2)).1, Some(4), "eight processors");
    // What was enough stays, however little each does beside the others.
    let grown = Workers { each: 3, own: 1 };
    assert_eq!(size_of(&asked(measured(300.0, 310.0, 1, grown, None), "replicas", 1)).1, Some(3));
    // Never fewer than the code says.
    let many = Workers { each: 4, own: 4 };
    assert_eq!(size_of(&asked(measured(300.0, 500.0, 1, many, None), "replicas", 1)).1, None);
    assert_eq!(size_of(&measured(900.0, 500.0, 1, many, None)), (3, None, 3 * 799));
    // Not known of what was measured: counted by replicas, whatever is asked for.
    let mut unknown = asked(measured(800.0, 400.0, 1, own, None), "workers", 4);
    unknown.seen.workers = None;
    assert_eq!(size_of(&unknown).0, 3);
    // Said by the user: replicas are counted by them.
    assert_eq!(size_of(&asked(measured(400.0, 130.0, 1, own, None), "workers", 2)), (2, Some(2), 2 * 441));
    assert_eq!(size_of(&asked(input_of_iris(None), "workers", 3)), (1, Some(3), 83 + 3 * 179));
    // Asked for once and no more: the next version has as many as its code says, measured or not.
    let mut no_more = input_of_iris(None);
    (no_more.machine.memory_needed_mb, no_more.machine.workers) = (Some(799), Some(Workers { each: 4, own: 1 }));
    assert_eq!(size_of(&no_more), (1, None, 262));
    for wrong in [json!(0), json!(65), json!("two"), json!(-1), json!(1.5)] {
        let mut input = input_of_iris(None);
        input.request.infrastructure.resources.insert("workers".into(), wrong.clone());
        assert_eq!(plan(&input).expect_err("workers").code(), "resource_invalid", "{wrong}");
    }
}

#[test]
fn what_was_enough_is_planned_again_though_it_fills_the_memory_itself() {
    let four = Workers { each: 4, own: 1 };
    for (replicas, asked) in [(1, true), (1, false), (2, false)] {
        let mut input = measured(400.0, 480.0, replicas, four, Some(101));
        (input.machine.memory_needed_mb, input.machine.workers) = (Some(799), Some(Workers { each: 4, own: 1 }));
        input.live = input_of_iris(Some("v1")).live;
        input.live.as_mut().expect("live").replicas = Some(replicas);
        if asked {
            input.request.infrastructure.resources.insert("replicas".into(), json!(replicas));
        }
        let again = plan(&input).expect("in the place of the other");
        assert_eq!((again.replicas, again.workers, again.workers_sized), (replicas, Some(4), true));
        assert_eq!(again.strategy, Strategy::Recreate, "two copies do not fit");
        input.request.serving.throughput_rps = Some(20.0);
        input.machine.memory_free_mb = Some(2000);
        assert_eq!(plan(&input).expect("less is asked").workers, None);
    }
}
