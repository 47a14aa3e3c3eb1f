//! `down` tells the truth and stops everything, whoever of keeper and daemon is left; `up` brings it back where it was.

mod host_support;

use std::process::Command;
use std::time::Duration;

use host_support::{Home, alive, get, kill9, processes_of, switch_to, url};
use tidegate::host::{HostClient, HostConfig, stop_everything};
use tidegate::ports::SlotState;

/// A live slot whose worker serves, and its standby that does not listen to SIGTERM.
async fn serving(home: &Home) -> HostClient {
    let client = home.start().await;
    let mut forked = home.request("a", "v1");
    forked.env.insert("WORKER".to_owned(), "1".to_owned());
    let mut deaf = home.request("b", "v2");
    deaf.env.insert("DEAF".to_owned(), "1".to_owned());
    for request in [forked, deaf] {
        client.start_slot(&request).await.unwrap();
        home.wait_state(&client, &request.token, SlotState::Ready).await;
    }
    client.switch(&switch_to("a", Some("b"), 0)).await.unwrap();
    client
}

/// Keeper and daemon are gone; the slots go on.
async fn both_killed(home: &Home, client: &HostClient) -> tidegate::host::api::HostStatus {
    let before = client.status().await.unwrap();
    kill9(before.keeper_pid.unwrap());
    kill9(before.pid);
    home.until("both are gone", async || (!alive(before.pid) && !alive(before.keeper_pid.unwrap())).then_some(()))
        .await;
    assert!(before.slots.iter().all(|slot| alive(slot.pid.unwrap())));
    before
}

fn living(home: &Home) -> Vec<u32> {
    processes_of(home.dir.path()).into_iter().filter(|pid| alive(*pid)).collect()
}

fn state(home: &Home) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(home.config.home.join("host/state.json")).unwrap()).unwrap()
}

