//! Random graphs and random lives of a thread, from a seed: the same seed gives the same case everywhere.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidegate::graph::{
    Advance, CachePolicy, CompiledGraph, Durability, Engine, EngineError, EntryKind, EntryStatus, Failure, Goto,
    NewThread, NodePolicy, OnError, Outcome, RetryPolicy, START, Signal, Source, StateGraph, ThreadId, ThreadStatus,
    Until,
};

use crate::support::*;

/// Numbers from a seed (splitmix64, Steele et al. 2014): small, and the same on every machine.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// What somebody does to the thread beside answering it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Nothing,
    /// Goes back to an earlier checkpoint when it first waits.
    Fork,
    /// Changes the state when it first waits.
    Update,
    /// Gives new input after its end.
    Input,
    Cancel,
    CancelWithoutUndo,
}

/// A graph with the life that a thread of it has.
pub struct Case {
    pub graph: Arc<CompiledGraph>,
    pub durability: Durability,
    pub deed: Deed,
}

impl Case {
    /// A case whose end depends on nothing but the graph: however often the run is broken off, it comes out the same.
    pub fn of(seed: u64) -> Self {
        Self::new(seed, false)
    }

    /// Timers, and static interrupts in subgraphs, may also stand beside siblings that fail, or while somebody interferes.
    pub fn wild(seed: u64) -> Self {
        Self::new(seed, true)
    }

    fn new(seed: u64, wild: bool) -> Self {
        let mut dice = Dice::new(seed);
        let durability = dice.pick(&[Durability::Sync, Durability::Sync, Durability::Async, Durability::Exit]);
        let deed = dice.pick(&[
            Deed::Nothing,
            Deed::Nothing,
            Deed::Fork,
            Deed::Update,
            Deed::Input,
            Deed::Cancel,
            Deed::CancelWithoutUndo,
        ]);
        let breaks = dice.one_in(4);
        let undisturbed = matches!(deed, Deed::Nothing | Deed::Input) && !breaks;
        let plan = Plan { breaks, free: wild || undisturbed };
        Self { graph: Arc::new(layers("g", &mut dice, DEPTH, plan).compile().unwrap()), durability, deed }
    }
}

/// How deep subgraphs lie in each other.
const DEPTH: u32 = 2;

/// What a case's graphs may have.
#[derive(Clone, Copy)]
struct Plan {
    /// A failure that nobody handles: everything before it is undone.
    breaks: bool,
    /// Static interrupts in subgraphs, and timers: who is faster may count.
    free: bool,
}

/// Layers of nodes; what comes out of one leads to the next, by edges or by barriers.
fn layers(name: &str, dice: &mut Dice, depth: u32, plan: Plan) -> StateGraph {
    let mut built = graph(name);
    let mut outs = vec![START.to_owned()];
    let mut stops = Vec::new();
    let mut breaks = plan.breaks && dice.one_in(2);
    let layers = 2 + dice.below(3);
    for layer in 0..layers {
        let width = 1 + dice.below(3);
        let by_barrier = outs.len() > 1 && dice.one_in(2);
        let mut next = Vec::new();
        for place in 0..width {
            let node = format!("{name}{layer}{}", ["a", "b", "c"][place]);
            let kind = if breaks && layer + 1 == layers { 11 } else { dice.below(11) };
            breaks &= kind != 11;
            let out;
            (built, out) = add(built, &node, kind, dice, (depth, plan));
            built = if by_barrier {
                built.barrier(outs.iter().map(String::as_str), node.as_str())
            } else {
                outs.iter().fold(built, |built, from| built.edge(from.as_str(), node.as_str()))
            };
            if dice.one_in(12) && (name == "g" || plan.free) {
                stops.push(node);
            }
            next.push(out);
        }
        outs = next;
    }
    match dice.below(3) {
        0 => built.interrupt_before(stops.iter().map(String::as_str)),
        1 => built.interrupt_after(stops.iter().map(String::as_str)),
        _ => built,
    }
}

/// Adds a node of a kind, with what belongs to it; returns the node whose end is its end.
fn add(
    built: StateGraph,
    node: &str,
    kind: usize,
    dice: &mut Dice,
    (depth, plan): (u32, Plan),
) -> (StateGraph, String) {
    let plain = |step| (graph_with(node, step, NodePolicy::default()), node.to_owned());
    let (add, out): (Box<dyn FnOnce(StateGraph) -> StateGraph>, String) = match kind {
        0 => plain(busy()),
        1 => plain(asks_between()),
        2 => plain(waits(!plan.free || dice.one_in(2))),
        3 => {
            let retry = RetryPolicy { max_attempts: 4, initial_ms: 1, max_ms: 1, ..RetryPolicy::default() };
            (graph_with(node, flaky(), NodePolicy { retry: vec![retry], ..NodePolicy::default() }), node.to_owned())
        }
        4 => return fan(built, node, dice.below(4)),
        5 => return cycle(built, node, 1 + dice.below(3)),
        6 if depth > 0 => {
            let inner = Arc::new(layers(&format!("{node}-"), dice, depth - 1, plan).compile().unwrap());
            return (built.subgraph(node, inner), node.to_owned());
        }
        7 => return handled(built, node),
        8 => {
            let commit = NodePolicy { commit_point: true, ..NodePolicy::default() };
            // In a subgraph it also commits what siblings around it have done by then: who is faster counts.
            let may = dice.one_in(2) && (depth == DEPTH || plan.free);
            (graph_with(node, maker(), if may { commit } else { NodePolicy::default() }), node.to_owned())
        }
        9 => {
            let cache = dice.one_in(2).then(CachePolicy::default);
            let policy = NodePolicy { cache, defer: dice.one_in(3), ..NodePolicy::default() };
            (graph_with(node, speaker(), policy), node.to_owned())
        }
        11 => plain(breaks_off()),
        _ => plain(maker()),
    };
    (add(built), out)
}

