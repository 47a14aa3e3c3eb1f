//! SIGKILL to the releasing process at every write point: the run ends as if nothing had happened.

mod release_support;

use std::sync::atomic::{AtomicU64, Ordering};

use release_support::{Chain, Home, Load, version};

#[test]
fn a_release_killed_at_every_write_point_ends_as_if_nothing_had_happened() {
    let home = Home::new();
    let mut chain = Chain::deploy(&home, &home.hello("one").bake("200ms"));
    let ended = chain.kill_on(|_| ());
    assert!(chain.kills > 50, "{}", chain.kills);
    home.assert_as_if_nothing_had_happened(&ended, &chain.thread, "one");
}

#[test]
fn a_failing_release_killed_at_every_write_point_leaves_nothing() {
    let home = Home::new();
    let live = home.deploy(&home.hello("one").bake("0s"));
    let (load, slots) = (Load::on(&live), home.slots());
    let mut chain = Chain::deploy(&home, &home.project("wrong_answers"));
    let ended = chain.kill_on(|_| ());
    home.assert_undone(&ended, &chain.thread, "validation_failed", &slots, 1);
    load.end().assert_unharmed();
    assert_eq!(version(&live), "one");
}

#[test]
fn a_release_that_goes_bad_while_watched_and_is_killed_at_every_write_point_is_taken_back() {
    let home = Home::new();
    let live = home.deploy(&home.hello("one").bake("0s"));
    let slots = home.slots();
    let flag = home.beside("worn-out");
    let project = home.hello("bad").worn_out_by(&flag).bake("60s");
    let mut chain = Chain::deploy(&home, &project);
    let ended = chain.kill_on(|record| {
        let switched = |e: &serde_json::Value| e["effect"] == "switch_traffic" && e["status"] == "done";
        if record["journal"].as_array().unwrap().iter().any(switched) {
            std::fs::write(&flag, "").unwrap();
        }
    });
    home.assert_undone(&ended, &chain.thread, "bake_failed", &slots, 1);
    assert_eq!(version(&live), "one");
}

#[test]
fn a_rollback_killed_at_every_write_point_goes_back_once() {
    let home = Home::new();
    home.deploy(&home.hello("one").bake("0s"));
    let two = home.deploy(&home.hello("two").bake("0s"));
    let load = Load::on(&two);
    let mut chain = Chain::begin(&home, &["rollback", "hello", "--json"]);
    let ended = chain.kill_on(|_| ());
    assert!(ended.code == Some(0) && chain.kills > 15, "{ended:?}, {} kills", chain.kills);
    assert_eq!(version(&ended.json()), "one");
    load.end().assert_unharmed();
    let rows = home.history("hello");
    assert!(rows.len() == 3 && rows[0]["live"] == true && rows[0]["kind"] == "rollback", "{rows:?}");
    assert_eq!(rows.iter().filter(|row| row["live"] == true).count(), 1);
    assert_eq!(home.slots(), [rows[0]["slot_token"].as_str().unwrap()]);
    home.assert_only(&[rows[0]["slot_token"].as_str().unwrap()]);
}

/// Single crashes, spread over all write points of a release; each is resumed once, by one process.
#[test]
fn single_crashes_are_resumed_in_one_go() {
    const FIRST: u64 = 5;
    const STRIDE: u64 = 13;
    let next = AtomicU64::new(FIRST);
    let worker = || loop {
        let at = next.fetch_add(STRIDE, Ordering::Relaxed);
        let home = Home::new();
        let project = home.hello("one").bake("0s");
        if home.crashes_at(at, &["deploy", project.arg(), "--yes", "--json"]).is_ok() {
            assert!(at > 80, "a release has more than {at} write points");
            break;
        }
        let thread = home.json(&["runs"])[0]["thread"].as_str().unwrap().to_owned();
        let ended = home.run(&["run", "resume", &thread, "--yes", "--json"]);
        home.assert_as_if_nothing_had_happened(&ended, &thread, "one");
    };
    std::thread::scope(|scope| {
        let workers = [scope.spawn(worker), scope.spawn(worker)];
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}
