//! The supervisor, spoken to as its users do.

mod host_support;

use std::os::unix::fs::PermissionsExt;

use host_support::{Home, alive, code, get, kill9, processes_of, switch_to};
use tidegate::ports::SlotState;

#[tokio::test]
async fn a_slot_starts_becomes_ready_and_is_removed_with_everything() {
    let home = Home::new();
    let client = home.start().await;
    let started = client.start_slot(&home.request("a", "v1")).await.unwrap();
    assert_eq!(started.restarts, 0);
    let ready = home.wait_state(&client, "a", SlotState::Ready).await;
    let pid = ready.pid.unwrap();
    assert!(alive(pid) && ready.log.is_file());
    assert!(client.slot_log("a", 5).await.unwrap()[0].starts_with("starting v1"));

    // The same token again is the same slot; another request under it is refused.
    assert_eq!(client.start_slot(&home.request("a", "v1")).await.unwrap().pid, Some(pid));
    assert_eq!(code(client.start_slot(&home.request("a", "v2")).await.unwrap_err()), "slot_token_conflict");

    client.remove_slot("a", 2_000).await.unwrap();
    assert!(!alive(pid) && !ready.log.exists());
    assert_eq!(client.slot("a").await.unwrap(), None);
    client.remove_slot("a", 2_000).await.unwrap();
    assert_eq!(code(client.slot_log("a", 1).await.unwrap_err()), "no_such_slot");
}

#[tokio::test]
async fn ending_before_readiness_is_final_and_after_it_is_not() {
    let home = Home::new();
    let client = home.start().await;
    let mut failing = home.request("fails", "v1");
    failing.env.insert("FAIL".to_owned(), "7".to_owned());
    client.start_slot(&failing).await.unwrap();
    let exited = home.wait_state(&client, "fails", SlotState::Exited).await;
    assert_eq!(exited.last_exit.as_deref(), Some("exit code 7"));
    assert_eq!((exited.restarts, exited.pid), (0, None));
    assert!(client.slot_log("fails", 9).await.unwrap().iter().any(|line| line.contains("no such model")));
    // A route to what has exited is refused.
    assert_eq!(code(client.switch(&switch_to("fails", None, 0)).await.unwrap_err()), "slot_not_running");

    let first = home.ready_slot(&client, "lives", "v1").await;
    kill9(first.pid.unwrap());
    let again = home
        .until("it was started again", async || {
            client.slot("lives").await.unwrap().filter(|slot| slot.restarts == 1 && slot.state == SlotState::Ready)
        })
        .await;
    assert_eq!(again.last_exit.as_deref(), Some("signal 9"));
    assert_ne!(again.pid, first.pid);
}

#[tokio::test]
async fn an_address_taken_while_a_slot_starts_is_no_verdict_on_it() {
    let home = Home::new();
    let client = home.start().await;
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let mut once = home.request("once", "v1");
    once.env.insert("TAKEN".to_owned(), format!("{port}:1"));
    client.start_slot(&once).await.unwrap();
    let ready = home.wait_state(&client, "once", SlotState::Ready).await;
    // None of its restarts: those are held against a version on trial.
    assert_eq!((ready.restarts, ready.last_exit), (0, None));
    let log = client.slot_log("once", 200).await.unwrap();
    assert_eq!(log.iter().filter(|line| line.contains("Address already in use")).count(), 1);
    // One that wants it each time is at fault itself.
    let mut always = home.request("always", "v1");
    always.env.insert("TAKEN".to_owned(), port.to_string());
    client.start_slot(&always).await.unwrap();
    let exited = home.wait_state(&client, "always", SlotState::Exited).await;
    assert_eq!((exited.restarts, exited.last_exit.as_deref()), (0, Some("exit code 1")));
    let log = client.slot_log("always", 200).await.unwrap();
    assert_eq!(log.iter().filter(|line| line.contains("Address already in use")).count(), 4);
}

