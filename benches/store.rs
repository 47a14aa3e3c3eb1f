//! The store against raw rusqlite in the same run, rounds interleaved: only the ratios mean something on another machine.
//!
//! Floors are the least that SQLite needs for the same promise: one transaction and one insert per superstep.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::Utc;
use rusqlite::Connection;
use serde_json::{Value, json};
use tidegate::graph::{
    Advance, Channel, ChannelType, Checkpoint, CheckpointId, CompiledGraph, Context, DynNode, END, Effects, Engine,
    Event, Name, NewThread, NodeError, NodeInfo, Produced, Record, START, Source, State, StateGraph, Store, Task,
    TaskPath, Thread, ThreadId, ThreadStatus, Transaction, View, Write,
};
use tidegate::store::{Options, SqliteStore, Synchronous, this_process};

type Measured<T> = Result<T, Box<dyn Error>>;

const ROUNDS: usize = 15;
const INVOKES: usize = 20;
const CHAIN: i64 = 10;

fn main() -> Measured<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for synchronous in [Synchronous::Full, Synchronous::Normal] {
        runtime.block_on(chain(synchronous))?;
    }
    runtime.block_on(growing())
}

/// Chain-10 durable: 11 transactions of about 1 KB.
async fn chain(synchronous: Synchronous) -> Measured<()> {
    let dir = tempfile::tempdir()?;
    let raw = floor(&dir.path().join("floor.db"), synchronous)?;
    let options = || Options { synchronous, ..Options::default() };
    let commits = SqliteStore::open_with(dir.path().join("commits.db"), options())?;
    let store = Arc::new(SqliteStore::open_with(dir.path().join("engine.db"), options())?);
    let engine = Engine::new(store.clone(), Effects::default(), this_process("bench"));
    let graph = Arc::new(graph()?);
    let (mut floors, mut ours, mut engines) = (Vec::new(), Vec::new(), Vec::new());
    let mut transactions = 0;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for _ in 0..INVOKES {
            for step in 0..=CHAIN {
                insert(&raw, step, &"x".repeat(1024))?;
            }
        }
        floors.push(begun.elapsed());
        let begun = Instant::now();
        for _ in 0..INVOKES {
            let id = new_thread(&commits).await?;
            for step in 1..=CHAIN {
                commits.commit(superstep(&id, 0, step, payload(step))).await?;
            }
        }
        ours.push(begun.elapsed());
        let (begun, before) = (Instant::now(), store.transactions());
        for _ in 0..INVOKES {
            let input = payload(0).into_iter().map(|(name, value)| (name.to_string(), value)).collect();
            let id = engine.create(&graph, NewThread { input, ..NewThread::default() }).await?;
            engine.advance(&graph, &id, Advance::default()).await?;
        }
        engines.push(begun.elapsed());
        transactions = (store.transactions() - before) / INVOKES as u64;
    }
    let rate = |times: &mut [Duration]| INVOKES as f64 / median(times).as_secs_f64();
    let (floor, ours, engine) = (rate(&mut floors), rate(&mut ours), rate(&mut engines));
    println!("chain-10 {synchronous:?}: floor {floor:.0}/s, store {ours:.0}/s ({:.2} of it)", ours / floor);
    println!("  whole engine {engine:.0}/s ({:.2}), {transactions} transactions per invoke", engine / floor);
    Ok(())
}

/// 1,000 supersteps over a list that grows by 100 bytes; then reading the newest.
async fn growing() -> Measured<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("floor.db");
    let raw = floor(&path, Synchronous::Full)?;
    let begun = Instant::now();
    for step in 0..1000 {
        insert(&raw, step, &"x".repeat(100))?;
    }
    let floor = begun.elapsed();
    drop(raw);
    let floor_bytes = std::fs::metadata(&path)?.len();

    let path = dir.path().join("ours.db");
    let store = SqliteStore::open(&path)?;
    let empty_bytes = 4096 * 30;
    let id = new_thread(&store).await?;
    let mut items = Vec::new();
    let begun = Instant::now();
    for step in 1..=1000 {
        items.push(Value::String("x".repeat(100)));
        store.commit(superstep(&id, 0, step, [("items".to_owned(), json!(items))].into())).await?;
    }
    let ours = begun.elapsed();
    store.latest(&id, "").await?;
    let mut reads = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        store.latest(&id, "").await?;
        reads.push(begun.elapsed());
    }
    drop(store);
    let bytes = std::fs::metadata(&path)?.len();
    println!("growing list: floor {floor:.0?}, {floor_bytes} bytes; store {ours:.0?}, {bytes} bytes (of them about");
    println!(
        "  {empty_bytes} an empty schema, the rest with three events per superstep); newest read {:.0?}",
        median(&mut reads)
    );
    Ok(())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn floor(path: &Path, synchronous: Synchronous) -> rusqlite::Result<Connection> {
    let conn = Connection::open(path)?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", if synchronous == Synchronous::Full { "FULL" } else { "NORMAL" })?;
    conn.execute_batch("CREATE TABLE checkpoints (n INTEGER PRIMARY KEY, step INTEGER, body TEXT)")?;
    Ok(conn)
}

