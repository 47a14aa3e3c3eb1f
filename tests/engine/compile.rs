//! What `compile()` refuses, each with its code, and what it only warns about.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate::graph::{
    CachePolicy, Channel, ChannelType, CompiledGraph, Context, DynNode, Node, NodeError, NodeInfo, NodePolicy, OnError,
    Outcome, Produced, Reducer, RetryPolicy, START, StateGraph, View,
};

use crate::support::*;

fn codes(graph: StateGraph) -> Vec<String> {
    let errors = graph.compile().err().expect("it is refused");
    assert!(errors.to_string().contains(&errors.errors[0].failure.message));
    assert_eq!(errors.failure().code, errors.errors[0].failure.code);
    errors.errors.into_iter().map(|e| e.failure.code.clone()).collect()
}

fn warned(graph: &CompiledGraph) -> Vec<&str> {
    graph.warnings().iter().map(|w| w.failure.code.as_str()).collect()
}

#[derive(Deserialize, JsonSchema)]
struct NeedsSize {
    #[expect(dead_code, reason = "only its type matters")]
    size: u32,
}

#[derive(Serialize, JsonSchema)]
struct WritesSize {
    size: u32,
}

#[derive(Serialize, JsonSchema)]
struct MayWriteSize {
    size: Option<u32>,
}

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

macro_rules! node {
    ($name:ident, $reads:ty, $writes:ty, $value:expr) => {
        struct $name;

        #[async_trait]
        impl Node for $name {
            const KIND: &'static str = stringify!($name);
            const VERSION: u32 = 1;
            type Reads = $reads;
            type Writes = $writes;

            async fn run(&self, _cx: &Context, _reads: $reads) -> Result<Outcome<$writes>, NodeError> {
                Ok(Outcome::update($value))
            }
        }
    };
}

node!(Reader, NeedsSize, MayWriteSize, MayWriteSize { size: None });
node!(Writer, Nothing, WritesSize, WritesSize { size: 1 });
node!(Perhaps, Nothing, MayWriteSize, MayWriteSize { size: None });

fn sized() -> StateGraph {
    StateGraph::new("sized").channel("size", Channel::last(ChannelType::Integer))
}

#[test]
fn topology() {
    assert_eq!(codes(graph("no").node("a", speaker())), ["no_entry"]);
    assert_eq!(codes(graph("to").node("a", speaker()).edge(START, "a").edge("a", "b")), ["unknown_node"]);
    assert_eq!(codes(graph("from").node("a", speaker()).edge(START, "a").edge("b", "a")), ["unknown_node"]);
    let routed = graph("route").node("a", speaker()).edge(START, "a").route("a", ["b"], |_| Ok("b".into()));
    assert_eq!(codes(routed), ["unknown_node"]);
    let barrier = graph("barrier").node("a", speaker()).edge(START, "a").barrier(["a", "b"], "c");
    assert_eq!(codes(barrier), ["unknown_node", "unknown_node"]);
    let stops = graph("stop").node("a", speaker()).edge(START, "a").interrupt_before(["b"]).interrupt_after(["c"]);
    assert_eq!(codes(stops), ["unknown_node", "unknown_node"]);
    let policy = graph("policy").node("a", speaker()).edge(START, "a").policy("b", NodePolicy::default());
    assert_eq!(codes(policy), ["unknown_node"]);
    let twice = graph("twice").node("a", speaker()).node("a", speaker()).edge(START, "a");
    assert_eq!(codes(twice.channel("n", Channel::last(ChannelType::Any))), ["duplicate", "duplicate"]);
    for name in ["", "a|b", "a:b", "START", "END", "__x", "a#1", "a/b", "a[0]"] {
        assert!(codes(graph("name").node(name, speaker()).edge(START, name)).contains(&"reserved_name".to_owned()));
    }
    let endless = graph("endless").node("a", speaker()).node("b", speaker());
    assert_eq!(codes(endless.edge(START, "a").edge("a", "b").edge("b", "a")), ["endless_cycle"]);
    assert_eq!(codes(graph("self").node("a", speaker()).edge(START, "a").edge("a", "a")), ["endless_cycle"]);
}

