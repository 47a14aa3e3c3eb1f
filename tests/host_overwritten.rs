//! Slots whose programs overwrite their own environment, as setproctitle does: their mark is gone, and they are still known.

mod host_support;

use host_support::{Home, alive, get, kill9, processes_of, switch_to};
use tidegate::host::{HostClient, stop_everything};
use tidegate::ports::{Slot, SlotRequest, SlotState};

/// An arbiter and a worker, `apart` in a session of its own; neither shows a mark.
fn request(home: &Home, worker: &str) -> SlotRequest {
    let mut request = home.request("a", "v1");
    request.env.extend([("OVERWRITE".to_owned(), "1".to_owned()), ("WORKER".to_owned(), worker.to_owned())]);
    request
}

async fn serving(home: &Home, worker: &str) -> (HostClient, Slot) {
    let client = home.start().await;
    client.start_slot(&request(home, worker)).await.unwrap();
    let slot = home.wait_state(&client, "a", SlotState::Ready).await;
    client.switch(&switch_to("a", None, 0)).await.unwrap();
    let of_slot = of_slots(home);
    assert!(of_slot.len() == 2 && of_slot.contains(&slot.pid.unwrap()), "{of_slot:?}");
    for pid in of_slot {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(environ.iter().all(|byte| *byte == 0), "{}", String::from_utf8_lossy(&environ));
    }
    (client, slot)
}

/// Every living process of a slot.
fn of_slots(home: &Home) -> Vec<u32> {
    let is_slot = |pid: &u32| {
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        alive(*pid) && String::from_utf8_lossy(&cmdline).contains("server.py")
    };
    processes_of(home.dir.path()).into_iter().filter(is_slot).collect()
}

async fn another_daemon(home: &Home, client: &HostClient) {
    let pid = client.status().await.unwrap().pid;
    kill9(pid);
    home.until("another daemon answers", async || client.status().await.ok().filter(|status| status.pid != pid)).await;
}

#[tokio::test]
async fn it_is_adopted_serves_and_is_stopped_with_its_worker() {
    let home = Home::new();
    let (client, slot) = serving(&home, "apart").await;
    another_daemon(&home, &client).await;
    assert_eq!(get(&client, "/version").await, "v1");
    let adopted = home.wait_state(&client, "a", SlotState::Ready).await;
    assert_eq!((adopted.pid, adopted.restarts), (slot.pid, 0), "{}", home.log());
    client.switch(&tidegate::ports::SwitchRequest { live: None, ..switch_to("a", None, 1) }).await.unwrap();
    client.remove_slot("a", 2_000).await.unwrap();
    assert_eq!(of_slots(&home), [0u32; 0]);
}

#[tokio::test]
async fn down_ends_it_watched_or_not() {
    for both_killed in [false, true] {
        let home = Home::with_settings(r#"{"stop_grace_ms": 1500}"#);
        let (client, _) = serving(&home, "apart").await;
        if both_killed {
            let status = client.status().await.unwrap();
            kill9(status.keeper_pid.unwrap());
            kill9(status.pid);
        } else {
            another_daemon(&home, &client).await;
        }
        assert!(stop_everything(&home.config).await.unwrap().is_some());
        assert_eq!(of_slots(&home), [0u32; 0], "{}", home.log());
        home.start().await.up().await.unwrap();
        assert_eq!(get(&client, "/version").await, "v1");
    }
}

#[tokio::test]
async fn the_worker_of_a_killed_arbiter_is_cleared_before_the_restart() {
    let home = Home::new();
    let (client, slot) = serving(&home, "1").await;
    let before = of_slots(&home);
    kill9(slot.pid.unwrap());
    home.until("it was started again", async || {
        client.slot("a").await.unwrap().filter(|slot| slot.restarts == 1 && slot.state == SlotState::Ready)
    })
    .await;
    assert!(before.into_iter().all(|pid| !alive(pid)), "the old worker is still there");
    assert_eq!(client.slot("a").await.unwrap().unwrap().port, slot.port);
}

#[tokio::test]
async fn a_process_with_another_slots_mark_is_neither_adopted_nor_killed() {
    let home = Home::new();
    let client = home.start().await;
    let a = home.ready_slot(&client, "a", "v1").await;
    let b = home.ready_slot(&client, "b", "v2").await;
    client.shutdown().await.unwrap();
    kill9(a.pid.unwrap());
    let path = home.config.home.join("host/state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    state["slots"]["a"]["process"] = state["slots"]["b"]["process"].clone();
    std::fs::write(&path, serde_json::to_vec(&state).unwrap()).unwrap();

    let client = home.start().await;
    let again = home.wait_state(&client, "a", SlotState::Ready).await;
    assert!(again.pid != a.pid && again.pid != b.pid, "{again:?}");
    client.remove_slot("a", 2_000).await.unwrap();
    assert_eq!(client.slot("b").await.unwrap().unwrap().pid, b.pid);
    assert!(alive(b.pid.unwrap()));
}
