//! Who advances, and who lets go: `down` in the middle of a release, whose service takes its time to come up again; one of several
//! detached releases cancelled, an approval that nobody gives in time, a model's name where several of its runs are there.

mod release_support;

use std::net::TcpListener;

use chrono::{DateTime, Utc};
use nix::sys::signal::Signal;
use release_support::{Home, Load, greet, version};
use serde_json::Value;

fn status(home: &Home, model: &str) -> String {
    home.history(model)[0]["status"].as_str().unwrap().to_owned()
}

fn ends_as(home: &Home, model: &str, wanted: &str) {
    let over = |home: &Home| ["COMPLETED", "FAILED"].contains(&status(home, model).as_str()).then_some(());
    home.until("the release has ended", || over(home));
    assert_eq!(status(home, model), wanted, "{:#?}\n{}", home.history(model)[0], home.logs());
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn down_pauses_a_release_that_bakes_and_up_goes_on_with_it() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one").bake("0s"));
    let project = home.hello("two").bake("6s").starts_in(5);
    let deploy = home.start(&["deploy", project.arg(), "--yes"]);
    let thread = home.thread_of(&deploy);
    home.started(&thread, "watch");
    home.ok(&["down"]);
    let stopped = deploy.end();
    assert_eq!(stopped.code, Some(130), "{stopped:?}");
    assert!(
        stopped.stderr.contains("`tidegate down` asked") && stopped.stderr.contains("`tidegate up`"),
        "{stopped:?}"
    );
    home.until("nothing runs", || home.processes().is_empty().then_some(()));
    for refused in [
        vec!["deploy", project.arg(), "--yes"],
        vec!["rollback", "hello"],
        vec!["run", "resume", &thread],
        vec!["run", "cancel", &thread],
    ] {
        let ran = home.run(&[&refused[..], &["--json"]].concat());
        assert_eq!((ran.code, ran.json()["error"]["code"].as_str()), (Some(4), Some("host_is_down")), "{ran:?}");
    }
    assert_eq!(status(&home, "hello"), "EXECUTING");
    home.ok(&["up"]);
    ends_as(&home, "hello", "COMPLETED");
    assert_eq!(version(&one), "two");
    let rows = home.history("hello");
    assert_eq!(rows.len(), 2);
    // Neither the pause nor the start is watching.
    let slots = home.host()["slots"].as_array().cloned().unwrap();
    let new = slots.iter().find(|slot| slot["token"] == rows[0]["slot_token"]).unwrap();
    let watched = time(&rows[0]["finished_at"]) - time(&new["ready_at"]);
    assert!(watched.num_milliseconds() >= 6_000 && new["restarts"] == 0, "{watched}: {new}");
}

/// The slot of the release that is under way.
fn new_slot(home: &Home, live: &str) -> Value {
    let slots = home.host()["slots"].as_array().cloned().unwrap();
    slots.into_iter().find(|slot| slot["version"] != live).unwrap()
}

#[test]
fn an_approval_right_after_up_moves_the_traffic_once_the_version_is_ready() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one").bake("0s"));
    let live = home.history("hello")[0]["model_version"].as_str().unwrap().to_owned();
    let waits = home.run(&["deploy", home.hello("two").starts_in(5).arg(), "--json"]);
    assert_eq!(waits.code, Some(3), "{waits:?}");
    home.ok(&["down"]);
    home.ok(&["up"]);
    // Held until the live version is there again.
    assert_eq!(greet(&one)["version"], "one");
    let load = Load::on(&one);
    let slot = new_slot(&home, &live);
    assert!(["starting", "restarting"].contains(&slot["state"].as_str().unwrap()), "{slot}");
    home.ok(&["approve", &waits.thread(), "--json"]);
    ends_as(&home, "hello", "COMPLETED");
    let seen = load.end();
    seen.assert_unharmed();
    assert!(seen.saw("one") && seen.saw("two"), "{seen:?}");
}

#[test]
fn a_validation_whose_release_was_killed_goes_on_after_down_and_up_at_another_port() {
    let home = Home::new();
    home.deploy(&home.hello("one").bake("0s"));
    let live = home.history("hello")[0]["model_version"].as_str().unwrap().to_owned();
    let project = home.hello("two").bake("0s").starts_in(5).answers_in(1).unasked();
    let deploy = home.start(&["deploy", project.arg()]);
    let thread = home.thread_of(&deploy);
    home.started(&thread, "validation");
    deploy.signal(Signal::SIGKILL);
    assert_eq!(deploy.end().code, None);
    let port = u16::try_from(new_slot(&home, &live)["port"].as_u64().unwrap()).unwrap();
    home.ok(&["down"]);
    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    home.ok(&["up"]);
    ends_as(&home, "hello", "COMPLETED");
    assert_ne!(new_slot(&home, &live)["port"], port);
}

