//! The exchanges that were recorded of the reference, replayed against our server in their order. Ids are compared by where they appear
//! first, times by their form. What differs on purpose stands in [`DIFFERENCES`], with its reason; anything else fails.

mod server_support;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use server_support::{Serve, events};

/// What is done about a difference.
enum Differs {
    /// Another status, or another body; with a detail where it is a refusal.
    Status(u16),
    /// It is not sent: there is no such graph here, or nothing to compare.
    NotSent,
    /// Another graph is asked for, `slow` instead of `trivial`.
    Asked,
    /// Both are edited before they are compared.
    Edit(fn(&mut Value, &mut Value)),
}

#[derive(Clone)]
struct Exchange {
    name: String,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
    status: u16,
    answer: HashMap<String, String>,
    told: String,
}

impl Exchange {
    fn read(path: &PathBuf) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let (asked, told) = text.split_once("\n< HTTP/1.1 ").unwrap();
        let (head, body) = asked.split_once("\n>\n").unwrap();
        let mut lines = head.lines().map(|line| line.trim_start_matches("> "));
        let mut first = lines.next().unwrap().split(' ');
        let (method, target) = (first.next().unwrap().to_owned(), first.next().unwrap().to_owned());
        let pair = |line: &str| line.split_once(": ").map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned()));
        let (status, rest) = told.split_once('\n').unwrap();
        let (answer, told) = rest.split_once("<\n").unwrap();
        let told = told.split("\n# event times").next().unwrap();
        Self {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            method,
            path: target,
            headers: lines.filter_map(pair).collect(),
            body: body.trim().to_owned(),
            status: status.split(' ').next().unwrap().parse().unwrap(),
            answer: answer.lines().filter_map(|line| pair(line.trim_start_matches("< "))).collect(),
            told: told.trim_end_matches('\n').to_owned(),
        }
    }

    fn ask_for_slow(&mut self) {
        let (trivial, slow) = ("014e7ba3-a6dc-5ad3-8da5-be77b72b54c9", "cad1b5ad-d177-59d1-ab39-5e327188ed3a");
        for text in [&mut self.body, &mut self.told] {
            *text = text.replace("\"trivial\"", "\"slow\"").replace(trivial, slow);
        }
    }

    fn is_stream(&self) -> bool {
        self.answer.get("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"))
    }
}

fn recorded() -> Vec<Exchange> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/langgraph-api");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "http"));
    paths.sort();
    let all: Vec<Exchange> = paths.iter().map(Exchange::read).collect();
    assert_eq!(all.len(), 255, "the recordings are where they are looked for");
    all
}

/// Texts and the ids in them: a UUID, or 32 hex digits.
fn parts(text: &str) -> (Vec<&str>, Vec<&str>) {
    let is_id = |word: &str| {
        let hex = word.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        let dashes: Vec<usize> = word.match_indices('-').map(|(at, _)| at).collect();
        hex && (word.len() == 32 && dashes.is_empty() || word.len() == 36 && dashes == [8, 13, 18, 23])
    };
    let (mut texts, mut ids, mut from, mut at) = (Vec::new(), Vec::new(), 0, 0);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        let end = at + bytes[at..].iter().take_while(|b| b.is_ascii_hexdigit() || **b == b'-').count();
        if end > at && is_id(&text[at..end]) {
            texts.push(&text[from..at]);
            ids.push(&text[at..end]);
            from = end;
        }
        at = end.max(at + 1);
    }
    texts.push(&text[from..]);
    (texts, ids)
}

fn is_time(text: &str) -> bool {
    let form: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    form == "0000-00-00T00:00:00.000000+00:00"
}

/// What the recordings call something, and what our server does.
#[derive(Default)]
struct Ids(HashMap<String, String>);

impl Ids {
    fn ours(&self, text: &str) -> String {
        let (texts, ids) = parts(text);
        let mut said = texts[0].to_owned();
        for (id, text) in ids.iter().zip(&texts[1..]) {
            said.push_str(self.0.get(*id).map_or(*id, String::as_str));
            said.push_str(text);
        }
        said
    }

