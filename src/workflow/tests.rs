//! What is refused, and how it is told.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::graph::{Context, Failure, Node, NodeError, Outcome};

use super::*;

const GOOD: &str = "\
name: good
version: 1
input: { properties: { x: { type: integer } }, required: [x] }
channels:
  n: { type: integer, reducer: add }
nodes:
  ada:
    type: expr
    set: { n: x + 1 }
    retry: { max_attempts: 5, initial: 1s, max: 2m }
    timeout: 90s
  ask: { type: ask, prompt: \"'go?'\", into: x, ttl: 24h, commit_point: true }
edges:
  - { from: START, to: ada }
  - { from: ada, route: [ { when: n < 3, to: ask }, { to: END } ] }
";

fn refused(text: &str) -> Failure {
    match load(text, "w.yaml", &no_files).and_then(|workflow| workflow.build(&NodeTypes::generic())) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(failure) => failure,
    }
}

fn changed(from: &str, to: &str) -> Failure {
    assert!(GOOD.contains(from), "{from}");
    refused(&GOOD.replacen(from, to, 1))
}

fn assert_told(failure: &Failure, code: &str, parts: &[&str]) {
    let told = format!(
        "{}\n{}\n{}",
        failure.message,
        failure.cause.as_deref().unwrap_or(""),
        failure.hint.as_deref().unwrap_or("")
    );
    assert_eq!(failure.code, code, "{told}");
    for part in parts {
        assert!(told.contains(part), "`{part}` is missing in:\n{told}");
    }
}

#[test]
fn a_document_is_canonical_and_builds_the_same_graph() {
    let workflow = load(GOOD, "w.yaml", &no_files).unwrap();
    let first = workflow.build(&NodeTypes::generic()).unwrap();
    let policy = &first.nodes()["ada"].policy;
    assert_eq!(policy.retry[0].max_ms, 120_000);
    assert_eq!(policy.timeout.unwrap().as_secs(), 90);
    assert_eq!(first.nodes()["ask"].policy.interrupt_ttl.unwrap().as_secs(), 86_400);
    assert!(first.nodes()["ask"].policy.commit_point);
    assert_eq!(workflow.document["nodes"]["ada"]["timeout"], json!("90s"));
    let second = build(&workflow.document, &NodeTypes::generic()).unwrap();
    assert_eq!(first.fingerprint(), second.fingerprint());
    let again = load(&workflow.document.to_string(), "w.json", &no_files).unwrap();
    assert_eq!(again.document, workflow.document);
}

