//! Canaries under load: a share of the traffic, a judge that looks all the while, people who promote and abort.

mod release_support;

use std::fs;

use release_support::{Home, Load, Project, Running, version};
use serde_json::Value;

/// Judged by errors alone: on a laden machine two versions are seldom equally fast.
fn judged(project: Project) -> Project {
    let rule = "bake: 1s\ncanary: { analysis: { window_ms: 10000, min_requests: 20, checks: [{ error_ratio: {} }] } }";
    project.change("tidegate.yaml", "bake: 1s", rule)
}

/// The candidate's percent of the traffic, as soon as it has some.
fn weight(home: &Home) -> f64 {
    home.until("the canary has traffic", || {
        let traffic = home.json(&["traffic", "hello"]);
        traffic["versions"].as_array().unwrap().get(1)?["weight_percent"].as_f64()
    })
}

fn stable_alone(home: &Home) -> bool {
    let traffic: Value = home.json(&["traffic", "hello"]);
    traffic["versions"][0]["weight_percent"] == 100.0
}

#[test]
fn a_version_that_is_as_good_gets_all_of_the_traffic_step_by_step() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one"));
    let load = Load::on(&one);
    let project = judged(home.hello("two"));
    let plan = home.json(&["plan", project.arg(), "--steps", "20%,analysis,50%,8s"]);
    assert_eq!((&plan["strategy"], &plan["canary"]["steps"][1]), (&"canary".into(), &"analysis".into()), "{plan}");
    let two = home.json(&["deploy", project.arg(), "--yes", "--steps", "20%,analysis,50%,8s"]);
    assert_eq!((two["deployment_strategy"].as_str(), version(&two)), (Some("canary"), "two".to_owned()));
    let seen = load.end();
    seen.assert_unharmed();
    assert!(seen.saw("one") && seen.saw("two"), "{seen:?}");
    let row = &home.history("hello")[0];
    assert_eq!((&row["status"], &row["live"]), (&"COMPLETED".into(), &true.into()), "{row}");
}

#[test]
fn a_judge_that_begins_later_does_not_look_before() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one"));
    let load = Load::on(&one);
    let flag = home.beside("worn-out");
    let project = judged(home.hello("bad").worn_out_by(&flag)).change(
        "tidegate.yaml",
        "canary: {",
        "canary: { analysis_from: 40%,",
    );
    let never = home.run(&["deploy", project.arg(), "--yes", "--json", "--steps", "20%,10s"]);
    assert!(never.error()["message"].as_str().unwrap().contains("no step gives 40%"), "{never:?}");
    let deploy = home.start(&["deploy", project.arg(), "--yes", "--json", "--steps", "20%,8s,40%,10m"]);
    assert!((weight(&home) - 20.0).abs() < 1e-9);
    // A judge that looked would have said so within some seconds.
    fs::write(&flag, "").unwrap();
    let ran = deploy.end();
    assert_eq!((ran.code, &ran.error()["code"]), (Some(1), &"canary_failed".into()), "{ran:?}");
    let record = home.json(&["run", "export", "hello"]).to_string();
    assert!(record.contains(r#""weight":40000"#), "it got the share that is judged");
    assert!(stable_alone(&home) && version(&one) == "one");
    drop(load);
}

#[test]
fn a_version_that_fails_is_taken_back_at_once() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one"));
    let load = Load::on(&one);
    let flag = home.beside("worn-out");
    let project = judged(home.hello("bad").worn_out_by(&flag));
    let deploy = home.start(&["deploy", project.arg(), "--yes", "--json", "--steps", "25%,10m"]);
    assert!((weight(&home) - 25.0).abs() < 1e-9);
    home.until("the new version answers some", || load.has_seen("bad").then_some(()));
    fs::write(&flag, "").unwrap();
    let ran = deploy.end();
    let error = ran.error();
    assert_eq!((ran.code, &error["code"]), (Some(1), &"canary_failed".into()), "{ran:?}");
    assert!(error["message"].as_str().unwrap().contains("error rate"), "{error}");
    assert!(stable_alone(&home));
    assert_eq!(version(&one), "one");
    let seen = load.end();
    // Users met errors of the bad version itself, a quarter of them and for seconds. Nothing else failed.
    let other: Vec<&String> = seen.failed.iter().filter(|why| !why.starts_with("500")).collect();
    assert_eq!(other, Vec::<&String>::new(), "of {} failures", seen.failed.len());
    assert_eq!(home.history("hello")[0]["status"], "FAILED");
    assert_eq!(home.slots().len(), 1);
}