    /// Keys that are ids, by our ids.
    fn renamed(&mut self, theirs: &Map<String, Value>, ours: &Map<String, Value>) -> Map<String, Value> {
        let is_id = |key: &String| parts(key).1.len() == 1 && parts(key).1[0] == key;
        let mut known: Vec<String> =
            theirs.keys().filter(|key| is_id(key)).filter_map(|key| self.0.get(key).cloned()).collect();
        let mut renamed = Map::new();
        for (key, value) in theirs {
            if is_id(key) && !self.0.contains_key(key) {
                let free = ours.keys().find(|our| is_id(our) && !known.contains(our)).cloned();
                self.0.extend(free.clone().map(|free| (key.clone(), free)));
                known.extend(free);
            }
            renamed.insert(self.0.get(key).unwrap_or(key).clone(), value.clone());
        }
        renamed
    }

    /// Differences of two values, each with its place.
    fn compare(&mut self, theirs: &Value, ours: &Value, place: &str, found: &mut Vec<String>) {
        match (theirs, ours) {
            (Value::String(theirs), Value::String(ours)) if is_time(theirs) && is_time(ours) => {}
            (Value::String(theirs), Value::String(ours)) => {
                let ((texts, ids), (our_texts, our_ids)) = (parts(theirs), parts(ours));
                if texts != our_texts {
                    found.push(format!("{place}: {theirs:?} is {ours:?}"));
                    return;
                }
                for (id, our) in ids.into_iter().zip(our_ids) {
                    let known = self.0.entry(id.to_owned()).or_insert_with(|| our.to_owned());
                    if known != our {
                        found.push(format!("{place}: {id} was {known} and is {our}"));
                    }
                }
            }
            (Value::Array(theirs), Value::Array(ours)) => {
                if theirs.len() != ours.len() {
                    found.push(format!("{place}: {} items are {}", theirs.len(), ours.len()));
                }
                for (at, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
                    self.compare(theirs, ours, &format!("{place}[{at}]"), found);
                }
            }
            (Value::Object(theirs), Value::Object(ours)) => {
                let renamed = self.renamed(theirs, ours);
                let theirs = &renamed;
                for (key, theirs) in theirs.iter().filter(|(key, _)| !is_noise(key)) {
                    match ours.get(key) {
                        Some(ours) => self.compare(theirs, ours, &format!("{place}.{key}"), found),
                        None => found.push(format!("{place}.{key}: {theirs} is missing")),
                    }
                }
                for (key, ours) in ours.iter().filter(|(key, _)| !is_noise(key) && !theirs.contains_key(*key)) {
                    found.push(format!("{place}.{key}: {ours} is more"));
                }
            }
            (theirs, ours) if theirs == ours => {}
            (theirs, ours) => found.push(format!("{place}: {theirs} is {ours}")),
        }
    }
}

/// Keys that say which server it is, or when it was asked.
fn is_noise(key: &str) -> bool {
    key.starts_with("langgraph_") && key != "langgraph_node" && key != "langgraph_step" && key != "langgraph_path"
        || key.starts_with("__") && key != "__interrupt__" && key != "__error__"
        || ["user_id", "created_by", "run_attempt", "ls_integration", "langsmith_session_name"].contains(&key)
}

/// A body as a value: a stream's events, JSON, or a text.
fn value(text: &str, is_stream: bool) -> Value {
    if is_stream {
        let told = events(text);
        return told.iter().map(|s| json!({"event": s.event, "data": s.data, "id": s.id.is_some()})).collect();
    }
    serde_json::from_str(text).unwrap_or_else(|_| json!(text))
}

/// What is listed for an exchange.
fn listed(name: &str) -> Vec<&'static Differs> {
    let named = DIFFERENCES.iter().filter(|(names, ..)| names.split_whitespace().any(|wanted| fits(name, wanted)));
    named.map(|(_, differs, _)| differs).collect()
}

/// A stream that is cancelled is sent before what is sent meanwhile; it was written down when it had ended.
fn in_order(all: Vec<Exchange>) -> Vec<Exchange> {
    let begins = |exchange: &Exchange| match exchange.name.as_str() {
        "272_stream_then_cancel" => "270".to_owned(),
        "276_wait_then_cancel" => "274".to_owned(),
        name => name.to_owned(),
    };
    let mut all = all;
    all.sort_by_key(begins);
    all
}