#[test]
fn channels() {
    let reader = || StateGraph::new("none").node("r", Reader).edge(START, "r");
    assert_eq!(codes(reader()), ["undeclared_channel", "undeclared_channel"]);
    let text = reader().channel("size", Channel::last(ChannelType::String));
    assert_eq!(codes(text), ["channel_type"]);
    assert_eq!(codes(sized().input(["other"]).node("w", Writer).edge(START, "w")), ["undeclared_channel"]);
    let unwritten = sized().input(Vec::<String>::new()).node("r", NeverWritten).edge(START, "r");
    assert_eq!(codes(unwritten), ["never_written"]);
    // The input counts as a writer, and so does another node.
    sized().input(["size"]).node("r", NeverWritten).edge(START, "r").compile().unwrap();
    let by_node = sized().input(Vec::<String>::new()).node("w", Writer).node("r", NeverWritten);
    by_node.edge(START, "w").edge("w", "r").compile().unwrap();
}

#[derive(Serialize, JsonSchema)]
struct NoWrites {}

node!(NeverWritten, NeedsSize, NoWrites, NoWrites {});

#[test]
fn certain_concurrent_writes() {
    let both = |graph: StateGraph| graph.node("a", Writer).node("b", Writer).edge(START, "a").edge(START, "b");
    assert_eq!(codes(both(sized())), ["invalid_concurrent_update"]);
    let folded = StateGraph::new("folded").channel("size", Channel::reduced(ChannelType::Integer, Reducer::Max));
    both(folded).compile().unwrap();
    // One that may leave the channel alone is no certain conflict.
    sized().node("a", Writer).node("b", Perhaps).edge(START, "a").edge(START, "b").compile().unwrap();
    sized().node("a", Writer).node("b", Writer).edge(START, "a").edge("a", "b").compile().unwrap();
}

#[test]
fn all_errors_are_told_at_once() {
    let wrong = graph("all").node("a|b", speaker()).edge("x", "y").interrupt_before(["z"]);
    let mut codes = codes(wrong);
    codes.sort();
    assert_eq!(codes, ["no_entry", "reserved_name", "unknown_node", "unknown_node", "unknown_node"]);
}

#[test]
fn warnings_only() {
    let lonely = graph("lonely").node("a", speaker()).node("b", speaker()).edge(START, "a").compile().unwrap();
    assert_eq!(warned(&lonely), ["unreachable_node"]);
    // What a node writes is part of what the run leaves; what nobody touches is not.
    assert!(warned(&sized().node("w", Writer).edge(START, "w").compile().unwrap()).is_empty());
    let unused = sized().channel("colour", Channel::last(ChannelType::Any)).node("w", Writer).edge(START, "w");
    assert_eq!(warned(&unused.compile().unwrap()), ["never_read"]);
    let ignored = sized().channel("x", Channel::last(ChannelType::Any)).input(["x"]).node("w", Writer).edge(START, "w");
    assert_eq!(warned(&ignored.compile().unwrap()), ["never_read"]);
}

/// `a`, `b`, `c`, of which only `a` is begun with.
fn three() -> StateGraph {
    let lone = |graph: StateGraph, name: &str| graph.dyn_node(name, Arc::new(Still { gotos: Vec::new() }));
    ["a", "b", "c"].into_iter().fold(graph("three"), lone).edge(START, "a")
}

/// An erased node that goes nowhere that it does not name.
struct Still {
    gotos: Vec<String>,
}

#[async_trait]
impl DynNode for Still {
    fn info(&self) -> NodeInfo {
        NodeInfo { kind: "still".into(), gotos: self.gotos.clone(), ..NodeInfo::default() }
    }

    async fn run(&self, _: &Context, _: &View) -> Result<Produced, NodeError> {
        Ok(Produced::default())
    }
}

#[test]
fn barriers_that_cannot_be_filled() {
    assert_eq!(codes(three().barrier(["a", "b"], "c")), ["barrier_unfillable"]);
    assert_eq!(codes(three().barrier(["a", "c"], "b").edge("b", "c")), ["barrier_unfillable"]);
    assert_eq!(codes(three().barrier(["a", "b"], "b").edge("b", "c")), ["barrier_unfillable"]);
    three().edge(START, "b").barrier(["a", "b"], "c").compile().unwrap();
    // One of the two is never there, which needs more than a look at where edges lead.
    three().route("a", ["b", "c"], |_| Ok("b".into())).barrier(["b", "c"], "a").compile().unwrap();
    // A typed node may go anywhere.
    let goes = graph("goes").node("a", speaker()).node("b", speaker()).node("c", speaker()).edge(START, "a");
    assert_eq!(warned(&goes.barrier(["a", "b"], "c").compile().unwrap()), ["unreachable_node", "unreachable_node"]);
}

