use super::*;
use crate::release::fixtures::plan_of_iris;

fn limited(live: Option<&str>) -> DeploymentPlan {
    let mut plan = plan_of_iris(live);
    plan.serving.latency_p99_ms = Some(80.0);
    plan.serving.availability = Some(0.999);
    plan.replicas = 2;
    plan
}

fn names(plan: &DeploymentPlan) -> Vec<String> {
    let watched = Watched::planned("d1", "v2", "http://127.0.0.1:7311/iris", plan);
    alerts(&watched).into_iter().map(|alert| alert.name).collect()
}

fn expr(plan: &DeploymentPlan, name: &str) -> String {
    let watched = Watched::planned("d1", "v2", "http://127.0.0.1:7311/iris", plan);
    alerts(&watched).into_iter().find(|alert| alert.name == name).expect(name).expr
}

#[test]
fn alerts_follow_from_the_plan() {
    let bare = names(&plan_of_iris(None));
    for absent in ["TidegateLatencyP99", "TidegateAvailability", "TidegateStandbyLost", "TidegateReplicasMissing"] {
        assert!(!bare.contains(&absent.to_owned()), "{absent}");
    }
    assert!(bare.contains(&"TidegateErrorRate".to_owned()));
    let all = names(&limited(Some("v1")));
    assert_eq!(all.len(), 10, "{all:?}");
    let limits = limited(Some("v1"));
    let limit = limits.bake.max_error_rate;
    assert!(expr(&limits, "TidegateErrorRate").contains(&format!("> {limit} and")));
    assert!(expr(&limits, "TidegateReplicasMissing").ends_with(r#"version="v2"}) < 2"#));
    assert!(expr(&limits, "TidegateStandbyLost").contains(r#"version="v1""#));
}

#[test]
fn a_latency_limit_is_held_at_a_bound_of_the_buckets() {
    let mut plan = limited(None);
    assert!(expr(&plan, "TidegateLatencyP99").contains(r#"le="0.1""#));
    plan.serving.latency_p99_ms = Some(1_000.0);
    assert!(expr(&plan, "TidegateLatencyP99").contains(r#"le=~"1([.]0)?""#));
    plan.serving.latency_p99_ms = Some(60_001.0);
    assert!(!names(&plan).contains(&"TidegateLatencyP99".to_owned()), "beyond the last bound nothing is told apart");
}

#[test]
fn a_standby_that_leaves_by_itself_is_not_missed() {
    let mut plan = limited(Some("v1"));
    assert!(expr(&plan, "TidegateStandbyLost").contains("vector(0)"));
    plan.standby_ms = Some(3_600_000);
    assert!(!expr(&plan, "TidegateStandbyLost").contains("vector(0)"));
    plan.strategy = Strategy::Recreate;
    assert!(!names(&plan).contains(&"TidegateStandbyLost".to_owned()));
}

#[test]
fn odd_names_stay_texts() {
    let plan = limited(None);
    let watched = Watched::planned("d\n1", "v\"2\\{{ .Labels }}", "http://h/iris", &plan);
    let text = rules(&watched).expect("rules");
    let read: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
    let rules = read["groups"][0]["rules"].as_array().expect("rules");
    assert!(rules.iter().any(|rule| rule["expr"].as_str().expect("expr").contains(r#"version="v\"2\\{{ .Labels }}""#)));
    assert!(rules.iter().all(|rule| !rule["annotations"].to_string().contains("{{")), "no templates");
    assert!(text.starts_with("# Alerts of iris"));
}

#[test]
fn a_dashboard_is_one_for_all_releases_of_a_model() {
    let plan = limited(Some("v1"));
    let shown = |version| dashboard(&Watched::planned("d", version, "http://h/iris", &plan));
    assert_eq!(shown("v2")["uid"], shown("v3")["uid"]);
    assert_eq!(shown("v2")["panels"].as_array().expect("panels").len(), 8);
    let steps = &shown("v2")["panels"][2]["fieldConfig"]["defaults"]["thresholds"]["steps"];
    assert_eq!(steps[1]["value"], 0.08);
    let long = "m".repeat(63);
    assert_eq!(dashboard_uid(&long).len(), LONGEST);
    assert_ne!(dashboard_uid(&long), dashboard_uid(&"m".repeat(62)));
}

const LONGEST: usize = 40;
