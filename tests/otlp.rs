//! Traces of runs, as a collector gets them: a real receiver of OTLP over HTTP, in the test's process.

mod release_support;

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::post;
use release_support::{Home, Ran, Running};
use serde_json::Value;

const APPROVAL: &str = include_str!("workflows/approval.yaml");

/// A program with an effect, between two plain nodes; it waits until a file is there.
const EFFECT: &str = r#"
name: effect
channels:
  file: { type: string }
  said: { type: any }
nodes:
  before: { type: expr, set: { said: "'before'" } }
  work:
    type: command
    with:
      run: [sh, -c, 'echo begun > "$1.begun"; while [ ! -e "$1" ]; do sleep 0.05; done; echo 1', sh]
      args: "[file]"
      into: said
      repeat: true
  after: { type: expr, set: { said: "'after'" } }
edges:
  - { from: START, to: before }
  - { from: before, to: work }
  - { from: work, to: after }
"#;

/// What has arrived: the kind of each body, and the body.
type Arrived = Arc<Mutex<Vec<(String, Bytes)>>>;

/// A collector.
struct Collector {
    url: String,
    arrived: Arrived,
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    fn start() -> Self {
        let arrived = Arrived::default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let into = arrived.clone();
        let take = move |headers: HeaderMap, body: Bytes| async move {
            let kind = headers["content-type"].to_str().unwrap().to_owned();
            into.lock().unwrap().push((kind, body));
            "{}"
        };
        runtime.spawn(async { axum::serve(listener, Router::new().route("/v1/traces", post(take))).await });
        Self { url, arrived, _runtime: runtime }
    }

    /// All spans that came as JSON, each with the resource's attributes under `resource`.
    fn spans(&self) -> Vec<Value> {
        let mut spans = Vec::new();
        for (kind, body) in self.arrived.lock().unwrap().iter() {
            assert_eq!(kind, "application/json");
            let told: Value = serde_json::from_slice(body).unwrap();
            for resource in told["resourceSpans"].as_array().unwrap() {
                for scope in resource["scopeSpans"].as_array().unwrap() {
                    for span in scope["spans"].as_array().unwrap() {
                        let mut span = span.clone();
                        span["resource"] = resource["resource"].clone();
                        spans.push(span);
                    }
                }
            }
        }
        spans
    }
}

fn command(home: &Home, args: &[&str], endpoint: &str, protocol: &str) -> Running {
    let mut command = home.command(args);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
    Running::start(command)
}

fn run(home: &Home, args: &[&str], endpoint: &str) -> Ran {
    command(home, args, endpoint, "http/json").end()
}

fn workflow(home: &Home, text: &str) -> String {
    let path = home.beside("workflow.yaml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn named<'s>(spans: &'s [Value], name: &str) -> Vec<&'s Value> {
    spans.iter().filter(|span| span["name"] == name).collect()
}

fn attribute<'s>(span: &'s Value, name: &str) -> &'s Value {
    let all = span["attributes"].as_array().unwrap();
    let found = all.iter().find(|attribute| attribute["key"] == name);
    let value = &found.unwrap_or_else(|| panic!("no {name}: {span}"))["value"];
    value.as_object().unwrap().values().next().unwrap()
}

fn nanos(span: &Value, key: &str) -> u64 {
    span[key].as_str().unwrap().parse().unwrap()
}

#[test]
fn both_runs_of_a_thread_are_one_trace() {
    let (home, collector) = (Home::bare(), Collector::start());
    let file = workflow(&home, APPROVAL);
    let thread = "0190a1b2-0000-7000-8000-00000000abcd";
    let ran = run(&home, &["run", "start", &file, "--thread", thread, "--json"], &collector.url);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let ran = run(&home, &["run", "resume", thread, "--value", "\"yes\"", "--json"], &collector.url);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let spans = collector.spans();
    let traces: BTreeSet<&str> = spans.iter().map(|span| span["traceId"].as_str().unwrap()).collect();
    assert_eq!(traces, BTreeSet::from([thread.replace('-', "").as_str()]), "the thread's id is the trace's");
    let runs = named(&spans, "run approval");
    let statuses: Vec<&Value> = runs.iter().map(|run| attribute(run, "tidegate.status")).collect();
    assert_eq!(statuses, ["interrupted", "succeeded"]);
    assert_eq!(attribute(runs[1], "tidegate.thread.id"), thread);
    let service = runs[0]["resource"]["attributes"].to_string();
    assert!(service.contains("\"service.name\"") && service.contains("\"tidegate\""), "{service}");
    // Each node is in a superstep, each superstep in its run.
    for name in ["node prepare", "node approve", "node deploy"] {
        let node = named(&spans, name)[0];
        let step = spans.iter().find(|span| span["spanId"] == node["parentSpanId"]).unwrap();
        assert!(step["name"].as_str().unwrap().starts_with("superstep"), "{step}");
        let run = spans.iter().find(|span| span["spanId"] == step["parentSpanId"]).unwrap();
        assert_eq!(run["name"], "run approval");
        assert!(nanos(run, "startTimeUnixNano") <= nanos(node, "startTimeUnixNano"), "{run} {node}");
        assert!(nanos(node, "endTimeUnixNano") <= nanos(run, "endTimeUnixNano"), "{run} {node}");
    }
    assert_eq!(named(&spans, "node approve").len(), 2, "once it asked, once it had its answer");
}

