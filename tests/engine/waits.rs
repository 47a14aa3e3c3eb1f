//! Durable timers and signals: nobody runs while a thread sleeps, and nothing is woken twice.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use tidegate::graph::{
    Advance, Clock, Engine, Outcome, START, Signal, StoreError, ThreadId, ThreadStatus, Until, Uptime, Woken,
};

use crate::support::*;

/// A clock that a test turns: by the wall, and how long the machine has been up.
#[derive(Clone)]
struct Turned(Arc<Mutex<(DateTime<Utc>, Option<Uptime>)>>);

impl Turned {
    fn new() -> Self {
        let up = Uptime { boot_id: "first".into(), ms: 1_000 };
        Self(Arc::new(Mutex::new((DateTime::UNIX_EPOCH, Some(up)))))
    }

    /// Time passes.
    fn pass(&self, seconds: i64) {
        let mut now = self.0.lock().unwrap();
        now.0 += TimeDelta::seconds(seconds);
        if let Some(up) = &mut now.1 {
            up.ms += u64::try_from(seconds).unwrap() * 1_000;
        }
    }

    /// Somebody sets the clock.
    fn jump(&self, seconds: i64) {
        self.0.lock().unwrap().0 += TimeDelta::seconds(seconds);
    }

    fn boot(&self) {
        self.0.lock().unwrap().1 = Some(Uptime { boot_id: "second".into(), ms: 0 });
    }
}

impl Clock for Turned {
    fn now(&self) -> DateTime<Utc> {
        self.0.lock().unwrap().0
    }

    fn uptime(&self) -> Option<Uptime> {
        self.0.lock().unwrap().1.clone()
    }
}

/// A node that waits, then makes a thing and says what woke it.
fn waiter(signals: &[&str], until: Until) -> Step {
    let signals: Vec<String> = signals.iter().map(|&name| name.to_owned()).collect();
    step(move |cx, _| {
        let signals = signals.clone();
        Box::pin(async move {
            cx.effect("before", Make::of("before")).await?;
            let said = match cx.wait(&signals, until).await? {
                Woken::Signal { name, value, by } => format!("{name} {value} by {by}"),
                Woken::Timer => "time".to_owned(),
            };
            cx.effect("after", Make::of("after")).await?;
            Ok(Outcome::update(says(said)))
        })
    })
}

fn signal(name: &str, value: i64) -> Signal {
    Signal { seq: 0, name: name.into(), value: json!(value), by: "ada".into(), at: Utc::now() }
}

async fn status(engine: &Engine, id: &ThreadId) -> ThreadStatus {
    engine.store().thread(id).await.unwrap().unwrap().status
}

