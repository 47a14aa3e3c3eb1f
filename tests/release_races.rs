//! Two of everything at once: one wins, the other is told who did.

mod release_support;

use nix::sys::signal::Signal;
use release_support::{Home, Ran, Running, version};

/// Starts commands at once; returns how they ended.
fn at_once<const N: usize>(home: &Home, commands: [&[&str]; N]) -> [Ran; N] {
    commands.map(|args| home.start(args)).map(Running::end)
}

/// The one that ended with 0, and the other.
fn winner_and_loser([a, b]: [Ran; 2]) -> (Ran, Ran) {
    let pair = if a.code == Some(0) { (a, b) } else { (b, a) };
    assert_eq!((pair.0.code, pair.1.code), (Some(0), Some(4)), "{pair:?}");
    pair
}

#[test]
fn of_two_that_resume_one_run_one_advances_and_the_other_is_told_who() {
    let home = Home::new();
    let stopped = home.start(&["deploy", home.hello("one").bake("6s").arg(), "--yes"]);
    let thread = home.thread_of(&stopped);
    home.started(&thread, "watch");
    stopped.signal(Signal::SIGINT);
    assert_eq!(stopped.end().code, Some(130));

    let resume = ["run", "resume", thread.as_str(), "--json"];
    let both = [home.start(&resume), home.start(&resume)];
    let pids = [both[0].pid(), both[1].pid()];
    let [a, b] = both.map(Running::end);
    let winner = if a.code == Some(0) { pids[0] } else { pids[1] };
    let (won, lost) = winner_and_loser([a, b]);
    assert_eq!(lost.error_code(), "lease_held");
    assert!(lost.error()["message"].as_str().unwrap().contains(&format!("pid {winner}")), "{lost:?}");
    assert_eq!(version(&won.json()), "one");
    // Resuming what has ended well says once more how it ended.
    assert_eq!(home.ok(&resume).json(), won.json());
}

#[test]
fn of_two_that_approve_at_once_one_decides_and_the_other_is_told_who() {
    let home = Home::new();
    let waits = home.run(&["deploy", home.hello("one").bake("0s").arg(), "--json"]);
    assert_eq!(waits.code, Some(3), "{waits:?}");
    let question = home.json(&["approvals"])[0]["id"].as_str().unwrap().to_owned();
    let approve = ["approve", question.as_str(), "--json"];
    let reject = ["reject", question.as_str(), "--reason", "too late", "--json"];
    let (won, lost) = winner_and_loser(at_once(&home, [&approve, &approve]));
    let error = lost.error();
    assert_eq!(error["code"], "already_decided");
    let record = home.json(&["run", "export", "hello"]);
    let by = record["interrupts"][0]["answer"]["by"].as_str().unwrap();
    assert!(error["message"].as_str().unwrap().contains(by), "{error}");
    assert_eq!(version(&won.json()), "one");
    let late = home.run(&reject);
    assert_eq!((late.code, late.error_code().as_str()), (Some(4), "already_decided"), "{late:?}");
    assert_eq!(home.history("hello")[0]["status"], "COMPLETED");
}

#[test]
fn of_two_deploys_of_one_model_one_is_refused_and_two_models_both_go_on() {
    let home = Home::new();
    let (one, two) = (home.hello("one").bake("0s"), home.hello("two").bake("0s"));
    let other = home.hello("other").bake("0s").model("other");
    fn deploy(project: &release_support::Project) -> [&str; 4] {
        ["deploy", project.arg(), "--yes", "--json"]
    }
    let [a, b, c] = at_once(&home, [&deploy(&one), &deploy(&two), &deploy(&other)]);
    assert_eq!(c.code, Some(0), "{c:?}\n{}", home.logs());
    assert_eq!(version(&c.json()), "other");
    let (won, lost) = winner_and_loser([a, b]);
    let (output, error) = (won.json(), lost.error());
    assert_eq!(error["code"], "release_in_progress");
    assert!(error["message"].as_str().unwrap().contains(output["deployment_id"].as_str().unwrap()), "{error}");
    assert!(["one", "two"].contains(&version(&output).as_str()));
    let statuses: Vec<_> = home.history("hello").iter().map(|row| row["status"].as_str().unwrap().to_owned()).collect();
    assert!(
        statuses.len() == 2 && statuses.contains(&"COMPLETED".to_owned()) && statuses.contains(&"FAILED".to_owned())
    );
    assert_eq!((home.slots().len(), home.builds().len()), (2, 2));

    // One that waits for its approval holds its place too.
    let waits = home.run(&["deploy", two.arg(), "--json"]);
    assert_eq!(waits.code, Some(3), "{waits:?}");
    let refused = home.run(&["deploy", one.arg(), "--yes", "--json"]);
    assert_eq!((refused.code, refused.error_code().as_str()), (Some(4), "release_in_progress"), "{refused:?}");
    assert!(refused.error()["message"].as_str().unwrap().contains(&waits.thread()), "{refused:?}");
    home.ok(&["run", "cancel", &waits.thread()]);
    assert_eq!((home.slots().len(), home.builds().len()), (2, 2));
}
