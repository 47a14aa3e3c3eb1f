//! Projects and machines that are no good: the release fails, says why, leaves nothing behind, and the live version never notices.

mod release_support;

use std::fs;

use release_support::{Disk, Home, Load, Project, Ran, Running, version};
use serde_json::{Value, json};

/// A home where `one` is live under load.
struct Live {
    home: Home,
    output: Value,
    load: Load,
    slots: Vec<String>,
}

impl Live {
    fn new() -> Self {
        let home = Home::new();
        let output = home.deploy(&home.hello("one").bake("0s"));
        let (load, slots) = (Load::on(&output), home.slots());
        Self { home, output, load, slots }
    }

    /// Releases a bad project; returns the error. Row, slots, processes and clients must be as they should.
    fn refuses(&self, project: &Project) -> Value {
        self.refused(self.home.run(&["deploy", project.arg(), "--yes", "--json"]))
    }

    /// Checks a release that must have failed.
    fn refused(&self, ran: Ran) -> Value {
        let error = ran.error();
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let rows = self.home.history("hello");
        let row = rows.iter().find(|row| row["deployment_id"] == ran.thread()).unwrap();
        assert_eq!(row["status"], "FAILED", "{row}");
        let (reason, message) = (row["reason"].as_str().unwrap(), error["message"].as_str().unwrap());
        assert_eq!(reason, message);
        assert_eq!(self.home.slots(), self.slots);
        assert_eq!(self.home.names("slots"), self.slots);
        let tokens: Vec<&str> = self.slots.iter().map(String::as_str).collect();
        self.home.assert_only(&tokens);
        assert_eq!(version(&self.output), "one");
        error
    }

    fn end(self) {
        let (releases, builds) = (self.home.releases(), self.home.builds());
        assert_eq!((releases.len(), builds.len()), (1, 1), "{releases:?} {builds:?}");
        let seen = self.load.end();
        seen.assert_unharmed();
        assert_eq!(seen.answers.len(), 1, "{seen:?}");
    }
}