struct Said {
    status: u16,
    headers: HashMap<String, String>,
    text: String,
}

async fn say(url: &str, exchange: &Exchange, path: &str, body: String) -> Said {
    let mut request = reqwest::Client::new().request(exchange.method.parse().unwrap(), format!("{url}{path}"));
    for (name, value) in &exchange.headers {
        request = request.header(name, value);
    }
    if !body.is_empty() {
        request = request.body(body);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let header = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
        (name.to_string(), value.to_str().unwrap().to_owned())
    };
    let headers = response.headers().iter().map(header).collect();
    Said { status, headers, text: response.text().await.unwrap_or_default() }
}

/// One exchange held against what we say.
fn differences(exchange: &Exchange, said: &Said, ids: &mut Ids) -> Vec<String> {
    let mut found = Vec::new();
    let listed = listed(&exchange.name);
    if let Some(Differs::Status(status)) = listed.iter().find(|differs| matches!(differs, Differs::Status(_))) {
        if said.status != *status {
            found.push(format!("status {} instead of {status}: {}", said.status, said.text));
        } else if *status == exchange.status && value(&said.text, false) == value(&exchange.told, false) {
            found.push("it is listed as different, and is not".to_owned());
        } else if *status >= 400 && !value(&said.text, false)["detail"].is_string() {
            found.push(format!("no detail: {}", said.text));
        }
        return found;
    }
    if said.status != exchange.status {
        return vec![format!("status {} is {}: {}", exchange.status, said.status, said.text)];
    }
    let (mut theirs, mut ours) = (value(&exchange.told, exchange.is_stream()), value(&said.text, exchange.is_stream()));
    for name in
        ["content-type", "cache-control", "x-accel-buffering", "location", "content-location", "x-pagination-total"]
    {
        let (theirs, ours) = (exchange.answer.get(name), said.headers.get(name));
        ids.compare(&json!(theirs), &json!(ours), name, &mut found);
    }
    for edit in EDITS.iter().copied() {
        edit(&mut theirs, &mut ours);
    }
    for differs in listed {
        if let Differs::Edit(edit) = differs {
            let mut without = Vec::new();
            Ids(ids.0.clone()).compare(&theirs, &ours, "", &mut without);
            // What depends on who is faster may be the same.
            if without.is_empty() && !std::ptr::fn_addr_eq(*edit, begun_at_once as fn(&mut Value, &mut Value)) {
                found.push("it is listed as different, and is not".to_owned());
            }
            edit(&mut theirs, &mut ours);
        }
    }
    // What is wrong is told in words of our own.
    if exchange.status >= 400 && theirs["detail"].is_string() && ours["detail"].is_string() {
        return found;
    }
    ids.compare(&theirs, &ours, "body", &mut found);
    found
}

fn fits(name: &str, wanted: &str) -> bool {
    wanted.strip_suffix('*').map_or(name == wanted, |beginning| name.starts_with(beginning))
}

/// What holds for every exchange.
const EDITS: [fn(&mut Value, &mut Value); 2] = [without_input_steps, without_kwargs_of_the_server];

/// The reference has a checkpoint before the input is applied (step -1, `__start__` is due). Ours begin with the input applied.
fn without_input_steps(theirs: &mut Value, _: &mut Value) {
    let before = |state: &Value| {
        let state = if state["data"].is_object() { &state["data"] } else { state };
        let state = if state["payload"].is_object() { &state["payload"] } else { state };
        state["metadata"]["step"] == -1 || state["next"] == json!(["__start__"])
    };
    let Value::Array(all) = theirs else { return first_step(theirs) };
    all.retain(|state| !before(state));
    all.iter_mut().for_each(first_step);
}

