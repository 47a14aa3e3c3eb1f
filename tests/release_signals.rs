//! ctrl-C: once stops a release so that it can be resumed, twice undoes it. A terminal that is closed stops nothing.

mod release_support;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::sys::signal::{SigHandler, Signal, signal};
use release_support::{Home, Load, Ran, Running, version};
use serde_json::json;

/// Interrupts a command when `moment` has come; checks that it says how to go on.
fn interrupted(home: &Home, command: Running, moment: impl FnOnce(&Home, &str)) {
    let thread = home.thread_of(&command);
    moment(home, &thread);
    command.signal(Signal::SIGINT);
    let ran = command.end();
    assert_eq!(ran.code, Some(130), "{ran:?}\n{}", home.logs());
    assert!(ran.stderr.contains(&format!("tidegate run resume {thread}")), "{ran:?}");
    assert!(ran.stdout.is_empty(), "{ran:?}");
}

/// Interrupts a command twice.
fn interrupted_twice(home: &Home, command: Running, moment: impl FnOnce(&Home, &str)) -> Ran {
    moment(home, &home.thread_of(&command));
    command.signal(Signal::SIGINT);
    home.until("it says that it stops", || command.stderr().contains("ctrl-C again").then_some(()));
    command.signal(Signal::SIGINT);
    command.end()
}

fn events_of_this_run(home: &Home, kind: &str) -> usize {
    home.events("hello").iter().filter(|row| row["event"]["type"] == kind).count()
}

#[test]
fn a_release_that_was_interrupted_at_build_readiness_and_watch_is_resumed_to_its_end() {
    let home = Home::new();
    let project = home.hello("one").bake("3s");
    interrupted(&home, home.start(&["deploy", project.arg(), "--yes"]), |home, thread| {
        home.intended(thread, "build_model")
    });
    home.assert_only(&[]);
    let resume = || home.start(&["run", "resume", "hello", "--yes"]);
    interrupted(&home, resume(), |home, thread| {
        home.event(thread, "the slot starts", |e| e["type"] == "effect_done" && e["effect"] == "start_slot");
    });
    interrupted(&home, resume(), |home, thread| home.started(thread, "watch"));
    let ended = resume().end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(version(&ended.json()), "one");
    assert_eq!((home.builds().len(), home.slots().len()), (1, 1));
    assert_eq!(events_of_this_run(&home, "interrupted"), 1);
}

#[test]
fn ctrl_c_twice_undoes_a_build_and_a_switch() {
    let home = Home::new();
    let broken_off =
        interrupted_twice(&home, home.start(&["deploy", home.hello("none").arg(), "--yes"]), |home, thread| {
            home.intended(thread, "build_model");
        });
    assert_eq!(broken_off.code, Some(1), "{broken_off:?}");
    assert_eq!((home.history("hello")[0]["status"].as_str(), home.builds()), (Some("FAILED"), Vec::new()));
    assert!(home.processes().iter().all(|pid| !release_support::process::command_line(*pid).contains("bentoml")));

    let one = home.deploy(&home.hello("one").bake("0s"));
    let (load, slots) = (Load::on(&one), home.slots());
    let project = home.hello("two").bake("60s");
    let taken_back = interrupted_twice(&home, home.start(&["deploy", project.arg(), "--yes"]), |home, thread| {
        home.started(thread, "watch");
        home.until("the new version has answered", || (version(&one) == "two").then_some(()));
    });
    assert_eq!(taken_back.code, Some(1), "{taken_back:?}");
    assert!(taken_back.stderr.contains("ctrl-C twice"), "{taken_back:?}");
    assert_eq!(version(&one), "one");
    let seen = load.end();
    seen.assert_unharmed();
    assert!(seen.saw("two"), "{seen:?}");
    assert_eq!((home.slots(), home.names("slots"), home.builds().len()), (slots.clone(), slots.clone(), 1));
    home.assert_only(&[&slots[0]]);
    assert_eq!(home.history("hello")[0]["status"], "FAILED");
}

/// Starts a command that finds SIGHUP like this, however it is here.
fn starts_with(mut command: Command, hangup: SigHandler) -> Running {
    // SAFETY: sigaction is async-signal-safe and touches nothing of the parent.
    unsafe {
        command.pre_exec(move || Ok(signal(Signal::SIGHUP, hangup).map(drop)?));
    }
    Running::start(command)
}

#[test]
fn a_terminal_that_is_closed_leaves_the_release_to_a_runner() {
    let home = Home::new();
    let project = home.hello("one").bake("15s");
    let deploy = starts_with(home.command(&["deploy", project.arg(), "--yes", "--json"]), SigHandler::SigDfl);
    let thread = home.thread_of(&deploy);
    home.started(&thread, "watch");
    deploy.signal(Signal::SIGHUP);
    let left = deploy.end();
    assert_eq!((left.code, left.error_code().as_str()), (Some(130), "terminal_closed"), "{left:?}");
    let now = home.json(&["status"]);
    assert_eq!((&now["serving"], &now["under_way"][0]["deployment_id"]), (&json!([]), &json!(thread)), "{now}");
    let said = home.ok(&["status"]);
    assert!(said.stdout.contains("no release is complete yet") && said.stderr.contains("under way"), "{said:?}");
    let row = home.until("the runner has brought it to its end", || {
        let row = home.history("hello").remove(0);
        (row["status"] == "COMPLETED").then_some(row)
    });
    assert_eq!((&row["live"], home.builds().len(), home.slots().len()), (&json!(true), 1, 1), "{row}");

    // As with `nohup`.
    let project = home.hello("two").bake("1s");
    let deploy = starts_with(home.command(&["deploy", project.arg(), "--yes", "--json"]), SigHandler::SigIgn);
    let thread = home.thread_of(&deploy);
    home.intended(&thread, "build_model");
    deploy.signal(Signal::SIGHUP);
    let ended = deploy.end();
    assert_eq!((ended.code, version(&ended.json())), (Some(0), "two".to_owned()), "{ended:?}");
}

#[test]
fn a_terminal_that_is_gone_ends_nothing_though_nobody_can_be_told() {
    let home = Home::new();
    let project = home.hello("one").bake("0s");
    let terminal = nix::pty::openpty(None, None).unwrap();
    let mut command = home.command(&["deploy", project.arg(), "--yes"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(terminal.slave);
    let child = command.spawn().unwrap();
    drop(command);
    home.until("it advances", || {
        let runs = home.json(&["runs"]);
        runs.as_array().unwrap().iter().any(|run| run["owner"]["pid"] == child.id()).then_some(())
    });
    // It is no session's terminal, so no signal comes: every line to it is an error from now on.
    drop(terminal.master);
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{:?}\n{}", ended.status, home.logs());
    assert_eq!(home.history("hello")[0]["status"], "COMPLETED");
}
