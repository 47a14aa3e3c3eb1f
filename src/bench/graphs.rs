//! The graphs that are measured. Every superstep writes about 1 KB, as the floor's rows do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::words::words;
use super::{BenchError, Measured};
use crate::graph::{
    Advance, Channel, ChannelType, CompiledGraph, Context, Destination, DynNode, END, Effects, Engine, Failure, Goto,
    NewThread, NodeError, NodeInfo, Produced, Reducer, Router, START, State, StateGraph, Store, ThreadId, ThreadStatus,
    View, Write,
};
use crate::store::this_process;

/// Nodes of the chain.
pub const CHAIN: usize = 10;
/// Sends of the fan-out.
pub const SENDS: usize = 100;
/// Supersteps of the long thread.
pub const STEPS: usize = 1_000;
/// What each of them adds to its list.
pub const ITEM_BYTES: usize = 100;

/// What a row of the floor holds, and what a superstep writes.
pub fn kilobyte() -> String {
    words(0, 1024).to_owned()
}

/// Writes a text that is never the same twice.
struct Say;

#[async_trait]
impl DynNode for Say {
    fn info(&self) -> NodeInfo {
        NodeInfo { kind: "say".into(), version: 1, ..NodeInfo::default() }
    }

    async fn run(&self, _cx: &Context, view: &View) -> Result<Produced, NodeError> {
        let n = view.0["n"].as_i64().unwrap_or(0) + 1;
        let text = format!("{n}{}", words(usize::try_from(n).unwrap_or(0), 1000));
        Ok(Produced { writes: vec![Write::new("n", json!(n)), Write::new("text", json!(text))], goto: Vec::new() })
    }
}

/// Adds one to a number.
struct Add;

#[async_trait]
impl DynNode for Add {
    fn info(&self) -> NodeInfo {
        NodeInfo { kind: "add".into(), version: 1, ..NodeInfo::default() }
    }

    async fn run(&self, _cx: &Context, _view: &View) -> Result<Produced, NodeError> {
        Ok(Produced { writes: vec![Write::new("sum", json!(1))], goto: Vec::new() })
    }
}

/// Adds an item to the list.
struct Grow {
    bytes: usize,
    items: AtomicUsize,
}

