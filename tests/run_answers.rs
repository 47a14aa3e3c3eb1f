//! Answers to a run's questions from the command line: which question is meant, all or none, once, and what it was meant for.

mod release_support;

use std::fs;

use release_support::{Home, Ran};
use serde_json::{Value, json};

fn workflow(home: &Home, name: &str, text: &str) -> String {
    let path = home.path().join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn state(home: &Home, thread: &str) -> Value {
    home.ok(&["run", "state", thread, "--json"]).json()
}

fn resume(home: &Home, thread: &str, answers: &Value) -> Ran {
    home.run(&["run", "resume", thread, "--answers", &answers.to_string(), "--json"])
}

fn refused(ran: &Ran, exit: i32, code: &str) {
    assert_eq!((ran.code, ran.error_code().as_str()), (Some(exit), code), "{ran:?}");
}

/// The ids of the open questions of a node, with their namespaces.
fn open(home: &Home, thread: &str, node: &str) -> Vec<(String, String)> {
    let text = |asked: &Value, key: &str| asked[key].as_str().unwrap().to_owned();
    let state = state(home, thread);
    let asked = state["interrupts"].as_array().unwrap();
    asked.iter().filter(|i| i["node"] == node).map(|i| (text(i, "ns"), text(i, "id"))).collect()
}

const MANY: &str = r#"
name: many
input: { properties: { items: { type: array } }, required: [items] }
channels: { answers: { type: array, reducer: append } }
nodes: { ask: { type: ask, prompt: x, into: answers } }
edges: [ { from: START, send: { to: ask, each: items, as: x } } ]
"#;

const NESTED: &str = r#"
name: nested
channels: { a: { type: string }, b: { type: string } }
nodes:
  q: { type: ask, prompt: "'outer'", into: a }
  sub:
    type: subgraph
    graph:
      channels: { b: { type: string } }
      nodes: { q: { type: ask, prompt: "'inner'", into: b } }
      edges: [ { from: START, to: q } ]
edges: [ { from: START, to: q }, { from: START, to: sub } ]
"#;

#[test]
fn a_name_that_means_several_questions_answers_none() {
    let home = Home::bare();
    let many = workflow(&home, "many.yaml", MANY);
    let items = json!({"items": (0..30).collect::<Vec<_>>()}).to_string();
    assert_eq!(home.run(&["run", "start", &many, "--thread", "many", "--input", &items]).code, Some(3));
    let ran = resume(&home, "many", &json!({"ask": [1]}));
    refused(&ran, 2, "question_ambiguous");
    let ids = open(&home, "many", "ask");
    assert_eq!(ids.len(), 30, "nothing was recorded");
    let cause = ran.error()["cause"].as_str().unwrap().to_owned();
    assert!(cause.contains(&ids[0].1) && cause.contains("and 10 more"), "{cause}");
    assert_eq!(resume(&home, "many", &json!({&ids[0].1: [1], &ids[7].1: [2]})).code, Some(3));
    assert_eq!(open(&home, "many", "ask").len(), 28);

    let nested = workflow(&home, "nested.yaml", NESTED);
    assert_eq!(home.run(&["run", "start", &nested, "--thread", "nested"]).code, Some(3));
    let ran = resume(&home, "nested", &json!({"q": "yes"}));
    refused(&ran, 2, "question_ambiguous");
    let asked = open(&home, "nested", "q");
    let (outer, inner): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(ns, _)| ns.is_empty());
    let told = format!("{}|q: {}", inner[0].0, inner[0].1);
    assert!(ran.error()["cause"].as_str().unwrap().contains(&told), "{ran:?}");
    // With the other one answered, the name means one.
    assert_eq!(resume(&home, "nested", &json!({&inner[0].1: "in"})).code, Some(3));
    let done = resume(&home, "nested", &json!({"q": "out"}));
    assert_eq!(done.json()["values"], json!({"a": "out", "b": "in"}), "{done:?}");
    assert_eq!(outer.len(), 1);
}

