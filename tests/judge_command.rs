//! `tidegate judge` on recordings in files.

mod release_support;

use std::fs;
use std::path::Path;

use release_support::Home;
use serde_json::{Value, json};

/// Ten minutes of two requests a second; every `nth` one fails, and each takes about `ms`.
fn recording(nth: u64, ms: f64) -> String {
    recording_from(1000, nth, ms)
}

fn recording_from(began_ms: u64, nth: u64, ms: f64) -> String {
    let entry = |n: u64| {
        let status = if nth > 0 && n.is_multiple_of(nth) { 503 } else { 200 };
        json!({"at_ms": began_ms + n * 500, "status": status, "latency_ms": ms + (n % 7) as f64})
    };
    (0..1200).map(|n| format!("{}\n", entry(n))).collect()
}

fn written(dir: &Path, name: &str, text: &str) -> String {
    let file = dir.join(name);
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

#[test]
fn the_exit_code_says_the_verdict() {
    let home = Home::bare();
    let dir = tempfile::tempdir().unwrap();
    let base = written(dir.path(), "base.jsonl", &recording(0, 10.0));
    let good = written(dir.path(), "good.jsonl", &recording(0, 10.0));
    let bad = written(dir.path(), "bad.jsonl", &recording(5, 10.0));
    let slow = written(dir.path(), "slow.jsonl", &recording(0, 30.0));
    let short: String = recording(0, 10.0).lines().take(20).map(|line| format!("{line}\n")).collect();
    let short = written(dir.path(), "short.jsonl", &short);
    for (candidate, code, word) in
        [(&good, 0, "pass"), (&bad, 1, "fail"), (&slow, 1, "fail"), (&short, 3, "inconclusive")]
    {
        let ran = home.run(&["judge", "--baseline", &base, "--candidate", candidate]);
        assert_eq!(ran.code, Some(code), "{candidate}: {ran:?}");
        assert!(ran.stdout.starts_with(&format!("{word}: ")) && ran.stdout.contains("error_ratio"), "{ran:?}");
        let report: Value =
            serde_json::from_str(&home.run(&["judge", "--baseline", &base, "--candidate", candidate, "--json"]).stdout)
                .unwrap();
        assert_eq!(report["judgement"]["verdict"], word, "{report}");
    }
    let told = home.run(&["judge", "--baseline", &base, "--candidate", &bad]).stdout;
    assert!(told.contains("20 %") && told.contains('█'), "{told}");
    // The candidate alone, against a limit.
    let rule = json!({"window_ms": 60_000, "checks": [{"latency_limit": {"at_most_ms": 20}}]}).to_string();
    let alone = |candidate: &str| home.run(&["judge", "--candidate", candidate, "--rule", &rule]).code;
    assert_eq!((alone(&good), alone(&slow)), (Some(0), Some(1)));
    // As Kayenta would, once, at the end.
    let metrics = json!([{"name": "error_rate", "critical": true}, {"name": "latency_p99", "direction": "increase"}]);
    let kayenta = json!({"window_ms": 590_000, "checks": [{"kayenta": {"step_ms": 10_000, "metrics": metrics}}]});
    let kayenta = written(dir.path(), "kayenta.json", &kayenta.to_string());
    for (candidate, code, part) in [
        (&good, 0, "score 100"),
        (&bad, 1, "a critical metric failed: error_rate is higher"),
        (&slow, 1, "latency_p99 is higher"),
        (&short, 3, "the watch ended after"),
    ] {
        let rule = format!("@{kayenta}");
        let ran = home.run(&["judge", "--baseline", &base, "--candidate", candidate, "--rule", &rule]);
        assert!(ran.code == Some(code) && ran.stdout.contains(part), "{candidate}: {ran:?}");
    }
}

#[test]
fn what_cannot_be_judged_is_told() {
    let home = Home::bare();
    let dir = tempfile::tempdir().unwrap();
    let base = written(dir.path(), "base.jsonl", &recording(0, 10.0));
    let later = written(dir.path(), "later.jsonl", &recording_from(9_000_000, 0, 10.0));
    let wrong = written(dir.path(), "wrong.jsonl", "{\"at_ms\": 1, \"status\": 200}\n{\"at\": 2}\n");
    let empty = written(dir.path(), "empty.jsonl", "");
    let missing = dir.path().join("missing").display().to_string();
    for (args, code, part) in [
        (&["--baseline", &base, "--candidate", &wrong][..], "recording_invalid", "entry 2"),
        (&["--baseline", &base, "--candidate", &empty], "recording_invalid", "nothing is recorded"),
        (&["--baseline", &base, "--candidate", &missing], "file_unreadable", "no such file"),
        (&["--baseline", &base, "--candidate", &later], "recording_invalid", "recorded from"),
        (&["--candidate", &base], "rule_invalid", "--baseline"),
        (&["--baseline", &base, "--candidate", &base, "--rule", "{\"alhpa\": 1}"], "rule_invalid", "alhpa"),
        (&["--baseline", &base, "--candidate", &base, "--rule", "{\"alpha\": 2}"], "rule_invalid", "alpha is 2"),
        (&["--baseline", &base, "--candidate", &base, "--rule", "{"], "bad_json", "EOF"),
    ] {
        let ran = home.run(&[&["judge", "--json"], args].concat());
        let error = ran.error();
        assert_eq!((ran.code, &error["code"]), (Some(2), &code.into()), "{args:?}: {ran:?}");
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    let ran = home.run(&["judge", "--baseline", &base, "--candidate", &later, "--align"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
}