impl Grow {
    fn by(bytes: usize) -> Arc<Self> {
        Arc::new(Self { bytes, items: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl DynNode for Grow {
    fn info(&self) -> NodeInfo {
        NodeInfo { kind: "grow".into(), version: 1, ..NodeInfo::default() }
    }

    async fn run(&self, _cx: &Context, _view: &View) -> Result<Produced, NodeError> {
        let item = json!([words(self.items.fetch_add(1, Ordering::Relaxed), self.bytes)]);
        Ok(Produced { writes: vec![Write::new("items", item)], goto: Vec::new() })
    }
}

/// Asks a person.
struct Ask;

#[async_trait]
impl DynNode for Ask {
    fn info(&self) -> NodeInfo {
        NodeInfo { kind: "ask".into(), version: 1, ..NodeInfo::default() }
    }

    async fn run(&self, cx: &Context, _view: &View) -> Result<Produced, NodeError> {
        let answer = cx.interrupt(&"go on?").await?;
        Ok(Produced { writes: vec![Write::new("answer", answer)], goto: Vec::new() })
    }
}

/// Sends an item to each worker.
struct Spread;

impl Router for Spread {
    fn destinations(&self) -> Vec<Destination> {
        vec![Destination { to: "work".into(), label: None, send: true, keys: None }]
    }

    fn route(&self, _state: &State) -> Result<Vec<Goto>, Failure> {
        Ok((0..SENDS).map(|item| Goto::Send { to: "work".into(), input: json!({"item": item}) }).collect())
    }
}

/// Goes round until the list is long enough.
struct Round {
    then: &'static str,
}

impl Router for Round {
    fn destinations(&self) -> Vec<Destination> {
        vec![Destination::node("grow"), Destination::node(self.then)]
    }

    fn route(&self, state: &State) -> Result<Vec<Goto>, Failure> {
        let again = state["items"].as_array().is_some_and(|items| items.len() < STEPS);
        Ok(vec![Goto::Node(if again { "grow".into() } else { self.then.into() })])
    }
}

fn compiled(graph: StateGraph) -> Measured<Arc<CompiledGraph>> {
    graph.compile().map(Arc::new).map_err(|e| BenchError::Wrong(e.to_string()))
}

fn channels(name: &str) -> StateGraph {
    StateGraph::new(name)
        .channel("n", Channel::last(ChannelType::Integer))
        .channel("text", Channel::last(ChannelType::String))
        .channel("sum", Channel::reduced(ChannelType::Integer, Reducer::Add))
        .channel("items", Channel::reduced(ChannelType::Array, Reducer::Append))
        .channel("answer", Channel::last(ChannelType::Any))
}

/// Ten nodes, one after the other; each writes about 1 KB.
pub fn chain() -> Measured<Arc<CompiledGraph>> {
    in_a_row("chain", || Arc::new(Say))
}

/// Ten nodes that add one to a number; the state's 1 KB stays as it is.
pub fn light_chain() -> Measured<Arc<CompiledGraph>> {
    in_a_row("light chain", || Arc::new(Add))
}

fn in_a_row(name: &str, node: impl Fn() -> Arc<dyn DynNode>) -> Measured<Arc<CompiledGraph>> {
    let mut graph = channels(name);
    let mut before = START.to_owned();
    for n in 1..=CHAIN {
        let name = format!("n{n}");
        graph = graph.dyn_node(&name, node()).edge(&before, &name);
        before = name;
    }
    compiled(graph.edge(&before, END))
}

/// A hundred sends, each of which adds 1 KB to a list, and their join.
pub fn fan_out() -> Measured<Arc<CompiledGraph>> {
    let graph = channels("fan-out").dyn_node("work", Grow::by(1000)).dyn_node("join", Arc::new(Add));
    compiled(graph.router(START, Arc::new(Spread)).barrier(["work"], "join"))
}

/// A list that grows, superstep after superstep.
pub fn growing() -> Measured<Arc<CompiledGraph>> {
    let graph = channels("growing").dyn_node("grow", Grow::by(ITEM_BYTES));
    compiled(graph.edge(START, "grow").router("grow", Arc::new(Round { then: END })))
}

/// The same, with a question at its end.
pub fn growing_then_asking() -> Measured<Arc<CompiledGraph>> {
    let graph = channels("growing then asking").dyn_node("grow", Grow::by(ITEM_BYTES));
    let graph = graph.dyn_node("ask", Arc::new(Ask)).edge(START, "grow");
    compiled(graph.router("grow", Arc::new(Round { then: "ask" })))
}

/// A question.
pub fn asking() -> Measured<Arc<CompiledGraph>> {
    compiled(channels("asking").dyn_node("ask", Arc::new(Ask)).edge(START, "ask"))
}

/// An engine on a store.
pub fn engine(store: Arc<dyn Store>) -> Engine {
    Engine::new(store, Effects::new(), this_process("bench"))
}

/// Runs a graph once, from its input to where it ends or waits.
pub async fn invoke(engine: &Engine, graph: &Arc<CompiledGraph>, ends: ThreadStatus) -> Measured<ThreadId> {
    let mut input = Map::new();
    input.insert("text".to_owned(), Value::String(kilobyte()));
    let how = Advance { recursion_limit: u32::MAX, ..Advance::default() };
    let (id, end) = engine.invoke(graph, NewThread { input, ..NewThread::default() }, how).await?;
    expect(end.status, ends)?;
    Ok(id)
}

/// Whether a run ended as it must.
pub fn expect(status: ThreadStatus, ends: ThreadStatus) -> Measured<()> {
    if status == ends { Ok(()) } else { Err(BenchError::Wrong(format!("a run ended {}", status.word()))) }
}
