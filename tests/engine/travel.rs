//! Forks, new input, durability: the line of a thread bends, and what was done stays done.

use std::sync::Arc;

use serde_json::{Map, json};
use tidegate::graph::{
    Advance, CheckpointId, CompiledGraph, Durability, END, START, Source, StateUpdate, ThreadId, ThreadStatus,
};

use crate::support::*;

async fn checkpoint_of(rig: &Rig, id: &ThreadId, step: i64) -> CheckpointId {
    let history = rig.engine.store().history(id, "").await.unwrap();
    history.into_iter().find(|c| c.step == step).unwrap().id
}

fn makers() -> Arc<CompiledGraph> {
    chain("makers", vec![("a", maker()), ("b", maker()), ("c", asker()), ("d", maker())])
}

#[tokio::test]
async fn a_fork_does_its_own_effects_asks_its_own_questions_and_owns_no_undo() {
    each(async |rig| {
        let graph = makers();
        let (id, _) = rig.run(&graph).await;
        rig.answer(&id, "c", json!("yes")).await;
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        let back = checkpoint_of(&rig, &id, 1).await;
        let values = object(json!({"n": 5}));
        let forked = rig.engine.fork(&graph, &id, &back, &values, None).await.unwrap();
        let state = rig.engine.state(&graph, &id).await.unwrap();
        assert_eq!((state.thread.status, &state.next), (ThreadStatus::Interrupted, &vec!["b".to_owned()]));
        assert_eq!((&state.values["n"], &state.values["log"]), (&json!(5), &json!(["made a"])));
        assert_eq!((&state.checkpoint.id, state.checkpoint.source), (&forked, Source::Fork));
        assert_eq!((state.checkpoint.parent, state.checkpoint.step), (Some(back), 2));
        rig.replays(&graph, &id).await;

        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Interrupted);
        assert_eq!(rig.world.count("perform b"), 2, "the branch does its own");
        assert_eq!(rig.open(&id).await, ["c"], "an answer of the other line is none here");
        rig.replays(&graph, &id).await;
        let why = tidegate::graph::Failure::new("cancelled", "enough");
        rig.engine.cancel(&graph, &id, true, why).await.unwrap();
        assert_eq!(rig.world.calls("undo"), ["b"]);
        assert_eq!(rig.world.things(), ["a", "b", "d"]);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_thread_can_be_gone_back_in_and_forked_again_and_again() {
    each(async |rig| {
        let graph = makers();
        let (id, _) = rig.run(&graph).await;
        let why = tidegate::graph::Failure::new("cancelled", "enough");
        rig.engine.cancel(&graph, &id, true, why).await.unwrap();
        assert_eq!(rig.world.things(), [""; 0]);
        for round in 1..=3 {
            let start = checkpoint_of(&rig, &id, 0).await;
            rig.engine.fork(&graph, &id, &start, &Map::new(), None).await.unwrap();
            assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Interrupted);
            assert_eq!(rig.world.count("perform a"), 1 + round);
            rig.replays(&graph, &id).await;
        }
        rig.answer(&id, "c", json!(1)).await;
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_fork_as_a_node_follows_its_edges_and_subgraphs_run_anew() {
    each(async |rig| {
        let inner = graph("inner").node("deep", maker()).edge(START, "deep").compile().unwrap();
        let built = graph("outer").node("a", maker()).subgraph("sub", Arc::new(inner)).node("z", speaker());
        let graph = Arc::new(built.edge(START, "a").edge("a", "sub").edge("sub", "z").compile().unwrap());
        let (id, _) = rig.run(&graph).await;
        let start = checkpoint_of(&rig, &id, 0).await;
        rig.engine.fork(&graph, &id, &start, &object(json!({"log": ["as a"]})), Some("a")).await.unwrap();
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        assert_eq!(rig.log(&graph, &id).await, json!(["as a", "made deep", "z"]));
        assert_eq!((rig.world.count("perform a"), rig.world.count("perform deep")), (1, 2));
        rig.replays(&graph, &id).await;
        let unknown = CheckpointId::from("nowhere");
        let refused = rig.engine.fork(&graph, &id, &unknown, &Map::new(), None).await.unwrap_err();
        assert_eq!(refused.failure().code, "no_checkpoint");
        let state = rig.engine.state_at(&graph, &id, &start).await.unwrap();
        assert_eq!((state.next, &state.values["log"]), (vec!["a".to_owned()], &json!([])));
    })
    .await;
}

#[tokio::test]
async fn new_input_begins_anew_on_the_state_that_is_there() {
    each(async |rig| {
        let graph = chain("input", vec![("a", maker()), ("b", failing())]);
        let ok = chain("input", vec![("a", maker())]);
        let (id, _) = rig.run(&ok).await;
        rig.engine.input(&ok, &id, &object(json!({"n": 7}))).await.unwrap();
        assert_eq!(rig.advance(&ok, &id).await.status, ThreadStatus::Succeeded);
        let state = rig.engine.state(&ok, &id).await.unwrap();
        assert_eq!((&state.values["n"], &state.values["log"]), (&json!(7), &json!(["made a", "made a"])));
        assert_eq!(rig.world.count("perform a"), 2);
        rig.replays(&ok, &id).await;
        assert!(rig.engine.input(&ok, &id, &object(json!({"nobody": 7}))).await.is_err());
        // What an earlier input led to is not undone by the failure of a later one.
        let (id, _) = rig.run(&graph).await;
        assert!(rig.engine.input(&graph, &id, &Map::new()).await.is_err(), "it was undone");
    })
    .await;
}

/// As LangGraph 1.2.22: what was due counts as having run, barriers too.
#[tokio::test]
async fn new_input_leaves_nothing_due_that_was_due_before() {
    each(async |rig| {
        let built = graph("used").node("a", maker()).node("b", maker()).node("c", maker());
        let built = built.edge(START, "a").edge(START, "b").barrier(["a", "b"], "c").interrupt_before(["c"]);
        let graph = Arc::new(built.compile().unwrap());
        let (id, _) = rig.run(&graph).await;
        assert_eq!(rig.world.count("perform"), 2);
        rig.engine.input(&graph, &id, &Map::new()).await.unwrap();
        let due = rig.engine.state(&graph, &id).await.unwrap().next;
        assert_eq!(due, ["a", "b"]);
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Interrupted);
        assert_eq!(rig.world.count("perform"), 4);
        rig.replays(&graph, &id).await;
    })
    .await;
}

/// As LangGraph 1.2.22: a superstep that never ends leaves nothing, unless whoever changes the state ends it.
#[tokio::test]
async fn an_update_leaves_what_finished_siblings_wrote_with_their_superstep() {
    each(async |rig| {
        let built = graph("half").node("a", maker()).node("ask", asker()).node("c", maker());
        let built = built.edge(START, "a").edge(START, "ask").edge("ask", "c");
        let graph = Arc::new(built.compile().unwrap());
        for (as_node, log) in [("ask", json!([])), ("END", json!(["made a"]))] {
            let (id, end) = rig.run(&graph).await;
            assert_eq!(end.status, ThreadStatus::Interrupted);
            assert_eq!(rig.engine.state(&graph, &id).await.unwrap().values["log"], json!(["made a"]));
            let node = if as_node == "END" { END } else { as_node };
            rig.engine.update(&graph, &id, &Map::new(), node).await.unwrap();
            assert_eq!(rig.engine.state(&graph, &id).await.unwrap().values["log"], log, "{as_node}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_done_stays_done_at_every_durability() {
    each(async |rig| {
        for durability in [Durability::Sync, Durability::Async, Durability::Exit] {
            let graph = makers();
            let done = rig.world.count("perform");
            let id = rig.create(&graph).await;
            let how = || Advance { durability, ..Advance::default() };
            let end = rig.engine.advance(&graph, &id, how()).await.unwrap();
            assert_eq!(end.status, ThreadStatus::Interrupted);
            rig.answer(&id, "c", json!(1)).await;
            assert_eq!(rig.engine.advance(&graph, &id, how()).await.unwrap().status, ThreadStatus::Succeeded);
            assert_eq!(rig.log(&graph, &id).await, json!(["made a", "made b", "c heard 1", "made d"]));
            assert_eq!(rig.world.count("perform") - done, 3, "{durability:?}");
            rig.replays(&graph, &id).await;
        }
    })
    .await;
}

#[tokio::test]
async fn durable_at_its_exit_a_run_keeps_its_last_checkpoint_alone() {
    each(async |rig| {
        let steps = vec![("a", speaker()), ("b", speaker()), ("c", speaker()), ("d", asker()), ("e", speaker())];
        let graph = chain("exit", steps);
        let id = rig.create(&graph).await;
        let how = || Advance { durability: Durability::Exit, ..Advance::default() };
        rig.engine.advance(&graph, &id, how()).await.unwrap();
        let steps = async || {
            let history = rig.engine.store().history(&id, "").await.unwrap();
            for pair in history.windows(2) {
                assert_eq!(pair[1].parent.as_ref(), Some(&pair[0].id));
            }
            history.into_iter().map(|c| c.step).collect::<Vec<_>>()
        };
        assert_eq!(steps().await, [0, 3]);
        rig.replays(&graph, &id).await;
        rig.answer(&id, "d", json!(1)).await;
        assert_eq!(rig.engine.advance(&graph, &id, how()).await.unwrap().status, ThreadStatus::Succeeded);
        assert_eq!(steps().await, [0, 3, 5]);
        assert_eq!(rig.log(&graph, &id).await, json!(["a", "b", "c", "d heard 1", "e"]));
        rig.replays(&graph, &id).await;
    })
    .await;
}

fn update(as_node: &str, values: serde_json::Value) -> StateUpdate {
    StateUpdate::new(object(values), as_node)
}

#[tokio::test]
async fn a_bulk_update_is_several_supersteps_and_all_or_none() {
    each(async |rig| {
        // `a -> ask -> c`, and `b` beside `a`, both of which lead to `join`.
        let built =
            graph("bulk").node("a", speaker()).node("b", speaker()).node("join", speaker()).node("ask", asker());
        let built = built.edge(START, "ask").barrier(["a", "b"], "join").route("b", ["ask", "END"], |state| {
            // Chosen by the state with the update's own writes, not its siblings'.
            Ok(if state["n"] == json!(2) { "ask" } else { "END" }.to_owned())
        });
        let graph = Arc::new(built.compile().unwrap());
        let (id, _) = rig.run(&graph).await;
        assert_eq!(rig.open(&id).await, ["ask"]);
        let line = [
            vec![update("ask", json!({"log": ["zero"]}))],
            vec![update("a", json!({"log": ["one"], "n": 5})), update("b", json!({"log": ["two"], "n": 2}))],
        ];
        rig.engine.bulk_update(&graph, &id, &line).await.unwrap();
        let state = rig.engine.state(&graph, &id).await.unwrap();
        assert_eq!((&state.values["log"], &state.values["n"]), (&json!(["zero", "one", "two"]), &json!(7)));
        assert_eq!(state.next, ["ask", "join"]);
        assert!(rig.open(&id).await.is_empty(), "what was asked is withdrawn");
        let history = rig.engine.store().history(&id, "").await.unwrap();
        let sources: Vec<Source> = history.iter().map(|c| c.source).collect();
        assert_eq!(sources, [Source::Loop, Source::Update, Source::Update]);
        assert_eq!(history[2].parent.as_ref(), Some(&history[1].id));
        rig.replays(&graph, &id).await;

        for (wrong, code) in [
            (vec![vec![update("a", json!({"n": 1}))], vec![update("nobody", json!({}))]], "unknown_node"),
            (vec![vec![update("a", json!({"item": 1})), update("b", json!({"item": 2}))]], "invalid_concurrent_update"),
            (vec![vec![]], "bad_updates"),
            (vec![], "bad_updates"),
            (vec![vec![update("a", json!({})); 1_001]], "bad_updates"),
        ] {
            assert_eq!(rig.engine.bulk_update(&graph, &id, &wrong).await.unwrap_err().failure().code, code);
        }
        assert_eq!(rig.engine.store().history(&id, "").await.unwrap().len(), 3, "all or none");

        // As END: nothing is due any more.
        rig.engine.bulk_update(&graph, &id, &[vec![update("END", json!({"n": 1}))]]).await.unwrap();
        let state = rig.engine.state(&graph, &id).await.unwrap();
        assert_eq!((state.thread.status, state.next.len()), (ThreadStatus::Succeeded, 0));
        rig.replays(&graph, &id).await;
    })
    .await;
}
