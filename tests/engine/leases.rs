//! Leases: one owner advances a thread; the dead are taken over, the late are fenced.

use std::sync::Arc;
use std::sync::Mutex;

use serde_json::json;
use tidegate::graph::{
    Advance, EngineError, Event, EventSink, Liveness, Outcome, Owner, Record, Stop, Store, StoreError, ThreadId,
    ThreadStatus, Transaction,
};
use tidegate::store::{Options, SqliteStore, Synchronous};
use tokio::sync::{Notify, watch};

use crate::support::*;

/// A chain whose node waits until it is let go.
fn gated(go: &Arc<Notify>) -> Arc<tidegate::graph::CompiledGraph> {
    let go = go.clone();
    let node = step(move |cx, _| {
        let go = go.clone();
        Box::pin(async move {
            cx.effect("make", Make::of("a")).await?;
            // What a node waits for comes through its context, or a replay would wait too.
            let opened = async {
                go.notified().await;
                Ok(true)
            };
            assert!(cx.pin("gate", opened).await?);
            cx.effect("late", Make::of("b")).await?;
            Ok(Outcome::update(says("done")))
        })
    });
    chain("gated", vec![("gate", node)])
}

async fn until(mut there: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        if there().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    panic!("it never came");
}

#[tokio::test]
async fn of_two_engines_one_advances_and_the_other_is_told_who() {
    each(async |rig| {
        let go = Arc::new(Notify::new());
        let graph = gated(&go);
        let id = rig.create(&graph).await;
        let (engine, graph_, id_) = (rig.engine.clone(), graph.clone(), id.clone());
        let first = tokio::spawn(async move { engine.advance(&graph_, &id_, Advance::default()).await });
        until(async || rig.world.count("perform a") == 1).await;
        let refused = rig.other().advance(&graph, &id, Advance::default()).await.unwrap_err();
        assert!(matches!(refused, EngineError::Store(StoreError::Held { .. })), "{refused:?}");
        let why = tidegate::graph::Failure::new("no", "no");
        let refused = rig.other().cancel(&graph, &id, true, why).await.unwrap_err();
        assert_eq!(refused.failure().code, "lease_held");
        go.notify_one();
        assert_eq!(first.await.unwrap().unwrap().status, ThreadStatus::Succeeded);
        assert_eq!(rig.world.log(), ["perform a", "perform b"]);
        rig.replays(&graph, &id).await;
    })
    .await;
}

/// Owners that a test has declared dead.
#[derive(Default)]
struct Dead(Mutex<Vec<u64>>);

impl Liveness for Dead {
    fn alive(&self, owner: &Owner) -> bool {
        !self.0.lock().unwrap().contains(&owner.nonce)
    }
}

#[tokio::test]
async fn a_dead_owner_is_taken_over_and_its_late_commit_refused() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(dir.path());
    let dead = Arc::new(Dead::default());
    let options = Options { synchronous: Synchronous::Normal, liveness: dead.clone(), ..Options::default() };
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open_with(dir.path().join("db"), options).unwrap());
    let go = Arc::new(Notify::new());
    let graph = gated(&go);
    let first = engine(store.clone(), &world);
    let id = first.create(&graph, tidegate::graph::NewThread::default()).await.unwrap();
    let (engine_, graph_, id_) = (first.clone(), graph.clone(), id.clone());
    let old = tokio::spawn(async move { engine_.advance(&graph_, &id_, Advance::default()).await });
    until(async || world.count("perform a") == 1).await;
    let held = store.thread(&id).await.unwrap().unwrap().owner.unwrap();
    dead.0.lock().unwrap().push(held.nonce);

    let second = engine(store.clone(), &world);
    let (graph_, id_) = (graph.clone(), id.clone());
    let new = tokio::spawn(async move { second.advance(&graph_, &id_, Advance::default()).await });
    until(async || store.thread(&id).await.unwrap().unwrap().epoch == 2).await;
    // The old one wakes up: it must neither perform nor commit anything.
    go.notify_one();
    let fenced = old.await.unwrap().unwrap_err();
    assert!(matches!(fenced, EngineError::Store(StoreError::Fenced { ours: 1, current: 2, .. })), "{fenced:?}");
    assert_eq!(world.count("perform b"), 0);
    let owner = store.thread(&id).await.unwrap().unwrap().owner;
    assert!(owner.is_some_and(|o| o.nonce != held.nonce), "what was lost is not given back by the loser");
    go.notify_one();
    assert_eq!(new.await.unwrap().unwrap().status, ThreadStatus::Succeeded);
    assert_eq!(world.log(), ["perform a", "perform b"]);
}

