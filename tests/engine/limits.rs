//! Timeouts, retries, panics, limits, and mistakes in nodes and routers: the thread ends failed, never succeeded, and says why.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate::graph::{
    Advance, Channel, ChannelType, CompiledGraph, Context, DynNode, END, Failure, Goto, Node, NodeError, NodeInfo,
    NodePolicy, Outcome, Produced, RetryPolicy, START, StateGraph, ThreadStatus, View, Write,
};

use crate::support::*;

fn compiled(graph: StateGraph) -> Arc<CompiledGraph> {
    Arc::new(graph.compile().unwrap())
}

fn retry(max_attempts: u32) -> Vec<RetryPolicy> {
    vec![RetryPolicy { max_attempts, initial_ms: 1, max_ms: 2, ..RetryPolicy::default() }]
}

#[tokio::test]
async fn a_node_that_takes_too_long_fails() {
    each(async |rig| {
        let slow = step(|_, _| {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok(Outcome::update(says("late")))
            })
        });
        let policy = NodePolicy { timeout: Some(Duration::from_millis(10)), retry: retry(2), ..NodePolicy::default() };
        let graph = compiled(graph("slow").node("a", slow).policy("a", policy).edge(START, "a"));
        let (id, end) = rig.run(&graph).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "node_timeout"));
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_node_that_mends_itself_is_repeated_and_replays() {
    each(async |rig| {
        let flaky = step(|cx, _| {
            Box::pin(async move {
                if cx.attempt() < 3 {
                    return Err(Failure::new("flaky", "not yet").retryable().into());
                }
                Ok(Outcome::update(says(format!("attempt {}", cx.attempt()))))
            })
        });
        let policy = NodePolicy { retry: retry(3), ..NodePolicy::default() };
        let graph = compiled(graph("flaky").node("a", flaky).policy("a", policy).edge(START, "a"));
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Succeeded);
        assert_eq!(rig.log(&graph, &id).await, json!(["attempt 3"]));
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_panic_is_a_failure_with_its_message() {
    each(async |rig| {
        let node = step(|_, _| Box::pin(async move { panic!("oh {}", "dear") }));
        let graph = chain("panic", vec![("a", maker()), ("b", node)]);
        let (id, end) = rig.run(&graph).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "node_panicked"));
        assert_eq!(end.failure.unwrap().cause.as_deref(), Some("oh dear"));
        assert_eq!(rig.world.log(), ["perform a", "undo a"]);
        assert_eq!(rig.engine.store().thread(&id).await.unwrap().unwrap().owner, None);
        rig.replays(&graph, &id).await;
    })
    .await;
}

type Choose = fn() -> Result<String, Failure>;

#[tokio::test]
async fn a_routers_mistake_leaves_the_thread_failed() {
    each(async |rig| {
        let route = |choose: Choose| {
            let built = graph("route").node("a", speaker()).node("b", speaker()).edge(START, "a");
            compiled(built.route("a", ["b", END], move |_| choose()))
        };
        let wrong: [(&str, Choose); 3] = [
            ("lost", || Err(Failure::new("lost", "no way"))),
            ("undeclared_destination", || Ok("c".into())),
            ("node_panicked", || panic!("router")),
        ];
        for (expected, choose) in wrong {
            let graph = route(choose);
            let (id, end) = rig.run(&graph).await;
            assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, expected));
            let row = rig.engine.store().thread(&id).await.unwrap().unwrap();
            assert_eq!((row.status, row.owner), (ThreadStatus::Failed, None));
            rig.replays(&graph, &id).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_goto_to_nowhere_leaves_the_thread_failed() {
    each(async |rig| {
        let node = step(|_, _| {
            Box::pin(async move { Ok(Outcome { update: says("a"), goto: vec![Goto::Node("nowhere".into())] }) })
        });
        let graph = chain("nowhere", vec![("a", node)]);
        let (id, end) = rig.run(&graph).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "unknown_node"));
        rig.replays(&graph, &id).await;
    })
    .await;
}

/// An untyped node that writes what it is told.
struct Raw(Vec<Write>);

#[async_trait]
impl DynNode for Raw {
    fn info(&self) -> NodeInfo {
        NodeInfo { kind: "raw".into(), version: 1, ..NodeInfo::default() }
    }

    async fn run(&self, _cx: &Context, _view: &View) -> Result<Produced, NodeError> {
        Ok(Produced { writes: self.0.clone(), goto: Vec::new() })
    }
}