#[test]
fn a_failed_run_tells_what_became_of_its_questions() {
    let home = Home::bare();
    let text = TWO.replace("edges: [", "  broken: { type: expr, set: { b: \"string(1 / size(a.matches('x') ? [1] : []))\" } }\nedges: [ { from: first, to: broken },");
    let file = workflow(&home, "fails.yaml", &text);
    assert_eq!(home.run(&["run", "start", &file, "--thread", "f"]).code, Some(3));
    // The failure comes in the superstep behind the answers, so both are there when it ends.
    let ended = resume(&home, "f", &json!({"first": "yes", "second": "no"}));
    assert_eq!((ended.code, ended.error_code().as_str()), (Some(1), "expression_failed"), "{ended:?}");
    refused(&resume(&home, "f", &json!({"second": "yes"})), 4, "already_decided");
    refused(&home.run(&["run", "resume", "f", "--value", "\"yes\"", "--json"]), 4, "already_decided");
}

const TWO: &str = r#"
name: two
channels: { a: { type: string }, b: { type: string } }
nodes:
  first: { type: ask, prompt: "'first?'", into: a, answer: { enum: ["yes", "no"] } }
  second: { type: ask, prompt: "'second?'", into: b, answer: { enum: ["yes", "no"] } }
edges: [ { from: START, to: first }, { from: START, to: second } ]
"#;

#[test]
fn answers_are_recorded_all_or_none() {
    let home = Home::bare();
    let file = workflow(&home, "two.yaml", TWO);
    assert_eq!(home.run(&["run", "start", &file, "--thread", "t"]).code, Some(3));
    refused(&resume(&home, "t", &json!({"first": "yes", "second": "maybe"})), 2, "bad_answer");
    assert_eq!(state(&home, "t")["interrupts"].as_array().unwrap().len(), 2, "nothing was recorded");
    let id = open(&home, "t", "first").remove(0).1;
    refused(&resume(&home, "t", &json!({"first": "yes", &id: "no"})), 2, "question_ambiguous");
    refused(&resume(&home, "t", &json!({"first": "yes", "third": "no"})), 2, "no_interrupt");
    let done = resume(&home, "t", &json!({"first": "yes", "second": "no"}));
    assert_eq!(done.json()["values"], json!({"a": "yes", "b": "no"}), "{done:?}");
}

#[test]
fn a_second_answer_is_told_who_was_first() {
    let home = Home::bare();
    let file = workflow(&home, "two.yaml", TWO);
    assert_eq!(home.run(&["run", "start", &file, "--thread", "t"]).code, Some(3));
    let id = open(&home, "t", "first").remove(0).1;
    assert_eq!(resume(&home, "t", &json!({"first": "yes"})).code, Some(3));
    let decided = |home: &Home| {
        for key in ["first", id.as_str()] {
            let ran = resume(home, "t", &json!({key: "no"}));
            refused(&ran, 4, "already_decided");
            let said = ran.error()["message"].as_str().unwrap().to_owned();
            assert!(said.contains("was answered by") && said.contains("through run resume"), "{said}");
        }
    };
    decided(&home);
    assert_eq!(resume(&home, "t", &json!({"second": "no"})).code, Some(0));
    decided(&home);
    refused(&home.run(&["run", "resume", "t", "--value", "\"no\"", "--json"]), 4, "already_decided");
    refused(&resume(&home, "t", &json!({"never": 1})), 2, "no_interrupt");

    assert_eq!(home.run(&["run", "start", &file, "--thread", "c"]).code, Some(3));
    assert_eq!(resume(&home, "c", &json!({"first": "yes"})).code, Some(3));
    home.ok(&["run", "cancel", "c"]);
    refused(&resume(&home, "c", &json!({"first": "no"})), 4, "already_decided");
    let ran = resume(&home, "c", &json!({"second": "no"}));
    refused(&ran, 4, "withdrawn");
    assert!(!ran.error()["hint"].as_str().unwrap().contains("approvals"), "{ran:?}");
}

