//! The engine: chain-10 in memory and durable, and a fan-out to 100 Sends with its join, beside what raw SQLite needs for as many
//! transactions of about 1 KB. Only the ratios within one run mean something.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use criterion::{Criterion, criterion_group, criterion_main};
use rusqlite::Connection;
use serde_json::json;
use tidegate::graph::{
    Advance, Channel, ChannelType, CompiledGraph, Context, DynNode, Effects, Engine, Goto, MemoryStore, NewThread,
    NodeError, NodeInfo, Owner, Produced, Reducer, START, StateGraph, Store, ThreadStatus, View, Write,
};
use tidegate::store::{SqliteStore, this_process};
use tokio::runtime::Runtime;

const CHAIN: usize = 10;
const SENDS: usize = 100;

/// Adds one, and fans out if it is told to.
struct Add {
    sends: usize,
}

#[async_trait]
impl DynNode for Add {
    fn info(&self) -> NodeInfo {
        NodeInfo { kind: "add".into(), version: 1, ..NodeInfo::default() }
    }

    async fn run(&self, _cx: &Context, _view: &View) -> Result<Produced, NodeError> {
        let send = |i| Goto::Send { to: "n1".into(), input: json!({"item": i}) };
        Ok(Produced { writes: vec![Write::new("n", json!(1))], goto: (0..self.sends).map(send).collect() })
    }
}

fn empty(name: &str) -> StateGraph {
    StateGraph::new(name)
        .channel("n", Channel::reduced(ChannelType::Integer, Reducer::Add))
        .channel("text", Channel::last(ChannelType::String))
}

fn chain() -> Arc<CompiledGraph> {
    let mut graph = empty("chain");
    let mut before = START.to_owned();
    for n in 1..=CHAIN {
        let node = format!("n{n}");
        graph = graph.dyn_node(&node, Arc::new(Add { sends: 0 })).edge(&before, &node);
        before = node;
    }
    Arc::new(graph.edge(before, "END").compile().expect("a graph"))
}

fn fan_out() -> Arc<CompiledGraph> {
    let graph = empty("fan").dyn_node("fan", Arc::new(Add { sends: SENDS })).dyn_node("n1", Arc::new(Add { sends: 0 }));
    let graph = graph.dyn_node("join", Arc::new(Add { sends: 0 })).edge(START, "fan").barrier(["n1"], "join");
    Arc::new(graph.compile().expect("a graph"))
}

async fn invoke(engine: &Engine, graph: &Arc<CompiledGraph>) {
    let input = json!({"text": "x".repeat(1024)});
    let input = input.as_object().cloned().unwrap_or_default();
    let id = engine.create(graph, NewThread { input, ..NewThread::default() }).await.expect("accepted");
    let end = engine.advance(graph, &id, Advance::default()).await.expect("advanced");
    assert_eq!(black_box(end).status, ThreadStatus::Succeeded);
}

fn engine(store: Arc<dyn Store>, owner: &Owner) -> Engine {
    Engine::new(store, Effects::new(), owner.clone())
}

fn raw(path: &Path) -> Connection {
    let conn = Connection::open(path).expect("a file");
    conn.pragma_update(None, "journal_mode", "WAL").expect("WAL");
    conn.pragma_update(None, "synchronous", "FULL").expect("FULL");
    conn.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY, body TEXT)").expect("a table");
    conn
}

fn floor(conn: &Connection, transactions: usize) {
    let body = "x".repeat(1024);
    for _ in 0..transactions {
        conn.prepare_cached("INSERT INTO t (body) VALUES (?1)").and_then(|mut s| s.execute([&body])).expect("a row");
    }
}

fn benches(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let (chain, fan) = (chain(), fan_out());
    // Once: finding out who one is reads /proc.
    let owner = this_process("bench");
    criterion.bench_function("memory/chain-10", |bench| {
        // A store in memory keeps everything: a fresh one each time, or it is the store that is measured.
        bench
            .to_async(&runtime)
            .iter(|| async { invoke(&engine(Arc::new(MemoryStore::default()), &owner), &chain).await });
    });
    let durable = engine(Arc::new(SqliteStore::open(dir.path().join("engine.db")).expect("a store")), &owner);
    let conn = raw(&dir.path().join("raw.db"));
    criterion.bench_function("floor/11-transactions", |bench| bench.iter(|| floor(&conn, CHAIN + 1)));
    criterion.bench_function("durable/chain-10", |bench| {
        bench.to_async(&runtime).iter(|| invoke(&durable, &chain));
    });
    criterion.bench_function("memory/fan-out-100", |bench| {
        bench
            .to_async(&runtime)
            .iter(|| async { invoke(&engine(Arc::new(MemoryStore::default()), &owner), &fan).await });
    });
    // The fan-out commits its 100 writes at once, and the join.
    criterion.bench_function("floor/2-transactions", |bench| bench.iter(|| floor(&conn, 2)));
    criterion.bench_function("durable/fan-out-100", |bench| {
        bench.to_async(&runtime).iter(|| invoke(&durable, &fan));
    });
}

criterion_group! {
    name = all;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = benches
}
criterion_main!(all);