#[tokio::test]
async fn a_length_of_time_outlives_restarts_and_jumps_of_the_clock() {
    each(async |rig| {
        let clock = Turned::new();
        let graph = chain("sleep", vec![("nap", waiter(&[], Until::After(Duration::from_secs(60))))]);
        let engine = || rig.other().with_clock(Arc::new(clock.clone()));
        let id = rig.create(&graph).await;
        let advance = async || engine().advance(&graph, &id, Advance::default()).await.unwrap().status;
        assert_eq!(advance().await, ThreadStatus::Sleeping);
        let thread = rig.engine.store().thread(&id).await.unwrap().unwrap();
        assert_eq!(thread.wake.unwrap().at, DateTime::UNIX_EPOCH + TimeDelta::seconds(60));
        clock.pass(59);
        assert_eq!(advance().await, ThreadStatus::Sleeping);
        // The clock jumps a day ahead, a week back: only what has passed counts.
        clock.jump(86_400);
        assert_eq!(advance().await, ThreadStatus::Sleeping);
        clock.jump(-7 * 86_400);
        clock.pass(1);
        assert_eq!(advance().await, ThreadStatus::Succeeded);
        assert_eq!(rig.log(&graph, &id).await, json!(["time"]));
        assert_eq!((rig.world.count("perform before"), rig.world.count("perform after")), (1, 1));
        assert_eq!(rig.engine.store().thread(&id).await.unwrap().unwrap().wake, None);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn after_a_boot_the_clock_counts() {
    each(async |rig| {
        let clock = Turned::new();
        let graph = chain("boot", vec![("nap", waiter(&[], Until::After(Duration::from_secs(60))))]);
        let engine = rig.other().with_clock(Arc::new(clock.clone()));
        let id = rig.create(&graph).await;
        engine.advance(&graph, &id, Advance::default()).await.unwrap();
        clock.jump(30);
        clock.boot();
        assert_eq!(engine.advance(&graph, &id, Advance::default()).await.unwrap().status, ThreadStatus::Sleeping);
        clock.jump(30);
        assert_eq!(engine.advance(&graph, &id, Advance::default()).await.unwrap().status, ThreadStatus::Succeeded);
    })
    .await;
}

#[tokio::test]
async fn a_signal_is_nobodys_business_where_no_wait_waits_for_it() {
    each(async |rig| {
        let store = rig.engine.store().clone();
        let go = || waiter(&["go"], Until::Never);
        let stirs = async |id: &ThreadId| store.inbox(id).await.unwrap().signalled;

        // Before a sleep that comes first, and while it lasts.
        let nap = waiter(&[], Until::After(Duration::from_secs(600)));
        let graph = chain("nap", vec![("nap", nap), ("hear", go())]);
        let id = rig.create(&graph).await;
        store.signal(&id, &signal("go", 1)).await.unwrap();
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Sleeping);
        assert!(!stirs(&id).await);

        // At a static interrupt, also behind a wait; and after a change from outside.
        let graph = crate::support::graph("stops")
            .node("hear", go())
            .node("pay", step(|_, _| Box::pin(async { Ok(Outcome::update(says("paid"))) })));
        let graph = graph.edge(START, "hear").edge("hear", "pay").interrupt_before(["pay"]);
        let graph = Arc::new(graph.compile().unwrap());
        let id = rig.create(&graph).await;
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Sleeping);
        store.signal(&id, &signal("go", 1)).await.unwrap();
        assert!(stirs(&id).await);
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Interrupted);
        store.signal(&id, &signal("go", 2)).await.unwrap();
        assert!(!stirs(&id).await);

        let id = rig.create(&graph).await;
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Sleeping);
        let values = json!({"log": ["from outside"]});
        rig.engine.update(&graph, &id, values.as_object().unwrap(), "hear").await.unwrap();
        store.signal(&id, &signal("go", 1)).await.unwrap();
        assert!(!stirs(&id).await);

        // Held by a person.
        let id = rig.create(&graph).await;
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Sleeping);
        rig.engine.hold(&id).await.unwrap();
        store.signal(&id, &signal("go", 1)).await.unwrap();
        assert!(!stirs(&id).await);
        assert_eq!(
            rig.advance(&graph, &id).await.status,
            ThreadStatus::Interrupted,
            "it has heard the signal, and stops before `pay`"
        );
    })
    .await;
}