#[tokio::test]
async fn a_wrong_write_leaves_the_thread_failed() {
    each(async |rig| {
        let cases = [
            ("undeclared_channel", vec![Write::new("typo", json!(1))]),
            ("channel_type", vec![Write::new("n", json!("one"))]),
            ("invalid_concurrent_update", vec![Write::new("item", json!(1)), Write::new("item", json!(2))]),
        ];
        for (expected, writes) in cases {
            let built = graph("write").node("first", maker()).dyn_node("raw", Arc::new(Raw(writes)));
            let graph = compiled(built.edge(START, "first").edge("first", "raw"));
            let (id, end) = rig.run(&graph).await;
            assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, expected));
            assert!(rig.world.things().is_empty());
            rig.replays(&graph, &id).await;
        }
    })
    .await;
}

#[tokio::test]
async fn two_branches_that_write_one_value_conflict_when_they_meet() {
    each(async |rig| {
        let raw = || Arc::new(Raw(vec![Write::new("item", json!(1))]));
        let built = graph("meet").dyn_node("a", raw()).dyn_node("b", raw()).edge(START, "a").edge(START, "b");
        let graph = compiled(built);
        let (id, end) = rig.run(&graph).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "invalid_concurrent_update"));
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[derive(Deserialize, JsonSchema)]
struct Wants {
    item: Inner,
}

#[derive(Deserialize, JsonSchema)]
struct Inner {
    #[expect(dead_code, reason = "only its type matters")]
    size: u32,
}

#[derive(Serialize, JsonSchema)]
struct Nothing {}

struct Picky;

#[async_trait]
impl Node for Picky {
    const KIND: &'static str = "picky";
    const VERSION: u32 = 1;
    type Reads = Wants;
    type Writes = Nothing;

    async fn run(&self, _cx: &Context, reads: Wants) -> Result<Outcome<Nothing>, NodeError> {
        let _ = reads.item;
        Ok(Outcome::update(Nothing {}))
    }
}

#[tokio::test]
async fn a_channel_of_another_shape_than_a_node_reads_fails() {
    each(async |rig| {
        let graph = compiled(graph("picky").node("p", Picky).edge(START, "p"));
        for input in [json!({"item": {"size": "big"}}), json!({})] {
            let id = rig.create_with(&graph, input).await;
            let end = rig.advance(&graph, &id).await;
            assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "reads_mismatch"));
            rig.replays(&graph, &id).await;
        }
        let id = rig.create_with(&graph, json!({"item": {"size": 3}})).await;
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
    })
    .await;
}

#[tokio::test]
async fn a_send_that_is_no_object_fails() {
    each(async |rig| {
        let fan = step(|_, _| {
            let goto = vec![Goto::Send { to: "work".into(), input: json!(7) }];
            Box::pin(async move { Ok(Outcome { update: Wrote::default(), goto }) })
        });
        let graph = compiled(graph("send").node("fan", fan).node("work", speaker()).edge(START, "fan"));
        let (_, end) = rig.run(&graph).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "send_payload"));
    })
    .await;
}

fn endless() -> Arc<CompiledGraph> {
    let built = graph("endless").node("loop", counting()).edge(START, "loop");
    compiled(
        built.route("loop", ["loop", END], |state| {
            Ok(if state["n"].as_i64() < Some(7) { "loop" } else { END }.to_owned())
        }),
    )
}

fn counting() -> Step {
    step(|cx, seen| {
        Box::pin(async move {
            cx.effect("make", Make::of(&format!("v{}", seen.n))).await?;
            Ok(Outcome::update(Wrote { n: Some(1), ..Wrote::default() }))
        })
    })
}

