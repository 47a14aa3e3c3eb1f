//! The saga: after a failure or a cancel everything since the commit point is undone, newest first.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidegate::graph::{
    Advance, CompiledGraph, EntryStatus, Failure, NodePolicy, Outcome, START, StateGraph, Stop, ThreadId, ThreadStatus,
};
use tokio::sync::watch;

use crate::support::*;

fn compiled(graph: StateGraph) -> Arc<CompiledGraph> {
    Arc::new(graph.compile().unwrap())
}

#[tokio::test]
async fn a_failure_undoes_newest_first() {
    each(async |rig| {
        let graph = chain("saga", vec![("a", maker()), ("b", maker()), ("c", maker()), ("d", failing())]);
        let (id, end) = rig.run(&graph).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "boom"));
        assert_eq!(rig.world.calls("undo"), ["c", "b", "a"]);
        assert!(rig.world.things().is_empty());
        assert!(rig.journal(&id).await.iter().all(|(_, status)| *status == EntryStatus::Undone), "records stay");
        rig.replays(&graph, &id).await;
        let refused = rig.try_advance(&graph, &id).await.unwrap_err();
        assert_eq!(refused.failure().code, "thread_over");
        let refused = rig.engine.update(&graph, &id, &object(json!({"n": 1})), "a").await.unwrap_err();
        assert_eq!(refused.failure().code, "thread_over");
    })
    .await;
}

#[tokio::test]
async fn nothing_before_the_commit_point_is_undone() {
    each(async |rig| {
        let policy = NodePolicy { commit_point: true, ..NodePolicy::default() };
        let built = graph("commit").node("a", maker()).node("b", maker()).node("c", maker()).node("d", failing());
        let built = built.policy("b", policy).edge(START, "a").edge("a", "b").edge("b", "c").edge("c", "d");
        let graph = compiled(built);
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Failed);
        assert_eq!(rig.world.calls("undo"), ["c"]);
        assert_eq!(rig.world.things(), ["a", "b"]);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn an_undo_that_fails_sticks_and_goes_on_when_asked_again() {
    each(async |rig| {
        let graph = chain("stuck", vec![("a", maker()), ("b", maker()), ("c", maker()), ("d", failing())]);
        rig.world.next("undo b", Act::Fail { retryable: false });
        rig.world.next("undo b", Act::Panic);
        let (id, end) = rig.run(&graph).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Stuck, "undo_failed"));
        let statuses: Vec<EntryStatus> = rig.journal(&id).await.into_iter().map(|(_, status)| status).collect();
        assert_eq!(statuses, [EntryStatus::Done, EntryStatus::UndoFailed, EntryStatus::Undone]);
        rig.replays(&graph, &id).await;
        let refused = rig.engine.update(&graph, &id, &object(json!({"n": 1})), "a").await.unwrap_err();
        assert!(["thread_unwinding", "thread_over"].contains(&refused.failure().code.as_str()));
        let end = rig.advance(&graph, &id).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Stuck, "undo_failed"), "a panic is a failed undo");
        let end = rig.advance(&graph, &id).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "boom"));
        assert_eq!(rig.world.calls("undo"), ["c", "b", "b", "b", "a"]);
        assert!(rig.world.things().is_empty());
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn an_undo_worth_repeating_is_repeated() {
    each(async |rig| {
        let graph = chain("again", vec![("a", maker()), ("d", failing())]);
        rig.world.next("undo a", Act::Fail { retryable: true });
        let (_, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Failed);
        assert_eq!(rig.world.calls("undo"), ["a", "a"]);
    })
    .await;
}

#[tokio::test]
async fn a_stuck_undo_can_be_accepted() {
    each(async |rig| {
        let graph = chain("accept", vec![("a", maker()), ("d", failing())]);
        rig.world.next("undo a", Act::Fail { retryable: false });
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Stuck);
        let end = rig.engine.cancel(&graph, &id, false, Failure::new("enough", "let it be")).await.unwrap();
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "boom"));
        assert_eq!(rig.world.things(), ["a"]);
    })
    .await;
}