/// Before the first step there is nothing, then.
fn first_step(state: &mut Value) {
    if state["data"]["payload"].is_object() {
        return first_step(&mut state["data"]["payload"]);
    }
    if state["data"]["config"].is_object() {
        return first_step(&mut state["data"]);
    }
    if state["metadata"]["step"] == 0 && state["metadata"]["source"] == "loop" {
        for key in ["parent_checkpoint", "parent_checkpoint_id", "parent_config"] {
            if !state[key].is_null() {
                state[key] = Value::Null;
            }
        }
    }
    let Some(tasks) = state.get_mut("tasks").and_then(Value::as_array_mut) else { return };
    tasks.iter_mut().map(|task| &mut task["state"]).filter(|inner| inner.is_object()).for_each(first_step);
}

/// What each server notes with a run for itself.
fn without_kwargs_of_the_server(theirs: &mut Value, ours: &mut Value) {
    for (side, own) in [(theirs, false), (ours, true)] {
        let runs = match side {
            Value::Array(runs) => runs.iter_mut().collect::<Vec<_>>(),
            one => vec![one],
        };
        for run in runs {
            let Some(kwargs) = run.get_mut("kwargs").and_then(Value::as_object_mut) else { continue };
            kwargs.remove("durability");
            if own {
                kwargs.remove("checkpoint");
            } else if let Some(config) = kwargs["config"].as_object_mut() {
                config.remove("metadata");
            }
        }
    }
}

/// Lists whose order means nothing, by what they hold.
fn sorted(theirs: &mut Value, ours: &mut Value) {
    for side in [theirs, ours] {
        for key in ["nodes", "edges"] {
            if let Some(list) = side.get_mut(key).and_then(Value::as_array_mut) {
                list.sort_by_key(Value::to_string);
            }
        }
    }
}

/// The state's schema has the same keys; what is said of each is our own.
fn names_of_properties(theirs: &mut Value, ours: &mut Value) {
    for side in [theirs, ours] {
        let schema = &mut side["state_schema"];
        let names: Vec<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
        schema["properties"] = json!(names);
    }
}

/// A thread that never ran has objects where the reference has null, which `RemoteGraph` cannot read.
fn objects_for_null(_: &mut Value, ours: &mut Value) {
    assert!(ours["metadata"].is_object() && ours["checkpoint"]["thread_id"].is_string());
    (ours["metadata"], ours["checkpoint"]) = (Value::Null, Value::Null);
}

/// Every checkpoint of ours names its namespace.
fn with_namespace(theirs: &mut Value, _: &mut Value) {
    theirs["checkpoint"]["checkpoint_ns"] = json!("");
}

/// Run metadata says of which graph it is, also without a thread.
fn with_graph(theirs: &mut Value, ours: &mut Value) {
    for side in [theirs, ours] {
        let runs = match side {
            Value::Array(runs) => runs.iter_mut().collect::<Vec<_>>(),
            one => vec![one],
        };
        runs.into_iter().for_each(|run| run["metadata"]["graph_id"] = Value::Null);
    }
}

/// Only what the newest run left: what was changed from outside before it has another history here.
fn newest_two(theirs: &mut Value, ours: &mut Value) {
    for side in [theirs, ours] {
        let states = side.as_array_mut().unwrap();
        states.truncate(2);
        states.iter_mut().for_each(|state| drop(state["metadata"].as_object_mut().unwrap().remove("checkpoint_id")));
        states[1]["parent_checkpoint"] = Value::Null;
        states[1]["parent_checkpoint_id"] = Value::Null;
    }
}

/// Nodes of workflow files say nothing of their own.
fn without_custom(theirs: &mut Value, _: &mut Value) {
    theirs.as_array_mut().unwrap().retain(|event| event["event"] != "custom");
}

/// The checkpoint that a run finds is told as the run's, not as that of the run that left it.
fn without_the_run_before(theirs: &mut Value, ours: &mut Value) {
    for side in [theirs, ours] {
        let data = &mut side[1]["data"];
        let found = if data["payload"].is_object() { &mut data["payload"] } else { data };
        (found["metadata"], found["parent_config"]) = (Value::Null, Value::Null);
    }
}