#[tokio::test]
async fn orphaned_workers_of_a_killed_arbiter_are_cleared_before_the_restart() {
    let home = Home::new();
    let client = home.start().await;
    let mut request = home.request("forked", "v1");
    request.env.insert("WORKER".to_owned(), "1".to_owned());
    client.start_slot(&request).await.unwrap();
    let first = home.wait_state(&client, "forked", SlotState::Ready).await;
    let group = |pid: u32| processes_of(home.dir.path()).into_iter().filter(|p| belongs_to_group(*p, pid)).count();
    assert_eq!(group(first.pid.unwrap()), 2);

    kill9(first.pid.unwrap());
    home.until("it was started again", async || {
        client.slot("forked").await.unwrap().filter(|slot| slot.restarts == 1 && slot.state == SlotState::Ready)
    })
    .await;
    assert_eq!(group(first.pid.unwrap()), 0, "the old worker is still there");

    let second = client.slot("forked").await.unwrap().unwrap();
    client.remove_slot("forked", 2_000).await.unwrap();
    assert_eq!(group(second.pid.unwrap()), 0);
}

fn belongs_to_group(pid: u32, group: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(2)).is_some_and(|g| g == group.to_string())
}

#[tokio::test]
async fn the_environment_is_minimal_and_its_file_stays_secret() {
    let home = Home::new();
    let client = home.start().await;
    let file = home.path("secrets.env");
    std::fs::write(&file, "# service\nAPI_KEY='hunter2 # yes'\n").unwrap();
    let mut request = home.request("env", "v1");
    request.env.insert("WHERE".to_owned(), "port {port}".to_owned());
    request.env_file = Some(file.clone());
    client.start_slot(&request).await.unwrap();
    let slot = home.wait_state(&client, "env", SlotState::Ready).await;
    client.switch(&switch_to("env", None, 0)).await.unwrap();

    let env: serde_json::Value = serde_json::from_str(&get(&client, "/env").await).unwrap();
    assert_eq!(env["API_KEY"], "hunter2 # yes");
    assert_eq!(env["WHERE"], format!("port {}", slot.port));
    assert_eq!(env["TIDEGATE_SLOT_TOKEN"], "env");
    assert!(env.get("CARGO_MANIFEST_DIR").is_none() && env.get("PATH").is_some());

    let state = std::fs::read_to_string(home.config.home.join("host/state.json")).unwrap();
    let status = serde_json::to_string(&client.status().await.unwrap()).unwrap();
    for text in [state, status, home.log()] {
        assert!(!text.contains("hunter2"));
    }

    std::fs::write(&file, "GOOD=1\nhunter2\n").unwrap();
    request.token = "env-2".to_owned();
    request.slot_dir = request.slot_dir.with_file_name("env-2");
    let error = client.start_slot(&request).await.unwrap_err().to_port();
    assert_eq!(error.code, "env_file_malformed");
    assert!(error.message.contains("line 2") && !format!("{error:?}").contains("hunter2"), "{error:?}");
    assert_eq!(client.slot("env-2").await.unwrap(), None);
    assert!(!request.slot_dir.exists());
}

#[tokio::test]
async fn temporary_files_go_with_the_processes_that_left_them() {
    let home = Home::new();
    let client = home.start().await;
    let slot = home.ready_slot(&client, "temps", "v1").await;
    client.switch(&switch_to("temps", None, 0)).await.unwrap();
    let env: serde_json::Value = serde_json::from_str(&get(&client, "/env").await).unwrap();
    let folder = std::path::PathBuf::from(env["TMPDIR"].as_str().unwrap());
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    // As short as it can be: the path of a socket in it has 107 bytes at the most.
    assert_eq!(folder.parent().unwrap(), std::env::temp_dir());
    std::fs::write(folder.join("left"), "").unwrap();

    kill9(slot.pid.unwrap());
    home.until("it was started again", async || {
        client.slot("temps").await.unwrap().filter(|slot| slot.restarts == 1 && slot.state == SlotState::Ready)
    })
    .await;
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);

    // Cleared away while it is used, as from /tmp after some days, it is put back.
    std::fs::remove_dir_all(&folder).unwrap();
    home.until("the folder is back", async || folder.is_dir().then_some(())).await;

    // An explicit one counts.
    let mut request = home.request("own", "v1");
    request.env.insert("TMPDIR".to_owned(), home.path("own").display().to_string());
    client.start_slot(&request).await.unwrap();
    home.wait_state(&client, "own", SlotState::Ready).await;
    client.switch(&switch_to("own", None, 1)).await.unwrap();
    let env: serde_json::Value = serde_json::from_str(&get(&client, "/env").await).unwrap();
    assert_eq!(env["TMPDIR"], home.path("own").display().to_string());

    client.remove_slot("temps", 2_000).await.unwrap();
    assert!(!folder.exists());
}

