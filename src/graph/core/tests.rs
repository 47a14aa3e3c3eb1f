//! Properties of the core over random graphs: in whatever order the tasks of a superstep end, the checkpoint is the same.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::DateTime;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::graph::change::update;
use crate::graph::{
    Channel, ChannelType, Context, DynNode, NodeError, NodeInfo, NodePolicy, Produced, Reducer, StateGraph,
    StateUpdate, View,
};

/// Bytes that choices are read from: when they are over, the first choice is taken, so that a failing case shrinks to a small one.
struct Tape(Vec<u8>);

impl Tape {
    fn below(&mut self, n: usize) -> usize {
        self.0.pop().map_or(0, usize::from) % n
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    fn shuffled<T: Clone>(&mut self, of: &[T]) -> Vec<T> {
        let mut from = of.to_vec();
        let mut to = Vec::new();
        while !from.is_empty() {
            let at = self.below(from.len());
            to.push(from.remove(at));
        }
        to
    }
}

/// A node that is never run.
struct Blank;

#[async_trait]
impl DynNode for Blank {
    fn info(&self) -> NodeInfo {
        NodeInfo { kind: "blank".into(), version: 1, ..NodeInfo::default() }
    }

    async fn run(&self, _cx: &Context, _view: &View) -> Result<Produced, NodeError> {
        Ok(Produced::default())
    }
}

const NODES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Every reducer and every kind that a checkpoint has.
fn channels() -> [(&'static str, Channel); 12] {
    use ChannelType as T;
    [
        ("sum", Channel::reduced(T::Integer, Reducer::Add)),
        ("list", Channel::reduced(T::Array, Reducer::Append)),
        ("most", Channel::reduced(T::Integer, Reducer::Max)),
        ("least", Channel::reduced(T::Integer, Reducer::Min)),
        ("map", Channel::reduced(T::Object, Reducer::Merge)),
        ("set", Channel::reduced(T::Array, Reducer::Union)),
        ("last", Channel::last(T::Any)),
        ("other", Channel::last(T::Any)),
        ("topic", Channel::topic(true)),
        ("news", Channel::topic(false)),
        ("brief", Channel::ephemeral(T::Any).unguarded()),
        ("agreed", Channel::any_value(T::Any)),
    ]
}

fn graph(tape: &mut Tape) -> CompiledGraph {
    let mut built = StateGraph::new("random");
    for (name, channel) in channels() {
        built = built.channel(name, channel);
    }
    for node in NODES {
        let policy = NodePolicy { defer: tape.one_in(6), ..NodePolicy::default() };
        built = built.dyn_node(node, Arc::new(Blank)).policy(node, policy);
    }
    built = built.edge(START, NODES[0]).edge(START, NODES[1 + tape.below(5)]);
    // Something leads to every node: a deferred one to which nothing leads is an error.
    for at in 1..NODES.len() {
        built = built.edge(NODES[tape.below(at)], NODES[at]);
    }
    for (at, from) in NODES.into_iter().enumerate() {
        for to in &NODES[at + 1..] {
            if tape.one_in(3) {
                built = built.edge(from, *to);
            }
        }
        if tape.one_in(4) {
            // Back, or to the end: what it chooses depends on the state.
            let back = NODES[tape.below(at + 1)].to_owned();
            let choose = move |state: &State| {
                let odd = state.get("sum").and_then(Value::as_i64).is_some_and(|sum| sum % 2 != 0);
                Ok(if odd { back.clone() } else { END.to_owned() })
            };
            built = built.route(from, NODES.into_iter().chain([END]), choose);
        }
    }
    for _ in 0..tape.below(3) {
        let from = [NODES[tape.below(3)], NODES[1 + tape.below(3)]];
        built = built.barrier(from, NODES[4 + tape.below(2)]);
    }
    built.compile().expect("it has an entry, and each cycle can be left")
}

fn write(tape: &mut Tape) -> Write {
    let channels = channels();
    let (name, channel) = &channels[tape.below(channels.len())];
    let n = i64::try_from(tape.below(7)).unwrap_or_default() - 3;
    let value = match channel.value {
        ChannelType::Integer => json!(n),
        ChannelType::Array => json!([n, {"x": n}]),
        ChannelType::Object => json!({ ["k", "l"][tape.below(2)]: n }),
        _ => json!({"any": n}),
    };
    Write { overwrite: channel.kind.fold().is_some() && tape.one_in(5), ..Write::new(*name, value) }
}

fn goto(tape: &mut Tape) -> Goto {
    let to: Name = NODES[tape.below(6)].into();
    if tape.one_in(2) { Goto::Node(to) } else { Goto::Send { to, input: json!({"last": tape.below(9)}) } }
}

/// What the tasks of a superstep left, each for itself.
fn results(graph: &CompiledGraph, at: &Checkpoint, tape: &mut Tape) -> Vec<TaskResult> {
    let run = |task: &Task| {
        let writes = (0..tape.below(3)).map(|_| write(tape)).collect();
        let gotos = (0..tape.below(2)).map(|_| goto(tape)).collect();
        finish(graph, at, task, writes, gotos).map(|finished| finished.result)
    };
    at.frontier.iter().map(run).filter_map(Result::ok).collect()
}

/// All but what is new in every checkpoint: its id and its time.
fn same(checkpoint: &Checkpoint) -> Checkpoint {
    Checkpoint { id: CheckpointId::from("any"), at: DateTime::UNIX_EPOCH, ..checkpoint.clone() }
}

fn now() -> DateTime<Utc> {
    Utc::now()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whoever_ends_first_the_checkpoint_is_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut tape = Tape(bytes);
        let graph = graph(&mut tape);
        let input: Map<String, Value> = Map::from_iter([("sum".to_owned(), json!(1)), ("list".to_owned(), json!([0]))]);
        let mut here = start(&graph, &Name::default(), None, &input, now()).expect("the input is known");
        for _ in 0..12 {
            let left = results(&graph, &here, &mut tape);
            let shuffled = tape.shuffled(&left);
            let (one, other) = (apply(&graph, &here, &left, None, now()), apply(&graph, &here, &shuffled, None, now()));
            // Two writes to a channel without a reducer are an error, and it is the same one.
            let (Ok(one), Ok(other)) = (&one, &other) else {
                prop_assert_eq!(one.map(|c| same(&c)), other.map(|c| same(&c)));
                break;
            };
            prop_assert_eq!(same(one), same(other));
            // Nor does it matter that results have lain in a store, nor which of them have when somebody looks.
            let stored: Vec<TaskResult> = serde_json::from_str(&serde_json::to_string(&shuffled).unwrap()).unwrap();
            let again = apply(&graph, &here, &stored, None, now()).unwrap();
            prop_assert_eq!(same(&again), same(one));
            let some = tape.below(left.len() + 1);
            let seen: Vec<TaskResult> = shuffled.iter().take(some).cloned().collect();
            let sorted: Vec<TaskResult> = left.iter().filter(|r| seen.contains(r)).cloned().collect();
            prop_assert_eq!(look(&graph, &here, &seen), look(&graph, &here, &sorted));
            let values = Map::from_iter([("sum".to_owned(), json!(2))]);
            let outside = [StateUpdate::new(values, NODES[tape.below(6)])];
            let from_outside = |finished: &[TaskResult]| update(&graph, &here, finished, &outside, now()).map(|c| same(&c));
            prop_assert_eq!(from_outside(&seen), from_outside(&sorted));
            holds(&here, one)?;
            here = one.clone();
        }
    }

    #[test]
    fn one_task_alone_takes_the_same_way_as_among_others(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut tape = Tape(bytes);
        let graph = graph(&mut tape);
        let first = start(&graph, &Name::default(), None, &Map::new(), now()).expect("there is no input");
        let alone = Checkpoint { frontier: first.frontier[..1].to_vec(), ..first };
        let writes: Vec<Write> = (0..tape.below(4)).map(|_| write(&mut tape)).collect();
        if let Ok(Finished { result, state }) = finish(&graph, &alone, &alone.frontier[0], writes, vec![goto(&mut tape)]) {
            prop_assert!(state.is_some());
            let folded = apply(&graph, &alone, std::slice::from_ref(&result), None, now()).unwrap();
            let taken = apply(&graph, &alone, &[result], state, now()).unwrap();
            prop_assert_eq!(same(&folded), same(&taken));
        }
    }
}

/// What every superstep keeps.
fn holds(before: &Checkpoint, after: &Checkpoint) -> Result<(), TestCaseError> {
    prop_assert_eq!(after.step, before.step + 1);
    prop_assert_eq!(after.parent.as_ref(), Some(&before.id));
    prop_assert!(after.frontier.windows(2).all(|pair| pair[0].path < pair[1].path), "in order of path, each once");
    for task in &after.frontier {
        let (visit, were) = (after.visits.get(&task.node), before.visits.get(&task.node));
        prop_assert_eq!((task.visit, visit), (were + 1, were + 1), "however often it is due at once, it is one visit");
    }
    prop_assert!(before.visits.iter().all(|(node, visits)| after.visits.get(node) >= visits));
    Ok(())
}