#[test]
fn a_rollback_that_goes_on_after_down_and_up_waits_for_its_slot_too() {
    let home = Home::new();
    // Longer than the gateway holds a request.
    home.deploy(&home.hello("one").bake("0s").starts_in(12));
    let two = home.deploy(&home.hello("two").bake("0s"));
    assert_eq!(home.crashes_at(2, &["rollback", "hello", "--json"]).unwrap_err().code, None);
    let thread = home.json(&["runs"])[0]["thread"].as_str().unwrap().to_owned();
    let has = |name: &str| {
        let record = home.json(&["run", "export", &thread]);
        record["journal"].as_array().unwrap().iter().any(|entry| entry["key"]["name"] == name)
    };
    // Killed once it has seen that the version before is warm.
    let crash = |at| home.crashes_at(at, &["run", "resume", &thread, "--json"]).is_err() && has("way");
    assert!((3..20).any(crash) && !has("switch"));
    home.ok(&["down"]);
    home.ok(&["up"]);
    assert_eq!(greet(&two)["version"], "two");
    let load = Load::on(&two);
    ends_as(&home, "hello", "COMPLETED");
    assert_eq!(version(&two), "one");
    load.end().assert_unharmed();
}

#[test]
fn of_two_detached_releases_one_is_cancelled_and_the_other_goes_on() {
    let home = Home::new();
    let (kept, ended) = (home.hello("one").bake("5s"), home.hello("one").model("other").bake("60s"));
    let start = |project: &release_support::Project| -> String {
        let ran = home.json(&["deploy", project.arg(), "--detach"]);
        ran["thread"].as_str().unwrap().to_owned()
    };
    let (kept, ended) = (start(&kept.unasked()), start(&ended.unasked()));
    home.started(&ended, "watch");
    home.ok(&["run", "cancel", &ended]);
    assert_eq!(status(&home, "other"), "FAILED");
    ends_as(&home, "hello", "COMPLETED");
    let advanced = |thread: &str| {
        let events = home.events(thread);
        events.iter().filter(|row| row["event"]["type"] == "advancing").count()
    };
    assert_eq!(advanced(&kept), 1, "the other release was not stopped for it");
    let asked = |row: &Value| row["event"]["type"] == "stop_asked" && row["event"]["by"] == "run cancel";
    assert_eq!(home.events(&ended).iter().filter(|row| asked(row)).count(), 1);
    assert_eq!(home.slots().len(), 1);
}

#[test]
fn an_approval_that_nobody_gives_in_time_ends_the_release() {
    let home = Home::new();
    let project = home.hello("one").with("approval: { mode: required, ttl: 4s }");
    let waits = home.run(&["deploy", project.arg(), "--json"]);
    assert_eq!(waits.code, Some(3), "{waits:?}");
    let question = home.json(&["approvals"])[0]["id"].as_str().unwrap().to_owned();
    // Nobody does anything.
    ends_as(&home, "hello", "FAILED");
    let reason = home.history("hello")[0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("nobody answered"), "{reason}");
    let late = home.run(&["approve", &question, "--json"]);
    assert_eq!((late.code, late.json()["error"]["code"].as_str()), (Some(4), Some("expired")), "{late:?}");
    home.assert_clean();
}

#[test]
fn a_models_name_means_the_run_that_is_under_way() {
    let home = Home::new();
    home.deploy(&home.hello("one").bake("0s"));
    home.deploy(&home.hello("two").bake("0s"));
    let waits = home.run(&["deploy", home.hello("three").arg(), "--json"]);
    assert_eq!(waits.code, Some(3), "{waits:?}");
    let thread = waits.json()["thread"].clone();
    let back = home.json(&["rollback", "hello"]);
    assert_eq!(version(&back), "one");
    assert_eq!(home.json(&["run", "show", "hello"])["thread"], thread);
}