#[tokio::test]
async fn what_cannot_be_started_says_why_and_leaves_nothing() {
    let home = Home::new();
    let client = home.start().await;
    let mut request = home.request("none", "v1");
    request.argv[0] = "no-such-program".to_owned();
    let error = client.start_slot(&request).await.unwrap_err().to_port();
    assert_eq!(error.code, "slot_spawn_failed");
    assert!(error.cause.unwrap().contains("no-such-program"));
    assert!(client.slots().await.unwrap().is_empty() && !request.slot_dir.exists());

    request.slot_dir = home.path("elsewhere");
    assert_eq!(code(client.start_slot(&request).await.unwrap_err()), "invalid_host_request");
}

#[tokio::test]
async fn readiness_goes_and_comes_back() {
    let home = Home::new();
    let client = home.start().await;
    let gate = home.path("gate");
    let mut request = home.request("gated", "v1");
    request.env.insert("READY_FILE".to_owned(), gate.display().to_string());
    client.start_slot(&request).await.unwrap();
    home.until("it answers", async || client.slot_log("gated", 1).await.unwrap().first().cloned()).await;
    assert_eq!(client.slot("gated").await.unwrap().unwrap().state, SlotState::Starting);
    std::fs::write(&gate, "").unwrap();
    home.wait_state(&client, "gated", SlotState::Ready).await;
    std::fs::remove_file(&gate).unwrap();
    home.wait_state(&client, "gated", SlotState::Unready).await;
    std::fs::write(&gate, "").unwrap();
    home.wait_state(&client, "gated", SlotState::Ready).await;
}

#[tokio::test]
async fn a_slot_that_ignores_sigterm_is_killed_after_its_grace() {
    let home = Home::new();
    let client = home.start().await;
    let mut request = home.request("deaf", "v1");
    request.env.insert("DEAF".to_owned(), "1".to_owned());
    client.start_slot(&request).await.unwrap();
    let slot = home.wait_state(&client, "deaf", SlotState::Ready).await;
    let began = std::time::Instant::now();
    client.remove_slot("deaf", 300).await.unwrap();
    assert!(!alive(slot.pid.unwrap()) && began.elapsed().as_millis() >= 300);
}

