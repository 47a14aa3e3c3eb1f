//! SIGKILL to the releasing process at every write point, while the traffic is divided, and while requests wait.

mod release_support;

use release_support::{Chain, Home, Load, version};
use serde_json::Value;

/// One slot, the live row's own, and nobody else.
fn assert_one_lives(home: &Home) {
    let row = home.history("hello").into_iter().find(|row| row["live"] == true).expect("a live row");
    let token = row["slot_token"].as_str().expect("its slot").to_owned();
    assert_eq!(home.slots(), std::slice::from_ref(&token));
    home.assert_only(&[&token]);
}

fn each_effect_once(home: &Home, thread: &str) {
    let record = home.json(&["run", "export", thread]);
    for entry in record["journal"].as_array().unwrap().iter().filter(|entry| entry["kind"] == "effect") {
        let same = |other: &&Value| other["kind"] == "effect" && other["key"] == entry["key"];
        assert_eq!(record["journal"].as_array().unwrap().iter().filter(same).count(), 1, "{entry}");
    }
}

#[test]
fn a_recreation_that_fails_and_is_killed_at_every_write_point_gives_the_place_back() {
    let home = Home::new();
    let live = home.deploy(&home.hello("one").bake("0s"));
    let project = home.project("wrong_answers").with("strategy: recreate");
    let mut chain = Chain::deploy(&home, &project);
    let ended = chain.kill_on(|_| ());
    home.assert_undone(&ended, &chain.thread, "validation_failed", &home.slots(), 1);
    assert!(chain.kills > 50, "{}", chain.kills);
    assert_eq!(version(&live), "one");
    assert_one_lives(&home);
    each_effect_once(&home, &chain.thread);
}

#[test]
fn a_recreation_that_is_aborted_while_one_version_stops_gives_the_place_back() {
    let home = Home::new();
    let live = home.deploy(&home.hello("one").bake("0s"));
    let project = home.hello("two").with("strategy: recreate");
    let deploy = home.start(&["deploy", project.arg(), "--yes", "--json"]);
    let thread = home.thread_of(&deploy);
    home.intended(&thread, "vacate_slot");
    deploy.kill9();
    home.ok(&["abort", "hello", "--reason", "not now"]);
    assert_eq!(version(&live), "one");
    assert_one_lives(&home);
}

#[test]
fn a_canary_killed_at_every_write_point_ends_as_if_nothing_had_happened() {
    let home = Home::new();
    let live = home.deploy(&home.hello("one").bake("0s"));
    let load = Load::on(&live);
    let rule = "canary: { steps: [20%, 3s, 50%, 3s], analysis: { window_ms: 2000, min_requests: 10, checks: [{ error_ratio: {} }] } }";
    let mut chain = Chain::deploy(&home, &home.hello("two").bake("0s").with(rule));
    let ended = chain.kill_on(|_| ());
    assert_eq!(ended.code, Some(0), "{ended:?}\n{}", home.logs());
    load.end().assert_unharmed();
    assert_eq!(version(&live), "two");
    each_effect_once(&home, &chain.thread);
    let rows = home.history("hello");
    assert!(rows[0]["live"] == true && rows[0]["deployment_strategy"] == "canary", "{rows:?}");
}