#[tokio::test]
async fn the_recursion_limit_pauses_and_the_thread_can_go_on() {
    each(async |rig| {
        let graph = endless();
        let id = rig.create(&graph).await;
        let how = || Advance { recursion_limit: 3, ..Advance::default() };
        let end = rig.engine.advance(&graph, &id, how()).await.unwrap();
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "recursion_limit"));
        assert!(rig.world.calls("undo").is_empty(), "a pause undoes nothing");
        rig.replays(&graph, &id).await;
        let mut runs = 1;
        while rig.engine.advance(&graph, &id, how()).await.unwrap().status == ThreadStatus::Failed {
            runs += 1;
            assert!(runs < 9);
        }
        assert_eq!(rig.world.count("perform"), 7);
        assert_eq!(rig.engine.state(&graph, &id).await.unwrap().values["n"], json!(7));
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn what_ran_out_of_supersteps_can_be_cancelled() {
    each(async |rig| {
        let graph = endless();
        let id = rig.create(&graph).await;
        let how = Advance { recursion_limit: 3, ..Advance::default() };
        rig.engine.advance(&graph, &id, how).await.unwrap();
        let made = rig.world.things().len();
        assert!(made > 0);
        let why = Failure::new("enough", "enough");
        let end = rig.engine.cancel(&graph, &id, true, why).await.unwrap();
        assert_eq!(end.status, ThreadStatus::Cancelled);
        assert_eq!(rig.world.calls("undo").len(), made);
        assert!(rig.world.things().is_empty());
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn another_graph_than_the_one_that_began_is_refused() {
    each(async |rig| {
        let graph = chain("was", vec![("a", asker()), ("b", speaker())]);
        let (id, _) = rig.run(&graph).await;
        let renamed = chain("was", vec![("a", asker()), ("deploy", speaker())]);
        rig.answer(&id, "a", json!(1)).await;
        for refused in [
            rig.try_advance(&renamed, &id).await.unwrap_err(),
            rig.engine.cancel(&renamed, &id, true, Failure::new("x", "x")).await.unwrap_err(),
            rig.engine.update(&renamed, &id, &object(json!({"n": 1})), "a").await.unwrap_err(),
        ] {
            assert_eq!(refused.failure().code, "graph_changed");
        }
        let row = rig.engine.store().thread(&id).await.unwrap().unwrap();
        assert_eq!((row.status, row.owner), (ThreadStatus::Interrupted, None), "a refusal changes nothing");
        let built = StateGraph::new("was").channel("item", Channel::last(ChannelType::Any)).node("p", Picky);
        let other = compiled(built.edge(START, "p"));
        let why = rig.try_advance(&other, &id).await.unwrap_err().failure().into_details().cause.unwrap();
        assert!(why.contains("node type `step` (version 1) is gone"), "{why}");
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
    })
    .await;
}

#[tokio::test]
async fn an_input_with_an_unknown_key_makes_no_thread() {
    each(async |rig| {
        let graph = chain("input", vec![("a", speaker())]);
        let new = tidegate::graph::NewThread { input: object(json!({"typo": 1})), ..Default::default() };
        let refused = rig.engine.create(&graph, new).await.unwrap_err();
        assert_eq!(refused.failure().code, "unknown_input");
        let all = rig.engine.store().threads(&tidegate::graph::ThreadFilter::default()).await.unwrap();
        assert!(all.is_empty());
    })
    .await;
}

#[tokio::test]
async fn an_effect_that_this_process_does_not_know_sticks_nothing_and_says_so() {
    each(async |rig| {
        let graph = chain("unknown", vec![("a", maker())]);
        let id = rig.create(&graph).await;
        let bare = tidegate::graph::Engine::new(rig.engine.store().clone(), tidegate::graph::Effects::new(), owner());
        let end = bare.advance(&graph, &id, Advance::default()).await.unwrap();
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "effect_unavailable"));
        assert!(rig.journal(&id).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn values_of_any_kind_come_back_as_they_were() {
    each(async |rig| {
        let item: Value = json!({"é\u{0}": [u64::MAX, i64::MIN, 0.1, 1e300, null, {"deep": [[[]]]}]});
        let graph = chain("values", vec![("ask", asker())]);
        let id = rig.create_with(&graph, json!({"item": item, "log": ["first"]})).await;
        rig.advance(&graph, &id).await;
        rig.answer(&id, "ask", item.clone()).await;
        rig.advance(&graph, &id).await;
        assert_eq!(rig.engine.state(&graph, &id).await.unwrap().values["item"], item);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn the_first_policy_that_takes_a_failure_counts() {
    each(async |rig| {
        let policy = |on: &[&str], max_attempts| RetryPolicy {
            on: on.iter().map(|&code| code.to_owned()).collect(),
            ..retry(max_attempts).remove(0)
        };
        let policies = vec![policy(&["boom", "bang"], 2), policy(&[], 4)];
        for (code_of, retryable, attempts) in
            [("boom", false, 2), ("bang", true, 2), ("other", true, 4), ("other", false, 1)]
        {
            let runs = Arc::new(AtomicUsize::new(0));
            let counted = runs.clone();
            let bad = step(move |_, _| {
                counted.fetch_add(1, Ordering::Relaxed);
                let failure = Failure::new(code_of, "it broke");
                let failure = if retryable { failure.retryable() } else { failure };
                Box::pin(async move { Err(failure.into()) })
            });
            let policy = NodePolicy { retry: policies.clone(), ..NodePolicy::default() };
            let graph = compiled(graph("bad").node("bad", bad).edge(START, "bad").policy("bad", policy));
            let (id, end) = rig.run(&graph).await;
            assert_eq!((code(&end), runs.load(Ordering::Relaxed)), (code_of, attempts));
            rig.replays(&graph, &id).await;
        }
    })
    .await;
}
