//! Shadow, A/B test and recreate under load, with a real BentoML.

mod release_support;

use std::collections::BTreeMap;

use release_support::{Home, Load, Project, greet, version, web};
use serde_json::{Value, json};

/// Judged by errors alone and fast: on a laden machine two versions are seldom equally fast.
const FAST: &str = "{ window_ms: 4000, min_requests: 20, checks: [{ error_ratio: {} }] }";

fn with(project: Project, lines: &str) -> Project {
    project.change("tidegate.yaml", "bake: 1s", &format!("bake: 1s\n{lines}"))
}

fn shadowed(project: Project, ignore: &str) -> Project {
    with(
        project,
        &format!(
            "shadow: {{ repeat: [/greet], for: 6s, compare: {{ ignore: [{ignore}], min_pairs: 20, at_most: 0.2 }}, analysis: {FAST} }}"
        ),
    )
}

/// What the thread says about its verdict.
fn verdict(home: &Home, model: &str) -> Value {
    let events = home.events(model);
    let mut said = events.iter().map(|row| &row["event"]).filter(|event| event["type"] == "custom");
    said.rfind(|event| event["name"] == "verdict").expect("a verdict")["data"].clone()
}

#[test]
fn a_shadow_that_answers_alike_gets_the_traffic_and_users_never_met_it_before() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one"));
    let load = Load::on(&one);
    let project = shadowed(home.hello("two"), "$.version");
    let plan = home.json(&["plan", project.arg()]);
    assert_eq!(plan["strategy"], "shadow", "{plan}");
    let deploy = home.start(&["deploy", project.arg(), "--yes", "--json"]);
    let thread = home.thread_of(&deploy);
    home.started(&thread, "shadow_release");
    let ran = deploy.end();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let seen = load.end();
    seen.assert_unharmed();
    let found = verdict(&home, &thread);
    assert_eq!(found["verdict"], "pass", "{found}");
    assert!(found["answers"]["pairs"].as_u64().unwrap() >= 20 && found["answers"]["differing"] == 0, "{found}");
    assert_eq!(version(&one), "two");
}

#[test]
fn a_shadow_that_answers_otherwise_is_stopped_and_nobody_got_an_answer_of_it() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one"));
    let load = Load::on(&one);
    // The version is part of the answer, so every answer differs.
    let project = shadowed(home.hello("two"), "");
    let ran = home.run(&["deploy", project.arg(), "--yes", "--json"]);
    let error = ran.error();
    assert_eq!((ran.code, &error["code"]), (Some(1), &"shadow_failed".into()), "{ran:?}");
    assert!(error["message"].as_str().unwrap().contains("answers differ"), "{error}");
    let found = verdict(&home, "hello");
    assert_eq!((&found["verdict"], &found["answers"]["verdict"]), (&"fail".into(), &"fail".into()), "{found}");
    assert!(home.ok(&["run", "show", "hello"]).stdout.contains("verdict on the shadow"));
    let seen = load.end();
    seen.assert_unharmed();
    assert!(!seen.saw("two"), "{seen:?}");
    assert_eq!((version(&one).as_str(), home.slots().len()), ("one", 1));
    // Without declared routes nothing may be repeated.
    let refused = home.run(&["plan", home.hello("two").arg(), "--strategy", "shadow", "--json"]);
    assert_eq!(refused.error_code(), "trial_invalid", "{refused:?}");
}

/// The version that a user gets at each of several calls.
fn versions_of(url: &str, user: &str) -> Vec<String> {
    let call = || {
        let (status, body) =
            web::post_with(&format!("{url}/greet"), &json!({"name": "tide"}), &[("x-user-id", user)]).unwrap();
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["version"].as_str().unwrap().to_owned()
    };
    (0..5).map(|_| call()).collect()
}

#[test]
fn an_ab_test_keeps_each_user_at_a_version_and_a_person_ends_it() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one"));
    let url = one["endpoint_url"].as_str().unwrap().to_owned();
    // Both versions in two replicas: a user stays at a version, not at a process.
    let lines = format!("replicas: 2\nab_test: {{ by: {{ header: X-User-Id }}, for: 1h, analysis: {FAST} }}");
    let project = with(home.hello("two"), &lines);
    let deploy = home.start(&["deploy", project.arg(), "--yes", "--json"]);
    home.until("callers are divided", || {
        let traffic = home.json(&["traffic", "hello"]);
        traffic["versions"].as_array()?.get(1)?["weight_percent"].as_f64()
    });
    let mut users: BTreeMap<String, u32> = BTreeMap::new();
    for user in 0..24 {
        let got = versions_of(&url, &format!("user-{user}"));
        assert!(got.iter().all(|version| version == &got[0]), "{got:?}");
        *users.entry(got[0].clone()).or_default() += 1;
    }
    // One of 16 million tests would find all users on one side.
    assert_eq!(users.len(), 2, "{users:?}");
    home.ok(&["promote", "hello", "--full"]);
    let ran = deploy.end();
    assert_eq!((ran.code, version(&one).as_str()), (Some(0), "two"), "{ran:?}");
    assert_eq!(ran.json()["deployment_strategy"], "ab-test");
}

