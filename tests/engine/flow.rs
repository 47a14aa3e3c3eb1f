//! Handlers of failures, deferred nodes, cached results, signs of life.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tidegate::graph::{
    CachePolicy, Channel, ChannelType, CompiledGraph, Failure, NodePolicy, OnError, Outcome, START, StateGraph,
    ThreadStatus,
};

use crate::support::*;

fn handled_by(to: &str, into: Option<&str>) -> NodePolicy {
    NodePolicy { on_error: Some(OnError { to: to.into(), into: into.map(Into::into) }), ..NodePolicy::default() }
}

/// A node that makes a thing and then fails.
fn broken() -> Step {
    step(|cx, _| {
        Box::pin(async move {
            cx.effect("make", Make::of(cx.node())).await?;
            Err(Failure::new("boom", "it broke").into())
        })
    })
}

fn with_problem(name: &str) -> StateGraph {
    graph(name).channel("problem", Channel::last(ChannelType::Object))
}

#[tokio::test]
async fn a_handler_takes_a_failure_and_nothing_is_undone() {
    each(async |rig| {
        let built = with_problem("handled").node("bad", broken()).node("next", speaker()).node("mend", speaker());
        let built = built.edge(START, "bad").edge("bad", "next").policy("bad", handled_by("mend", Some("problem")));
        let graph = Arc::new(built.compile().unwrap());
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Succeeded);
        assert_eq!(rig.log(&graph, &id).await, json!(["mend"]), "its edges are not followed");
        let state = rig.engine.state(&graph, &id).await.unwrap();
        let problem = json!({"code": "boom", "message": "it broke", "cause": null, "node": "bad"});
        assert_eq!(state.values["problem"], problem);
        assert_eq!((rig.world.things(), rig.world.calls("undo")), (vec!["bad".to_owned()], vec![]));
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn the_failure_of_a_handler_undoes_what_was_done_before_it() {
    each(async |rig| {
        let built = graph("twice").node("bad", broken()).node("mend", broken()).edge(START, "bad");
        let graph = Arc::new(built.policy("bad", handled_by("mend", None)).compile().unwrap());
        let (id, end) = rig.run(&graph).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "boom"));
        assert_eq!(rig.world.calls("undo"), ["mend", "bad"]);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_handler_of_a_subgraph_withdraws_what_it_asked() {
    each(async |rig| {
        let inner = graph("inner").node("ask", asker()).node("bad", failing()).edge(START, "ask").edge(START, "bad");
        let inner = Arc::new(inner.compile().unwrap());
        let built = graph("outer").subgraph("sub", inner).node("mend", speaker()).edge(START, "sub");
        let graph = Arc::new(built.policy("sub", handled_by("mend", None)).compile().unwrap());
        let (id, end) = rig.run(&graph).await;
        assert_eq!((end.status, rig.open(&id).await.len()), (ThreadStatus::Succeeded, 0));
        assert_eq!(rig.log(&graph, &id).await, json!(["mend"]));
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_handler_that_is_not_there_is_refused() {
    let built = graph("nobody").node("bad", failing()).edge(START, "bad");
    let errors = built.policy("bad", handled_by("mend", Some("nowhere"))).compile().err().unwrap();
    assert!(errors.errors.iter().any(|e| e.failure.code == "unknown_node"), "{errors}");
}

/// `START -> a -> b -> c`, `START -> last`, and `last` is deferred.
fn deferring(deferred: bool) -> Arc<CompiledGraph> {
    let mut built = graph("defer").edge(START, "last").node("last", speaker());
    let mut before = START;
    for node in ["a", "b", "c"] {
        built = built.node(node, speaker()).edge(before, node);
        before = node;
    }
    Arc::new(built.policy("last", NodePolicy { defer: deferred, ..NodePolicy::default() }).compile().unwrap())
}

#[tokio::test]
async fn a_deferred_node_runs_when_nothing_else_is_due() {
    each(async |rig| {
        let graph = deferring(true);
        let (id, _) = rig.run(&graph).await;
        assert_eq!(rig.log(&graph, &id).await, json!(["a", "b", "c", "last"]));
        rig.replays(&graph, &id).await;
        let (id, _) = rig.run(&deferring(false)).await;
        assert_eq!(rig.log(&deferring(false), &id).await, json!(["a", "last", "b", "c"]));
    })
    .await;
}

#[tokio::test]
async fn what_was_given_for_the_same_input_is_given_again_to_every_thread() {
    each(async |rig| {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = runs.clone();
        let slow = step(move |_, seen| {
            let nth = counted.fetch_add(1, Ordering::Relaxed) + 1;
            Box::pin(async move { Ok(Outcome::update(says(format!("run {nth} for {}", seen.n)))) })
        });
        let cache = CachePolicy { ttl: None, by: vec!["n".into()] };
        let built = graph("cached").node("slow", slow).edge(START, "slow");
        let policy = NodePolicy { cache: Some(cache), ..NodePolicy::default() };
        let graph = Arc::new(built.policy("slow", policy).compile().unwrap());
        for (n, said) in [(1, "run 1 for 1"), (1, "run 1 for 1"), (2, "run 2 for 2"), (1, "run 1 for 1")] {
            let id = rig.create_with(&graph, json!({"n": n})).await;
            rig.advance(&graph, &id).await;
            assert_eq!(rig.log(&graph, &id).await, json!([said]));
            let ran = runs.load(Ordering::Relaxed);
            if said.starts_with(&format!("run {ran} ")) {
                continue;
            }
            // What came from the cache replays without it, and without running.
            rig.replays(&graph, &id).await;
            assert_eq!(runs.load(Ordering::Relaxed), ran);
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_undone_is_given_to_nobody() {
    each(async |rig| {
        let runs = AtomicUsize::new(0);
        let bad = step(move |_, _| {
            let first = runs.fetch_add(1, Ordering::Relaxed) == 0;
            Box::pin(async move {
                if first { Err(Failure::new("bad", "it went bad").into()) } else { Ok(Outcome::update(says("well"))) }
            })
        });
        let cache = CachePolicy { ttl: None, by: Vec::new() };
        let built = graph("undone").node("make", maker()).node("bad", bad).edge(START, "make").edge("make", "bad");
        let policy = NodePolicy { cache: Some(cache), ..NodePolicy::default() };
        let graph = Arc::new(built.policy("make", policy).compile().unwrap());
        assert_eq!(rig.run(&graph).await.1.status, ThreadStatus::Failed);
        assert_eq!((rig.world.count("perform make"), rig.world.count("undo make")), (1, 1));
        assert_eq!(rig.run(&graph).await.1.status, ThreadStatus::Succeeded);
        assert_eq!(rig.world.count("perform make"), 2);
        assert_eq!(rig.run(&graph).await.1.status, ThreadStatus::Succeeded);
        assert_eq!(rig.world.count("perform make"), 2, "what stays is given again");
    })
    .await;
}

#[tokio::test]
async fn a_cached_result_gets_old() {
    each(async |rig| {
        let cache = CachePolicy { ttl: Some(Duration::ZERO), by: Vec::new() };
        let built = graph("old").node("make", maker()).edge(START, "make");
        let policy = NodePolicy { cache: Some(cache), ..NodePolicy::default() };
        // A length of zero is refused in new graphs; here it saves the waiting.
        let graph = Arc::new(built.policy("make", policy).compile_kept().unwrap());
        rig.run(&graph).await;
        rig.run(&graph).await;
        assert_eq!(rig.world.count("perform make"), 2);
    })
    .await;
}

#[tokio::test]
async fn a_node_without_a_sign_of_life_is_ended_and_one_that_shows_them_is_not() {
    each(async |rig| {
        let idle = NodePolicy { idle_timeout: Some(Duration::from_millis(150)), ..NodePolicy::default() };
        let lively = step(|cx, _| {
            Box::pin(async move {
                for n in 0..8 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    cx.progress(&format!("step {n}"));
                }
                Ok(Outcome::update(says("lived")))
            })
        });
        let built = graph("lively").node("a", lively).edge(START, "a").policy("a", idle.clone());
        let graph = Arc::new(built.compile().unwrap());
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Succeeded);
        assert_eq!(rig.log(&graph, &id).await, json!(["lived"]));

        // Also inside a subgraph, whose own signs count for the whole.
        let dead = step(|_, _| Box::pin(std::future::pending()));
        let inner = crate::support::graph("inner").node("dead", dead).edge(START, "dead").compile().unwrap();
        let built = crate::support::graph("dead").subgraph("sub", Arc::new(inner)).edge(START, "sub");
        let graph = Arc::new(built.policy("sub", idle).compile().unwrap());
        let (id, end) = rig.run(&graph).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "node_idle"));
        rig.replays(&graph, &id).await;
    })
    .await;
}
