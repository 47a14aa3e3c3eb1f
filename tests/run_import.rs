//! `run import`: a record that was exported in one home, kept in another. It is looked at, replayed and exported there as if it had been made
//! there, and is advanced by nobody.

mod release_support;

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use release_support::Home;
use serde_json::{Value, json};

const APPROVAL: &str = include_str!("workflows/approval.yaml");
const SUB: &str = include_str!("workflows/sub.yaml");

/// A workflow file beside the home.
fn workflow(home: &Home, text: &str) -> String {
    let path = home.beside("workflow.yaml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A run that asks, as the text of its export.
fn asking(home: &Home, thread: &str, input: &Value) -> String {
    let file = workflow(home, APPROVAL);
    fs::write(home.beside("input.json"), input.to_string()).unwrap();
    let ran = home.run(&["run", "start", &file, "--thread", thread, "--input", "@input.json", "--json"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    export(home, thread)
}

fn export(home: &Home, thread: &str) -> String {
    home.ok(&["run", "export", thread]).stdout
}

/// A file beside the home.
fn file(home: &Home, name: &str, text: &str) -> String {
    let path = home.beside(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn refused(home: &Home, args: &[&str], code: &str) -> Value {
    let ran = home.run(&[args, &["--json"]].concat());
    assert_eq!(ran.error_code(), code, "{args:?}: {ran:?}");
    assert_ne!(ran.code, Some(0));
    ran.error()
}

/// Nothing is wrong with the database, and the audit is as it was written.
fn assert_sound(home: &Home) {
    let told = home.run(&["doctor", "--db"]).stdout;
    let database: Vec<&str> = told.lines().filter(|line| line.contains("database") || line.contains("audit")).collect();
    assert!(!database.is_empty() && database.iter().all(|line| !line.contains("MISS")), "{told}");
    home.ok(&["audit", "verify"]);
}

/// Imports a text into a home.
fn import(home: &Home, text: &str) -> Value {
    home.json(&["run", "import", &file(home, "import.json", text)])
}

/// What `run show --json` tells of a thread, without what belongs to its home, and how long an open question waits by now.
fn shown(home: &Home, thread: &str) -> Value {
    let mut shown = home.json(&["run", "show", thread]);
    shown.as_object_mut().unwrap().remove("imported");
    forget(&mut shown["path"]);
    shown
}

fn forget(path: &mut Value) {
    match path {
        Value::Object(keys) => {
            keys.remove("waited_ms");
            keys.values_mut().for_each(forget);
        }
        Value::Array(items) => items.iter_mut().for_each(forget),
        _ => {}
    }
}

/// Everything that can be looked at is the same in both homes.
fn assert_same(there: &Home, here: &Home, thread: &str, text: &str) {
    assert!(export(here, thread) == text, "the export is not the same");
    assert_eq!(shown(here, thread), shown(there, thread));
    assert_eq!(here.json(&["run", "events", thread]), there.json(&["run", "events", thread]));
    assert_eq!(here.json(&["run", "history", thread]), there.json(&["run", "history", thread]));
    let drawn = |home: &Home| home.ok(&["graph", "--run", thread, "--format", "svg"]).stdout;
    assert_eq!(drawn(here), drawn(there));
    assert_eq!(here.json(&["run", "replay", thread])["replayed"], true);
}

#[test]
fn a_record_is_the_same_elsewhere() {
    let (there, here) = (Home::bare(), Home::bare());
    let waits = asking(&there, "waits", &json!({"model": "résnet ☃ \u{202e}\u{0}\"\\"}));
    let ended = {
        asking(&there, "ended", &json!({"model": "x", "log": [1e300, -0.0, 0.1, 9_007_199_254_740_993_u64]}));
        there.ok(&["run", "resume", "ended", "--value", "\"yes\"", "--json"]);
        export(&there, "ended")
    };
    let nested = {
        let sub = workflow(&there, SUB);
        let ran = there.run(&["run", "start", &sub, "--thread", "nested.1", "--json"]);
        assert!(matches!(ran.code, Some(0 | 3)), "{ran:?}");
        export(&there, "nested.1")
    };
    for (thread, text) in [("waits", &waits), ("ended", &ended), ("nested.1", &nested)] {
        let told = import(&here, text);
        assert_eq!((&told["thread"], &told["imported"]), (&json!(thread), &json!(true)));
        assert_same(&there, &here, thread, text);
    }
    // From there it goes on to a third home, and is what it was.
    let third = Home::bare();
    import(&third, &export(&here, "ended"));
    assert!(export(&third, "ended") == ended);
    let by = here.json(&["run", "show", "ended"])["imported"]["by"].clone();
    assert!(by.is_string() && here.ok(&["run", "show", "ended"]).stdout.contains("a record from elsewhere"));
    assert_sound(&here);
}

#[test]
fn a_record_is_advanced_by_nobody() {
    let (there, here) = (Home::bare(), Home::bare());
    let text = asking(&there, "waits", &json!({}));
    import(&here, &text);
    let question = there.json(&["run", "state", "waits"])["interrupts"][0]["id"].as_str().unwrap().to_owned();
    for args in [
        &["run", "resume", "waits", "--value", "\"yes\""][..],
        &["run", "resume", "waits", "--answers", &json!({question: "yes"}).to_string()],
        &["run", "continue", "waits"],
        &["run", "cancel", "waits"],
        &["run", "update", "waits", "--values", "{\"model\": \"y\"}", "--as-node", "prepare"],
        &["run", "signal", "waits", "go"],
    ] {
        refused(&here, args, "thread_imported");
    }
    // What it asks is asked where it is; nobody is told here that something waits.
    assert_eq!(here.json(&["approvals"]), json!([]));
    assert_eq!(here.json(&["status"])["open_questions"], 0);
    let listed = here.json(&["runs"]);
    assert_eq!((&listed[0]["status"], listed[0]["imported"].is_object()), (&json!("interrupted"), true));
    // A runner that looks for work leaves it alone.
    let trivial = file(&here, "trivial.yaml", include_str!("workflows/trivial.yaml"));
    here.ok(&["run", "start", &trivial, "--thread", "other", "--detach"]);
    here.until("the runner has done the other one", || {
        (here.json(&["run", "state", "other"])["status"] == "succeeded").then_some(())
    });
    assert!(export(&here, "waits") == text);
    // Where it came from it goes on.
    there.ok(&["run", "resume", "waits", "--value", "\"yes\""]);
    // It goes when it is pruned, and may come again, as it is by now.
    here.ok(&["run", "prune", "waits", "--ended", "1s", "--dry-run"]);
    here.until("it is old enough", || {
        here.ok(&["run", "prune", "waits", "--ended", "1s"]);
        let shown = here.run(&["run", "show", "waits", "--json"]);
        (shown.code != Some(0) && shown.error_code() == "no_thread").then_some(())
    });
    import(&here, &export(&there, "waits"));
    assert_eq!(here.json(&["run", "state", "waits"])["status"], "succeeded");
}

#[test]
fn the_audit_says_that_it_was_imported_and_no_more() {
    let (there, here) = (Home::bare(), Home::bare());
    import(&here, &asking(&there, "waits", &json!({})));
    let rows = here.json(&["audit", "export", "waits"])["rows"].clone();
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["event"]["type"]), (1, &json!("imported")), "{rows}");
    assert!(rows[0]["event"]["digest"].as_str().unwrap().starts_with("sha256:"));
    here.ok(&["audit", "verify"]);
    assert_eq!(here.json(&["list"]), json!([]), "no release came with it");
}

#[test]
fn what_is_there_or_damaged_is_refused() {
    let (there, here) = (Home::bare(), Home::bare());
    let text = asking(&there, "waits", &json!({"model": "x"}));
    let told: Value = serde_json::from_str(&text).unwrap();
    let attempt = |name: &str, text: &str, code: &str| {
        let error = refused(&here, &["run", "import", &file(&here, name, text)], code);
        assert_eq!(here.json(&["runs"]), json!([]), "{name}: nothing is half there");
        format!("{}: {}", error["message"].as_str().unwrap(), error["cause"].as_str().unwrap_or_default())
    };
    let changed = |pointer: &str, value: Value| {
        let mut changed = told.clone();
        *changed.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        changed.to_string()
    };
    attempt("empty.json", "", "export_damaged");
    attempt("cut.json", &text[..text.len() / 2], "export_damaged");
    attempt("other.json", "{\"format\": \"tidegate-audit/1\", \"rows\": []}", "export_format");
    attempt("newer.json", &changed("/format", json!("tidegate-run/2")), "export_format");
    let at = attempt("value.json", &changed("/checkpoints/1/values/model", json!("y")), "export_changed");
    assert!(at.contains("checkpoint 2"), "{at}");
    let at = attempt("when.json", &changed("/events/2/at", json!("2020-01-01T00:00:00Z")), "export_changed");
    assert!(at.contains("event 3"), "{at}");
    let at = attempt("who.json", &changed("/interrupts/0/value", json!("other")), "export_changed");
    assert!(at.contains("question 1"), "{at}");
    let at = attempt("id.json", &changed("/thread/id", json!("another")), "export_changed");
    assert!(at.contains("the thread's row"), "{at}");
    let mut shorter = told.clone();
    shorter["events"].as_array_mut().unwrap().pop();
    attempt("shorter.json", &shorter.to_string(), "export_changed");
    let mut unsealed = told.clone();
    unsealed.as_object_mut().unwrap().remove("seal");
    attempt("unsealed.json", &unsealed.to_string(), "export_unsealed");
    let mut more = told.clone();
    more["thread"]["colour"] = json!("red");
    let at = attempt("more.json", &more.to_string(), "export_unknown");
    assert!(at.contains("$.thread.colour"), "{at}");
    let newer = json!({"type": "sung", "song": "la"});
    let at = attempt("event.json", &changed("/events/1/event", newer), "export_unknown");
    assert!(at.contains("$.events[1].event"), "{at}");
    refused(&here, &["run", "import", "none.json"], "file_unreadable");

    // Written otherwise it is the same record.
    import(&here, &told.to_string());
    assert!(export(&here, "waits") == text);
    refused(&here, &["run", "import", &file(&here, "again.json", &text)], "thread_exists");
    refused(&there, &["run", "import", &file(&there, "own.json", &text)], "thread_exists");
    assert!(export(&there, "waits") == text, "the one that was there is as it was");
}

/// A record of some megabytes.
fn large(home: &Home) -> String {
    let text = "x".repeat(900_000);
    asking(home, "large", &json!({"model": text}))
}

#[test]
fn a_large_record_comes_whole_or_not_at_all_however_it_is_killed() {
    let there = Home::bare();
    let text = large(&there);
    assert!(text.len() > 2_500_000, "{}", text.len());
    let (mut killed, mut whole) = (0, 0);
    for delay in (0..).map(|step| Duration::from_millis(step * 120)).take(60) {
        let here = Home::bare();
        here.ok(&["runs"]);
        let path = file(&here, "large.json", &text);
        let mut child = here.command(&["run", "import", &path]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(delay);
        let _ = child.kill();
        let ended = child.wait().unwrap();
        let there_now = !here.json(&["runs"]).as_array().unwrap().is_empty();
        if there_now {
            assert!(export(&here, "large") == text, "half of it is there");
            whole += 1;
        } else {
            assert!(!ended.success(), "it said that it was imported, and is not there");
            killed += 1;
            // It is imported as if nothing had been.
            import(&here, &text);
            assert!(export(&here, "large") == text);
        }
        assert_sound(&here);
        if ended.success() {
            break;
        }
    }
    assert!(killed > 0 && whole > 0, "{killed} {whole}");
}

#[test]
fn a_file_that_is_too_large_is_refused_before_it_is_read() {
    let here = Home::bare();
    let path = here.beside("huge.json");
    fs::File::create(&path).unwrap().set_len(257 * 1024 * 1024).unwrap();
    let error = refused(&here, &["run", "import", path.to_str().unwrap()], "file_unreadable");
    assert!(error["cause"].as_str().unwrap().contains("more than"), "{error}");
}