#[test]
fn every_error_has_its_place() {
    for (from, to, code, parts) in [
        ("    timeout: 90s", "    timeuot: 90s", "bad_workflow", &["w.yaml:11:5", "timeuot: 90s", "timeout"][..]),
        ("timeout: 90s", "timeout: 90", "bad_workflow", &["w.yaml:11:14", "500ms"]),
        ("x + 1", "x +", "bad_expression", &["w.yaml:9:15", "set: { n: x + }", "line 1, column"]),
        ("x + 1", "y + 1", "unknown_name", &["w.yaml:9:15", "`y`", "n, x"]),
        ("n < 3", "n <", "bad_expression", &["w.yaml:15:"]),
        ("to: ask }", "to: asc }", "unknown_node", &["w.yaml:15:", "`asc`", "ada, ask"]),
        ("type: expr", "type: exprr", "misplaced_key", &["w.yaml:9:10"]),
        (", { to: END } ]", " ]", "route_open", &["w.yaml:15:", "to: END"]),
        ("reducer: add", "reducer: append", "bad_reducer", &["w.yaml:5:6"]),
        ("reducer: add", "kind: topic", "bad_reducer", &["w.yaml:5:6", "a topic is an array"]),
        ("reducer: add", "kind: topik", "bad_workflow", &["w.yaml:5:", "topik"]),
        ("reducer: add", "accumulate: true", "bad_workflow", &["w.yaml:5:", "kind: topic"]),
        ("reducer: add", "kind: any, guard: false", "bad_workflow", &["w.yaml:5:", "ephemeral"]),
        ("reducer: add", "kind: any, reducer: add", "bad_workflow", &["w.yaml:5:", "not both"]),
        ("version: 1", "version: 2", "unsupported_version", &["w.yaml:2:10"]),
        ("    timeout: 90s", "    idle_timeout: 90", "bad_workflow", &["w.yaml:11:19", "500ms"]),
        ("    timeout: 90s", "    on_error: nobody", "unknown_node", &["w.yaml", "nobody", "ada"]),
        ("    timeout: 90s", "    on_error: [ask]", "bad_workflow", &["w.yaml:11:", "{to, into}"]),
        ("    timeout: 90s", "    cache: {ttl: 1h, by: [y]}", "undeclared_channel", &["w.yaml", "`y`"]),
        ("    timeout: 90s", "    expired: '1'", "misplaced_key", &["w.yaml:11:14", "expired"]),
        ("commit_point: true }", "cache: {} }", "misplaced_key", &["w.yaml:12:64", "cache"]),
        ("  n: {", "  state: {", "reserved_name", &["w.yaml:5:10"]),
        ("required: [x]", "required: [y]", "bad_input_schema", &["w.yaml:3:"]),
        ("name: good\n", "", "missing_key", &["w.yaml:1:1", "`name`"]),
        ("to: ada }", "to: ada, send: { to: ada, each: '[]', as: i } }", "bad_edge", &["w.yaml:14:5"]),
        ("version: 1", "version: 1\nversion: 1", "bad_workflow", &["w.yaml:3:1", "version"]),
        ("max_attempts: 5", "max_attempts: 0", "bad_retry", &["w.yaml:10:"]),
        ("{ max_attempts: 5,", "{ on: [], max_attempts: 5,", "bad_retry", &["w.yaml:10:", "`on`"]),
        ("retry: { max_attempts: 5, initial: 1s, max: 2m }", "retry: []", "bad_retry", &["w.yaml:10:"]),
        ("retry: {", "retry: [ { any_failure: true }, {", "bad_workflow", &["w.yaml:"]),
        (
            "retry: { max_attempts: 5, initial: 1s, max: 2m }",
            "retry: [ { any_failure: true }, { on: [boom] } ]",
            "bad_retry",
            &["w.yaml:10:37", "takes every failure"],
        ),
        (
            "retry: { max_attempts: 5, initial: 1s, max: 2m }",
            "retry: [ { onn: [boom] } ]",
            "bad_workflow",
            &["w.yaml:10:", "onn"],
        ),
        ("into: x", "into: z", "undeclared_channel", &["`z`"]),
        ("\n  n: {", "\n  n: [", "bad_workflow", &["w.yaml:5:"]),
    ] {
        assert_told(&changed(from, to), code, parts);
    }
}

const SOUND: &str = "\
name: sound
input: { properties: { x: { type: integer }, items: { type: array } } }
channels:
  n: { type: integer }
  log: { type: array, reducer: append }
  s: { type: string }
nodes:
  ada: { type: expr, set: { n: x + 1 } }
  bob: { type: expr, set: { log: '[n]' } }
  cyn: { type: expr, set: { log: '[item]' } }
  sub:
    type: subgraph
    graph:
      channels: { log: { type: array, reducer: append }, x: { type: integer } }
      nodes: { in: { type: expr, set: { log: '[x]' } } }
      edges: [ { from: START, to: in } ]
edges:
  - { from: START, to: ada }
  - { from: ada, to: bob }
  - { from: ada, send: { to: cyn, each: items, as: item } }
  - { from: [bob, ada], to: sub }
";

