//! Keeper and daemon killed at any moment: slots go on, connections wait, the state stays.

mod host_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use host_support::{Home, alive, code, get, kill9, processes_of, switch_to, url};
use tidegate::host::{HostClient, HostConfig, ensure_started};
use tidegate::ports::{STARTED_ANEW, SlotState};

async fn serving(home: &Home) -> HostClient {
    let client = home.start().await;
    home.ready_slot(&client, "a", "v1").await;
    client.switch(&switch_to("a", None, 0)).await.unwrap();
    client
}

/// Asks on a new connection each time until told to stop; returns how often, and what went wrong.
fn new_connections(url: String) -> (Arc<AtomicBool>, tokio::task::JoinHandle<(u32, Vec<String>)>) {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let task = tokio::spawn(async move {
        let (mut asked, mut wrong) = (0, Vec::new());
        while !told.load(Ordering::Relaxed) {
            let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
            asked += 1;
            if let Err(error) = http.get(&url).send().await {
                wrong.push(format!("{error:?}"));
            }
        }
        (asked, wrong)
    });
    (stop, task)
}

#[tokio::test]
async fn a_killed_daemon_is_replaced_and_adopts_its_slots() {
    let home = Home::new();
    let client = serving(&home).await;
    let before = client.status().await.unwrap();
    let slot = before.slots[0].clone();
    let (stop, asking) = new_connections(url(&client, "/version").await);
    for _ in 0..3 {
        let pid = client.status().await.unwrap().pid;
        kill9(pid);
        home.until("another daemon answers", async || client.status().await.ok().filter(|status| status.pid != pid))
            .await;
        assert_eq!(get(&client, "/version").await, "v1");
    }
    stop.store(true, Ordering::Relaxed);
    let (asked, wrong) = asking.await.unwrap();
    // A request that the killed daemon itself held may break off; none is refused.
    assert!(wrong.iter().all(|error| !error.contains("refused")), "{wrong:?}");
    assert!(wrong.len() <= 3 && asked > 3, "{asked}: {wrong:?}");

    let after = client.status().await.unwrap();
    assert_eq!(after.keeper_pid, before.keeper_pid);
    assert_eq!(after.public_addr, before.public_addr);
    assert_eq!((after.slots[0].pid, after.slots[0].restarts), (slot.pid, 0));
    // An adopted slot is watched like one of its own.
    home.wait_state(&client, "a", SlotState::Ready).await;
    kill9(slot.pid.unwrap());
    home.until("it was started again", async || {
        client.slot("a").await.unwrap().filter(|slot| slot.restarts == 1 && slot.state == SlotState::Ready)
    })
    .await;
    assert_eq!(get(&client, "/version").await, "v1");
}

#[tokio::test]
async fn a_killed_keeper_is_replaced_by_the_daemon_and_the_new_one_keeps() {
    let home = Home::new();
    let client = serving(&home).await;
    let before = client.status().await.unwrap();
    kill9(before.keeper_pid.unwrap());
    let after = home
        .until("there is another keeper", async || {
            let status = client.status().await.unwrap();
            (status.keeper_pid.is_some() && status.keeper_pid != before.keeper_pid).then_some(status)
        })
        .await;
    assert_eq!(after.pid, before.pid);
    // Given a moment to begin, the new keeper does what the old one did.
    home.until("the new keeper holds the lock", async || {
        let lock = std::fs::File::open(home.config.home.join("host/keeper.lock")).unwrap();
        lock.try_lock().is_err().then_some(())
    })
    .await;
    let (stop, asking) = new_connections(url(&client, "/version").await);
    kill9(after.pid);
    home.until("another daemon answers", async || client.status().await.ok().filter(|s| s.pid != before.pid)).await;
    assert_eq!(get(&client, "/version").await, "v1");
    stop.store(true, Ordering::Relaxed);
    let (_, wrong) = asking.await.unwrap();
    assert!(wrong.iter().all(|error| !error.contains("refused")), "{wrong:?}");
    assert_eq!(client.status().await.unwrap().slots[0].pid, before.slots[0].pid);
}

#[tokio::test]
async fn both_killed_the_next_start_adopts_everything() {
    let home = Home::new();
    let client = serving(&home).await;
    let before = client.status().await.unwrap();
    kill9(before.keeper_pid.unwrap());
    kill9(before.pid);
    home.until("both are gone", async || (!alive(before.pid) && !alive(before.keeper_pid.unwrap())).then_some(()))
        .await;
    assert!(alive(before.slots[0].pid.unwrap()));
    let client = home.start().await;
    let after = client.status().await.unwrap();
    assert_eq!(after.public_addr, before.public_addr);
    assert_eq!(after.slots[0].pid, before.slots[0].pid);
    assert_eq!(after.routes, before.routes);
    assert_eq!(get(&client, "/version").await, "v1");
}