#[tokio::test]
async fn a_large_log_is_rotated_under_the_running_slot() {
    let home = Home::with_settings(r#"{"slot_log_max_bytes": 10000}"#);
    let client = home.start().await;
    let mut request = home.request("loud", "v1");
    request.env.insert("LOUD".to_owned(), "1".to_owned());
    client.start_slot(&request).await.unwrap();
    let slot = home.wait_state(&client, "loud", SlotState::Ready).await;
    let third = std::path::PathBuf::from(format!("{}.3", slot.log.display()));
    home.until("the third old log", async || third.exists().then_some(())).await;
    assert_eq!(client.slot_log("loud", 7).await.unwrap().len(), 7);
}

#[tokio::test]
async fn a_slot_inherits_nothing_of_the_daemon() {
    let home = Home::new();
    let client = home.start().await;
    let mut request = home.request("bare", "v1");
    request.argv = ["sleep", "1000"].map(str::to_owned).to_vec();
    let pid = client.start_slot(&request).await.unwrap().pid.unwrap();
    let fds =
        std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten().map(|fd| fd.file_name()).collect::<Vec<_>>();
    assert_eq!(fds.len(), 3, "{fds:?}");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let ids: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().skip(2).take(2).collect();
    assert_eq!(ids, [pid.to_string(), pid.to_string()], "leads its own group and session");
}

/// A slot that says what it was given, whenever it starts.
fn telling(home: &Home, token: &str, file: &std::path::Path) -> tidegate::ports::SlotRequest {
    let mut request = home.request(token, "v1");
    let says = ["sh", "-c", "echo \"it is $API_KEY\"; exec \"$@\"", "sh"].map(str::to_owned);
    request.argv.splice(0..0, says);
    request.env_file = Some(file.to_owned());
    request
}

#[tokio::test]
async fn a_log_is_kept_clean_of_what_the_file_said_before() {
    let home = Home::new();
    let client = home.start().await;
    let file = home.path("service.env");
    std::fs::write(&file, "API_KEY=first-secret\n").unwrap();
    client.start_slot(&telling(&home, "a", &file)).await.unwrap();
    let first = home.wait_state(&client, "a", SlotState::Ready).await;
    let is = |lines: Vec<String>| lines.into_iter().filter(|line| line.starts_with("it is")).collect::<Vec<_>>();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(is(client.slot_log("a", 50).await.unwrap()), ["it is [API_KEY]"]);

    std::fs::write(&file, "API_KEY=second-secret\n").unwrap();
    kill9(first.pid.unwrap());
    home.until("it was started again", async || {
        (is(client.slot_log("a", 50).await.unwrap()) == ["it is [API_KEY]", "it is [API_KEY]"]).then_some(())
    })
    .await;

    // The next daemon does not know the first value, and nobody could tell it.
    let before = client.status().await.unwrap();
    kill9(before.pid);
    home.until("another daemon", async || client.status().await.ok().filter(|now| now.pid != before.pid)).await;
    let log = client.slot_log("a", 50).await.unwrap();
    assert!(log.len() == 1 && log[0].starts_with("(withheld: ") && log[0].contains("slot.log"), "{log:?}");
}

#[tokio::test]
async fn a_log_outlives_the_daemon_while_the_file_is_as_it_was() {
    let home = Home::new();
    let client = home.start().await;
    let file = home.path("service.env");
    std::fs::write(&file, "API_KEY=first-secret\n").unwrap();
    for token in ["a", "b"] {
        client.start_slot(&telling(&home, token, &file)).await.unwrap();
        home.wait_state(&client, token, SlotState::Ready).await;
    }
    let next = async || {
        let before = client.status().await.unwrap();
        kill9(before.pid);
        home.until("another daemon", async || client.status().await.ok().filter(|now| now.pid != before.pid)).await;
    };
    next().await;
    home.until("the next daemon has looked into the file", async || {
        client.slot_log("a", 50).await.unwrap().contains(&"it is [API_KEY]".to_owned()).then_some(())
    })
    .await;
    std::fs::write(&file, "API_KEY=second-secret\n").unwrap();
    assert!(client.slot_log("a", 50).await.unwrap().contains(&"it is [API_KEY]".to_owned()));

    std::fs::remove_file(&file).unwrap();
    next().await;
    for token in ["a", "b"] {
        let log = client.slot_log(token, 50).await.unwrap();
        assert!(log.len() == 1 && log[0].starts_with("(withheld: "), "{log:?}");
    }
}

#[tokio::test]
async fn an_environment_file_that_never_ends_holds_nobody_up() {
    let home = Home::with_settings(r#"{"stop_grace_ms": 500}"#);
    let client = home.start().await;
    let pipe = home.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for odd in [pipe.clone(), "/dev/zero".into(), home.path("")] {
        let error = client.start_slot(&telling(&home, "odd", &odd)).await.unwrap_err().to_port();
        assert_eq!(error.code, "env_file_malformed");
        assert!(error.message.contains("no ordinary file"), "{error:?}");
        assert_eq!(client.slot("odd").await.unwrap(), None);
    }

    // Put there later: the slot cannot be started again, and everything else goes on.
    let file = home.path("service.env");
    std::fs::write(&file, "API_KEY=first-secret\n").unwrap();
    client.start_slot(&telling(&home, "a", &file)).await.unwrap();
    let slot = home.wait_state(&client, "a", SlotState::Ready).await;
    std::fs::rename(&pipe, &file).unwrap();
    kill9(slot.pid.unwrap());
    home.until("it says why", async || {
        let slot = client.slot("a").await.unwrap()?;
        slot.last_exit.is_some_and(|why| why.contains("no ordinary file")).then_some(())
    })
    .await;
    assert!(client.slot_log("a", 50).await.unwrap().contains(&"it is [API_KEY]".to_owned()));
    assert!(client.down().await.unwrap().down);
}
