//! `run …` on any workflow, as people and programs use it: through the binary, on files, with a database that outlives every command.

mod release_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use release_support::{Home, Ran};
use serde_json::{Value, json};

/// A workflow file beside the home.
fn workflow(home: &Home, name: &str, text: &str) -> String {
    let path = home.path().join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn state(home: &Home, thread: &str) -> Value {
    home.ok(&["run", "state", thread, "--json"]).json()
}

/// Waits until a run that others advance is as it should be.
fn until(home: &Home, thread: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        // Whoever begins it may not have yet.
        let seen = home.run(&["run", "state", thread, "--json"]).json();
        if seen["error"]["code"] != "no_thread" && is(&seen) {
            return seen;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "never {what}: {seen}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Every twelfth of the vectors that hold the engine, done by commands.
#[test]
fn commands_do_what_langgraph_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/engine");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let texts: Vec<String> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let vectors = texts.iter().flat_map(|text| text.lines()).step_by(12);
    let home = Home::bare();
    for (number, line) in vectors.enumerate() {
        let vector: Value = serde_json::from_str(line).unwrap();
        let file = workflow(&home, "vector.yaml", &vector["graph"].to_string());
        hold(&home, &file, &format!("t{number}"), &vector);
    }
}

fn hold(home: &Home, file: &str, thread: &str, vector: &Value) {
    let (ops, expected) = (vector["ops"].as_array().unwrap(), vector["expected"].as_array().unwrap());
    let name = &vector["graph"]["name"];
    for (number, (op, expected)) in ops.iter().zip(expected).enumerate() {
        let ran = act(home, file, thread, op);
        let refused = number == 0 && ran.code != Some(0) && ran.error_code() == "invalid_concurrent_update";
        if refused && expected["error"] == "invalid_concurrent_update" {
            return;
        }
        let seen = state(home, thread);
        let status = match seen["status"].as_str().unwrap() {
            "succeeded" => "done",
            "failed" => "error",
            other => other,
        };
        let mut asked: Vec<String> = seen["interrupts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| json!({"node": at_root(i), "value": i["value"]}).to_string())
            .collect();
        asked.sort();
        asked.dedup();
        let mut wanted: Vec<String> =
            expected["interrupts"].as_array().unwrap().iter().map(ToString::to_string).collect();
        wanted.sort();
        wanted.dedup();
        let place = format!("{name}, op {number} {op}: {ran:?}");
        assert_eq!(status, expected["status"], "{place}");
        assert_eq!(seen["error"].get("code").unwrap_or(&Value::Null), &expected["error"], "{place}");
        assert_eq!((&seen["values"], &seen["next"]), (&expected["values"], &expected["next"]), "{place}");
        assert_eq!(asked, wanted, "{place}");
    }
    if vector["history"].is_null() {
        return;
    }
    let mut history = home.ok(&["run", "history", thread, "--json"]).json().as_array().unwrap().clone();
    history.reverse();
    for (seen, expected) in history.iter().zip(vector["history"].as_array().unwrap()) {
        for key in ["step", "source", "values", "next"] {
            assert_eq!(seen[key], expected[key], "{name}, {key} of {seen}");
        }
    }
    assert_eq!(history.len(), vector["history"].as_array().unwrap().len(), "{name}");
}

/// The node of the root that a question came through, as LangGraph tells it; here it is told by the node that asked.
fn at_root(open: &Value) -> &str {
    let ns = open["ns"].as_str().unwrap_or_default();
    ns.split([':', '|']).next().filter(|node| !node.is_empty()).unwrap_or_else(|| open["node"].as_str().unwrap())
}

fn act(home: &Home, file: &str, thread: &str, op: &Value) -> Ran {
    let limit = op["recursion_limit"].as_u64().unwrap_or(100).to_string();
    let text = |key: &str| op[key].to_string();
    match op["op"].as_str().unwrap() {
        "run" => {
            let input = text("input");
            let args =
                ["run", "start", file, "--thread", thread, "--input", &input, "--recursion-limit", &limit, "--json"];
            home.run(&args)
        }
        "continue" => home.run(&["run", "continue", thread, "--recursion-limit", &limit, "--json"]),
        "resume" if op.get("value").is_some() => {
            home.run(&["run", "resume", thread, "--value", &text("value"), "--recursion-limit", &limit, "--json"])
        }
        "resume" => {
            home.run(&["run", "resume", thread, "--answers", &text("values"), "--recursion-limit", &limit, "--json"])
        }
        "update" => {
            let node = op["as_node"].as_str().unwrap();
            home.run(&["run", "update", thread, "--values", &text("values"), "--as-node", node, "--json"])
        }
        other => panic!("unknown op {other}"),
    }
}

const NAP: &str = r#"
name: nap
channels:
  log: { type: array, reducer: append }
  woke: { type: object }
nodes:
  nap: { type: sleep, with: { for: 1s } }
  hear: { type: wait, with: { signal: [go, stop], for: 1h, into: woke } }
  say: { type: expr, set: { log: "[woke.signal]" } }
edges:
  - { from: START, to: nap }
  - { from: nap, to: hear }
  - { from: hear, to: say }
"#;

#[test]
fn a_detached_run_sleeps_and_hears_with_nobody_there() {
    let home = Home::bare();
    let file = workflow(&home, "nap.yaml", NAP);
    let started = home.ok(&["run", "start", &file, "--thread", "nap", "--detach", "--json"]).json();
    assert_eq!(started["thread"], "nap");
    until(&home, "nap", "waits for a signal", |seen| seen["next"] == json!(["hear"]) && seen["status"] == "sleeping");
    let sent = home.ok(&["run", "signal", "nap", "stop", "--value", "{\"share\": 1}", "--json"]).json();
    assert_eq!((&sent["thread"], &sent["seq"]), (&json!("nap"), &json!(1)));
    let ended = until(&home, "nap", "ends", |seen| seen["status"] == "succeeded");
    assert_eq!(ended["values"]["log"], json!(["stop"]));
    assert_eq!(ended["values"]["woke"]["value"], json!({"share": 1}));
    let late = home.run(&["run", "signal", "nap", "go", "--json"]);
    assert_eq!((late.code, late.error_code().as_str()), (Some(4), "thread_over"), "{late:?}");
    let replayed = home.ok(&["run", "replay", "nap", "--json"]).json();
    assert_eq!(replayed["replayed"], true);
}

#[test]
fn who_waits_at_the_terminal_sees_it_through_and_ctrl_c_holds() {
    let home = Home::bare();
    let file = workflow(&home, "nap.yaml", NAP);
    let child = home.command(&["run", "start", &file, "--thread", "nap", "--json"]);
    let mut child = { child }.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    until(&home, "nap", "waits for a signal", |seen| seen["next"] == json!(["hear"]) && seen["status"] == "sleeping");
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let held = state(&home, "nap");
    assert_eq!((&held["status"], &held["wake"]), (&json!("interrupted"), &Value::Null));

    // A held run waits for a person; then it hears what has come meanwhile.
    home.ok(&["run", "signal", "nap", "go"]);
    home.ok(&["run", "continue", "nap"]);
    assert_eq!(state(&home, "nap")["values"]["log"], json!(["go"]));
}

#[test]
fn a_run_whose_command_is_killed_while_it_sleeps_goes_on_by_itself() {
    let home = Home::bare();
    let text = "name: nap\nchannels: { x: { type: integer } }\nnodes:\n  nap: { type: sleep, with: { for: 3s } }\n  up: { type: expr, set: { x: '1' } }\nedges: [ { from: START, to: nap }, { from: nap, to: up } ]\n";
    let file = workflow(&home, "nap.yaml", text);
    let command = home.start(&["run", "start", &file, "--thread", "nap"]);
    until(&home, "nap", "sleeps", |seen| seen["status"] == "sleeping");
    // The runner that stands by is there before the command can be killed in its sleep.
    home.until("a runner stands by", || (home.processes().len() > 1).then_some(()));
    command.kill9();
    until(&home, "nap", "ends", |seen| seen["status"] == "succeeded");
}

const STEPS: &str = r#"
name: steps
channels:
  x: { type: integer }
  log: { type: array, reducer: append }
nodes:
  ada: { type: expr, set: { x: "x + 1", log: "['ada ' + string(x)]" } }
  bob: { type: expr, set: { x: "x * 10", log: "['bob ' + string(x)]" } }
edges:
  - { from: START, to: ada }
  - { from: ada, to: bob }
"#;

#[test]
fn going_back_and_branching_off() {
    let home = Home::bare();
    let file = workflow(&home, "steps.yaml", STEPS);
    let ended = home.ok(&["run", "start", &file, "--thread", "s", "--input", "{\"x\": 1}", "--json"]).json();
    assert_eq!(ended["values"]["x"], 20);
    let history = home.ok(&["run", "history", "s", "--json"]).json();
    let newest_first: Vec<i64> = history.as_array().unwrap().iter().map(|c| c["step"].as_i64().unwrap()).collect();
    assert_eq!(newest_first, [2, 1, 0]);
    let middle = history[1]["checkpoint"].as_str().unwrap();
    let then = home.ok(&["run", "state", "s", "--checkpoint", middle, "--json"]).json();
    assert_eq!((&then["values"]["x"], &then["next"]), (&json!(2), &json!(["bob"])));

    let forked = home.ok(&["run", "fork", "s", "--checkpoint", middle, "--values", "{\"x\": 7}", "--json"]).json();
    assert_eq!((&forked["next"], &forked["values"]["x"]), (&json!(["bob"]), &json!(7)));
    assert_eq!(home.ok(&["run", "history", "s", "--json"]).json()[0]["parent"], middle);
    let ended = home.ok(&["run", "continue", "s", "--json"]).json();
    assert_eq!((&ended["status"], &ended["values"]["x"]), (&json!("succeeded"), &json!(70)));
    assert_eq!(home.ok(&["run", "replay", "s", "--json"]).json()["replayed"], true);

    let bulk = r#"[[{"as_node": "ada", "values": {"x": 1}}], [{"as_node": "bob", "values": {"log": ["hand"]}}]]"#;
    let updated = home.ok(&["run", "update", "s", "--bulk", bulk, "--json"]).json();
    assert_eq!((&updated["values"]["x"], &updated["next"]), (&json!(1), &json!([])));
    let steps = |args: &[&str]| -> Vec<i64> {
        let rows = home.ok(&[&["run", "history", "s", "--json"], args].concat()).json();
        rows.as_array().unwrap().iter().map(|row| row["step"].as_i64().unwrap()).collect()
    };
    assert_eq!(steps(&["--source", "update"]), [5, 4]);
    assert_eq!(steps(&["--source", "fork"]), [2]);
    assert_eq!(steps(&["--limit", "2"]), [5, 4]);
    assert_eq!(steps(&["--before", middle]), [0], "older than the checkpoint");
    assert_eq!(steps(&["--source", "loop", "--limit", "1"]), [3]);

    for (args, code) in [
        (&["run", "fork", "s", "--checkpoint", "nowhere"][..], "no_checkpoint"),
        (&["run", "history", "s", "--before", "nowhere"], "no_checkpoint"),
        (&["run", "update", "s", "--bulk", "[{}]"], "bad_updates"),
        (&["run", "update", "s", "--bulk", "[]"], "bad_updates"),
        (&["run", "state", "s", "--checkpoint", "nowhere"], "no_checkpoint"),
        (&["run", "update", "s", "--values", "{\"y\": 1}", "--as-node", "ada"], "undeclared_channel"),
        (&["run", "update", "s", "--values", "{}", "--as-node", "eve"], "unknown_node"),
        (&["run", "update", "s", "--values", "[]", "--as-node", "ada"], "bad_json"),
        (&["run", "start", &file, "--thread", "a/b"], "bad_thread_id"),
        (&["run", "signal", "nobody", "go"], "no_thread"),
    ] {
        let ran = home.run(&[args, &["--json"]].concat());
        assert_eq!((ran.code, ran.error_code().as_str()), (Some(2), code), "{args:?}: {ran:?}");
    }
}

#[test]
fn a_thread_takes_new_input_and_only_by_the_workflow_it_began_with() {
    let home = Home::bare();
    let file = workflow(&home, "steps.yaml", STEPS);
    home.ok(&["run", "start", &file, "--thread", "s", "--input", "{\"x\": 1}"]);
    let again = home.ok(&["run", "start", &file, "--thread", "s", "--input", "{\"x\": 2}", "--json"]).json();
    assert_eq!(again["values"], json!({"x": 30, "log": ["ada 1", "bob 2", "ada 2", "bob 3"]}));
    let other = workflow(&home, "steps.yaml", &STEPS.replace("* 10", "* 100"));
    let refused = home.run(&["run", "start", &other, "--thread", "s", "--input", "{\"x\": 2}", "--json"]);
    assert_eq!((refused.code, refused.error_code().as_str()), (Some(4), "workflow_changed"), "{refused:?}");
    // What has begun goes on by its own copy.
    home.ok(&["run", "update", "s", "--values", "{\"x\": 5}", "--as-node", "ada"]);
    assert_eq!(home.ok(&["run", "continue", "s", "--json"]).json()["values"]["x"], 50);
}

#[test]
fn what_a_run_does_as_lines_while_it_does_it() {
    let home = Home::bare();
    let file = workflow(&home, "steps.yaml", STEPS);
    let modes = "values,updates,tasks,checkpoints,debug,custom,events";
    let args = ["run", "start", &file, "--thread", "s", "--input", "{\"x\": 1}", "--stream", modes];
    let lines: Vec<Value> = home.ok(&args).stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |mode: &str| lines.iter().filter(|l| l["event"] == mode).map(|l| l["data"].clone()).collect::<Vec<_>>();
    let updates = [json!({"ada": {"x": 2, "log": ["ada 1"]}}), json!({"bob": {"x": 20, "log": ["bob 2"]}})];
    assert_eq!(of("updates"), updates);
    let xs: Vec<Value> = of("values").iter().map(|values| values["x"].clone()).collect();
    assert_eq!(xs, [json!(1), json!(2), json!(20)]);
    let steps: Vec<Value> = of("checkpoints").iter().map(|c| c["step"].clone()).collect();
    assert_eq!(steps, [json!(1), json!(2)]);
    let tasks: Vec<String> = of("tasks")
        .iter()
        .map(|t| format!("{} {}", t["node"].as_str().unwrap(), t["state"].as_str().unwrap()))
        .collect();
    assert_eq!(tasks, ["ada started", "ada finished", "bob started", "bob finished"]);
    assert!(!of("events").is_empty() && of("debug").len() == 6);

    // Nothing is left to do: where it stands is all there is to see.
    let ended = home.ok(&["run", "stream", "s", "--mode", "values"]);
    assert_eq!(serde_json::from_str::<Value>(ended.stdout.trim()).unwrap()["data"]["x"], 20, "{ended:?}");
}

#[test]
fn the_durability_is_the_callers_choice() {
    let home = Home::bare();
    let file = workflow(&home, "steps.yaml", STEPS);
    for (durability, checkpoints) in [("sync", 3), ("async", 3), ("exit", 2)] {
        let args = ["run", "start", &file, "--thread", durability, "--input", "{\"x\": 1}", "--durability", durability];
        home.ok(&args);
        let history = home.ok(&["run", "history", durability, "--json"]).json();
        assert_eq!(history.as_array().unwrap().len(), checkpoints, "{durability}");
        assert_eq!(home.ok(&["run", "replay", durability, "--json"]).json()["replayed"], true);
    }
}

#[test]
fn history_is_pruned_by_count_and_by_age_and_the_audit_stays() {
    let home = Home::bare();
    let file = workflow(&home, "steps.yaml", STEPS);
    for thread in ["old", "new"] {
        home.ok(&["run", "start", &file, "--thread", thread, "--input", "{\"x\": 1}"]);
        home.ok(&["run", "start", &file, "--thread", thread, "--input", "{\"x\": 2}"]);
    }
    let asks = "name: ask\nchannels: { a: { type: any } }\nnodes: { ask: { type: ask, prompt: \"'?'\", into: a } }\nedges: [ { from: START, to: ask } ]\n";
    let asking = workflow(&home, "ask.yaml", asks);
    assert_eq!(home.run(&["run", "start", &asking, "--thread", "open"]).code, Some(3));
    let before = state(&home, "old");
    let dry = home.ok(&["run", "prune", "old", "--keep", "2", "--dry-run", "--json"]).json();
    assert_eq!((&dry["checkpoints"], &dry["runs"]), (&json!(4), &json!(0)));
    let went = home.ok(&["run", "prune", "old", "--keep", "2", "--json"]).json();
    assert_eq!(went["checkpoints"], 4);
    let history = home.ok(&["run", "history", "old", "--json"]).json();
    assert_eq!((history.as_array().unwrap().len(), state(&home, "old")), (2, before));
    assert_eq!(home.ok(&["run", "history", "new", "--json"]).json().as_array().unwrap().len(), 6);
    let gone = home.run(&["run", "replay", "old", "--json"]);
    assert_eq!(gone.error_code(), "record_pruned", "{gone:?}");
    // It goes on as before.
    let again = home.ok(&["run", "start", &file, "--thread", "old", "--input", "{\"x\": 3}", "--json"]).json();
    assert_eq!(again["values"]["x"], 40);

    assert_eq!(home.ok(&["run", "prune", "--ended", "1h", "--json"]).json()["runs"], 0);
    let went = home.ok(&["run", "prune", "--ended", "0s", "--vacuum", "--json"]).json();
    assert_eq!(went["runs"], 2);
    assert_eq!(home.run(&["run", "state", "old", "--json"]).error_code(), "no_thread");
    assert_eq!(state(&home, "open")["status"], "interrupted", "what has not ended stays");
    let audit = home.ok(&["doctor", "--db"]);
    assert!(audit.stdout.contains("audit"), "{audit:?}");
    // A new run of an old name is another one.
    home.ok(&["run", "start", &file, "--thread", "old", "--input", "{\"x\": 1}"]);
    assert_eq!(home.ok(&["run", "history", "old", "--json"]).json().as_array().unwrap().len(), 3);
    for args in [&["run", "prune"][..], &["run", "prune", "--keep", "0"], &["run", "prune", "--ended", "1w"]] {
        assert_eq!(home.run(args).code, Some(2), "{args:?}");
    }
}

#[test]
fn a_workflow_says_how_much_of_its_runs_stays() {
    let home = Home::bare();
    let kept = workflow(&home, "kept.yaml", STEPS);
    let with = |keys: &str| format!("{STEPS}\nretention: {keys}\n").replace("name: steps", "name: bounded");
    let bounded = workflow(&home, "bounded.yaml", &with("{ checkpoints: 2, ended: 30d }"));
    let start =
        |file: &str, thread: &str| home.ok(&["run", "start", file, "--thread", thread, "--input", "{\"x\": 1}"]);
    let length = |thread: &str| home.ok(&["run", "history", thread, "--json"]).json().as_array().unwrap().len();
    for (file, threads) in [(&kept, ["k1", "k2"]), (&bounded, ["b1", "b2"])] {
        threads.iter().for_each(|thread| drop(start(file, thread)));
    }
    assert_eq!((length("k1"), length("b1"), length("b2")), (3, 2, 2));
    let database = rusqlite::Connection::open(home.path().join("tidegate.db")).unwrap();
    let older = |thread: &str, days: i64| {
        let by = days * 86_400_000_000_000;
        let n: i64 = database.query_row("SELECT n FROM threads WHERE id = ?1", [thread], |row| row.get(0)).unwrap();
        database
            .execute(
                "UPDATE threads SET created_at = created_at - ?2, updated_at = updated_at - ?2 WHERE n = ?1",
                [n, by],
            )
            .unwrap();
        database.execute("UPDATE events SET at = at - ?2 WHERE n >> 32 = ?1", [n, by]).unwrap();
    };
    ["k1", "b1"].iter().for_each(|thread| older(thread, 31));
    older("b2", 29);
    // Any run of the workflow carries it out, for the runs of this workflow alone.
    start(&kept, "k3");
    assert_eq!((length("k1"), length("b1")), (3, 2));
    start(&bounded, "b3");
    assert_eq!(home.run(&["run", "state", "b1", "--json"]).error_code(), "no_thread");
    assert_eq!((length("k1"), length("b2"), length("b3")), (3, 2, 2));
    assert!(home.ok(&["doctor", "--db"]).stdout.contains("each hash fits"), "the audit stays");

    for (keys, place, why) in [
        ("{ checkpoints: 0 }", ":", "at least 1 must stay"),
        ("{ ended: 5s }", ":", "a minute at least"),
        ("{}", ":", "says nothing"),
        ("{ forever: true }", ":", "forever"),
    ] {
        let wrong = workflow(&home, "wrong.yaml", &with(keys));
        let ran = home.run(&["run", "start", &wrong, "--json"]);
        let said = ran.error().to_string();
        assert!(ran.code != Some(0) && said.contains(why) && said.contains(&format!("wrong.yaml{place}")), "{ran:?}");
    }
    let schema = home.ok(&["schema", "workflow"]);
    assert!(schema.stdout.contains("RetentionSpec"), "the schema knows it");
}

#[test]
fn an_answer_is_held_against_its_schema_and_silence_has_its_declared_outcome() {
    let home = Home::bare();
    let text = r#"
name: ask
channels: { answer: { type: string } }
nodes:
  ask:
    type: ask
    prompt: "'go?'"
    into: answer
    answer: { type: string, enum: ["yes", "no"] }
    ttl: 1s
    expired: "'no'"
edges: [ { from: START, to: ask } ]
"#;
    let file = workflow(&home, "ask.yaml", text);
    let asked = home.run(&["run", "start", &file, "--thread", "a", "--json"]);
    assert_eq!(asked.code, Some(3), "{asked:?}");
    let bad = home.run(&["run", "resume", "a", "--value", "\"maybe\"", "--json"]);
    assert_eq!((bad.code, bad.error_code().as_str()), (Some(2), "bad_answer"), "{bad:?}");
    let ended = until(&home, "a", "ends by itself", |seen| seen["status"] == "succeeded");
    assert_eq!(ended["values"]["answer"], "no");
    assert_eq!(home.ok(&["run", "replay", "a", "--json"]).json()["replayed"], true);
    let late = home.run(&["run", "resume", "a", "--value", "\"yes\"", "--json"]);
    assert_eq!((late.code, late.error_code().as_str()), (Some(4), "expired"), "{late:?}");
    let named = home.run(&["run", "resume", "a", "--answers", "{\"ask\": \"yes\"}", "--json"]);
    assert_eq!((named.code, named.error_code().as_str()), (Some(4), "expired"), "{named:?}");
    assert!(named.error()["hint"].as_str().unwrap().contains("declares"), "{named:?}");
    let broken = workflow(&home, "broken.yaml", &text.replace("{ type: string, enum", "{ type: text, enum"));
    let refused = home.run(&["run", "start", &broken, "--json"]);
    assert_eq!((refused.code, refused.error_code().as_str()), (Some(2), "bad_schema"), "{refused:?}");
}

#[test]
fn an_expression_that_takes_for_ever_is_ended_by_its_time() {
    let home = Home::bare();
    let text = "name: ever\ninput: { properties: { l: { type: array } } }\nchannels: { a: { type: integer } }\nnodes: { a: { type: expr, timeout: 1s, set: { a: 'size(l.filter(x, l.all(y, l.all(z, l.all(q, x + y + z + q >= 0)))))' } } }\nedges: [ { from: START, to: a } ]\n";
    let file = workflow(&home, "ever.yaml", text);
    let many = json!({"l": (0..100).collect::<Vec<_>>()}).to_string();
    let ended = home.run(&["run", "start", &file, "--input", &many, "--json"]);
    assert_eq!((ended.code, ended.error_code().as_str()), (Some(1), "node_timeout"), "{ended:?}");
    let few = home.ok(&["run", "start", &file, "--input", "{\"l\": [1, 2]}", "--json"]).json();
    assert_eq!(few["values"]["a"], 2);
}

#[test]
fn the_audit_is_proven_in_its_home_and_as_a_file_without_one() {
    let home = Home::bare();
    let ask = "name: ask\nchannels: { ok: { type: boolean } }\nnodes: { ask: { type: ask, prompt: \"'go?'\", into: ok } }\nedges: [{ from: START, to: ask }, { from: ask, to: END }]\n";
    let file = workflow(&home, "ask.yaml", ask);
    for thread in ["a", "b"] {
        home.run(&["run", "start", &file, "--thread", thread]);
    }
    home.ok(&["run", "resume", "a", "--value", "true"]);
    let proven = home.json(&["audit", "verify"]);
    assert!(proven["rows"].as_u64() > Some(4) && proven["rows"] == proven["seq"], "{proven}");
    let (head, whole) = (proven["hash"].as_str().unwrap(), home.json(&["audit", "export"]));
    let bare = Home::bare();
    let named = |name: &str, export: &Value| workflow(&bare, name, &export.to_string());
    let verify = |file: &str, more: &[&str]| bare.run(&[&["audit", "verify", file, "--json"], more].concat());
    let ran = verify(&named("whole.json", &whole), &["--head", head]);
    assert_eq!((ran.code, &ran.json()["hash"]), (Some(0), &json!(head)), "{ran:?}");
    let own = home.json(&["audit", "export", "a"]);
    let ran = verify(&named("a.json", &own), &[]);
    assert_eq!((ran.code, &ran.json()["thread"]), (Some(0), &json!("a")), "{ran:?}");
    assert!(ran.json()["rows"].as_u64() < proven["rows"].as_u64());

    // Who answered is put in another's name; the last row is left out; another kind of file.
    let mut changed = whole.clone();
    let rows = changed["rows"].as_array_mut().unwrap();
    let answered = rows.iter_mut().find(|row| row["event"]["by"].is_string()).unwrap();
    answered["event"]["by"] = "eve".into();
    let ran = verify(&named("changed.json", &changed), &[]);
    assert_eq!((ran.code, ran.error_code().as_str()), (Some(1), "audit_broken"), "{ran:?}");
    let mut cut = whole.clone();
    cut["rows"].as_array_mut().unwrap().pop();
    let cut = named("cut.json", &cut);
    assert_eq!(verify(&cut, &[]).code, Some(0), "what is there fits");
    assert_eq!(verify(&cut, &["--head", head]).error_code(), "audit_broken");
    assert_eq!(verify(&file, &[]).error_code(), "export_damaged");
    assert!(fs::read_dir(bare.path()).unwrap().all(|entry| entry.unwrap().file_name() != "home"), "no home was made");
}