#[tokio::test]
async fn many_callers_start_one() {
    let home = Home::new();
    let starts = (0..8).map(|_| {
        let config = home.config.clone();
        tokio::spawn(async move { ensure_started(&config).await.unwrap().status().await.unwrap().pid })
    });
    let pids: Vec<u32> = futures_util::future::join_all(starts).await.into_iter().map(Result::unwrap).collect();
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    home.until("a keeper and a daemon", async || (processes_of(home.dir.path()).len() == 2).then_some(())).await;
}

#[tokio::test]
async fn down_stops_everything_and_up_brings_it_back() {
    let home = Home::new();
    let client = serving(&home).await;
    let before = client.status().await.unwrap();
    let down = client.down().await.unwrap();
    assert!(down.down && down.slots[0].state == SlotState::Stopped && down.public_addr == before.public_addr);
    assert!(!alive(before.slots[0].pid.unwrap()));
    let addr = before.public_addr.unwrap();
    home.until("connections are refused", async || std::net::TcpStream::connect(addr).err()).await;
    assert_eq!(code(client.start_slot(&home.request("b", "v2")).await.unwrap_err()), "host_is_down");

    // Down stays down over a restart.
    client.shutdown().await.unwrap();
    home.until("nothing is left", async || processes_of(home.dir.path()).is_empty().then_some(())).await;
    let client = home.start().await;
    assert!(client.status().await.unwrap().down);

    let up = client.up().await.unwrap();
    assert_eq!((up.down, up.public_addr, &up.routes), (false, before.public_addr, &before.routes));
    // Held until the slot is ready.
    assert_eq!(get(&client, "/version").await, "v1");
    let (old, new) = (&before.slots[0], client.slot("a").await.unwrap().unwrap());
    assert_eq!(new.restarts, 0);
    // Ready since its new process is; what the one before has said is told from what this one says.
    assert!(new.ready_at > old.ready_at && new.ready_at >= new.started_at, "{old:?} {new:?}");
    let log = client.slot_log("a", 99).await.unwrap();
    let anew = log.iter().position(|line| line == STARTED_ANEW).unwrap();
    assert!(log[..anew].iter().any(|line| line.starts_with("starting v1")), "{log:?}");
    assert!(log[anew + 1].starts_with("starting v1"), "{log:?}");
    // The keeper holds the new socket too.
    let (stop, asking) = new_connections(url(&client, "/version").await);
    kill9(up.pid);
    home.until("another daemon answers", async || client.status().await.ok().filter(|s| s.pid != up.pid)).await;
    stop.store(true, Ordering::Relaxed);
    assert!(asking.await.unwrap().1.iter().all(|error| !error.contains("refused")));
}

#[tokio::test]
async fn shutdown_leaves_slots_and_the_next_start_finds_them() {
    let home = Home::new();
    let client = serving(&home).await;
    let slot = client.slot("a").await.unwrap().unwrap();
    client.shutdown().await.unwrap();
    home.until("only the slot is left", async || (processes_of(home.dir.path()) == [slot.pid.unwrap()]).then_some(()))
        .await;
    let socket = std::fs::read_to_string(home.config.home.join("host/admin-socket")).unwrap();
    assert!(!std::path::Path::new(&socket).parent().unwrap().exists());
    let client = home.start().await;
    assert_eq!(client.slot("a").await.unwrap().unwrap().pid, slot.pid);
    assert_eq!(get(&client, "/version").await, "v1");
}