#[tokio::test]
async fn what_an_undo_is_stuck_at_can_be_accepted_and_the_rest_is_undone() {
    each(async |rig| {
        let graph = chain("accept", vec![("a", maker()), ("b", maker()), ("c", maker()), ("d", failing())]);
        rig.world.next("undo b", Act::Fail { retryable: false });
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Stuck);
        let end = rig.engine.accept_undo(&graph, &id, "ada").await.unwrap();
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "boom"));
        assert_eq!(
            (rig.world.calls("undo"), rig.world.things()),
            (vec!["c".into(), "b".into(), "a".into()], vec!["b".into()])
        );
        let statuses: Vec<EntryStatus> = rig.journal(&id).await.into_iter().map(|(_, status)| status).collect();
        assert_eq!(statuses, [EntryStatus::Undone, EntryStatus::Accepted, EntryStatus::Undone]);
        rig.replays(&graph, &id).await;
        let over = rig.engine.accept_undo(&graph, &id, "ada").await.unwrap_err();
        assert_eq!(over.failure().code, "not_stuck");
    })
    .await;
}

#[tokio::test]
async fn what_nobody_can_tell_can_be_accepted_too() {
    each(async |rig| {
        let graph = chain("tell", vec![("a", maker()), ("b", maker()), ("c", maker())]);
        rig.world.next("perform b", Act::DoAndHang);
        rig.world.next("probe b", Act::Unknown);
        rig.world.next("probe b", Act::Unknown);
        let id = rig.create(&graph).await;
        assert_eq!(stopped_after(&rig, &graph, &id, "perform b", Stop::Cancel).await, ThreadStatus::Stuck);
        let end = rig.engine.accept_undo(&graph, &id, "ada").await.unwrap();
        assert_eq!((end.status, rig.world.calls("undo")), (ThreadStatus::Cancelled, vec!["a".to_owned()]));
        assert_eq!(rig.world.things(), ["b"]);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn siblings_come_to_their_end_before_anything_is_undone() {
    each(async |rig| {
        let slow = step(|cx, _| {
            Box::pin(async move {
                cx.effect("first", Make::of("slow1")).await?;
                tokio::time::sleep(Duration::from_millis(40)).await;
                cx.effect("second", Make::of("slow2")).await?;
                Ok(Outcome::update(says("slow")))
            })
        });
        let built = graph("siblings").node("slow", slow).node("bad", failing()).edge(START, "slow").edge(START, "bad");
        let graph = compiled(built);
        let (id, end) = rig.run(&graph).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "boom"));
        assert_eq!(rig.world.log(), ["perform slow1", "perform slow2", "undo slow2", "undo slow1"]);
        rig.replays(&graph, &id).await;
    })
    .await;
}

/// Runs until `calls` have been made, then asks for `how`.
async fn stopped_after(rig: &Rig, graph: &Arc<CompiledGraph>, id: &ThreadId, call: &str, how: Stop) -> ThreadStatus {
    let (stop, asked) = watch::channel(Stop::No);
    let world = rig.world.clone();
    let stopping = async move {
        while world.count(call) == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        stop.send(how).unwrap();
    };
    let advance = Advance { stop: asked, ..Advance::default() };
    let (end, ()) = tokio::join!(rig.engine.advance(graph, id, advance), stopping);
    end.unwrap().status
}

#[tokio::test]
async fn what_has_no_receipt_is_settled_before_anything_is_undone() {
    each(async |rig| {
        let graph = chain("settle", vec![("a", maker()), ("b", maker()), ("c", maker())]);
        // `b` stays without receipt, then `c` never comes: cancelled, and nobody can tell about `b` at first.
        rig.world.next("perform b", Act::DoAndHang);
        rig.world.next("probe b", Act::Unknown);
        let id = rig.create(&graph).await;
        assert_eq!(stopped_after(&rig, &graph, &id, "perform b", Stop::Cancel).await, ThreadStatus::Stuck);
        assert!(rig.world.calls("undo").is_empty());
        rig.replays(&graph, &id).await;
        let end = rig.advance(&graph, &id).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Cancelled, "cancelled"));
        assert_eq!(rig.world.calls("undo"), ["b", "a"]);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_cancel_undoes_or_leaves_as_asked() {
    each(async |rig| {
        let graph = chain("cancel", vec![("a", maker()), ("ask", asker()), ("z", maker())]);
        let why = || Failure::new("cancelled_by_user", "no more");
        let (id, _) = rig.run(&graph).await;
        let end = rig.engine.cancel(&graph, &id, true, why()).await.unwrap();
        assert_eq!((end.status, code(&end)), (ThreadStatus::Cancelled, "cancelled_by_user"));
        assert_eq!(rig.world.log(), ["perform a", "undo a"]);
        assert!(rig.open(&id).await.is_empty(), "its questions are withdrawn");
        rig.replays(&graph, &id).await;
        assert_eq!(rig.try_advance(&graph, &id).await.unwrap_err().failure().code, "thread_over");
        let again = rig.engine.cancel(&graph, &id, true, why()).await.unwrap_err();
        assert_eq!(again.failure().code, "thread_over");

        let (id, _) = rig.run(&graph).await;
        let end = rig.engine.cancel(&graph, &id, false, why()).await.unwrap();
        assert_eq!(end.status, ThreadStatus::Cancelled);
        assert_eq!(rig.world.calls("undo"), ["a"], "only the first thread's");
        assert_eq!(rig.world.things(), ["a"]);
        rig.replays(&graph, &id).await;

        let id = rig.create(&graph).await;
        assert_eq!(rig.engine.cancel(&graph, &id, true, why()).await.unwrap().status, ThreadStatus::Cancelled);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_cancel_in_the_middle_of_a_node_replays() {
    each(async |rig| {
        for (name, act) in [("x", Act::DoAndHang), ("y", Act::Hang)] {
            let graph = chain("middle", vec![("a", maker()), (name, maker()), ("z", speaker())]);
            rig.world.next(&format!("perform {name}"), act);
            let id = rig.create(&graph).await;
            let status = stopped_after(&rig, &graph, &id, &format!("perform {name}"), Stop::Cancel).await;
            assert_eq!(status, ThreadStatus::Cancelled);
            assert!(rig.world.things().is_empty());
            rig.replays(&graph, &id).await;
        }
    })
    .await;
}

#[tokio::test]
async fn effects_of_subgraphs_are_undone_too() {
    each(async |rig| {
        let deepest = chain("deepest", vec![("y", maker())]);
        let inner =
            compiled(graph("inner").node("x", maker()).subgraph("deep", deepest).edge(START, "x").edge("x", "deep"));
        let built = graph("outer").node("a", maker()).subgraph("sub", inner).node("bad", failing());
        let graph = compiled(built.edge(START, "a").edge("a", "sub").edge("sub", "bad"));
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Failed);
        assert_eq!(rig.world.calls("undo"), ["y", "x", "a"]);
        let places: Vec<String> = rig.journal(&id).await.into_iter().map(|(place, _)| place).collect();
        assert_eq!(places, ["a#1/make#0", "sub:1|x#1/make#0", "sub:1|deep:1|y#1/make#0"]);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_failure_inside_a_subgraph_names_its_node() {
    each(async |rig| {
        let inner = chain("inner", vec![("x", maker()), ("bad", failing())]);
        let graph = compiled(graph("outer").subgraph("sub", inner).edge(START, "sub"));
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.failure.unwrap().node.as_deref(), Some("sub:1|bad"));
        assert_eq!(rig.world.calls("undo"), ["x"]);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_panic_in_an_effect_is_settled_and_undone() {
    each(async |rig| {
        let graph = chain("panic", vec![("a", maker()), ("b", maker())]);
        rig.world.next("perform b", Act::Panic);
        let (_, end) = rig.run(&graph).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "node_panicked"));
        assert_eq!(rig.world.calls("undo"), ["b", "a"]);
        assert!(rig.world.things().is_empty());
    })
    .await;
}

#[tokio::test]
async fn of_siblings_that_fail_the_first_by_path_decides_whoever_was_faster() {
    each(async |rig| {
        let slow = step(|cx, _| {
            Box::pin(async move {
                cx.effect("make", Make::of("slow")).await?;
                Err(Failure::new("slow_one", "it broke late").into())
            })
        });
        let fast = step(|_, _| Box::pin(async move { Err(Failure::new("fast_one", "it broke at once").into()) }));
        let built = graph("both").node("a", slow).node("b", fast).edge(START, "a").edge(START, "b");
        let graph = Arc::new(built.compile().unwrap());
        let (id, end) = rig.run(&graph).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "slow_one"));
        // Nothing takes time in a replay: there the other one would have been first.
        rig.replays(&graph, &id).await;
    })
    .await;
}