fn insert(conn: &Connection, step: i64, body: &str) -> rusqlite::Result<()> {
    conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    conn.prepare_cached("INSERT INTO checkpoints (step, body) VALUES (?1, ?2)")?.execute((step, body))?;
    conn.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}

fn payload(step: i64) -> State {
    [("n".to_owned(), json!(step)), ("text".to_owned(), Value::String(format!("{step:0>900}")))].into()
}

fn checkpoint(step: i64, values: State) -> Checkpoint {
    let task = Task { path: TaskPath::Pull("a".into()), node: "a".into(), visit: step.unsigned_abs(), input: None };
    Checkpoint {
        id: CheckpointId::new(),
        parent: None,
        ns: Name::default(),
        step,
        source: Source::Loop,
        written: values.clone(),
        values,
        barriers: BTreeMap::new(),
        deferred: Default::default(),
        fork: 0,
        visits: [("a".into(), task.visit)].into(),
        frontier: vec![task],
        at: Utc::now(),
    }
}

async fn new_thread(store: &SqliteStore) -> Measured<ThreadId> {
    let at = Utc::now();
    let thread = Thread {
        id: ThreadId::new(),
        workflow: "chain".into(),
        document: Value::Null,
        fingerprint: "f".into(),
        node_versions: BTreeMap::new(),
        input: Value::Null,
        status: ThreadStatus::Pending,
        failure: None,
        unwinding: None,
        committed_seq: 0,
        undone: false,
        labels: BTreeMap::new(),
        owner: None,
        epoch: 0,
        attendant: None,
        wake: None,
        created_at: at,
        updated_at: at,
    };
    store.create(&thread, vec![Record::Checkpoint(Arc::new(checkpoint(0, payload(0))))]).await?;
    Ok(thread.id)
}

/// What the engine commits per superstep of one node.
fn superstep(thread: &ThreadId, epoch: u64, step: i64, values: State) -> Transaction {
    let next = checkpoint(step, values);
    let started = Event::NodeStarted { ns: Name::default(), node: "a".into(), attempt: 1 };
    let finished = Event::NodeFinished { ns: Name::default(), node: "a".into(), duration_ms: 0 };
    let kept = Event::Checkpointed { ns: Name::default(), step, source: Source::Loop, next: vec!["a".into()] };
    let events = [started, finished, kept].map(Record::Event);
    let records = events.into_iter().chain([Record::Checkpoint(Arc::new(next))]).collect();
    Transaction { thread: thread.clone(), epoch, at: Utc::now(), records }
}

struct Count;

#[async_trait]
impl DynNode for Count {
    fn info(&self) -> NodeInfo {
        NodeInfo { kind: "count".into(), version: 1, ..NodeInfo::default() }
    }

    async fn run(&self, _cx: &Context, view: &View) -> Result<Produced, NodeError> {
        let n = view.0.get("n").and_then(Value::as_i64).unwrap_or(0) + 1;
        Ok(Produced { writes: payload(n).into_iter().map(|(k, v)| Write::new(k, v)).collect(), goto: Vec::new() })
    }
}

fn graph() -> Measured<CompiledGraph> {
    let mut graph = StateGraph::new("chain")
        .channel("n", Channel::last(ChannelType::Integer))
        .channel("text", Channel::last(ChannelType::String));
    let name = |n: i64| if n == 0 { START.to_owned() } else { format!("n{n}") };
    for n in 1..=CHAIN {
        graph = graph.dyn_node(name(n), Arc::new(Count)).edge(name(n - 1), name(n));
    }
    Ok(graph.edge(name(CHAIN), END).compile()?)
}