#[tokio::test]
async fn after_a_reboot_what_served_is_started_again() {
    let home = Home::new();
    let client = serving(&home).await;
    let old = client.slot("a").await.unwrap().unwrap();
    client.shutdown().await.unwrap();
    kill9(old.pid.unwrap());
    // As after a reboot: another boot id, and the pid may be anybody's (here: ours).
    let path = home.config.home.join("host/state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let process = &mut state["slots"]["a"]["process"];
    process["boot_id"] = "another-boot".into();
    process["pid"] = std::process::id().into();
    std::fs::write(&path, serde_json::to_vec(&state).unwrap()).unwrap();

    let client = home.start().await;
    assert_eq!(get(&client, "/version").await, "v1");
    let new = client.slot("a").await.unwrap().unwrap();
    assert!(new.pid != old.pid && new.pid != Some(std::process::id()));
    // The machine ended it; it did not end by itself.
    assert_eq!(new.restarts, 0);
    assert!(new.ready_at > old.ready_at, "{old:?} {new:?}");
}

#[tokio::test]
async fn a_crash_between_intent_and_start_ends_in_one_process() {
    let home = Home::new();
    let client = serving(&home).await;
    let old = client.slot("a").await.unwrap().unwrap();
    client.shutdown().await.unwrap();
    let path = home.config.home.join("host/state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    // Started, but the crash came before the pid was on record: found by its token.
    state["slots"]["a"]["process"] = serde_json::Value::Null;
    state["slots"]["a"]["life"] = serde_json::json!({"is": "starting", "proven": false});
    // Never started: the crash came right after the intent.
    let mut intent = state["slots"]["a"].clone();
    intent["request"] = serde_json::to_value(home.request("b", "v2")).unwrap();
    intent["port"] = 1.into();
    intent["started_at"] = serde_json::Value::Null;
    state["slots"]["b"] = intent;
    std::fs::create_dir_all(home.config.home.join("slots/b")).unwrap();
    std::fs::write(&path, serde_json::to_vec(&state).unwrap()).unwrap();

    let client = home.start().await;
    let a = home.wait_state(&client, "a", SlotState::Ready).await;
    assert_eq!((a.pid, a.restarts), (old.pid, 0));
    let b = home.wait_state(&client, "b", SlotState::Ready).await;
    assert_eq!(b.restarts, 0);
    assert_eq!(client.start_slot(&home.request("b", "v2")).await.unwrap().pid, b.pid);
}

#[tokio::test]
async fn a_taken_or_different_public_address_is_an_error_that_says_so() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = held.local_addr().unwrap();
    let home = Home::new();
    let config = HostConfig { public_addr: Some(addr), ..home.config.clone() };
    let error = ensure_started(&config).await.unwrap_err().to_port();
    assert_eq!(error.code, "public_port_taken");
    let (message, me) = (error.message, format!("pid {}", std::process::id()));
    assert!(message.contains(&addr.to_string()) && message.contains(&me), "{message}");
    drop(held);

    let client = ensure_started(&config).await.unwrap();
    assert_eq!(client.status().await.unwrap().public_addr, Some(addr));
    let other = HostConfig { public_addr: Some("127.0.0.1:1".parse().unwrap()), ..home.config.clone() };
    assert_eq!(code(ensure_started(&other).await.unwrap_err()), "public_addr_differs");
    let any = HostConfig { public_addr: None, ..home.config.clone() };
    assert_eq!(ensure_started(&any).await.unwrap().status().await.unwrap().public_addr, Some(addr));
}

#[tokio::test]
async fn a_damaged_state_file_is_an_error_at_once() {
    let home = Home::new();
    let path = home.config.home.join("host/state.json");
    std::fs::write(&path, "{\"format\": 1, \"slo").unwrap();
    let began = std::time::Instant::now();
    let error = ensure_started(&home.config).await.unwrap_err().to_port();
    assert_eq!(error.code, "host_state_corrupt");
    assert!(error.hint.unwrap().contains("state.json") && began.elapsed() < Duration::from_secs(10));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"format\": 1, \"slo");
}

#[tokio::test]
async fn a_switch_that_cannot_be_written_changes_nothing() {
    let home = Home::new();
    let client = serving(&home).await;
    home.ready_slot(&client, "b", "v2").await;
    let before = client.route("iris").await.unwrap();
    // A folder where the temporary file would be: no write succeeds, as on a full disk.
    let obstacle = home.config.home.join("host/state.json.tmp");
    home.until("no write is under way", async || std::fs::create_dir(&obstacle).ok()).await;
    let error = client.switch(&switch_to("b", None, 1)).await.unwrap_err().to_port();
    assert_eq!((error.code.as_str(), error.retryable), ("host_state_unwritable", true));
    assert_eq!(client.route("iris").await.unwrap(), before);
    assert_eq!(get(&client, "/version").await, "v1");
    std::fs::remove_dir(obstacle).unwrap();
    assert_eq!(client.switch(&switch_to("b", None, 1)).await.unwrap().generation, 2);
    assert_eq!(get(&client, "/version").await, "v2");
}

#[tokio::test]
async fn a_vanished_admin_socket_comes_back() {
    let home = Home::new();
    let client = serving(&home).await;
    let before = client.status().await.unwrap();
    let socket = std::fs::read_to_string(home.config.home.join("host/admin-socket")).unwrap();
    // As when the user logs out and the runtime folder is removed.
    std::fs::remove_dir_all(std::path::Path::new(&socket).parent().unwrap()).unwrap();
    let after = home.until("it answers again", async || client.status().await.ok()).await;
    assert_eq!(after.pid, before.pid);
    // The keeper holds the new one.
    kill9(after.pid);
    home.until("another daemon answers", async || client.status().await.ok().filter(|s| s.pid != before.pid)).await;
    assert_eq!(get(&client, "/version").await, "v1");
}

#[tokio::test]
async fn malformed_settings_are_an_error_at_once() {
    let home = Home::with_settings(r#"{"hold_timeout_mss": 1}"#);
    let error = ensure_started(&home.config).await.unwrap_err().to_port();
    assert!(error.cause.unwrap().contains("hold_timeout_mss"));
    assert!(processes_of(home.dir.path()).is_empty());
}

#[tokio::test]
async fn sigterm_to_either_ends_both_in_order_and_leaves_slots() {
    let home = Home::new();
    for of_keeper in [true, false] {
        let client = home.start().await;
        if of_keeper {
            home.ready_slot(&client, "a", "v1").await;
        }
        let status = client.status().await.unwrap();
        let pid = if of_keeper { status.keeper_pid.unwrap() } else { status.pid };
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let slot = status.slots[0].pid.unwrap();
        home.until("only the slot is left", async || (processes_of(home.dir.path()) == [slot]).then_some(())).await;
    }
}
