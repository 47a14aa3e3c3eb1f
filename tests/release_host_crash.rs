//! SIGKILL to the host daemon, and to its keeper, while a release is under way: slots go on, traffic resumes, the release ends well.

mod release_support;

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use release_support::{Home, Load, version};
use serde_json::Value;

fn kill9(pid: &Value) {
    kill(Pid::from_raw(i32::try_from(pid.as_i64().unwrap()).unwrap()), Signal::SIGKILL).unwrap();
}

/// Kills the daemon (and its keeper, if asked) and waits until another one answers; returns the pids of the slots' processes.
fn killed(home: &Home, keeper_too: bool) -> BTreeSet<u64> {
    let before = home.host();
    if keeper_too {
        kill9(&before["keeper_pid"]);
    }
    kill9(&before["pid"]);
    let after = home.until("another daemon answers", || {
        let now = home.host();
        (!now.is_null() && now["pid"] != before["pid"]).then_some(now)
    });
    assert_eq!(after["public_addr"], before["public_addr"]);
    pids(&before)
}

fn pids(host: &Value) -> BTreeSet<u64> {
    host["slots"].as_array().unwrap().iter().filter_map(|slot| slot["pid"].as_u64()).collect()
}

/// Only what the killed gateway itself held may fail, and at once.
fn assert_hardly_harmed(load: Load, kills: usize) {
    let seen = load.end();
    assert!(seen.total() > 50 && seen.failed.len() <= kills * 8, "{seen:?}");
    assert!(seen.failed.iter().all(|why| !why.contains("refused")), "{seen:?}");
    assert!(seen.longest_gap < Duration::from_secs(20), "{seen:?}");
}

#[test]
fn a_daemon_killed_before_the_switch_while_watching_and_after_adopts_its_slots() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one").bake("0s"));
    let load = Load::on(&one);
    let deploy = home.start(&["deploy", home.hello("two").bake("4s").arg(), "--yes", "--json"]);
    let thread = home.thread_of(&deploy);
    home.event(&thread, "the slot has started", |e| e["type"] == "effect_done" && e["effect"] == "start_slot");
    let before_switch = killed(&home, false);
    home.started(&thread, "watch");
    home.event(&thread, "the traffic has moved", |e| e["type"] == "effect_done" && e["effect"] == "switch_traffic");
    let watching = killed(&home, false);
    let ended = deploy.end();
    assert_eq!(ended.code, Some(0), "{ended:?}\n{}", home.logs());
    assert_eq!(version(&ended.json()), "two");
    killed(&home, false);
    assert_eq!(version(&one), "two");
    let host = home.host();
    assert_eq!((&before_switch, &watching), (&pids(&host), &pids(&host)), "{host}");
    assert!(host["slots"].as_array().unwrap().iter().all(|slot| slot["restarts"] == 0), "{host}");
    assert_hardly_harmed(load, 3);
    let back = home.json(&["rollback", "hello"]);
    assert_eq!(version(&back), "one");
}

#[test]
fn keeper_and_daemon_killed_while_watching_are_started_again_by_the_release_itself() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one").bake("0s"));
    let deploy = home.start(&["deploy", home.hello("two").bake("4s").arg(), "--yes", "--json"]);
    let thread = home.thread_of(&deploy);
    home.event(&thread, "the traffic has moved", |e| e["type"] == "effect_done" && e["effect"] == "switch_traffic");
    home.started(&thread, "watch");
    let slots = killed(&home, true);
    let ended = deploy.end();
    // It ends well, or what it did is undone: the one or the other, and whole.
    let (live, status) = if ended.code == Some(0) { ("two", "COMPLETED") } else { ("one", "FAILED") };
    assert!(ended.code == Some(0) || ended.error_code() == "bake_failed", "{ended:?}\n{}", home.logs());
    let rows = home.history("hello");
    assert_eq!((version(&one).as_str(), rows[0]["status"].as_str()), (live, Some(status)));
    assert!(pids(&home.host()).is_subset(&slots));
    let live: Vec<&str> =
        rows.iter().filter(|row| row["live"] == true).map(|row| row["slot_token"].as_str().unwrap()).collect();
    assert!(live.len() == 1 && home.slots().contains(&live[0].to_owned()), "{rows:?}");
}

#[test]
fn keeper_and_daemon_killed_down_still_ends_every_worker_and_up_brings_the_model_back() {
    let home = Home::new();
    home.deploy(&home.hello("one").bake("0s"));
    let two = home.deploy(&home.hello("two").bake("0s"));
    let before = home.host();
    kill9(&before["keeper_pid"]);
    kill9(&before["pid"]);
    home.until("only slots are left", || home.host().is_null().then_some(()));
    // Arbiters and their workers.
    assert!(home.processes().len() > pids(&before).len());
    let down = home.json(&["down"]);
    assert_eq!(down["stopped_slots"], 2, "{down}\n{}", home.logs());
    assert_eq!(home.processes(), [0u32; 0]);
    assert!(release_support::web::get(two["endpoint_url"].as_str().unwrap()).is_err());
    assert_eq!(home.json(&["down"])["stopped_slots"], 0);

    let up = home.json(&["up"]);
    assert_eq!((&up["public_addr"], &up["routes"]), (&before["public_addr"], &before["routes"]));
    assert_eq!(version(&two), "two");
    assert_eq!(version(&home.json(&["rollback", "hello"])), "one");
}
