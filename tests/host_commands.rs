//! `up`, `down` and `host` as commands: they need the home and the host daemon, and no database that can be opened.

mod host_support;

use std::process::Command;

use host_support::{Home, alive, get, kill9, processes_of, switch_to};
use serde_json::Value;
use tidegate::host::HostClient;

/// Code, standard output as JSON, standard error.
struct Ran {
    code: Option<i32>,
    shown: Value,
    errors: String,
}

fn run(home: &Home, command: &mut Command, args: &[&str]) -> Ran {
    command.args(args).env("TIDEGATE_HOME", &home.config.home).env_remove("TIDEGATE_PUBLIC_ADDR");
    let output = command.output().unwrap();
    let shown = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ran { code: output.status.code(), shown, errors: String::from_utf8_lossy(&output.stderr).into_owned() }
}

fn tidegate(home: &Home, args: &[&str]) -> Ran {
    run(home, &mut Command::new(&home.config.exe), args)
}

/// The same where nothing can be written to any file: what a full disk looks like from inside.
fn on_a_full_disk(home: &Home, args: &[&str]) -> Ran {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"]).arg(&home.config.exe);
    run(home, &mut shell, args)
}

async fn serving(home: &Home) -> HostClient {
    let client = home.start().await;
    home.ready_slot(&client, "a", "v1").await;
    client.switch(&switch_to("a", None, 0)).await.unwrap();
    client
}

async fn both_killed(home: &Home, client: &HostClient) {
    let status = client.status().await.unwrap();
    kill9(status.keeper_pid.unwrap());
    kill9(status.pid);
    home.until("both are gone", async || (!alive(status.pid) && !alive(status.keeper_pid.unwrap())).then_some(()))
        .await;
}

/// Databases that cannot be opened: damaged, of a later version, no file at all.
fn spoil(home: &Home, how: &str) {
    let path = home.config.home.join("tidegate.db");
    for name in ["tidegate.db", "tidegate.db-wal", "tidegate.db-shm"] {
        let _ = std::fs::remove_file(home.config.home.join(name));
    }
    match how {
        "damaged" => std::fs::write(path, "no database".repeat(1000)).unwrap(),
        "newer" => {
            assert_eq!(tidegate(home, &["runs", "--json"]).code, Some(0));
            rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 9999).unwrap();
        }
        _ => std::fs::create_dir(path).unwrap(),
    }
}

#[tokio::test]
async fn what_serves_can_be_seen_stopped_and_restored_without_a_database() {
    for how in ["damaged", "newer", "folder"] {
        let home = Home::new();
        let client = serving(&home).await;
        let addr = client.status().await.unwrap().public_addr;
        spoil(&home, how);
        let refused = tidegate(&home, &["runs", "--json"]);
        assert!(refused.code != Some(0) && refused.shown["error"]["code"].is_string(), "{how}: {}", refused.errors);

        let status = tidegate(&home, &["host", "status", "--json"]);
        assert_eq!((status.code, &status.shown["running"]), (Some(0), &true.into()), "{how}: {}", status.errors);
        let logs = tidegate(&home, &["host", "logs", "--slot", "a", "--json"]);
        assert!(logs.code == Some(0) && logs.shown.to_string().contains("starting v1"), "{how}: {}", logs.errors);
        let install = tidegate(&home, &["host", "install", "--dry-run", "--json"]);
        assert!(install.code == Some(0) && install.shown["install"]["unit"].is_string(), "{how}: {}", install.errors);

        let down = tidegate(&home, &["down", "--json"]);
        assert_eq!((down.code, &down.shown["stopped_slots"]), (Some(0), &1.into()), "{how}: {}", down.errors);
        assert!(processes_of(home.dir.path()).is_empty());
        let up = tidegate(&home, &["up"]);
        assert_eq!(up.code, Some(0), "{how}: {}", up.errors);
        assert!(up.errors.starts_with("note: ") && up.errors.lines().count() == 1, "{how}: {}", up.errors);
        assert_eq!(get(&client, "/version").await, "v1");
        assert_eq!(client.status().await.unwrap().public_addr, addr);
    }
}

#[tokio::test]
async fn on_a_full_disk_what_still_runs_serves_again() {
    let home = Home::new();
    let client = serving(&home).await;
    let slot = client.slot("a").await.unwrap().unwrap();
    both_killed(&home, &client).await;
    let up = on_a_full_disk(&home, &["up"]);
    assert_eq!(up.code, Some(0), "{}\n{}", up.errors, home.log());
    assert_eq!(get(&client, "/version").await, "v1");
    assert_eq!(client.slot("a").await.unwrap().unwrap().pid, slot.pid);

    // What cannot be remembered is not done.
    both_killed(&home, &client).await;
    let down = on_a_full_disk(&home, &["down", "--json"]);
    assert_eq!(down.shown["error"]["code"], "host_state_unwritable", "{}", down.errors);
    assert!(alive(slot.pid.unwrap()));
}

#[tokio::test]
async fn the_settings_are_read_also_without_the_database() {
    let home = Home::new();
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = held.local_addr().unwrap();
    drop(held);
    let settings = home.config.home.join("config.yaml");
    std::fs::write(&settings, format!("public_addr: {addr}\n")).unwrap();
    let up = tidegate(&home, &["up", "--json"]);
    assert_eq!((up.code, &up.shown["public_addr"]), (Some(0), &addr.to_string().into()), "{}", up.errors);

    std::fs::write(&settings, "public_adr: 1\n").unwrap();
    for args in [&["up", "--json"][..], &["down", "--json"], &["host", "status", "--json"]] {
        let ran = tidegate(&home, args);
        assert_eq!((ran.code, &ran.shown["error"]["code"]), (Some(2), &"settings_invalid".into()), "{}", ran.errors);
    }
}
