//! Two of everything at once: one wins, the other is told who did.

mod release_support;

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
    let waits = home.run(&["deploy", home.hello("one").bake("4s").arg(), "--json"]);
    assert_eq!((waits.code, waits.error_code().as_str()), (Some(3), "waiting"), "{waits:?}");
    let thread = waits.thread();
    let resume = ["run", "resume", &thread, "--yes", "--json"];
    let first = home.start(&resume);
    home.started(&thread, "watch");
    let late = home.run(&resume);
    assert_eq!((late.code, late.error_code().as_str()), (Some(4), "lease_held"), "{late:?}");
    assert!(late.error()["message"].as_str().unwrap().contains(&format!("pid {}", first.pid())), "{late:?}");
    let ended = first.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(version(&ended.json()), "one");
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