#[test]
fn an_answer_may_name_the_digest_of_what_it_answers() {
    let home = Home::bare();
    let file = workflow(&home, "two.yaml", TWO);
    assert_eq!(home.run(&["run", "start", &file, "--thread", "t"]).code, Some(3));
    let digest = |node: &str| {
        let shown = home.ok(&["run", "show", "t", "--json"]).json();
        let asked = shown["interrupts"].as_array().unwrap().iter().find(|i| i["node"] == node).unwrap().clone();
        asked["digest"].as_str().unwrap().to_owned()
    };
    let (first, second) = (digest("first"), digest("second"));
    assert!(first.starts_with("sha256:") && first != second);
    let both = json!({"first": "yes", "second": "no"}).to_string();
    let with = |digests: &str| home.run(&["run", "resume", "t", "--answers", &both, "--digest", digests, "--json"]);
    refused(&with(&first), 4, "changed");
    refused(&with("sha256:00"), 4, "changed");
    assert_eq!(state(&home, "t")["interrupts"].as_array().unwrap().len(), 2, "nothing was recorded");
    let done = with(&format!("{first},{second}"));
    assert_eq!(done.json()["values"], json!({"a": "yes", "b": "no"}), "{done:?}");
}

#[test]
fn what_is_odd_on_the_command_line_is_refused() {
    let home = Home::bare();
    let file = workflow(&home, "two.yaml", TWO);
    assert_eq!(home.run(&["run", "start", &file, "--thread", "t"]).code, Some(3));
    let long = "x".repeat(201);
    for (args, code, says) in [
        (&["run", "resume", "t", "--answers", r#"{"first": "yes", "first": "no"}"#][..], "bad_json", "`first`"),
        (&["run", "resume", "t", "--value", r#"{"a": {"b": 1, "b": 2}}"#], "bad_json", "`b`"),
        (&["run", "start", &file, "--input", r#"{"a": "1", "a": "2"}"#], "bad_json", "`a`"),
        (&["run", "update", "t", "--values", r#"{"a": "1", "a": "2"}"#, "--as-node", "first"], "bad_json", "`a`"),
        (&["run", "resume", "t", "--digest", "sha256:00"], "usage", "--digest"),
        (&["run", "start", &file, "--recursion-limit", "0"], "usage", "0"),
        (&["run", "signal", "t", ""], "usage", "1 to 200"),
        (&["run", "signal", "t", "a\nb"], "usage", "control"),
        (&["run", "signal", "t", &long], "usage", "1 to 200"),
    ] {
        let ran = home.run(&[args, &["--json"]].concat());
        refused(&ran, 2, code);
        assert!(ran.error().to_string().contains(says), "{ran:?}");
    }
    home.ok(&["run", "signal", "t", &long[1..]]);
}

#[test]
fn of_several_that_begin_a_run_one_wins_and_the_others_are_refused() {
    let home = Home::bare();
    let file = workflow(&home, "two.yaml", TWO);
    home.ok(&["runs"]);
    let begun: Vec<_> = (0..6).map(|_| home.start(&["run", "start", &file, "--thread", "same", "--json"])).collect();
    for ran in begun.into_iter().map(release_support::Running::end) {
        // Who comes after it was accepted gives it new input, and may find it in another's hand.
        assert!([Some(3), Some(4)].contains(&ran.code), "{ran:?}");
        if ran.code == Some(4) {
            assert!(["thread_exists", "lease_held", "lease_lost"].contains(&ran.error_code().as_str()), "{ran:?}");
        }
    }
}

#[test]
fn what_a_file_says_moves_no_cursor() {
    let home = Home::bare();
    let text = TWO.replace("name: two", "name: \"two\\e[2J\"").replace("'first?'", "'\\e]0;first\\a'");
    let file = workflow(&home, "two.yaml", &text);
    let asked = home.run(&["run", "start", &file, "--thread", "t"]);
    assert_eq!(asked.code, Some(3), "{asked:?}");
    for ran in [asked, home.ok(&["run", "show", "t"]), home.ok(&["runs"])] {
        let raw = |text: &str| text.contains(|c: char| c.is_control() && c != '\n' && c != '\t');
        assert!(!raw(&ran.stdout) && !raw(&ran.stderr) && ran.stdout.contains("two\\u{1b}[2J"), "{ran:?}");
    }
    assert_eq!(state(&home, "t")["workflow"], "two\u{1b}[2J", "a program gets it as it is");
}
