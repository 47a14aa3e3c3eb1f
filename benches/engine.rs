//! The engine and its store: the figures that `tidegate bench` prints, beside what bare SQLite does in the same run. Only the ratios
//! within one run mean something.
//!
//! `cargo bench --bench engine` for the table, `cargo bench --bench engine -- memory` for criterion's view of a run in memory.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use criterion::Criterion;
use serde_json::json;
use tidegate::bench::{How, Report, measure};
use tidegate::graph::{
    Advance, Channel, ChannelType, CompiledGraph, Context, DynNode, Effects, Engine, Goto, MemoryStore, NewThread,
    NodeError, NodeInfo, Produced, Reducer, START, StateGraph, ThreadStatus, View, Write,
};
use tidegate::store::this_process;
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let only_memory = std::env::args().any(|arg| arg == "memory");
    // As the program's: the one that is measured.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    if only_memory {
        return in_memory(&runtime);
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let report = runtime.block_on(measure(dir.path(), How::default())).expect("measured");
    print(&report);
}

fn print(report: &Report) {
    for figure in &report.figures {
        let floor = figure.floor.map(|floor| format!(", floor {floor:.1}")).unwrap_or_default();
        let ratio = figure.ratio().map(|ratio| format!(", {ratio:.2} of it")).unwrap_or_default();
        let target = figure.target.map(|target| format!(", target {target:?}")).unwrap_or_default();
        println!("{}: {:.2} {}{floor}{ratio}{target}; {}", figure.what, figure.value, figure.unit, figure.note);
    }
    println!("bare SQLite commits 1 KB durably in {} µs; measured in {} ms", report.commit_us, report.took_ms);
}

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
    for n in 1..=10 {
        let node = format!("n{n}");
        graph = graph.dyn_node(&node, Arc::new(Add { sends: 0 })).edge(&before, &node);
        before = node;
    }
    Arc::new(graph.edge(before, "END").compile().expect("a graph"))
}

fn fan_out() -> Arc<CompiledGraph> {
    let graph = empty("fan").dyn_node("fan", Arc::new(Add { sends: 100 })).dyn_node("n1", Arc::new(Add { sends: 0 }));
    let graph = graph.dyn_node("join", Arc::new(Add { sends: 0 })).edge(START, "fan").barrier(["n1"], "join");
    Arc::new(graph.compile().expect("a graph"))
}

async fn invoke(engine: &Engine, graph: &Arc<CompiledGraph>) {
    let input = json!({"text": "x".repeat(1024)});
    let new = NewThread { input: input.as_object().cloned().unwrap_or_default(), ..NewThread::default() };
    let (_, end) = engine.invoke(graph, new, Advance::default()).await.expect("advanced");
    assert_eq!(black_box(end).status, ThreadStatus::Succeeded);
}

fn in_memory(runtime: &Runtime) {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    let engine = Engine::new(Arc::new(MemoryStore::default()), Effects::new(), this_process("bench"));
    for (name, graph) in [("memory/chain-10", chain()), ("memory/fan-out-100", fan_out())] {
        criterion.bench_function(name, |bench| {
            // A store in memory keeps everything: a fresh one each time, or it is the store that is measured.
            let run = || async { invoke(&engine.on(Arc::new(MemoryStore::default())), &graph).await };
            bench.to_async(runtime).iter(run);
        });
    }
}