#[test]
fn cycles_are_left_by_choice_only() {
    let beside = || three().edge("a", "b").edge("b", "a").edge("b", "c");
    assert_eq!(codes(beside()), ["endless_cycle"]);
    let by = OnError { to: "c".into(), into: None };
    let handled = beside().policy("b", NodePolicy { on_error: Some(by), ..NodePolicy::default() });
    handled.compile().unwrap();
    three().edge("a", "b").route("b", ["a", "c"], |_| Ok("c".into())).compile().unwrap();
    // A goto that may not be taken is a way out.
    let goto = three().dyn_node("d", Arc::new(Still { gotos: vec!["d".into()] })).edge("a", "d");
    goto.compile().unwrap();
    assert_eq!(
        codes(three().route("a", ["a", "b"], |_| Ok("a".into())).route("b", ["a"], |_| Ok("a".into()))),
        ["endless_cycle"]
    );
}

#[test]
fn policies_that_make_no_sense() {
    let with = |policy: NodePolicy| three().edge("a", "b").edge("b", "c").policy("b", policy);
    let zero = Some(Duration::ZERO);
    let by = |to: &str| Some(OnError { to: to.into(), into: None });
    for (policy, code) in [
        (NodePolicy { timeout: zero, ..NodePolicy::default() }, "zero_duration"),
        (NodePolicy { idle_timeout: zero, ..NodePolicy::default() }, "zero_duration"),
        (NodePolicy { interrupt_ttl: zero, ..NodePolicy::default() }, "zero_duration"),
        (
            NodePolicy { cache: Some(CachePolicy { ttl: zero, by: Vec::new() }), ..NodePolicy::default() },
            "zero_duration",
        ),
        (
            NodePolicy {
                retry: vec![RetryPolicy { max_attempts: 0, ..RetryPolicy::default() }],
                ..NodePolicy::default()
            },
            "bad_retry",
        ),
        (NodePolicy { on_error: by("b"), ..NodePolicy::default() }, "handler_circle"),
    ] {
        assert_eq!(codes(with(policy.clone())), [code]);
        // Who has begun with it goes on with it.
        let kept = with(policy).compile_kept().unwrap();
        assert_eq!(warned(&kept), [code]);
    }
    let each_other = with(NodePolicy { on_error: by("c"), ..NodePolicy::default() });
    let each_other = each_other.policy("c", NodePolicy { on_error: by("b"), ..NodePolicy::default() });
    assert_eq!(warned(&each_other.compile().unwrap()), ["handler_circle"]);
    let late = NodePolicy { defer: true, ..NodePolicy::default() };
    assert_eq!(codes(three().edge("a", "b").policy("c", late.clone())), ["never_due"]);
    // Deferred nodes run later than their siblings.
    let apart = sized().node("a", Writer).node("b", Writer).edge(START, "a").edge(START, "b").policy("b", late);
    apart.compile().unwrap();
    let bad = StateGraph::new("bad").channel("size", Channel::reduced(ChannelType::String, Reducer::Add));
    assert_eq!(codes(bad.node("p", Nobody).edge(START, "p")), ["bad_reducer"]);
}

node!(Nobody, Nothing, NoWrites, NoWrites {});

#[test]
fn a_subgraph_shares_what_it_shares() {
    let inner = |kind| {
        let graph = StateGraph::new("inner").channel("size", Channel::last(kind)).node("p", Nobody).edge(START, "p");
        Arc::new(graph.compile().unwrap())
    };
    let around = |kind| sized().subgraph("s", inner(kind)).edge(START, "s");
    around(ChannelType::Integer).compile().unwrap();
    assert_eq!(codes(around(ChannelType::String)), ["channel_type"]);
}

#[test]
fn the_fingerprint_knows_what_decides_a_run() {
    let base = || graph("g").node("a", speaker()).node("b", speaker()).edge(START, "a").edge("a", "b");
    let same = base().compile().unwrap().fingerprint();
    assert_eq!(base().compile().unwrap().fingerprint(), same);
    let commit = NodePolicy { commit_point: true, ..NodePolicy::default() };
    let sub = Arc::new(chain_of("inner", "x"));
    let others = [
        base().edge(START, "b"),
        base().interrupt_before(["b"]),
        base().policy("a", commit),
        base().channel("more", Channel::last(ChannelType::Any)),
        base().subgraph("s", sub).edge("b", "s"),
    ];
    let mut seen: Vec<String> = others.map(|g| g.compile().unwrap().fingerprint()).into();
    seen.push(same);
    let inner = Arc::new(chain_of("inner", "y"));
    seen.push(base().subgraph("s", inner).edge("b", "s").compile().unwrap().fingerprint());
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count);
}

fn chain_of(name: &str, node: &str) -> CompiledGraph {
    graph(name).node(node, speaker()).edge(START, node).compile().unwrap()
}
