//! Holds the engine against LangGraph: small graphs with what LangGraph 1.2.22 did with them, as workflow files.
//!
//! Each line of `tests/data/engine/*.jsonl` is `{graph, ops, expected, history}`; the operations are done in order on one thread.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tidegate::graph::{
    Advance, Answer, Checkpoint, CompiledGraph, Effects, Engine, Export, Failure, Interrupt, MemoryStore, NewThread,
    Owner, RunEnd, Source, Store, ThreadId, ThreadStatus, replay,
};
use tidegate::store::{Options, SqliteStore, Synchronous};
use tidegate::workflow::{NodeTypes, load, no_files};

/// How a family's store is made; every store that there is must hold all vectors.
type NewStore = fn(&Path) -> Arc<dyn Store>;

const STORES: [(&str, NewStore); 2] =
    [("memory", |_| Arc::new(MemoryStore::default())), ("sqlite", |home| Arc::new(sqlite(home)))];

/// A handle on one file for all vectors of a run: each vector is a thread of its own.
fn sqlite(home: &Path) -> SqliteStore {
    let options = Options { synchronous: Synchronous::Normal, ..Options::default() };
    SqliteStore::open_with(home.join("vectors.db"), options).unwrap()
}

/// Recorded since: `stops.jsonl`, where they differed once, and `mixed.jsonl`, random graphs of everything together.
const MORE: usize = 100;

