//! What stays of a subgraph between its visits.

use std::sync::Arc;

use serde_json::{Map, json};
use tidegate::graph::{
    Advance, CompiledGraph, Durability, END, Goto, NodePolicy, Outcome, Persistence, START, StateGraph, ThreadStatus,
};
use tidegate::workflow::{NodeTypes, load, no_files};

use crate::support::*;

fn compiled(built: StateGraph) -> Arc<CompiledGraph> {
    Arc::new(built.compile().unwrap())
}

fn keeps(persistence: Persistence) -> NodePolicy {
    NodePolicy { persistence, ..NodePolicy::default() }
}

/// `visits` times a subgraph that counts (`n`, its own where the parent does not share it) and says what it has counted.
fn visited(name: &str, sub: StateGraph, persistence: Persistence, visits: i64) -> Arc<CompiledGraph> {
    let count = step(|_, _| Box::pin(async move { Ok(Outcome::update(Wrote { n: Some(1), ..Wrote::default() })) }));
    let built = StateGraph::new(name)
        .channel(
            "n",
            tidegate::graph::Channel::reduced(tidegate::graph::ChannelType::Integer, tidegate::graph::Reducer::Add),
        )
        .channel("item", tidegate::graph::Channel::last(tidegate::graph::ChannelType::Any));
    let built = built.channel(
        "log",
        tidegate::graph::Channel::reduced(tidegate::graph::ChannelType::Array, tidegate::graph::Reducer::Append),
    );
    let built = built.node("count", count).subgraph("sub", compiled(sub)).policy("sub", keeps(persistence));
    let built = built.edge(START, "count").edge("count", "sub");
    compiled(built.route("sub", ["count", END], move |state| {
        Ok(if state["n"].as_i64() < Some(visits) { "count" } else { END }.to_owned())
    }))
}