fn tidegate(home: &Home, args: &[&str]) -> (Option<i32>, serde_json::Value, String) {
    let mut command = Command::new(&home.config.exe);
    command.args(args).arg("--json").env("TIDEGATE_HOME", &home.config.home);
    let output = command.env_remove("TIDEGATE_PUBLIC_ADDR").output().unwrap();
    let shown = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), shown, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn with_keeper_and_daemon_killed_every_process_of_every_slot_ends_and_up_brings_them_back() {
    let home = Home::with_settings(r#"{"stop_grace_ms": 1500}"#);
    let client = serving(&home).await;
    let before = both_killed(&home, &client).await;

    let down = stop_everything(&home.config).await.unwrap().expect("slots were running");
    assert!(down.down && down.slots.len() == 2, "{down:?}");
    assert!(down.slots.iter().all(|slot| slot.state == SlotState::Stopped && slot.pid.is_none()), "{down:?}");
    assert_eq!(living(&home), [0u32; 0], "{}", home.log());
    let addr = before.public_addr.unwrap();
    assert!(std::net::TcpStream::connect(addr).is_err());
    assert_eq!((&state(&home)["down"], &state(&home)["slots"]["a"]["process"]), (&true.into(), &().into()));

    assert_eq!(stop_everything(&home.config).await.unwrap(), None);
    assert_eq!(living(&home), [0u32; 0]);

    let up = home.start().await.up().await.unwrap();
    assert_eq!((up.down, up.public_addr, &up.routes), (false, before.public_addr, &before.routes));
    assert_eq!(get(&client, "/version").await, "v1");
    home.wait_state(&client, "b", SlotState::Ready).await;
    assert!(client.slots().await.unwrap().iter().all(|slot| slot.restarts == 0));
}

#[tokio::test]
async fn a_slot_is_asked_to_end_before_it_is_killed_also_when_nobody_watched_it() {
    let home = Home::new();
    let client = home.start().await;
    let mut request = home.request("a", "v1");
    let goodbye = home.path("goodbye");
    request.env.insert("GOODBYE".to_owned(), goodbye.to_str().unwrap().to_owned());
    client.start_slot(&request).await.unwrap();
    home.wait_state(&client, "a", SlotState::Ready).await;
    both_killed(&home, &client).await;
    assert!(stop_everything(&home.config).await.unwrap().is_some());
    assert!(goodbye.exists());
}

#[tokio::test]
async fn where_nothing_runs_nothing_is_started() {
    let home = Home::new();
    assert_eq!(stop_everything(&home.config).await.unwrap(), None);
    assert!(processes_of(home.dir.path()).is_empty() && !home.config.home.join("host/state.json").exists());

    std::fs::write(home.config.home.join("host/state.json"), "{\"format\": 1, \"slo").unwrap();
    let error = stop_everything(&home.config).await.unwrap_err();
    assert_eq!(error.to_port().code, "host_state_corrupt");
}

#[tokio::test]
async fn one_of_the_two_is_enough_and_another_wish_for_the_address_is_no_obstacle() {
    let home = Home::new();
    for keeper_too in [None, Some(true), Some(false)] {
        let client = home.start().await;
        client.up().await.unwrap();
        if keeper_too.is_none() {
            home.ready_slot(&client, "a", "v1").await;
            client.switch(&switch_to("a", None, 0)).await.unwrap();
        }
        assert_eq!(reqwest::get(url(&client, "/version").await).await.unwrap().text().await.unwrap(), "v1");
        let status = client.status().await.unwrap();
        match keeper_too {
            Some(true) => kill9(status.keeper_pid.unwrap()),
            Some(false) => kill9(status.pid),
            None => {}
        }
        let elsewhere = HostConfig { public_addr: Some("127.0.0.1:1".parse().unwrap()), ..home.config.clone() };
        assert_eq!(stop_everything(&elsewhere).await.unwrap().unwrap().slots.len(), 1);
        home.until("nothing is left", async || living(&home).is_empty().then_some(())).await;
    }
}

#[tokio::test]
async fn a_down_that_was_killed_in_the_middle_is_finished_by_the_next_daemon() {
    let home = Home::with_settings(r#"{"stop_grace_ms": 1500}"#);
    let client = serving(&home).await;
    let before = both_killed(&home, &client).await;
    let mut marked = state(&home);
    marked["down"] = true.into();
    std::fs::write(home.config.home.join("host/state.json"), serde_json::to_vec(&marked).unwrap()).unwrap();

    // It answers at once, while it still gives the slots their time.
    let up = home.start().await.up().await.unwrap();
    assert!(before.slots.iter().all(|slot| !alive(slot.pid.unwrap())), "{}", home.log());
    assert_eq!((up.down, up.public_addr), (false, before.public_addr));
    assert_eq!(get(&client, "/version").await, "v1");
}

#[tokio::test]
async fn many_downs_at_once_all_end_well() {
    let home = Home::with_settings(r#"{"stop_grace_ms": 1500}"#);
    let client = serving(&home).await;
    both_killed(&home, &client).await;
    let downs = (0..4).map(|_| {
        let config = home.config.clone();
        tokio::spawn(async move { stop_everything(&config).await.unwrap() })
    });
    let ended: Vec<_> = futures_util::future::join_all(downs).await.into_iter().map(Result::unwrap).collect();
    assert!(ended.iter().flatten().count() >= 1, "{ended:?}");
    assert!(living(&home).is_empty());
}

#[tokio::test]
async fn the_command_says_how_many_slots_it_stopped() {
    let home = Home::with_settings(r#"{"stop_grace_ms": 1500}"#);
    let client = serving(&home).await;
    both_killed(&home, &client).await;
    let (code, shown, errors) = tidegate(&home, &["down"]);
    assert_eq!((code, &shown["stopped_slots"]), (Some(0), &2.into()), "{errors}");
    assert_eq!(living(&home), [0u32; 0]);
    let (code, shown, _) = tidegate(&home, &["down"]);
    assert_eq!((code, &shown["running"], &shown["stopped_slots"]), (Some(0), &false.into(), &0.into()));
}

/// The two commands in parallel, the second some time after the first; both end well.
async fn down_and_up(home: &Home, after: Duration) {
    let start = |args: &'static [&'static str]| {
        let mut command = Command::new(&home.config.exe);
        command.args(args).env("TIDEGATE_HOME", &home.config.home).env_remove("TIDEGATE_PUBLIC_ADDR");
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let down = start(&["down"]);
    tokio::time::sleep(after).await;
    let up = start(&["up"]);
    for ended in [down.await.unwrap(), up.await.unwrap()] {
        assert_eq!(ended.status.code(), Some(0), "after {after:?}: {ended:?}\n{}", home.log());
    }
}

/// Whether the home serves; what is on disk, the daemon and the processes say the same of it.
async fn serves(home: &Home, client: &HostClient) -> bool {
    let state = state(home);
    let process = |token: &str| state["slots"][token]["process"]["pid"].as_u64();
    if state["down"] == true {
        assert_eq!((process("a"), process("b")), (None, None));
        home.until("nothing is left", async || living(home).is_empty().then_some(())).await;
        return false;
    }
    let status = client.status().await.unwrap_or_else(|e| panic!("up, and nobody there: {e}\n{}", home.log()));
    assert!(!status.down && alive(status.pid));
    home.until("both run", async || {
        let state = self::state(home);
        ["a", "b"].iter().all(|token| state["slots"][token]["life"]["is"] == "ready").then_some(())
    })
    .await;
    assert_eq!(get(client, "/version").await, "v1");
    true
}

#[tokio::test]
async fn an_up_after_a_down_that_still_works_serves() {
    let home = Home::with_settings(r#"{"stop_grace_ms": 1000}"#);
    let client = serving(&home).await;
    for after_ms in [0, 50, 150, 300, 900, 1000, 1100, 1200, 1300] {
        down_and_up(&home, Duration::from_millis(after_ms)).await;
        let serves = serves(&home, &client).await;
        // Without a pause it is open who comes first.
        assert!(serves || after_ms == 0, "after {after_ms} ms\n{}", home.log());
        home.start().await.up().await.unwrap();
    }
}

#[tokio::test]
async fn an_up_during_the_down_of_a_home_without_a_daemon_serves() {
    let home = Home::with_settings(r#"{"stop_grace_ms": 1000}"#);
    let client = serving(&home).await;
    for after_ms in [150, 600, 1100, 1300] {
        both_killed(&home, &client).await;
        down_and_up(&home, Duration::from_millis(after_ms)).await;
        assert!(serves(&home, &client).await, "after {after_ms} ms\n{}", home.log());
    }
}

#[tokio::test]
async fn what_is_ended_answers_no_up_any_more() {
    let home = Home::new();
    let client = home.start().await;
    home.ready_slot(&client, "a", "v1").await;
    // One that asks for both in one step finds its answer, and nobody afterwards.
    let (down, up) = tokio::join!(client.down_and_end(), async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        client.up().await
    });
    assert!(down.is_ok_and(|status| status.down));
    match up {
        // It came first.
        Ok(_) => {}
        Err(error) => assert!(matches!(error.to_port().code.as_str(), "host_ending" | "host_unreachable"), "{error}"),
    }
    assert!(state(&home)["down"] == true && living(&home).is_empty());
}

/// A daemon that ends is there for a moment after it has let go of its keeper: whoever starts another one waits for that.
#[tokio::test]
async fn an_up_while_the_daemon_before_is_about_to_be_gone_starts_another() {
    for held in [Duration::from_millis(300), Duration::from_millis(1500)] {
        let home = Home::with_settings(r#"{"stop_grace_ms": 200}"#);
        let client = serving(&home).await;
        assert!(client.down_and_end().await.unwrap().down);
        let lock = std::fs::File::options().append(true).open(home.config.home.join("host/daemon.lock")).unwrap();
        lock.lock().unwrap();
        let exe = home.config.exe.clone();
        let dir = home.config.home.clone();
        let up = tokio::task::spawn_blocking(move || {
            let mut command = Command::new(exe);
            command.arg("up").env("TIDEGATE_HOME", dir).env_remove("TIDEGATE_PUBLIC_ADDR").output().unwrap()
        });
        // What passes here is the time that a daemon takes to end.
        tokio::time::sleep(held).await;
        drop(lock);
        let up = up.await.unwrap();
        assert_eq!(up.status.code(), Some(0), "after {held:?}: {up:?}\n{}", home.log());
        assert_eq!(get(&client, "/version").await, "v1");
    }
}