fn graph_with(node: &str, step: Step, policy: NodePolicy) -> Box<dyn FnOnce(StateGraph) -> StateGraph> {
    let node = node.to_owned();
    Box::new(move |built| built.node(node.as_str(), step).policy(&node, policy))
}

/// Readings, an event and two effects, of which one leaves nothing that a probe could find.
fn busy() -> Step {
    step(|cx, _| {
        Box::pin(async move {
            let pinned = cx.pin("pinned", async { Ok(json!({"of": "a pin"})) }).await?;
            cx.effect("first", Make::of(cx.node())).await?;
            cx.observe("seen", async { Ok(7) }).await?;
            cx.emit("half", json!(1));
            cx.now().await?;
            cx.effect("second", Make::of(&format!("lost-{}", cx.node()))).await?;
            Ok(Outcome::update(Wrote { n: Some(1), ..says(format!("{} {pinned}", cx.node())) }))
        })
    })
}

fn asks_between() -> Step {
    step(|cx, _| {
        Box::pin(async move {
            cx.effect("before", Make::of(&format!("{}-before", cx.node()))).await?;
            let answer = cx.interrupt(&json!({"ask": cx.node()})).await?;
            cx.effect("after", Make::of(&format!("{}-after", cx.node()))).await?;
            Ok(Outcome::update(says(format!("{} heard {answer}", cx.node()))))
        })
    })
}

fn waits(for_a_signal: bool) -> Step {
    step(move |cx, _| {
        Box::pin(async move {
            cx.effect("before", Make::of(&format!("{}-before", cx.node()))).await?;
            let signals: Vec<String> = for_a_signal.then(|| signal_for(cx.node())).into_iter().collect();
            let until = if for_a_signal { Until::Never } else { Until::After(Duration::from_millis(1)) };
            let woken = cx.wait(&signals, until).await?;
            Ok(Outcome::update(says(format!("{} {woken:?}", cx.node()))))
        })
    })
}

fn flaky() -> Step {
    step(|cx, _| {
        Box::pin(async move {
            cx.effect("make", Make::of(&format!("flaky-{}", cx.node()))).await?;
            Ok(Outcome::update(says(cx.node())))
        })
    })
}

fn breaks_off() -> Step {
    step(|cx, _| {
        Box::pin(async move {
            cx.effect("half", Make::of(&format!("{}-half", cx.node()))).await?;
            Err(Failure::new("boom", "it broke").into())
        })
    })
}

/// A node that sends items to another; one of them asks.
fn fan(built: StateGraph, node: &str, items: usize) -> (StateGraph, String) {
    let worker = format!("{node}w");
    let to = worker.clone();
    let sends = step(move |cx, _| {
        let send = |i| Goto::Send { to: to.as_str().into(), input: json!({"item": i}) };
        let goto = (0..items).map(send).collect();
        Box::pin(async move { Ok(Outcome { update: says(cx.node()), goto }) })
    });
    let work = step(|cx, seen| {
        Box::pin(async move {
            let item = seen.item.unwrap_or_default();
            cx.effect("make", Make::of(&format!("{}-{item}", cx.node()))).await?;
            if item == json!(1) {
                cx.interrupt(&json!({"item": item})).await?;
            }
            Ok(Outcome::update(Wrote { n: Some(1), ..says(format!("{} {item}", cx.node())) }))
        })
    });
    (built.node(node, sends).node(worker.as_str(), work), worker)
}

/// A node that is due again and again.
fn cycle(built: StateGraph, node: &str, rounds: usize) -> (StateGraph, String) {
    let end = format!("{node}e");
    let (again, over) = (node.to_owned(), end.clone());
    let built = built.node(node, maker()).node(end.as_str(), speaker());
    let built = built.route(node, [node.to_owned(), end.clone()], move |state| {
        let line = format!("made {again}");
        let rounds_done = state["log"].as_array().map_or(0, |log| log.iter().filter(|l| **l == line.as_str()).count());
        Ok(if rounds_done < rounds { again.clone() } else { over.clone() })
    });
    (built, end)
}