#[tokio::test]
async fn a_stale_epoch_commits_nothing() {
    each(async |rig| {
        let graph = chain("stale", vec![("a", asker())]);
        let (id, _) = rig.run(&graph).await;
        let epoch = rig.engine.store().thread(&id).await.unwrap().unwrap().epoch;
        rig.advance(&graph, &id).await;
        let records = vec![Record::Undone(true)];
        let late = Transaction { thread: id.clone(), epoch, at: chrono::Utc::now(), records };
        let refused = rig.engine.store().commit(late).await.unwrap_err();
        assert!(matches!(refused, StoreError::Fenced { .. }));
        assert!(!rig.engine.store().thread(&id).await.unwrap().unwrap().undone);
    })
    .await;
}

#[tokio::test]
async fn drain_leaves_it_to_the_next_runner_hold_to_a_person() {
    each(async |rig| {
        for (how, status) in [(Stop::Drain, ThreadStatus::Running), (Stop::Hold, ThreadStatus::Interrupted)] {
            let go = Arc::new(Notify::new());
            let graph = gated(&go);
            let id = rig.create(&graph).await;
            let before = rig.world.count("perform a");
            let (stop, asked) = watch::channel(Stop::No);
            let (engine, graph_, id_) = (rig.engine.clone(), graph.clone(), id.clone());
            let how_ = Advance { stop: asked, ..Advance::default() };
            let run = tokio::spawn(async move { engine.advance(&graph_, &id_, how_).await });
            until(async || rig.world.count("perform a") == before + 1).await;
            stop.send(how).unwrap();
            assert_eq!(run.await.unwrap().unwrap().status, ThreadStatus::Running);
            let row = rig.engine.store().thread(&id).await.unwrap().unwrap();
            assert_eq!((row.status, row.owner), (status, None), "{how:?}");
            rig.replays(&graph, &id).await;
            go.notify_one();
            assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
            assert_eq!(rig.world.count("perform a"), before + 1);
            rig.replays(&graph, &id).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_drain_before_anything_ran_runs_nothing() {
    each(async |rig| {
        let graph = chain("early", vec![("a", maker())]);
        let id = rig.create(&graph).await;
        let (_stop, asked) = watch::channel(Stop::Drain);
        let how = Advance { stop: asked, ..Advance::default() };
        let end = rig.engine.advance(&graph, &id, how).await.unwrap();
        assert_eq!(end.status, ThreadStatus::Running);
        assert_eq!(rig.world.log(), Vec::<String>::new());
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
    })
    .await;
}

#[derive(Default)]
struct Events(Mutex<Vec<Event>>);

impl EventSink for Events {
    fn event(&self, _thread: &ThreadId, _at: chrono::DateTime<chrono::Utc>, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

#[tokio::test]
async fn what_the_sink_sees_is_what_the_record_has() {
    each(async |rig| {
        let events = Arc::new(Events::default());
        let node = step(|cx, _| {
            Box::pin(async move {
                cx.emit("news", json!({"n": 1}));
                cx.progress("shown, not kept");
                cx.effect("make", Make::of("a")).await?;
                Ok(Outcome::update(says("a")))
            })
        });
        let graph = chain("events", vec![("a", node), ("b", speaker())]);
        let id = rig.create(&graph).await;
        let engine = rig.engine.clone().with_sink(events.clone());
        engine.advance(&graph, &id, Advance::default()).await.unwrap();
        let rows = rig.engine.store().events(&id, 0, 1000).await.unwrap();
        let seqs: Vec<u64> = rows.iter().map(|row| row.seq).collect();
        assert_eq!(seqs, (1..=rows.len() as u64).collect::<Vec<_>>());
        let is_progress = |e: &Event| matches!(e, Event::Custom { name, .. } if name == "progress");
        let shown: Vec<Event> = events.0.lock().unwrap().iter().filter(|e| !is_progress(e)).cloned().collect();
        // The first two (accepted, checkpoint 0) were committed before anybody looked.
        assert_eq!(rows.into_iter().skip(2).map(|row| row.event).collect::<Vec<_>>(), shown);
    })
    .await;
}