#[test]
fn replicas_are_rolled_out_one_after_the_other_and_back() {
    let home = Home::new();
    let one = home.deploy(&with(home.hello("one"), "replicas: 2"));
    assert_eq!(home.slots().len(), 2);
    let load = Load::on(&one);
    let rolling = format!("replicas: 2\nrolling: {{ for: 5s, analysis: {FAST} }}");
    let flag = home.beside("worn-out");
    // Harm takes some seconds to be beyond doubt: the window is longer than that.
    let lines = rolling.replace("5s", "10m").replace("4000", "60000");
    let bad = with(home.hello("bad").worn_out_by(&flag), &lines);
    let deploy = home.start(&["deploy", bad.arg(), "--yes", "--json"]);
    home.until("the first batch answers", || load.has_seen("bad").then_some(()));
    std::fs::write(&flag, "").unwrap();
    let ran = deploy.end();
    assert_eq!((ran.code, ran.error_code().as_str()), (Some(1), "rolling_failed"), "{ran:?}");
    assert!(load.end().failed.iter().all(|why| why.starts_with("500")));
    let traffic = home.json(&["traffic", "hello"]);
    let slots = traffic["versions"][0]["slots"].as_array().expect("slots").len();
    assert_eq!((home.slots().len(), slots), (2, 2), "what was given up is back, and serves: {traffic}");

    let load = Load::on(&one);
    // This time one may be missing, and none is too many.
    let rolling = rolling.replace("for: 5s", "max_unavailable: 1, for: 5s");
    let two = home.json(&["deploy", with(home.hello("two"), &rolling).arg(), "--yes"]);
    assert_eq!((two["deployment_strategy"].as_str(), version(&two).as_str()), (Some("rolling"), "two"));
    assert_eq!(home.slots().len(), 3, "two that serve, one that stays warm");
    let back = home.json(&["rollback", "hello"]);
    assert_eq!(version(&back), "one");
    load.end().assert_unharmed();
    let traffic = home.json(&["traffic", "hello"]);
    assert_eq!(traffic["versions"][0]["slots"].as_array().expect("slots").len(), 2, "{traffic}");
}

#[test]
fn recreate_lets_requests_wait_while_one_version_takes_the_others_place() {
    let home = Home::new();
    let one = home.deploy(&with(home.hello("one"), "workers: 2"));
    assert_eq!(home.workers(), 2, "more than its code says");
    let load = Load::on(&one);
    let two = home.json(&["deploy", home.hello("two").arg(), "--yes", "--strategy", "recreate"]);
    assert_eq!(home.workers(), 1, "as its code says");
    assert_eq!((two["deployment_strategy"].as_str(), version(&two).as_str()), (Some("recreate"), "two"));
    assert_eq!(home.slots().len(), 1, "the old one is gone");
    let back = home.json(&["rollback", "hello"]);
    assert_eq!((version(&back).as_str(), home.slots().len(), home.workers()), ("one", 1, 2));
    let seen = load.end();
    seen.assert_unharmed();
    assert!(seen.saw("two"), "{seen:?}");
}

#[test]
fn a_version_that_cannot_take_the_place_gives_it_back() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one"));
    let load = Load::on(&one);
    let project = home.hello("bad").change("service.py", "return {", "raise RuntimeError(\"no\")\n        return {");
    let ran = home.run(&["deploy", project.arg(), "--yes", "--json", "--strategy", "recreate"]);
    assert_eq!((ran.code, ran.error_code().as_str()), (Some(1), "validation_failed"), "{ran:?}");
    assert_eq!(greet(&one)["version"], "one");
    let seen = load.end();
    seen.assert_unharmed();
    assert_eq!(home.slots().len(), 1);
    let row = home.history("hello").into_iter().find(|row| row["live"] == true).expect("a live row");
    assert_eq!((&row["deployment_id"], &row["slot_token"]), (&one["deployment_id"], &home.slots()[0].clone().into()));
    // And the place can be taken once more.
    let two = home.json(&["deploy", home.hello("two").arg(), "--yes", "--strategy", "recreate"]);
    assert_eq!(version(&two), "two");
}

#[test]
fn a_standby_is_kept_as_long_as_was_asked() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one"));
    let load = Load::on(&one);
    let plan = home.json(&["plan", with(home.hello("two"), "standby: 2s").arg()]);
    assert!(plan["traffic"].to_string().contains("stays warm for 2s"), "{plan}");
    home.deploy(&with(home.hello("two"), "standby: 2s"));
    home.until("the standby is gone", || (home.slots().len() == 1).then_some(()));
    let status = home.host();
    assert_eq!(
        (&status["routes"][0]["standby"], &status["routes"][0]["live"].is_string()),
        (&Value::Null, &true),
        "{status}"
    );
    // The next release finds the route as the host has left it, and going back starts the version anew.
    home.deploy(&home.hello("three"));
    let history = home.history("hello");
    let back = home.json(&["rollback", "hello", "--to", history[2]["model_version"].as_str().unwrap()]);
    assert_eq!(version(&back), "one");
    load.end().assert_unharmed();
}
