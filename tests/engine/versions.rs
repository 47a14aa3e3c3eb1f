//! Nodes change while threads wait: what is declared goes on, what is not is refused with the difference.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tidegate::graph::{
    CompiledGraph, Context, Entry, Export, Failure, Node, NodeError, Outcome, START, ThreadStatus, replay,
};

use crate::support::*;

/// Pins a greeting, asks, and says both. Version 1 pinned text; since version 2 it is an object; version 3 knows neither.
struct Greeter<const V: u32>;

#[async_trait]
impl<const V: u32> Node for Greeter<V> {
    const KIND: &'static str = "greeter";
    const VERSION: u32 = V;
    const MIGRATES_FROM: &'static [u32] = if V == 2 { &[1] } else { &[] };
    type Reads = Seen;
    type Writes = Wrote;

    fn migrate(from: u32, entry: Entry) -> Result<Entry, Failure> {
        assert_eq!(from, 1);
        let receipt = entry.receipt.map(|text| json!({"text": text}));
        Ok(Entry { receipt, ..entry })
    }

    async fn run(&self, cx: &Context, _: Seen) -> Result<Outcome<Wrote>, NodeError> {
        let pinned = if V == 1 { json!("hello") } else { json!({"text": "hi"}) };
        let greeting: Value = cx.pin("greeting", async { Ok(pinned) }).await?;
        let answer = cx.interrupt(&"who?").await?;
        Ok(Outcome::update(says(format!("{greeting} {answer}"))))
    }
}

fn greeting<const V: u32>() -> Arc<CompiledGraph> {
    let inner = Arc::new(graph("inner").node("greet", Greeter::<V>).edge(START, "greet").compile().unwrap());
    let built = graph("greeting").subgraph("sub", inner).node("last", speaker()).edge(START, "sub");
    Arc::new(built.edge("sub", "last").compile().unwrap())
}

#[tokio::test]
async fn a_declared_migration_takes_a_waiting_thread_along() {
    each(async |rig| {
        let (id, _) = rig.run(&greeting::<1>()).await;
        let refused = rig.try_advance(&greeting::<3>(), &id).await.unwrap_err().failure();
        assert_eq!(refused.code, "graph_changed");
        assert_eq!(refused.cause.as_deref(), Some("node type `greeter` was version 1 and is 3 now"));

        let now = greeting::<2>();
        assert_eq!(rig.advance(&now, &id).await.status, ThreadStatus::Interrupted);
        rig.answer(&id, "greet", json!("ada")).await;
        assert_eq!(rig.advance(&now, &id).await.status, ThreadStatus::Succeeded);
        assert_eq!(rig.log(&now, &id).await, json!(["{\"text\":\"hello\"} \"ada\"", "last"]));
        let thread = rig.engine.store().thread(&id).await.unwrap().unwrap();
        assert_eq!((thread.fingerprint, thread.node_versions["greeter"]), (now.fingerprint(), 2));
        let events = rig.engine.store().events(&id, 0, usize::MAX).await.unwrap();
        assert!(json!(events).to_string().contains("greeter 1 -> 2"));
        rig.replays(&now, &id).await;
        let export = Export::of(&**rig.engine.store(), &id).await.unwrap();
        let older = replay(&greeting::<1>(), &export).await.unwrap_err().failure();
        assert_eq!(older.code, "replay_diverged");
    })
    .await;
}

#[tokio::test]
async fn another_shape_is_refused_also_where_versions_migrate() {
    each(async |rig| {
        let (id, _) = rig.run(&greeting::<1>()).await;
        let inner = Arc::new(graph("inner").node("greet", Greeter::<2>).edge(START, "greet").compile().unwrap());
        let other = Arc::new(graph("greeting").subgraph("sub", inner).edge(START, "sub").compile().unwrap());
        assert_eq!(rig.try_advance(&other, &id).await.unwrap_err().failure().code, "graph_changed");
        let thread = rig.engine.store().thread(&id).await.unwrap().unwrap();
        assert_eq!(thread.node_versions["greeter"], 1, "a refusal changes nothing");
    })
    .await;
}