/// A workflow file beside the home.
fn workflow(home: &Home, name: &str, node: &str) -> String {
    let file = home.beside(&format!("{name}.yaml"));
    let text = format!(
        "name: {name}\nversion: 1\nchannels:\n  answer: {{ type: any }}\nnodes:\n  it: {{ {node} }}\nedges:\n  \
         - {{ from: START, to: it }}\n  - {{ from: it, to: END }}\n"
    );
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

fn started(home: &Home, file: &str, code: i32) -> String {
    let ran = home.run(&["run", "start", file, "--input", "{}", "--json"]);
    assert_eq!(ran.code, Some(code), "{ran:?}");
    ran.thread()
}

#[test]
fn an_answered_run_whose_process_dies_is_taken_up_by_the_next_command() {
    let home = Home::bare();
    let asks = workflow(&home, "asks", "type: ask, prompt: \"'well?'\", into: answer");
    let plain = workflow(&home, "plain", "type: expr, set: { answer: \"1\" }");
    for at in 1.. {
        let thread = started(&home, &asks, 3);
        if home.crashes_at(at, &["run", "resume", &thread, "--value", "\"yes\"", "--json"]).is_ok() {
            assert!(at > 4, "it was killed {at} times only");
            break;
        }
        started(&home, &plain, 0);
        if at == 1 {
            // Killed before the answer was there.
            continue;
        }
        home.until("it has ended", || {
            let run = home.json(&["run", "show", &thread]);
            (run["status"] == "succeeded" && run["values"]["answer"] == "yes").then_some(())
        });
    }
}

#[test]
fn a_runner_that_waits_takes_nothing_from_the_commands_in_the_foreground() {
    let home = Home::bare();
    let patient = workflow(&home, "patient", "type: ask, prompt: \"'well?'\", into: answer, ttl: 10m");
    let asks = workflow(&home, "asks", "type: ask, prompt: \"'well?'\", into: answer");
    let plain = workflow(&home, "plain", "type: expr, set: { answer: \"1\" }");
    let waits = started(&home, &patient, 3);
    for _ in 0..25 {
        started(&home, &plain, 0);
        let thread = started(&home, &asks, 3);
        let ran = home.run(&["run", "resume", &thread, "--value", "1", "--json"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    let runner =
        || home.processes().into_iter().find(|pid| release_support::process::command_line(*pid).contains("runner"));
    assert!(runner().is_some(), "nobody ends {waits} when its time is over");
    assert!(home.logs().contains("runner.log"));
}

#[test]
fn an_answer_of_a_wrong_type_is_refused_and_the_run_goes_on_waiting() {
    let home = Home::bare();
    let file = home.beside("typed.yaml");
    let text = "name: typed\nversion: 1\nchannels:\n  label: { type: string }\nnodes:\n  \
                it: { type: ask, prompt: \"'which?'\", into: label }\nedges:\n  \
                - { from: START, to: it }\n  - { from: it, to: END }\n";
    std::fs::write(&file, text).unwrap();
    let thread = started(&home, file.to_str().unwrap(), 3);
    let wrong = home.run(&["run", "resume", &thread, "--value", "5", "--json"]);
    assert_eq!((wrong.code, wrong.error_code().as_str()), (Some(2), "bad_answer"), "{wrong:?}");
    let right = home.run(&["run", "resume", &thread, "--value", "\"virginica\"", "--json"]);
    assert_eq!((right.code, &right.json()["values"]["label"]), (Some(0), &"virginica".into()), "{right:?}");
}

#[test]
fn an_approval_in_advance_stays_with_the_run() {
    let home = Home::new();
    let project = home.hello("one").bake("0s");
    let deploy = home.start(&["deploy", project.arg(), "--yes"]);
    let thread = home.thread_of(&deploy);
    home.intended(&thread, "build_model");
    home.ok(&["down"]);
    assert_eq!(deploy.end().code, Some(130));
    home.ok(&["up"]);
    ends_as(&home, "hello", "COMPLETED");
    let answered = |row: &Value| row["event"]["type"] == "answered" && row["event"]["via"] == "--yes";
    assert_eq!(home.events(&thread).iter().filter(|row| answered(row)).count(), 1);
    // And for a run that nobody stays with.
    let next = home.hello("two").bake("0s");
    home.json(&["deploy", next.arg(), "--yes", "--detach"]);
    home.until("it is there", || (home.history("hello").len() == 2).then_some(()));
    ends_as(&home, "hello", "COMPLETED");
}