/// What the reference notes of the graph around a graph.
fn without_outer_notes(theirs: &mut Value, _: &mut Value) {
    let inner = &mut theirs["tasks"][0]["state"];
    inner["checkpoint"].as_object_mut().unwrap().remove("checkpoint_map");
    let metadata = inner["metadata"].as_object_mut().unwrap();
    for key in ["checkpoint_map", "checkpoint_ns", "langgraph_node", "langgraph_path", "langgraph_step"] {
        metadata.remove(key);
    }
}

/// A subgraph hands back what it wrote, not what it was given.
fn as_it_was_written(theirs: &mut Value, _: &mut Value) {
    theirs[2]["data"]["child"] = json!({"log": ["inner"], "decision": 1});
}

/// A list that was given empty is there.
fn with_empty_list(theirs: &mut Value, _: &mut Value) {
    theirs["got"] = json!([]);
}

/// The same failure in words of our own.
fn without_words(theirs: &mut Value, ours: &mut Value) {
    fn clear(value: &mut Value) {
        match value {
            Value::Object(map) if map.len() == 2 && map.contains_key("error") && map.contains_key("message") => {
                assert!(map.values().all(Value::is_string));
                *value = json!("a failure");
            }
            Value::Object(map) => map.values_mut().for_each(clear),
            Value::Array(list) => list.iter_mut().for_each(clear),
            _ => {}
        }
    }
    for side in [theirs, ours] {
        if side["tasks"][0]["error"].is_string() {
            side["tasks"][0]["error"] = json!("a failure");
        }
        clear(side);
    }
}

/// A run begins at once: it may be under way, and its thread may have values, where the reference still waits.
fn begun_at_once(theirs: &mut Value, ours: &mut Value) {
    for side in [theirs, ours] {
        let all = match side {
            Value::Array(all) => all.iter_mut().collect::<Vec<_>>(),
            one => vec![one],
        };
        for one in all {
            if ["pending", "running"].iter().any(|status| one["status"] == *status) {
                one["status"] = json!("accepted");
            }
            if let Some(map) = one.as_object_mut().filter(|map| map.contains_key("values")) {
                map.retain(|key, _| !["values", "error", "interrupts"].contains(&key.as_str()));
            }
        }
    }
}