#[test]
fn what_makes_no_sense_has_its_place() {
    let sound = load(SOUND, "w.yaml", &no_files).unwrap();
    let graph = sound.build(&NodeTypes::generic()).unwrap();
    let told: Vec<String> = sound.warnings(&graph).into_iter().map(|w| format!("{} {}", w.code, w.message)).collect();
    assert_eq!(told, ["never_read w.yaml:6:6: no node reads or writes channel `s`"]);
    assert_eq!(sound.refuse_warnings(&graph).unwrap_err().code, "never_read");
    for (from, to, code, parts) in [
        ("[bob, ada], to", "[bob, cyn], to", "", &[][..]),
        ("  - { from: ada, to: bob }\n", "", "barrier_unfillable", &["w.yaml:20:13", "`bob`"]),
        ("- { from: ada, to: bob }", "- { from: ada, to: [bob, ada] }", "endless_cycle", &["w.yaml:19:28", "`ada`"]),
        ("as: item", "as: thing", "unknown_name", &["`item`"]),
        ("'[item]'", "'[item, n]'", "send_unreadable", &["w.yaml:20:30", "`n`", "`item`"]),
        ("'[item]'", "'[item, has(state.n) ? n : 0]'", "", &[]),
        ("'[item]'", "'item == 1 ? [n] : [item]'", "", &[]),
        ("'[n]' } }", "'[s]' } }", "never_written", &["w.yaml:9:8", "`bob`", "`s`", "has(state.s)"]),
        ("'[n]' } }", "'[n]' }, idle_timeout: 0s }", "zero_duration", &["w.yaml:9:57", "idle_timeout"]),
        ("'[n]' } }", "'[n]' }, on_error: bob }", "handler_circle", &["w.yaml:9:53"]),
        ("'[n]' } }", "'[n]' }, cache: { ttl: 0s } }", "zero_duration", &["w.yaml:9:50"]),
        (
            "x: { type: integer } }\n      nodes",
            "x: { type: string } }\n      nodes",
            "channel_type",
            &["w.yaml:12:", "`x`"],
        ),
        ("each: items", "each: 'has(state.s) ? items : []'", "", &[]),
        ("each: items", "each: '[s]'", "never_written", &["w.yaml:20:30", "`s`"]),
        ("edges:\n  - ", "interrupt_before: [ada, eve]\nedges:\n  - ", "unknown_node", &["w.yaml:17:25", "`eve`"]),
    ] {
        assert!(SOUND.contains(from), "{from}");
        let text = SOUND.replacen(from, to, 1);
        if code.is_empty() {
            let workflow = load(&text, "w.yaml", &no_files).unwrap();
            workflow.build(&NodeTypes::generic()).unwrap_or_else(|failure| panic!("{failure:?}\n{text}"));
        } else {
            assert_told(&refused(&text), code, parts);
        }
    }
    // A thread that began before this was looked at goes on.
    let old = SOUND.replace("  - { from: ada, to: bob }\n", "");
    let document: Value = serde_saphyr::from_str(&old).unwrap();
    let kept = build(&document, &NodeTypes::generic()).unwrap();
    assert!(kept.warnings().iter().any(|finding| finding.failure.code == "barrier_unfillable"));
}

#[test]
fn an_ask_sets_channels_of_its_answer() {
    let asks = |set: &str| GOOD.replacen("into: x, ttl", &format!("set: {{ {set} }}, ttl"), 1);
    let graph = load(&asks("n: answer + x"), "w.yaml", &no_files).unwrap().build(&NodeTypes::generic()).unwrap();
    let info = &graph.nodes()["ask"].info;
    assert_eq!((&info.always_writes, &info.answers_into), (&vec!["n".to_owned()], &None));
    let reads: Vec<&String> = info.reads.as_ref().unwrap().keys().collect();
    assert_eq!(reads, ["x"], "the answer is no channel");
    assert_told(&refused(&asks("n: y")), "unknown_name", &["w.yaml:12:", "`y`", "answer"]);
    assert_told(&refused(&asks("z: answer")), "undeclared_channel", &["`z`"]);
    let prompt = GOOD.replacen("prompt: \"'go?'\"", "prompt: answer", 1);
    assert_told(&refused(&prompt), "unknown_name", &["`answer`"]);
    assert_told(&refused(&GOOD.replacen("into: x, ", "", 1)), "missing_key", &["`into`"]);
}

#[test]
fn all_errors_are_told_at_once() {
    let text = GOOD.replace("x + 1", "x +").replace("to: ask }", "to: asc }");
    let parts = ["has 2 errors", "w.yaml:9:15", "w.yaml:15:", "bad_expression"];
    assert_told(&refused(&text), "unknown_node", &parts);
}

#[test]
fn an_unknown_type_lists_the_known_ones() {
    let text = GOOD.replace("type: ask, prompt: \"'go?'\", into: x,", "type: pakager,");
    assert_told(
        &refused(&text),
        "unknown_node_type",
        &["w.yaml:12:16", "`pakager`", "ask, expr, sleep, subgraph, wait"],
    );
}