/// A node that fails, and the one that takes it up.
fn handled(built: StateGraph, node: &str) -> (StateGraph, String) {
    let handler = format!("{node}h");
    let on_error = Some(OnError { to: handler.as_str().into(), into: None });
    let built = built.node(node, breaks_off()).policy(node, NodePolicy { on_error, ..NodePolicy::default() });
    (built.node(handler.as_str(), maker()), handler)
}

/// The thread of every case.
pub const THREAD: &str = "t";

/// Most turns of a life; faults included.
const MOST_TURNS: usize = 400;

/// Drives the case's thread to its end, whatever the store says; returns the codes of the errors on the way.
pub async fn live(case: &Case, engine: &Engine) -> Vec<String> {
    let mut errors = Vec::new();
    for _ in 0..MOST_TURNS {
        match turn(case, engine).await {
            Ok(true) => return errors,
            Ok(false) => {}
            Err(error) => errors.push(error.failure().code.clone()),
        }
    }
    panic!("it does not end; errors on the way: {errors:?}");
}

/// One turn; true: it has ended.
async fn turn(case: &Case, engine: &Engine) -> Result<bool, EngineError> {
    let id = ThreadId::from(THREAD);
    let Some(thread) = engine.store().thread(&id).await? else {
        let new = NewThread { id: Some(id), input: object(json!({"n": 5})), ..NewThread::default() };
        return engine.create(&case.graph, new).await.map(|_| false);
    };
    match thread.status {
        ThreadStatus::Succeeded if case.deed == Deed::Input => {
            if engine.store().history(&id, "").await?.iter().any(|c| c.source == Source::Input) {
                return Ok(true);
            }
            engine.input(&case.graph, &id, &object(json!({"n": 100}))).await?;
        }
        ThreadStatus::Succeeded | ThreadStatus::Failed | ThreadStatus::Cancelled | ThreadStatus::Stuck => {
            return Ok(true);
        }
        ThreadStatus::Interrupted if interfere(case, engine, &id).await? => return Ok(false),
        ThreadStatus::Interrupted => answer_all(engine, &id).await?,
        ThreadStatus::Sleeping => wake(engine, &id).await?,
        ThreadStatus::Pending | ThreadStatus::Running => {}
    }
    let how = Advance { durability: case.durability, ..Advance::default() };
    engine.advance(&case.graph, &id, how).await.map(|_| false)
}

/// What somebody does once to a thread that waits; true: it was done now.
async fn interfere(case: &Case, engine: &Engine, id: &ThreadId) -> Result<bool, EngineError> {
    let why = Failure::new("cancelled_by_user", "no more");
    match case.deed {
        Deed::Nothing | Deed::Input => return Ok(false),
        Deed::Cancel => drop(engine.cancel(&case.graph, id, true, why).await?),
        Deed::CancelWithoutUndo => drop(engine.cancel(&case.graph, id, false, why).await?),
        Deed::Fork => {
            let history = engine.store().history(id, "").await?;
            if history.iter().any(|c| c.fork > 0) {
                return Ok(false);
            }
            let from = &history[history.len() / 2];
            engine.fork(&case.graph, id, &from.id, &object(json!({"n": 10})), None).await?;
        }
        Deed::Update => {
            let history = engine.store().history(id, "").await?;
            if history.iter().any(|c| c.source == Source::Update) {
                return Ok(false);
            }
            let node = history.last().and_then(|c| c.frontier.first()).map_or(START.to_owned(), |t| t.node.to_string());
            let values = object(json!({"n": 1000, "log": ["from outside"]}));
            engine.update(&case.graph, id, &values, &node).await?;
        }
    }
    Ok(true)
}

async fn answer_all(engine: &Engine, id: &ThreadId) -> Result<(), EngineError> {
    for open in engine.store().interrupts(Some(id), true).await? {
        engine.store().answer(&open.id, &by("ada", json!(true)), Some(&open.digest)).await?;
    }
    Ok(())
}

/// Each wait has a signal of its own, so that it does not matter which of two is asked first.
fn signal_for(node: &str) -> String {
    format!("go-{node}")
}

/// Sends what is waited for and does not lie there yet.
async fn wake(engine: &Engine, id: &ThreadId) -> Result<(), EngineError> {
    let there = engine.store().signals(id).await?;
    let waits = engine.store().journal(id).await?;
    for wait in waits.iter().filter(|e| e.kind == EntryKind::Wait && e.status == EntryStatus::Intent) {
        let name = signal_for(&wait.key.node);
        let for_a_signal = wait.input["signals"].as_array().is_some_and(|names| !names.is_empty());
        if for_a_signal && !there.iter().any(|signal| signal.name == name) {
            let signal = Signal { seq: 0, name, value: json!(1), by: "ada".into(), at: chrono::Utc::now() };
            engine.store().signal(id, &signal).await?;
        }
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    Ok(())
}
