//! Effects: once in the record, whatever happens between.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;
use tidegate::graph::{
    Advance, END, EntryStatus, Failure, Goto, NodeError, NodePolicy, Outcome, RetryPolicy, START, Stop, ThreadStatus,
};
use tokio::sync::watch;

use crate::support::*;

fn quick(max_attempts: u32) -> NodePolicy {
    let retry = RetryPolicy { max_attempts, initial_ms: 1, max_ms: 2, ..RetryPolicy::default() };
    NodePolicy { retry: vec![retry], ..NodePolicy::default() }
}

#[tokio::test]
async fn recalled_when_a_node_runs_again_after_its_question() {
    each(async |rig| {
        let node = step(|cx, _| {
            Box::pin(async move {
                let a = cx.effect("make", Make::of("a")).await?;
                let again = cx.effect("make", Make::of("b")).await?;
                assert_ne!(a.path, again.path, "two calls of one name are two effects");
                let answer = cx.interrupt(&"go on?").await?;
                cx.effect("late", Make::of("c")).await?;
                Ok(Outcome::update(says(answer.to_string())))
            })
        });
        let graph = chain("recall", vec![("ask", node)]);
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Interrupted);
        rig.replays(&graph, &id).await;
        // Without an answer nothing changes.
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Interrupted);
        rig.answer(&id, "ask", json!("yes")).await;
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        assert_eq!(rig.world.log(), ["perform a", "perform b", "perform c"]);
        let places: Vec<String> = rig.journal(&id).await.into_iter().map(|(place, _)| place).collect();
        assert_eq!(places, ["ask#1/make#0", "ask#1/make#1", "ask#1/late#0"]);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_cycle_performs_once_per_visit() {
    each(async |rig| {
        let node = step(|cx, seen| {
            Box::pin(async move {
                cx.effect("make", Make::of(&format!("v{}", seen.n))).await?;
                Ok(Outcome::update(Wrote { n: Some(1), ..Wrote::default() }))
            })
        });
        let built = graph("cycle").node("loop", node).edge(START, "loop").route("loop", ["loop", END], |state| {
            Ok(if state["n"].as_i64() < Some(3) { "loop" } else { END }.to_owned())
        });
        let graph = Arc::new(built.compile().unwrap());
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Succeeded);
        assert_eq!(rig.world.log(), ["perform v0", "perform v1", "perform v2"]);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_hundred_sends_perform_once_each() {
    each(async |rig| {
        let fan = step(|_, _| {
            Box::pin(async move {
                let send = |i: u32| Goto::Send { to: "work".into(), input: json!({"item": i}) };
                Ok(Outcome { update: Wrote::default(), goto: (0..100).map(send).collect() })
            })
        });
        let work = step(|cx, seen| {
            Box::pin(async move {
                let item = seen.item.unwrap();
                cx.effect("make", Make::of(&format!("s{item}"))).await?;
                if item == json!(42) {
                    cx.interrupt(&"and 42?").await?;
                }
                Ok(Outcome::update(Wrote { n: Some(1), ..says(item.to_string()) }))
            })
        });
        let built = graph("sends").node("fan", fan).node("work", work).edge(START, "fan");
        let graph = Arc::new(built.compile().unwrap());
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Interrupted);
        rig.answer(&id, "work", json!(true)).await;
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        assert_eq!(rig.world.count("perform"), 100);
        assert_eq!(rig.world.things().len(), 100);
        let state = rig.engine.state(&graph, &id).await.unwrap();
        assert_eq!(state.values["n"], json!(100));
        let order: Vec<String> = (0..100).map(|i: u32| i.to_string()).collect();
        assert_eq!(state.values["log"], json!(order), "folded in order of the sends");
        rig.replays(&graph, &id).await;
    })
    .await;
}

/// Stops the run while `call` hangs, as a crash would, and goes on.
async fn stopped_inside(rig: &Rig, act: Act) -> (Arc<tidegate::graph::CompiledGraph>, tidegate::graph::ThreadId) {
    let graph = chain("probe", vec![("one", speaker()), ("two", maker())]);
    let id = rig.create(&graph).await;
    rig.world.next("perform two", act);
    let (stop, asked) = watch::channel(Stop::No);
    let world = rig.world.clone();
    let stopping = async move {
        while world.count("perform two") == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        stop.send(Stop::Drain).unwrap();
    };
    let how = Advance { stop: asked, ..Advance::default() };
    let (end, ()) = tokio::join!(rig.engine.advance(&graph, &id, how), stopping);
    assert_eq!(end.unwrap().status, ThreadStatus::Running);
    assert_eq!(rig.journal(&id).await, [("two#1/make#0".to_owned(), EntryStatus::Intent)]);
    rig.replays(&graph, &id).await;
    (graph, id)
}

#[tokio::test]
async fn a_probe_that_finds_it_done_takes_its_receipt() {
    each(async |rig| {
        let (graph, id) = stopped_inside(&rig, Act::DoAndHang).await;
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        assert_eq!(rig.world.log(), ["perform two", "probe two"]);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_probe_that_finds_nothing_performs_again() {
    each(async |rig| {
        let (graph, id) = stopped_inside(&rig, Act::Hang).await;
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        assert_eq!(rig.world.log(), ["perform two", "probe two", "perform two"]);
        let entries = rig.engine.store().journal(&id).await.unwrap();
        assert_eq!((entries.len(), entries[0].attempts), (1, 2));
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_probe_that_cannot_tell_sticks_until_it_can() {
    each(async |rig| {
        let (graph, id) = stopped_inside(&rig, Act::DoAndHang).await;
        rig.world.next("probe two", Act::Unknown);
        rig.world.next("probe two", Act::Fail { retryable: false });
        rig.world.next("probe two", Act::Panic);
        for _ in 0..2 {
            let end = rig.advance(&graph, &id).await;
            assert_eq!((end.status, code(&end)), (ThreadStatus::Stuck, "effect_unknown"));
            rig.replays(&graph, &id).await;
        }
        assert_eq!(
            rig.advance(&graph, &id).await.status,
            ThreadStatus::Stuck,
            "a probe that panics cannot tell either"
        );
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        assert_eq!(rig.world.count("perform"), 1);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_failed_perform_is_repeated_within_the_policy() {
    each(async |rig| {
        let built = graph("retry").node("a", maker()).policy("a", quick(3)).edge(START, "a");
        let graph = Arc::new(built.compile().unwrap());
        rig.world.next("perform a", Act::Fail { retryable: true });
        rig.world.next("perform a", Act::Fail { retryable: true });
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Succeeded);
        assert_eq!(rig.world.count("perform a"), 3);
        assert_eq!(rig.engine.store().journal(&id).await.unwrap()[0].attempts, 3);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn attempts_outlive_the_process() {
    each(async |rig| {
        let built = graph("attempts").node("a", maker()).policy("a", quick(3)).edge(START, "a");
        let graph = Arc::new(built.compile().unwrap());
        let id = rig.create(&graph).await;
        for _ in 0..2 {
            rig.world.next("perform a", Act::Fail { retryable: true });
        }
        // The third attempt is stopped inside; the next process has that one attempt left, not three.
        rig.world.next("perform a", Act::Hang);
        rig.world.next("perform a", Act::Fail { retryable: true });
        let (stop, asked) = watch::channel(Stop::No);
        let world = rig.world.clone();
        let stopping = async move {
            while world.count("perform a") < 3 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            stop.send(Stop::Drain).unwrap();
        };
        let how = Advance { stop: asked, ..Advance::default() };
        let (end, ()) = tokio::join!(rig.engine.advance(&graph, &id, how), stopping);
        assert_eq!(end.unwrap().status, ThreadStatus::Running);
        let end = rig.advance(&graph, &id).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "misfortune"));
        assert_eq!(rig.world.count("perform a"), 4);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn what_is_not_worth_repeating_fails_at_once() {
    each(async |rig| {
        let built = graph("once").node("a", maker()).policy("a", quick(3)).edge(START, "a");
        let graph = Arc::new(built.compile().unwrap());
        rig.world.next("perform a", Act::Fail { retryable: false });
        let (id, end) = rig.run(&graph).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "misfortune"));
        assert_eq!(end.failure.unwrap().node.as_deref(), Some("a"));
        assert_eq!(rig.world.count("perform a"), 1);
        rig.replays(&graph, &id).await;
        // Nothing was done and nothing undone: the thread can be continued.
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn another_effect_at_the_same_place_is_refused() {
    each(async |rig| {
        let calls = AtomicU32::new(0);
        let node = step(move |cx, _| {
            let name = format!("x{}", calls.fetch_add(1, Ordering::SeqCst));
            Box::pin(async move {
                cx.effect("make", Make::of(&name)).await?;
                cx.interrupt(&"?").await?;
                Ok(Outcome::update(Wrote::default()))
            })
        });
        let graph = chain("changed", vec![("fickle", node)]);
        let (id, _) = rig.run(&graph).await;
        rig.answer(&id, "fickle", json!(1)).await;
        let end = rig.advance(&graph, &id).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "effect_changed"));
        assert_eq!(rig.world.log(), ["perform x0", "undo x0"]);
    })
    .await;
}

#[tokio::test]
async fn pins_stay_observations_are_fresh_and_time_is_pinned() {
    each(async |rig| {
        let reading = Arc::new(AtomicU32::new(0));
        let count = reading.clone();
        let node = step(move |cx, _| {
            let count = count.clone();
            Box::pin(async move {
                let pinned: u32 = cx.pin("p", async { Ok(count.fetch_add(1, Ordering::SeqCst)) }).await?;
                let observed: u32 = cx.observe("o", async { Ok(count.fetch_add(1, Ordering::SeqCst)) }).await?;
                let now = cx.now().await?;
                cx.interrupt(&"?").await?;
                Ok(Outcome::update(says(format!("{pinned} {observed} {now}"))))
            })
        });
        let graph = chain("readings", vec![("read", node)]);
        let (id, _) = rig.run(&graph).await;
        rig.replays(&graph, &id).await;
        let asked = rig.engine.store().journal(&id).await.unwrap();
        let first_now = asked.iter().find(|e| e.key.name == "now").unwrap().receipt.clone().unwrap();
        rig.answer(&id, "read", json!(1)).await;
        rig.advance(&graph, &id).await;
        let log = rig.log(&graph, &id).await;
        let now: chrono::DateTime<chrono::Utc> = serde_json::from_value(first_now).unwrap();
        assert_eq!(log, json!([format!("0 2 {now}")]));
        rig.replays(&graph, &id).await;
        assert_eq!(reading.load(Ordering::SeqCst), 3, "a replay reads nothing");
    })
    .await;
}

#[tokio::test]
async fn a_node_may_go_on_after_a_reading_or_an_effect_that_failed() {
    each(async |rig| {
        let node = step(|cx, _| {
            Box::pin(async move {
                let broken = async { Err::<u32, _>(NodeError::from(Failure::new("dark", "nothing to see"))) };
                let seen = cx.observe("o", broken).await;
                let pinned = cx.pin("p", async { Err::<u32, _>(NodeError::from(Failure::new("dim", "no"))) }).await;
                let made = cx.effect("make", Make::of("a")).await;
                let word = |failed: bool| if failed { "failed" } else { "fine" };
                let line = [word(seen.is_err()), word(pinned.is_err()), word(made.is_err())].join(" ");
                Ok(Outcome::update(says(line)))
            })
        });
        rig.world.next("perform a", Act::Fail { retryable: false });
        let graph = chain("go-on", vec![("try", node), ("then", speaker())]);
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Succeeded);
        assert_eq!(rig.log(&graph, &id).await, json!(["failed failed failed", "then"]));
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_timed_out_effect_is_probed_and_its_record_replays() {
    each(async |rig| {
        let limit = Some(Duration::from_millis(30));
        let policy = NodePolicy { timeout: limit, ..quick(2) };
        let built = graph("slow").node("a", maker()).policy("a", policy).edge(START, "a");
        let graph = Arc::new(built.compile().unwrap());
        rig.world.next("perform a", Act::DoAndHang);
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Succeeded, "the second attempt finds it done");
        assert_eq!(rig.world.log(), ["perform a", "probe a"]);
        rig.replays(&graph, &id).await;

        let policy = NodePolicy { timeout: limit, ..NodePolicy::default() };
        let built = crate::support::graph("slow").node("b", maker()).policy("b", policy).edge(START, "b");
        let graph = Arc::new(built.compile().unwrap());
        for act in [Act::DoAndHang, Act::Hang] {
            rig.world.next("perform b", act);
            let (id, end) = rig.run(&graph).await;
            assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "node_timeout"));
            rig.replays(&graph, &id).await;
        }
        assert_eq!(rig.world.things(), ["a"]);
    })
    .await;
}