#[tokio::test]
async fn a_signal_wakes_one_wait_also_when_it_came_first() {
    each(async |rig| {
        let go = || waiter(&["go"], Until::Never);
        let graph = chain("signals", vec![("one", go()), ("two", go())]);
        let id = rig.create(&graph).await;
        let store = rig.engine.store().clone();
        // Before anybody waits, and one that nobody waits for.
        store.signal(&id, &signal("other", 0)).await.unwrap();
        store.signal(&id, &signal("go", 1)).await.unwrap();
        assert!(!store.inbox(&id).await.unwrap().signalled, "nobody waits yet");
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Sleeping);
        assert_eq!(rig.log(&graph, &id).await, json!(["go 1 by ada"]));
        assert!(!store.inbox(&id).await.unwrap().signalled, "nobody waits for `other`");
        store.signal(&id, &signal("other", 0)).await.unwrap();
        assert!(!store.inbox(&id).await.unwrap().signalled, "nor for another one");
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Sleeping);
        rig.replays(&graph, &id).await;

        assert_eq!(store.signal(&id, &signal("go", 2)).await.unwrap(), 4);
        assert!(store.inbox(&id).await.unwrap().signalled);
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        assert_eq!(rig.log(&graph, &id).await, json!(["go 1 by ada", "go 2 by ada"]));
        let left: Vec<String> = store.signals(&id).await.unwrap().into_iter().map(|s| s.name).collect();
        assert_eq!(left, ["other", "other"]);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn whichever_comes_first_and_the_other_is_not_missed() {
    each(async |rig| {
        let clock = Turned::new();
        let both = || waiter(&["go", "stop"], Until::After(Duration::from_secs(60)));
        let graph = chain("either", vec![("one", both()), ("two", both())]);
        let engine = rig.other().with_clock(Arc::new(clock.clone()));
        let id = rig.create(&graph).await;
        let advance = async || engine.advance(&graph, &id, Advance::default()).await.unwrap().status;
        assert_eq!(advance().await, ThreadStatus::Sleeping);
        clock.pass(61);
        assert_eq!(advance().await, ThreadStatus::Sleeping, "the second has its own time");
        rig.engine.store().signal(&id, &signal("stop", 7)).await.unwrap();
        assert_eq!(advance().await, ThreadStatus::Succeeded);
        assert_eq!(rig.log(&graph, &id).await, json!(["time", "stop 7 by ada"]));
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn of_two_branches_each_takes_its_own_signal() {
    each(async |rig| {
        let go = || waiter(&["go"], Until::Never);
        let built = graph("branches").node("a", go()).node("b", go()).edge(START, "a").edge(START, "b");
        let graph = Arc::new(built.compile().unwrap());
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Sleeping);
        let store = rig.engine.store().clone();
        store.signal(&id, &signal("go", 1)).await.unwrap();
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Sleeping);
        store.signal(&id, &signal("go", 2)).await.unwrap();
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        let log = rig.log(&graph, &id).await;
        let mut log: Vec<&str> = log.as_array().unwrap().iter().filter_map(|line| line.as_str()).collect();
        log.sort_unstable();
        assert_eq!(log, ["go 1 by ada", "go 2 by ada"]);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_question_beside_a_timer_waits_for_both() {
    each(async |rig| {
        let clock = Turned::new();
        let nap = waiter(&[], Until::After(Duration::from_secs(60)));
        let built = graph("both").node("ask", asker()).node("nap", nap).edge(START, "ask").edge(START, "nap");
        let graph = Arc::new(built.compile().unwrap());
        let engine = rig.other().with_clock(Arc::new(clock.clone()));
        let id = rig.create(&graph).await;
        let advance = async || engine.advance(&graph, &id, Advance::default()).await.unwrap().status;
        assert_eq!(advance().await, ThreadStatus::Interrupted);
        assert!(rig.engine.store().thread(&id).await.unwrap().unwrap().wake.is_some(), "its timer runs on");
        clock.pass(60);
        assert_eq!(advance().await, ThreadStatus::Interrupted);
        rig.answer(&id, "ask", json!(1)).await;
        assert_eq!(advance().await, ThreadStatus::Succeeded);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_held_sleeper_waits_for_a_person_and_a_cancelled_one_is_undone() {
    each(async |rig| {
        let graph = chain("held", vec![("nap", waiter(&["go"], Until::After(Duration::from_secs(3600))))]);
        let (id, _) = rig.run(&graph).await;
        rig.engine.hold(&id).await.unwrap();
        assert_eq!(status(&rig.engine, &id).await, ThreadStatus::Interrupted);
        assert_eq!(rig.engine.store().thread(&id).await.unwrap().unwrap().wake, None);
        assert_eq!(
            rig.advance(&graph, &id).await.status,
            ThreadStatus::Sleeping,
            "its time runs on from when it began"
        );
        let why = tidegate::graph::Failure::new("cancelled", "enough");
        rig.engine.cancel(&graph, &id, true, why).await.unwrap();
        assert_eq!(rig.world.calls("undo"), ["before"]);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn so_many_signals_and_no_more() {
    each(async |rig| {
        let graph = chain("full", vec![("ask", asker())]);
        let (id, _) = rig.run(&graph).await;
        let store = rig.engine.store();
        for n in 0..1_000 {
            store.signal(&id, &signal("x", n)).await.unwrap();
        }
        assert_eq!(store.signal(&id, &signal("x", 0)).await, Err(StoreError::InboxFull(id.clone())));
    })
    .await;
}