#[test]
fn size_and_depth_are_bounded() {
    assert_told(&refused(&format!("# {}\n{GOOD}", "x".repeat(MAX_BYTES))), "workflow_too_large", &["w.yaml"]);
    let deep = format!("{GOOD}description: {}{}", "[".repeat(5_000), "]".repeat(5_000));
    assert_told(&refused(&deep), "bad_workflow", &["w.yaml"]);
    let mut nested = "{nodes: {a: {type: expr}}, edges: [{from: START, to: a}]}".to_owned();
    for _ in 0..40 {
        nested =
            format!("{{name: w, nodes: {{a: {{type: subgraph, graph: {nested}}}}}, edges: [{{from: START, to: a}}]}}");
    }
    assert_told(&refused(&nested), "bad_workflow", &["w.yaml"]);
    let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n";
    assert_eq!(refused(bomb).code, "bad_workflow");
}

#[test]
fn subgraphs_may_lie_in_files_of_their_own() {
    let outer = "name: outer\nchannels: { x: { type: integer } }\nnodes:\n  sub: { type: subgraph, file: inner.yaml }\nedges:\n  - { from: START, to: sub }\n";
    let inner = "name: inner\nchannels: { x: { type: integer } }\nnodes:\n  a: { type: expr, set: { x: x + 1 } }\nedges:\n  - { from: START, to: a }\n";
    let with = |inner: &str| {
        let inner = inner.to_owned();
        move |from: &str, wanted: &str| {
            assert_eq!(wanted, "inner.yaml");
            assert!(from == "outer.yaml" || from == "inner.yaml");
            Ok(Source { name: wanted.to_owned(), text: inner.clone() })
        }
    };
    let workflow = load(outer, "outer.yaml", &with(inner)).unwrap();
    assert_eq!(workflow.document["nodes"]["sub"]["graph"]["name"], json!("inner"));
    build(&workflow.document, &NodeTypes::generic()).unwrap();

    let bad = load(outer, "outer.yaml", &with(&inner.replace("x + 1", "y"))).unwrap_err();
    assert_told(&bad, "unknown_name", &["inner.yaml:4:30"]);
    let circle = load(
        outer,
        "outer.yaml",
        &with(&inner.replace("type: expr, set: { x: x + 1 }", "type: subgraph, file: inner.yaml")),
    );
    assert_told(&circle.unwrap_err(), "subgraph_circle", &["inner.yaml:4:", "outer.yaml -> inner.yaml -> inner.yaml"]);
    assert_told(&load(outer, "outer.yaml", &no_files).unwrap_err(), "no_files", &["outer.yaml:4:32"]);
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Greeting {
    word: String,
}

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

#[derive(Serialize, JsonSchema)]
struct Greeted {
    text: String,
}

struct Greet(String);

#[async_trait]
impl Node for Greet {
    const KIND: &'static str = "greet";
    const VERSION: u32 = 1;
    type Reads = Nothing;
    type Writes = Greeted;

    async fn run(&self, _: &Context, _: Nothing) -> Result<Outcome<Greeted>, NodeError> {
        Ok(Outcome::update(Greeted { text: self.0.clone() }))
    }
}

#[test]
fn other_rooms_add_their_types() {
    let types = NodeTypes::generic().with_parameters::<Greet, Greeting>(|with, _| Ok(Greet(with.word)));
    assert_eq!(types.names(), ["ask", "expr", "greet", "sleep", "subgraph", "wait"]);
    assert!(types.parameters("greet").is_some());
    let text = |with: &str, channel: &str| {
        format!(
            "name: g\nchannels: {{ {channel}: {{ type: string }} }}\nnodes:\n  hi: {{ type: greet, with: {with} }}\nedges:\n  - {{ from: START, to: hi }}\n"
        )
    };
    let built = |text: String| load(&text, "g.yaml", &no_files)?.build(&types);
    let hello = built(text("{ word: hello }", "text")).unwrap().fingerprint();
    let servus = built(text("{ word: servus }", "text")).unwrap().fingerprint();
    assert_ne!(hello, servus, "parameters belong to the fingerprint");
    let wrong = built(text("{ wort: hello }", "text")).err().unwrap();
    assert_told(&wrong, "bad_parameters", &["g.yaml:4:", "`wort`"]);
    assert_told(&built(text("{ word: hello }", "x")).err().unwrap(), "undeclared_channel", &["`text`"]);
}

#[test]
fn the_schema_admits_what_is_loaded() {
    let schema = json_schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let document = load(GOOD, "w.yaml", &no_files).unwrap().document;
    assert!(
        validator.is_valid(&document),
        "{:?}",
        validator.iter_errors(&document).map(|e| e.to_string()).collect::<Vec<_>>()
    );
    let mut wrong: Value = document;
    wrong["channels"]["n"] = json!({"type": "array", "kind": "topic", "accumulate": true});
    assert!(validator.is_valid(&wrong));
    wrong["nodes"]["ada"]["retry"] = json!([{"on": ["boom"], "max_attempts": 2}, {}]);
    assert!(validator.is_valid(&wrong), "{:?}", validator.iter_errors(&wrong).collect::<Vec<_>>());
    wrong["channels"]["n"]["kind"] = json!("topik");
    assert!(!validator.is_valid(&wrong));
    wrong["channels"]["n"]["kind"] = json!("topic");
    wrong["nodes"]["ada"]["tiemout"] = json!("1s");
    assert!(!validator.is_valid(&wrong));
}

const TOOLS: &str = "\
name: tools
channels: { x: { type: any } }
nodes:
  a:
    type: command
    with: { run: [sh, a.sh], stdin: x, env_from: { K: { file: k } }, into: x }
  b:
    type: http
    with: { method: POST, url: 'https://h/', expect: [2xx, 409], undo: { method: DELETE, url_expr: answer.body } }
edges:
  - { from: START, to: a }
  - { from: a, to: b }
";

struct Nobody;

#[async_trait]
impl crate::ports::HttpCaller for Nobody {
    async fn call(
        &self,
        _: &crate::ports::HttpCall,
        _: Option<&str>,
    ) -> Result<crate::ports::HttpAnswer, crate::ports::PortError> {
        Err(crate::ports::PortError::new("http_unreachable", "nobody is there"))
    }
}

#[test]
fn tools_are_part_of_a_file_like_all_types() {
    let types = NodeTypes::generic().with_tools(std::sync::Arc::new(Nobody));
    let workflow = load(TOOLS, "w.yaml", &no_files).unwrap();
    let first = workflow.build(&types).unwrap();
    assert_eq!(first.nodes()["b"].info.writes, Some(std::collections::BTreeMap::new()));
    assert_eq!(build(&workflow.document, &types).unwrap().fingerprint(), first.fingerprint());
    let settled = workflow.in_folder(std::path::Path::new("/flows")).unwrap();
    let with = &settled.document["nodes"]["a"]["with"];
    assert_eq!((&with["cwd"], &with["env_from"]["K"]["file"]), (&json!("/flows"), &json!("/flows/k")));
    let second = settled.build(&types).unwrap().fingerprint();
    assert_eq!(build(&settled.document, &types).unwrap().fingerprint(), second);

    let validator = jsonschema::validator_for(&json_schema()).unwrap();
    let mut document = settled.document;
    assert!(validator.is_valid(&document), "{:?}", validator.iter_errors(&document).collect::<Vec<_>>());
    document["nodes"]["a"]["with"]["rnu"] = json!(1);
    assert!(!validator.is_valid(&document));
}

#[test]
fn faults_of_tools_have_their_places() {
    for (from, to, code, place, part) in [
        ("stdin: x", "stdn: x", "bad_parameters", "w.yaml:6:36", "stdn"),
        ("stdin: x", "stdin: y", "unknown_name", "w.yaml:6:37", "`y`"),
        ("[sh, a.sh]", "sh", "bad_parameters", "w.yaml:6:18", "sequence"),
        ("answer.body", "answr.body", "unknown_name", "w.yaml:9:", "`answr`"),
        ("[2xx, 409]", "[2xx, 4]", "bad_parameters", "w.yaml:9:", "`4`"),
        ("{ file: k }", "{ fill: k }", "bad_parameters", "w.yaml:6:", "fill"),
    ] {
        assert!(TOOLS.contains(from), "{from}");
        let failure = load(&TOOLS.replacen(from, to, 1), "w.yaml", &no_files).unwrap_err();
        assert_told(&failure, code, &[place, part]);
    }
}