#[tokio::test]
async fn does_what_langgraph_does() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 240 + MORE);
    let mut wrong = Vec::new();
    let home = tempfile::tempdir().unwrap();
    for (store, new) in STORES {
        for vector in &vectors {
            if let Err(why) = hold(vector, new(home.path())).await {
                wrong.push(format!("{} over {store}: {why}", vector["graph"]["name"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), vectors.len() * STORES.len(), wrong.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever graph, input and point at which the record was taken: it replays; and it does not once it was tampered with.
    #[test]
    fn every_record_replays(index: prop::sample::Index, x in -3_i64..30, limit in 3_u32..40, cut: prop::sample::Index, bent: prop::sample::Index) {
        let vectors = vectors();
        let mut vector = vectors[index.index(vectors.len())].clone();
        vector["ops"][0]["input"]["x"] = json!(x);
        let ops = vector["ops"].as_array_mut().unwrap();
        ops.truncate(cut.index(ops.len()) + 1);
        ops.iter_mut().filter(|op| op["op"] != "update").for_each(|op| op["recursion_limit"] = json!(limit));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(replays_and_tells(&vector, bent)).map_err(TestCaseError::fail)?;
    }
}

/// The node of the root that a question came through, as LangGraph tells it.
fn at_root(open: &Interrupt) -> &str {
    open.key.ns.split([':', '|']).next().filter(|node| !node.is_empty()).unwrap_or(&open.key.node)
}

async fn replays_and_tells(vector: &Value, bent: prop::sample::Index) -> Result<(), String> {
    // Graphs that are refused have no record.
    let Ok(graph) = graph(vector) else { return Ok(()) };
    let mut thread = Thread { engine: engine(Arc::new(MemoryStore::default())), graph, id: None };
    for op in vector["ops"].as_array().unwrap() {
        thread.op(op).await.map_err(|failure| format!("{failure:?}"))?;
    }
    thread.replays().await?;
    let mut export = Export::of(&**thread.engine.store(), thread.id()).await.unwrap();
    let computed = |c: &&mut Checkpoint| c.ns.is_empty() && c.source == Source::Loop;
    let mut checkpoints: Vec<&mut Checkpoint> = export.checkpoints.iter_mut().filter(computed).collect();
    let at = bent.index(checkpoints.len());
    let step = checkpoints[at].step;
    checkpoints[at].values.insert("n", json!(-1));
    match replay(&thread.graph, &export).await {
        Ok(_) => Err(format!("superstep {step} was tampered with and the replay did not notice")),
        Err(error) if error.failure().code == "replay_diverged" => Ok(()),
        Err(error) => Err(format!("{:?}", error.failure())),
    }
}

fn engine(store: Arc<dyn Store>) -> Engine {
    let owner = Owner { pid: 1, start_ticks: 1, boot_id: "b".into(), nonce: 1, label: "test".into() };
    Engine::new(store, Effects::new(), owner)
}

fn vectors() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/engine");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let texts = files.iter().map(|file| std::fs::read_to_string(file).unwrap());
    texts
        .flat_map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>())
        .collect()
}

/// A thread under test.
struct Thread {
    engine: Engine,
    graph: Arc<CompiledGraph>,
    id: Option<ThreadId>,
}

async fn hold(vector: &Value, store: Arc<dyn Store>) -> Result<(), String> {
    let refused_early = |failure: &Failure| {
        let expected = &vector["expected"][0]["error"];
        *expected == json!("invalid_concurrent_update") && failure.code == "invalid_concurrent_update"
    };
    let graph = match graph(vector) {
        Ok(graph) => graph,
        Err(failure) if refused_early(&failure) => return Ok(()),
        Err(failure) => return Err(format!("refused: {failure:?}")),
    };
    let mut thread = Thread { engine: engine(store), graph, id: None };
    let ops = vector["ops"].as_array().unwrap();
    for (number, (op, expected)) in ops.iter().zip(vector["expected"].as_array().unwrap()).enumerate() {
        let end = thread.op(op).await.map_err(|failure| format!("op {number}: {failure:?}"))?;
        let seen = thread.seen(&end).await;
        differs(&format!("after op {number}"), expected, &seen)?;
    }
    match &vector["history"] {
        Value::Null => {}
        expected => differs("history", expected, &thread.history().await)?,
    }
    thread.replays().await
}

fn graph(vector: &Value) -> Result<Arc<CompiledGraph>, Failure> {
    load(&vector["graph"].to_string(), "vector.yaml", &no_files)?.build(&NodeTypes::generic())
}

/// Every key of `expected` must be so in `seen`; more may be there.
fn differs(place: &str, expected: &Value, seen: &Value) -> Result<(), String> {
    match (expected, seen) {
        (Value::Object(expected), Value::Object(seen)) if !place.ends_with("values") => {
            expected.iter().try_for_each(|(key, value)| {
                differs(&format!("{place}, {key}"), value, seen.get(key).unwrap_or(&Value::Null))
            })
        }
        (Value::Array(expected), Value::Array(seen)) if place == "history" && expected.len() == seen.len() => {
            let mut pairs = expected.iter().zip(seen).enumerate();
            pairs.try_for_each(|(step, (e, s))| differs(&format!("checkpoint {step}"), e, s))
        }
        _ if expected == seen => Ok(()),
        _ => Err(format!("{place}: expected {expected}, seen {seen}")),
    }
}

impl Thread {
    async fn op(&mut self, op: &Value) -> Result<RunEnd, Failure> {
        let limit = op["recursion_limit"].as_u64().map_or(100, |limit| limit.try_into().unwrap());
        let how = Advance { recursion_limit: limit, ..Advance::default() };
        match op["op"].as_str().unwrap() {
            "run" => {
                let new = NewThread { input: object(&op["input"]), ..NewThread::default() };
                let id = self.engine.create(&self.graph, new).await.map_err(|e| e.failure())?;
                self.id = Some(id);
            }
            "continue" => {}
            "resume" => self.answer(op).await,
            "update" => {
                let (values, node) = (object(&op["values"]), op["as_node"].as_str().unwrap());
                self.engine.update(&self.graph, self.id(), &values, node).await.map_err(|e| e.failure())?;
                let state = self.engine.state(&self.graph, self.id()).await.unwrap();
                return Ok(RunEnd { status: state.thread.status, failure: state.thread.failure });
            }
            other => panic!("unknown op {other}"),
        }
        self.engine.advance(&self.graph, self.id(), how).await.map_err(|e| e.failure())
    }

    fn id(&self) -> &ThreadId {
        self.id.as_ref().expect("the first op is a run")
    }

    async fn answer(&self, op: &Value) {
        let store = self.engine.store();
        for open in store.interrupts(Some(self.id()), true).await.unwrap() {
            let value = op.get("value").or_else(|| op["values"].get(at_root(&open)));
            let Some(value) = value.cloned() else { continue };
            let answer = Answer { value, by: "tester".into(), via: "test".into(), at: chrono::Utc::now() };
            store.answer(&open.id, &answer, None).await.unwrap();
        }
    }

    async fn seen(&self, end: &RunEnd) -> Value {
        let state = self.engine.state(&self.graph, self.id()).await.unwrap();
        let asked = state.interrupts.iter().map(|open| json!({"node": at_root(open), "value": open.value}));
        let mut asked: Vec<Value> = asked.collect();
        asked.sort_by_cached_key(Value::to_string);
        let status = match end.status {
            ThreadStatus::Succeeded => "done",
            ThreadStatus::Failed => "error",
            _ if !state.next.is_empty() => "interrupted",
            other => other.word(),
        };
        json!({
            "status": status,
            "error": end.failure.as_ref().map(|f| f.code.clone()),
            "values": state.values,
            "next": state.next,
            "interrupts": asked,
        })
    }

    /// The thread's record, taken through JSON, replays without a difference.
    async fn replays(&self) -> Result<(), String> {
        let export = Export::of(&**self.engine.store(), self.id()).await.unwrap();
        let text = serde_json::to_string(&export).unwrap();
        let read: Export = serde_json::from_str(&text).unwrap();
        assert_eq!(read, export);
        replay(&self.graph, &read).await.map(|_| ()).map_err(|e| format!("replay: {:?}", e.failure()))
    }

    async fn history(&self) -> Value {
        let history = self.engine.store().history(self.id(), "").await.unwrap();
        let row = |checkpoint: &tidegate::graph::Checkpoint| {
            let mut next: Vec<&str> = checkpoint.frontier.iter().map(|task| task.node.as_str()).collect();
            next.sort_unstable();
            json!({"step": checkpoint.step, "source": checkpoint.source, "values": checkpoint.values, "next": next})
        };
        history.iter().map(row).collect()
    }
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}