#[test]
fn a_run_that_goes_on_after_a_crash_joins_its_trace() {
    let (home, collector) = (Home::bare(), Collector::start());
    let file = workflow(&home, EFFECT);
    let gate = home.beside("gate");
    fs::write(home.beside("input.json"), serde_json::json!({"file": gate.to_str().unwrap()}).to_string()).unwrap();
    let start = ["run", "start", &file, "--thread", "crashes", "--input", "@input.json", "--json"];
    let first = command(&home, &start, &collector.url, "http/json");
    let begun = home.beside("gate.begun");
    home.until("the program runs, and what came before has been sent", || {
        (begun.exists() && !named(&collector.spans(), "node before").is_empty()).then_some(())
    });
    first.kill9();
    assert!(named(&collector.spans(), "run effect").is_empty(), "it had no time to end");
    fs::write(&gate, "").unwrap();
    let ran = run(&home, &["run", "continue", "crashes", "--json"], &collector.url);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let spans = collector.spans();
    let traces: BTreeSet<&str> = spans.iter().map(|span| span["traceId"].as_str().unwrap()).collect();
    assert_eq!(traces.len(), 1, "{traces:?}");
    let run = named(&spans, "run effect")[0];
    assert_eq!(attribute(run, "tidegate.status"), "succeeded");
    let effects: Vec<&Value> =
        spans.iter().filter(|span| span["name"].as_str().unwrap().starts_with("effect ")).collect();
    let node = named(&spans, "node work")[0];
    assert!(effects.iter().any(|effect| effect["parentSpanId"] == node["spanId"]), "{effects:?} {node}");
}

#[test]
fn a_failure_is_told_as_one() {
    let (home, collector) = (Home::bare(), Collector::start());
    let file = workflow(&home, include_str!("workflows/boom.yaml"));
    let ran =
        run(&home, &["run", "start", &file, "--thread", "fails", "--input", "{\"x\": 1}", "--json"], &collector.url);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let spans = collector.spans();
    let run = named(&spans, "run boom")[0];
    assert_eq!((attribute(run, "tidegate.status").as_str(), &run["status"]["code"]), (Some("failed"), &2.into()));
    assert!(run["status"]["message"].as_str().unwrap().contains(": "), "{run}");
}

#[test]
fn protobuf_is_what_collectors_get_where_nobody_says() {
    let (home, collector) = (Home::bare(), Collector::start());
    let file = workflow(&home, include_str!("workflows/trivial.yaml"));
    let thread = "0190a1b2-0000-7000-8000-00000000abce";
    let mut start = home.command(&["run", "start", &file, "--thread", thread, "--json"]);
    start.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url).env("OTEL_SERVICE_NAME", "releases-of-mine");
    let ran = Running::start(start).end();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let arrived = collector.arrived.lock().unwrap();
    let (kind, body) = arrived.first().expect("something has arrived");
    assert_eq!(kind, "application/x-protobuf");
    let has = |bytes: &[u8]| body.windows(bytes.len()).any(|window| window == bytes);
    // Field 1 of a span, with its length: the trace's id.
    let id = u128::from_str_radix(&thread.replace('-', ""), 16).unwrap().to_be_bytes();
    assert!(has(&[&[0x0a, 16], id.as_slice()].concat()), "the trace's id");
    assert!(has(b"run trivial") && has(b"node inc") && has(b"releases-of-mine"), "names");
}

#[test]
fn a_collector_that_is_down_or_hangs_slows_no_run() {
    let home = Home::bare();
    let file = workflow(&home, include_str!("workflows/trivial.yaml"));
    // Nobody listens there; there somebody takes connections and says nothing.
    let hangs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hanging = format!("http://{}", hangs.local_addr().unwrap());
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    for endpoint in [gone, hanging] {
        let began = Instant::now();
        let ran = command(&home, &["run", "start", &file], &endpoint, "http/json").end();
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        let warned = ran.stderr.matches("did not get to the collector of traces").count();
        assert_eq!(warned, 1, "{ran:?}");
    }
    // An address that is none is told, and the run goes on without.
    let ran = command(&home, &["run", "start", &file, "--json"], "::no address::", "http/json").end();
    assert_eq!(ran.code, Some(0), "{ran:?}");
}