#[test]
fn people_pause_promote_and_abort() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one"));
    let load = Load::on(&one);
    let refused = home.run(&["promote", "hello", "--json"]);
    assert_eq!((refused.code, refused.error_code().as_str()), (Some(1), "no_trial"));
    let project = judged(home.hello("two"));
    let deploy = home.start(&["deploy", project.arg(), "--yes", "--json", "--steps", "10%,pause,40%,pause"]);
    assert!((weight(&home) - 10.0).abs() < 1e-9);
    home.ok(&["promote", "hello"]);
    home.until("the next step", || ((weight(&home) - 40.0).abs() < 1e-9).then_some(()));
    home.ok(&["abort", "hello", "--reason", "p99 doubled"]);
    let ran = deploy.end();
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert!(stable_alone(&home));
    assert_eq!(home.slots().len(), 1);

    let deploy = home.start(&["deploy", project.arg(), "--yes", "--json", "--steps", "10%,10m"]);
    weight(&home);
    home.ok(&["pause", "hello"]);
    home.ok(&["resume", "hello"]);
    home.ok(&["promote", "hello", "--full"]);
    let ran = deploy.end();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let seen = load.end();
    seen.assert_unharmed();
    assert_eq!(version(&one), "two");
}

/// A canary at its step `approval`, and the question that it asks.
fn asked(home: &Home, project: &Project) -> (Running, Value) {
    let deploy = home.start(&["deploy", project.arg(), "--yes", "--json", "--steps", "25%,approval,50%,4s"]);
    assert!((weight(home) - 25.0).abs() < 1e-9);
    let question = home.until("somebody is asked", || home.json(&["approvals"]).as_array()?.first().cloned());
    (deploy, question)
}

#[test]
fn a_step_that_needs_an_approval_is_watched_until_there_is_one() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one"));
    let load = Load::on(&one);
    let project = judged(home.hello("two"));
    let (deploy, question) = asked(&home, &project);
    let evidence = &question["value"]["evidence"];
    let traffic = evidence["traffic_plan"].to_string();
    assert!(traffic.contains("50% of /hello goes to green, for 4s") && !traffic.contains("25%"), "{evidence}");
    let checks = evidence["checks"].as_array().unwrap();
    assert!(checks.iter().any(|check| check["name"] == "canary"), "{evidence}");
    // Nothing but a decision leads on.
    for promote in [&["promote", "hello", "--json"][..], &["promote", "hello", "--full", "--json"]] {
        assert_eq!(home.run(promote).error_code(), "approval_needed");
    }
    home.until("the new version answers", || load.has_seen("two").then_some(()));
    assert!((weight(&home) - 25.0).abs() < 1e-9);
    home.ok(&["approve", "hello", "--reason", "looks well"]);
    let ran = deploy.end();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    load.end().assert_unharmed();
    let thread = question["thread"].as_str().unwrap();
    home.ok(&["run", "replay", thread]);
}

#[test]
fn a_rejection_in_the_middle_gives_all_of_the_traffic_back() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one"));
    let load = Load::on(&one);
    let project = judged(home.hello("two"));
    // The command dies; what goes on with it keeps the question and the share.
    let (deploy, question) = asked(&home, &project);
    deploy.kill9();
    home.ok(&["reject", "hello", "--reason", "labels moved"]);
    home.until("it has ended", || (home.history("hello")[0]["status"] == "FAILED").then_some(()));
    assert!(stable_alone(&home));
    load.end().assert_unharmed();
    assert_eq!(home.json(&["approvals"]), serde_json::json!([]), "{question}");
    assert_eq!(home.slots().len(), 1);
}