/// What differs on purpose: names of exchanges (`*` at the end: all that begin so), and why. `docs/server.md` says the same for users.
const DIFFERENCES: &[(&str, Differs, &str)] = &[
    ("001_ok", Differs::Status(200), "no list of services"),
    ("002_info 228_get_cors", Differs::Status(200), "our own version and flags"),
    ("003_* 016_*", Differs::Status(200), "the built-in workflows are assistants too"),
    ("007_* 008_* 009_*", Differs::Edit(sorted), "the order of nodes and edges means nothing"),
    ("010_*", Differs::Edit(names_of_properties), "schemas are told by channels"),
    ("026_*", Differs::Edit(objects_for_null), "null cannot be read by `RemoteGraph`"),
    ("034_*", Differs::Edit(with_namespace), "every checkpoint names its namespace"),
    ("044_history_before", Differs::Status(200), "a defect of the reference: 500"),
    ("050_*", Differs::Status(404), "there is no checkpoint before the input from which to branch"),
    ("054_*", Differs::Edit(newest_two), "there is no checkpoint before the input; a change of nothing is a branch"),
    ("056_thread_copy 293_thread_stream", Differs::Status(404), "not offered"),
    ("059_* 061_*", Differs::Edit(with_graph), "a run's metadata names its graph"),
    ("108_* 109_* 135_*", Differs::Edit(without_custom), "nodes of workflow files say nothing of their own"),
    ("112_* 127_*", Differs::Edit(without_the_run_before), "a found checkpoint is told as the run's"),
    ("117_* 118_* 120_* 121_*", Differs::Status(422), "not offered: no language model here"),
    ("139_* 141_* 143_* 145_* 147_*", Differs::NotSent, "no language model here: there is no graph `chat`"),
    ("150_*", Differs::Edit(without_outer_notes), "no notes of the graph around a graph"),
    ("153_*", Differs::Edit(as_it_was_written), "a defect of the reference: an appended channel is doubled"),
    ("155_*", Differs::Edit(with_empty_list), "a list that was given empty is there"),
    ("157_* 161_* 185_*", Differs::Status(409), "an answer that fits no question is refused before it becomes a run"),
    ("182_* 183_*", Differs::Status(200), "`goto` leaves what was due: the question is withdrawn"),
    ("202_* 203_* 204_* 207_*", Differs::Edit(without_words), "failures have our codes and words"),
    ("215_*", Differs::Status(422), "input and command exclude each other"),
    ("219_* 220_* 250_*", Differs::Status(404), "a defect of the reference: 200 for a run that is not there"),
    (
        "232_* 233_* 234_* 235_* 240_* 241_* 242_* 245_* 252_* 255_* 260_* 261_* 265_* 266_* 271_* 275_* 278_* 286_*",
        Differs::Edit(begun_at_once),
        "a run begins at once",
    ),
    ("240_* 241_* 242_* 261_* 262_* 263_* 266_* 267_* 268_*", Differs::Asked, "a thread keeps the graph it began with"),
    ("247_* 248_*", Differs::Status(200), "a defect of the reference: the thread stays busy, and its state is empty"),
    ("280_* 287_* 288_*", Differs::Status(200), "a stream that is joined begins at its beginning"),
    ("284_*", Differs::Status(200), "a defect of the reference: join loses the values"),
    ("297_*", Differs::Status(200), "null counts as absent"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_exchanges() {
    let server = Serve::start();
    let all = recorded();
    for name in DIFFERENCES.iter().flat_map(|(names, ..)| names.split_whitespace()) {
        assert!(all.iter().any(|exchange| fits(&exchange.name, name)), "no exchange is called {name}");
    }
    let mut ids = Ids::default();
    // Both call a graph's own assistant the same.
    for assistant in server.post("/assistants/search", json!({"limit": 1000})).await.as_array().unwrap() {
        let id = assistant["assistant_id"].as_str().unwrap().to_owned();
        ids.0.insert(id.clone(), id);
    }
    let mut wrong = Vec::new();
    let mut seen: HashMap<String, String> = HashMap::new();
    let mut beside: Option<(Exchange, tokio::task::JoinHandle<Said>)> = None;
    let mut all: VecDeque<Exchange> = in_order(all).into();
    while let Some(mut exchange) = all.pop_front() {
        let is = |wanted: fn(&Differs) -> bool| listed(&exchange.name).iter().any(|differs| wanted(differs));
        if is(|differs| matches!(differs, Differs::NotSent)) {
            continue;
        }
        if is(|differs| matches!(differs, Differs::Asked)) {
            exchange.ask_for_slow();
        }
        for (name, value) in &mut exchange.headers {
            if name == "last-event-id" {
                *value = seen.get(value).cloned().unwrap_or_else(|| value.clone());
            }
        }
        let (path, body) = (ids.ours(&exchange.path), ids.ours(&exchange.body));
        if exchange.name.ends_with("_then_cancel") {
            let (url, copy) = (server.url.clone(), exchange.clone());
            let thread = path.split('/').nth(2).unwrap().to_owned();
            beside = Some((exchange, tokio::spawn(async move { say(&url, &copy, &path, body).await })));
            // Its run is under way.
            server.until(&format!("/threads/{thread}/runs"), |runs| runs[0]["status"] == "running").await;
            server.until(&format!("/threads/{thread}/state"), |state| state["next"][0] == "nap").await;
            continue;
        }
        let said = say(&server.url, &exchange, &path, body).await;
        if exchange.is_stream() {
            let ids = |text: &str| events(text).into_iter().filter_map(|sent| sent.id).collect::<Vec<_>>();
            seen.extend(ids(&exchange.told).into_iter().zip(ids(&said.text)));
        }
        let mut found = differences(&exchange, &said, &mut ids);
        if exchange.name.contains("_cancel_")
            && let Some((waited, task)) = beside.take()
        {
            let named = |what| format!("{}: {what}", waited.name);
            found.extend(differences(&waited, &task.await.unwrap(), &mut ids).into_iter().map(named));
        }
        wrong.extend(found.into_iter().map(|what| format!("{}: {what}", exchange.name)));
    }
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}