const REMEMBERS: &str = "\
name: outer
channels: { n: { type: integer, reducer: add }, log: { type: array, reducer: append } }
nodes:
  count: { type: expr, set: { n: '1' } }
  sub:
    type: subgraph
    persistence: PERSISTENCE
    graph:
      channels: { own: { type: integer, reducer: add }, log: { type: array, reducer: append }, ans: { type: any } }
      nodes:
        one: { type: expr, set: { own: '1' } }
        ask: { type: ask, prompt: own, into: ans }
        say: { type: expr, set: { log: \"['own ' + string(own)]\" } }
      edges:
        - { from: START, to: one }
        - { from: one, to: ask }
        - { from: ask, to: say }
edges:
  - { from: START, to: count }
  - { from: count, to: sub }
  - { from: sub, route: [ { when: n < 3, to: count }, { to: END } ] }
";

fn remembering(persistence: &str) -> Arc<CompiledGraph> {
    let text = REMEMBERS.replace("PERSISTENCE", persistence);
    load(&text, "w.yaml", &no_files).unwrap().build(&NodeTypes::generic()).unwrap()
}

/// Goes on until it ends, answering every question.
async fn to_the_end(rig: &Rig, graph: &Arc<CompiledGraph>, id: &tidegate::graph::ThreadId, durability: Durability) {
    loop {
        let end = rig.engine.advance(graph, id, Advance { durability, ..Advance::default() }).await.unwrap();
        rig.replays(graph, id).await;
        match end.status {
            ThreadStatus::Interrupted => rig.answer(id, "ask", json!(1)).await,
            status => return assert_eq!(status, ThreadStatus::Succeeded, "{:?}", end.failure),
        }
    }
}

#[tokio::test]
async fn a_subgraph_keeps_its_state_as_its_persistence_says() {
    for durability in [Durability::Sync, Durability::Async, Durability::Exit] {
        for (persistence, log, namespaces) in [
            ("invocation", json!(["own 1", "own 1", "own 1"]), vec!["", "sub:1", "sub:2", "sub:3"]),
            ("thread", json!(["own 1", "own 2", "own 3"]), vec!["", "sub:*"]),
            ("off", json!(["own 1", "own 1", "own 1"]), vec![""]),
        ] {
            each(async |rig| {
                let graph = remembering(persistence);
                let id = rig.create(&graph).await;
                to_the_end(&rig, &graph, &id, durability).await;
                assert_eq!(rig.log(&graph, &id).await, log, "{persistence}, {durability:?}");
                assert_eq!(rig.engine.store().namespaces(&id).await.unwrap(), namespaces);
            })
            .await;
        }
    }
}

#[tokio::test]
async fn effects_of_every_visit_are_their_own_and_done_once() {
    each(async |rig| {
        for persistence in [Persistence::Thread, Persistence::Off] {
            let inner = graph("inner").node("make", maker()).node("ask", asker()).node("late", maker());
            let inner = inner.edge(START, "make").edge("make", "ask").edge("ask", "late");
            let graph = visited("outer", inner, persistence, 2);
            let id = rig.create(&graph).await;
            let before = rig.world.count("perform");
            to_the_end(&rig, &graph, &id, Durability::Sync).await;
            assert_eq!(rig.world.count("perform") - before, 4);
        }
    })
    .await;
}

/// `REMEMBERS` with a subgraph more around the one that asks.
fn within(text: &str) -> String {
    let (before, rest) = text.split_once("    graph:\n").unwrap();
    let (inner, after) = rest.split_once("edges:\n  - { from: START, to: count }").unwrap();
    let inner: String = inner.lines().map(|line| format!("        {line}\n")).collect();
    let own = "      channels: { log: { type: array, reducer: append } }\n      nodes:\n        sub:\n          type: subgraph\n";
    let own = format!("    graph:\n{own}          persistence: thread\n          graph:\n{inner}");
    format!("{before}{own}      edges: [ {{ from: START, to: sub }} ]\nedges:\n  - {{ from: START, to: count }}{after}")
}

#[tokio::test]
async fn what_an_update_left_in_the_middle_is_what_the_next_visit_begins_with_and_it_replays() {
    each(async |rig| {
        let text = REMEMBERS.replace("PERSISTENCE", "thread");
        // Once as it is, and once with a subgraph around it that keeps its state too.
        for (text, namespaces) in [(within(&text), vec!["", "sub:*", "sub:*|sub:*"]), (text, vec!["", "sub:*"])] {
            let graph = load(&text, "w.yaml", &no_files).unwrap().build(&NodeTypes::generic()).unwrap();
            let id = rig.create(&graph).await;
            let step = async || {
                let end = rig.engine.advance(&graph, &id, Advance::default()).await.unwrap();
                rig.replays(&graph, &id).await;
                end.status
            };
            assert_eq!(step().await, ThreadStatus::Interrupted);
            // Twice: after the first one nothing of the visit that is due has begun.
            for _ in 0..2 {
                rig.engine.update(&graph, &id, &Map::new(), "count").await.unwrap();
                rig.replays(&graph, &id).await;
            }
            while step().await == ThreadStatus::Interrupted {
                rig.answer(&id, "ask", json!(1)).await;
            }
            assert_eq!(rig.log(&graph, &id).await, json!(["own 2", "own 3", "own 4"]), "{namespaces:?}");
            assert_eq!(rig.engine.store().namespaces(&id).await.unwrap(), namespaces);
        }
    })
    .await;
}

#[tokio::test]
async fn a_branch_takes_over_what_the_subgraph_had_where_it_left() {
    each(async |rig| {
        let graph = remembering("thread");
        let id = rig.create(&graph).await;
        to_the_end(&rig, &graph, &id, Durability::Sync).await;
        // Behind the first visit: the branch's first visit is the second.
        let history = rig.engine.store().history(&id, "").await.unwrap();
        let behind_first = history.iter().find(|c| c.values["log"] == json!(["own 1"])).unwrap();
        rig.engine.fork(&graph, &id, &behind_first.id, &Map::new(), None).await.unwrap();
        to_the_end(&rig, &graph, &id, Durability::Sync).await;
        assert_eq!(rig.log(&graph, &id).await, json!(["own 1", "own 2", "own 3"]));
        assert_eq!(rig.engine.store().namespaces(&id).await.unwrap(), ["", "sub:*", "sub:*~1"]);
        // And before it: then there is nothing to take over.
        let start = history.iter().find(|c| c.step == 0).unwrap();
        rig.engine.fork(&graph, &id, &start.id, &Map::new(), None).await.unwrap();
        to_the_end(&rig, &graph, &id, Durability::Sync).await;
        assert_eq!(rig.log(&graph, &id).await, json!(["own 1", "own 2", "own 3"]));
    })
    .await;
}

#[tokio::test]
async fn it_can_be_in_one_visit_only() {
    each(async |rig| {
        let fan = step(|_, _| {
            let send = |n: i64| Goto::Send { to: "sub".into(), input: json!({"n": n}) };
            Box::pin(async move { Ok(Outcome { update: Wrote::default(), goto: vec![send(1), send(2)] }) })
        });
        let inner = graph("inner").node("a", speaker()).edge(START, "a");
        let built = graph("outer").node("fan", fan).subgraph("sub", compiled(inner)).edge(START, "fan");
        let graph = compiled(built.policy("sub", keeps(Persistence::Thread)));
        let (_, end) = rig.run(&graph).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "subgraph_busy"));
    })
    .await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let wrong = |built: StateGraph| {
        assert!(built.compile().err().unwrap().errors.iter().any(|e| e.failure.code == "bad_persistence"));
    };
    wrong(graph("leaf").node("a", speaker()).edge(START, "a").policy("a", keeps(Persistence::Thread)));
    let inner = graph("inner").node("a", speaker()).edge(START, "a").interrupt_before(["a"]);
    let built = graph("outer").subgraph("sub", compiled(inner)).edge(START, "sub");
    wrong(built.policy("sub", keeps(Persistence::Off)));
    let text = REMEMBERS.replacen("{ type: expr, set: { n: '1' } }", "{ type: expr, persistence: off }", 1);
    let text = text.replace("PERSISTENCE", "thread");
    assert_eq!(load(&text, "w.yaml", &no_files).unwrap_err().code, "misplaced_key");
    let failure = load(&REMEMBERS.replace("PERSISTENCE", "never"), "w.yaml", &no_files).unwrap_err();
    assert!(failure.message.contains("w.yaml:7:"), "{}", failure.message);
}