fn assert_error(error: &Value, code: &str, cause: &str) {
    assert_eq!(error["code"], code, "{error}");
    assert!(error["cause"].as_str().unwrap_or_default().contains(cause), "{error}");
    assert!(error["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{error}");
}

#[test]
fn builds_that_fail_name_their_cause() {
    let live = Live::new();
    let error = live.refuses(&live.home.project("missing_dependency"));
    assert_error(&error, "dependency_missing", "No module named 'a_module_nobody_installed'");
    let error = live.refuses(&live.home.project("syntax_error"));
    assert_error(&error, "service_syntax_error", "service.py\", line 9");
    live.end();
}

#[test]
fn services_that_do_not_start_are_removed_with_their_last_traceback() {
    let live = Live::new();
    let error = live.refuses(&live.home.project("init_raises"));
    assert_error(&error, "service_start_failed", "RuntimeError: the weights file is damaged");
    assert!(error["cause"].as_str().unwrap().contains("Traceback"), "{error}");
    let error = live.refuses(&live.home.project("never_ready").with("ready_timeout: 6s"));
    assert_eq!(error["code"], "not_ready_in_time", "{error}");
    live.end();
}

#[test]
fn wrong_answers_never_meet_a_user() {
    let live = Live::new();
    let error = live.refuses(&live.home.project("wrong_answers"));
    assert_error(&error, "validation_failed", "go away tide");
    // Where the time went: up to the failure, and into what was taken back.
    let shown = live.home.ok(&["run", "show", "hello"]).stdout;
    let line = |part: &str| shown.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {shown}"));
    assert!(line("✗ validation").ends_with("(validation_failed)"), "{shown}");
    assert!(
        shown.lines().any(|line| line.starts_with("✗ validation ") && line.ends_with("│ validation_failed")),
        "{shown}"
    );
    assert!(line("undo start_slot").contains('█') && line("  build_model").contains('█'), "{shown}");
    // With a bar of its own, or among those undone at once: as fast as the machine is.
    assert!(shown.contains("undo update_release") || line("undone at once: ").contains("update_release"), "{shown}");
    live.end();
}

#[test]
fn a_version_that_goes_bad_while_it_is_watched_is_taken_back() {
    let live = Live::new();
    let flag = live.home.beside("worn-out");
    let project = live.home.hello("bad").worn_out_by(&flag).bake("60s");
    let deploy = live.home.start(&["deploy", project.arg(), "--yes", "--json"]);
    live.home.started(&live.home.thread_of(&deploy), "watch");
    let shown = live.home.ok(&["run", "show", "hello"]).stdout;
    assert!(shown.lines().any(|line| line.starts_with("watch ") && line.ends_with("│ running")), "{shown}");
    fs::write(&flag, "").unwrap();
    let error = live.refused(deploy.end());
    assert_error(&error, "bake_failed", "worn out");
    let seen = live.load.end();
    // Users met errors of the bad version itself, for moments: that is what the watch is for. Nothing else failed.
    assert!(seen.failed.iter().all(|why| why.starts_with("500")), "{seen:?}");
    assert!(seen.saw("one") && seen.saw("bad"), "{seen:?}");
}

#[test]
fn a_taken_public_port_is_named_with_its_holder() {
    let home = Home::new();
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = held.local_addr().unwrap().to_string();
    let project = home.hello("one").bake("0s");
    let deploy = |addr: &str| {
        let mut command = home.command(&["deploy", project.arg(), "--yes", "--json"]);
        command.env("TIDEGATE_PUBLIC_ADDR", addr);
        Running::start(command).end()
    };
    let ran = deploy(&addr);
    let error = ran.error();
    assert_eq!((ran.code, &error["code"]), (Some(1), &"public_port_taken".into()), "{ran:?}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(&addr) && message.contains(&format!("pid {}", std::process::id())), "{message}");
    assert!(home.processes().is_empty() && home.names("slots").is_empty());
    assert_eq!(home.history("hello")[0]["status"], "FAILED");
    // Once it is free the same command works, at that very address.
    drop(held);
    let output = deploy(&addr).json();
    assert!(output["endpoint_url"].as_str().unwrap().starts_with(&format!("http://{addr}/")), "{output}");
}

#[test]
fn without_python_and_uv_it_says_what_to_install() {
    let home = Home::bare();
    let empty = home.beside("empty");
    fs::create_dir(&empty).unwrap();
    let project = home.hello("one");
    let mut command = home.command(&["deploy", project.arg(), "--yes", "--json"]);
    command.env("PATH", &empty);
    let ran = Running::start(command).end();
    let error = ran.error();
    assert_eq!((ran.code, error["code"].as_str().unwrap()), (Some(1), "python_missing"), "{ran:?}");
    assert!(error["hint"].as_str().unwrap().contains("python3"), "{error}");
    assert_eq!(home.history("hello")[0]["status"], "FAILED");
    home.assert_clean();
}

#[test]
fn a_full_disk_stops_a_release_resumably() {
    let home = Home::bare();
    let disk = Disk::of(home.path());
    home.link_shared();
    let live = home.deploy(&home.hello("one").bake("0s"));
    let load = Load::on(&live);
    let project = home.hello("two").bake("0s");
    let deploy = disk.start(home.command(&["deploy", project.arg(), "--yes", "--json"]));
    let thread = home.thread_of(&deploy);
    home.intended(&thread, "build_model");
    disk.fill(&deploy);
    let ran = deploy.end();
    let error = ran.error();
    assert_eq!((ran.code, error["code"].as_str()), (Some(5), Some("store_cannot_write")), "{ran:?}\n{}", home.logs());
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("resume")), "{error}");
    assert_eq!((ran.thread(), version(&live)), (thread.clone(), "one".to_owned()));

    disk.free();
    let ended = home.run(&["run", "resume", &thread, "--yes", "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(version(&ended.json()), "two");
    load.end().assert_unharmed();
    assert_eq!((home.builds().len(), home.releases().len(), home.slots().len()), (2, 2, 2));
}

#[test]
fn files_that_are_named_and_missing_are_told_before_anything_begins() {
    let home = Home::new();
    let without_lock = home.hello("one");
    fs::remove_file(without_lock.path.join("requirements.lock")).unwrap();
    let secrets = home.hello("one").with("env_file: nowhere.env");
    let version = home.hello("one").with("version: a/b");
    for (project, code) in
        [(without_lock, "requirements_missing"), (secrets, "env_file_missing"), (version, "request_value")]
    {
        for command in ["plan", "deploy"] {
            let ran = home.run(&[command, project.arg(), "--json"]);
            assert_eq!((ran.code, ran.error_code().as_str()), (Some(2), code), "{ran:?}");
        }
    }
    assert_eq!(home.json(&["runs"]), json!([]));
}

#[test]
fn requirements_that_vanish_under_a_release_fail_it_and_leave_nothing() {
    let home = Home::new();
    let project = home.hello("one");
    let lock = project.path.join("requirements.lock");
    // Accepted while they are there; gone when the environment is looked for.
    let thread = home.json(&["deploy", project.arg(), "--detach", "--yes"])["thread"].as_str().unwrap().to_owned();
    fs::remove_file(&lock).unwrap();
    let ended =
        || ["COMPLETED", "FAILED"].iter().any(|end| home.history("hello").first().is_some_and(|r| r["status"] == *end));
    home.until("it has ended", || ended().then_some(()));
    // As fast as it was, it has either read them before or says what is missing; it is never stuck.
    let run = home.json(&["run", "show", &thread]);
    assert!(run["status"] == "failed" || run["status"] == "succeeded", "{run}");
}
