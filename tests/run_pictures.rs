//! Checks and pictures of workflows, and the path of a run, through the binary.

mod release_support;

use std::fs;

use release_support::Home;
use serde_json::{Value, json};

fn workflow(home: &Home, name: &str, text: &str) -> String {
    let path = home.path().join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const ODD: &str = "\
name: odd
channels:
  x: { type: integer }
  unused: { type: string }
nodes:
  ada: { type: expr, set: { x: '1' } }
  bob: { type: expr, set: { x: '2' } }
edges:
  - { from: START, to: ada }
";

#[test]
fn warnings_are_notes_and_errors_for_those_who_want_that() {
    let home = Home::bare();
    let file = workflow(&home, "odd.yaml", ODD);
    let ran = home.ok(&["run", "start", &file]);
    for told in ["unreachable_node", "odd.yaml:7:8", "bob: { type: expr", "never_read", "odd.yaml:4:11", "`unused`"] {
        assert!(ran.stderr.contains(told), "{told}: {ran:?}");
    }
    assert!(!ran.stdout.contains("warning"), "{ran:?}");
    // Machines get the documented shape and nothing else.
    let json = home.ok(&["run", "start", &file, "--json"]);
    assert_eq!((&json.json()["status"], json.stderr.as_str()), (&json!("succeeded"), ""), "{json:?}");
    let before = home.ok(&["runs", "--json"]).json().as_array().unwrap().len();
    for args in [&["run", "start", &file, "--strict"][..], &["graph", &file, "--strict"]] {
        let refused = home.run(&[args, &["--json"]].concat());
        assert_eq!((refused.code, refused.error_code().as_str()), (Some(2), "unreachable_node"), "{refused:?}");
        let cause = refused.json()["error"]["cause"].as_str().unwrap().to_owned();
        assert!(cause.contains("odd.yaml:7:8") && cause.contains("never_read"), "{cause}");
    }
    assert_eq!(home.ok(&["runs", "--json"]).json().as_array().unwrap().len(), before);
    let mended =
        workflow(&home, "even.yaml", &ODD.replace("to: ada", "to: [ada]").replace("  unused: { type: string }\n", ""));
    let mended = {
        fs::write(
            &mended,
            fs::read_to_string(&mended).unwrap().replace("  bob: { type: expr, set: { x: '2' } }\n", ""),
        )
        .unwrap();
        mended
    };
    assert_eq!(home.ok(&["graph", &mended, "--strict"]).stderr, "");
    home.ok(&["run", "start", &mended, "--strict"]);
    for built_in in ["model_deployer", "rollback"] {
        home.ok(&["graph", built_in, "--strict"]);
    }
}

#[test]
fn a_workflow_that_makes_no_sense_is_a_wrong_file() {
    let home = Home::bare();
    let file = workflow(&home, "no.yaml", &ODD.replace("to: ada }", "to: ada }\n  - { from: [ada, bob], to: ada }"));
    for args in [&["run", "start", &file, "--json"][..], &["graph", &file, "--json"]] {
        let refused = home.run(args);
        assert_eq!((refused.code, refused.error_code().as_str()), (Some(2), "barrier_unfillable"), "{refused:?}");
        let error = &refused.json()["error"];
        assert!(error["message"].as_str().unwrap().contains("no.yaml:10:13"), "{error}");
        assert!(error["cause"].as_str().unwrap().contains("10 |   - { from: [ada, bob], to: ada }"), "{error}");
    }
}

const LOOP: &str = "\
name: loop
channels:
  n: { type: integer, reducer: add }
  log: { type: array, reducer: append }
  answer: { type: string }
  wrong: { type: object }
nodes:
  a-b: { type: expr, set: { n: '1' } }
  a_b: { type: expr, set: { log: '[1 / 0]' }, on_error: { to: sub, into: wrong } }
  sub:
    type: subgraph
    graph:
      channels: { n: { type: integer, reducer: add }, log: { type: array, reducer: append } }
      nodes: { each: { type: expr, set: { log: '[item]' } }, last: { type: expr, set: { n: '0' } } }
      edges:
        - { from: START, send: { to: each, each: '[1, 2, 3]', as: item } }
        - { from: each, to: last }
  ask: { type: ask, prompt: \"'go <on> & \\\"on\\\"?'\", into: answer }
edges:
  - { from: START, to: a-b }
  - { from: a-b, route: [ { when: 'n < 400', to: a-b }, { to: [a_b] } ] }
  - { from: sub, to: ask }
  - { from: ask, to: END }
";

#[test]
fn a_long_run_is_a_short_path_and_a_picture() {
    let home = Home::bare();
    let file = workflow(&home, "loop.yaml", LOOP);
    let asked = home.run(&["run", "start", &file, "--thread", "l", "--recursion-limit", "1000", "--json"]);
    assert_eq!(asked.code, Some(3), "{asked:?}");
    let shown = home.ok(&["run", "show", "l"]).stdout;
    let (_, path) = shown.split_once("path\n").unwrap();
    for told in ["↻ 400 × (a-b)", "up to superstep 400", "↷ a_b", "handled by sub", "each ×3", "▸ ask", "asks, for"]
    {
        assert!(path.contains(told), "{told}:\n{path}");
    }
    let json = home.ok(&["run", "show", "l", "--json"]).json();
    let steps = json["path"].as_array().unwrap();
    assert_eq!(steps.len(), 403);
    assert_eq!((&steps[399]["nodes"][0]["visit"], &steps[399]["nodes"][0]["state"]), (&json!(400), &json!("done")));
    assert_eq!(
        (&steps[400]["nodes"][0]["state"], &steps[400]["nodes"][0]["handler"]),
        (&json!("handled"), &json!("sub"))
    );
    let inner = &steps[401]["nodes"][0]["inner"][0];
    assert_eq!((&inner[0]["nodes"][0]["tasks"], &inner[1]["nodes"][0]["node"]), (&json!(3), &json!("last")));
    assert_eq!(steps[402]["nodes"][0]["state"], "asks");

    let mermaid = home.ok(&["graph", "--run", "l"]).stdout;
    // Two names that look alike without their marks are two nodes.
    for line in [
        "a_b[\"<b>a-b</b>",
        "a_b_2[\"<b>a_b</b>",
        "×400 · ",
        "class a_b ran",
        "class a_b_2 failed",
        "class ask here",
        "linkStyle",
    ] {
        assert!(mermaid.contains(line), "{line}:\n{mermaid}");
    }
    assert!(mermaid.contains("|\"n #lt; 400\"|"), "{mermaid}");
    let svg = home.ok(&["graph", "--run", "l", "--format", "svg"]).stdout;
    for part in
        ["prefers-color-scheme:dark", "class=\"box here\"", "class=\"box failed\"", "edge dashed taken", "n &lt; 400"]
    {
        assert!(svg.contains(part), "{part}:\n{svg}");
    }
    let dot = home.ok(&["graph", "--run", "l", "--format", "dot"]).stdout;
    assert!(dot.contains("subgraph \"cluster_sub\"") && dot.contains("penwidth=3"), "{dot}");

    home.ok(&["run", "resume", "l", "--value", "\"yes\""]);
    let ended = home.ok(&["run", "show", "l", "--json"]).json();
    let last = &ended["path"][402]["nodes"][0];
    assert_eq!((&last["state"], last["waited_ms"].as_u64().is_some()), (&json!("done"), true));
    assert_eq!(ended["path"][403]["nodes"], json!([]));
    assert!(home.ok(&["graph", "--run", "l"]).stdout.contains("class ask ran"));
}

#[test]
fn the_path_is_that_of_the_branch() {
    let home = Home::bare();
    let text = "\
name: steps
channels: { x: { type: integer } }
nodes:
  ada: { type: expr, set: { x: x + 1 } }
  bob: { type: expr, set: { x: '10 / x' } }
edges: [ { from: START, to: ada }, { from: ada, to: bob } ]
";
    let file = workflow(&home, "steps.yaml", text);
    let failed = home.run(&["run", "start", &file, "--thread", "s", "--input", "{\"x\": -1}"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let states = || -> Vec<Value> {
        let shown = home.ok(&["run", "show", "s", "--json"]).json();
        let nodes = |step: &Value| step["nodes"].as_array().unwrap().clone();
        shown["path"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(nodes)
            .map(|v| json!([v["node"], v["visit"], v["state"]]))
            .collect()
    };
    assert_eq!(states(), [json!(["ada", 1, "done"]), json!(["bob", 1, "failed"])]);
    let history = home.ok(&["run", "history", "s", "--json"]).json();
    let first = history.as_array().unwrap().last().unwrap()["checkpoint"].as_str().unwrap().to_owned();
    home.ok(&["run", "fork", "s", "--checkpoint", &first, "--values", "{\"x\": 1}"]);
    assert_eq!(states(), [json!(["ada", 1, "passed"]), json!(["ada", 1, "due"])]);
    home.ok(&["run", "continue", "s"]);
    let shown = home.ok(&["run", "show", "s"]).stdout;
    // The timeline below it has everything that ever ran.
    let (path, _) = shown.split_once("path\n").unwrap().1.split_once("\n\n").unwrap();
    assert!(path.contains("(branched off)") && !path.contains('✗'), "{shown}");
    assert_eq!(states().len(), 3);
}

#[test]
fn a_question_that_expired_is_one_visit() {
    let home = Home::bare();
    let text = "\
name: late
channels: { a: { type: string }, x: { type: integer } }
nodes:
  q: { type: ask, prompt: \"'?'\", into: a, ttl: 500ms, expired: \"'nobody'\" }
  bad: { type: expr, set: { x: '1 / 0' } }
edges: [ { from: START, to: q }, { from: q, to: bad } ]
";
    let file = workflow(&home, "late.yaml", text);
    assert_eq!(home.run(&["run", "start", &file, "--thread", "q"]).code, Some(3));
    home.until("the end", || {
        home.run(&["run", "continue", "q"]);
        (home.ok(&["run", "state", "q", "--json"]).json()["status"] == "failed").then_some(())
    });
    let path = home.ok(&["run", "show", "q", "--json"]).json()["path"].clone();
    let visits: Vec<Value> =
        path.as_array().unwrap().iter().flat_map(|step| step["nodes"].as_array().unwrap().clone()).collect();
    let told: Vec<Value> = visits.iter().map(|v| json!([v["node"], v["visit"], v["state"]])).collect();
    assert_eq!(told, [json!(["q", 1, "done"]), json!(["bad", 1, "failed"])], "{path}");
    assert!(visits[0]["waited_ms"].as_u64() >= Some(400), "{path}");
}
