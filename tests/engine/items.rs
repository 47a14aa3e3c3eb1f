//! What threads share: written once, read once, found by namespace; and messages that grow.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tidegate::graph::{CompiledGraph, Event, EventSink, Outcome, ThreadId, ThreadStatus};

use crate::support::*;

const USERS: [&str; 2] = ["users", "ada"];

/// Writes `to`, asks, and says what it read before and after.
fn writer(to: Value) -> Arc<CompiledGraph> {
    let write = step(move |cx, _| {
        let to = to.clone();
        Box::pin(async move {
            let seen = cx.store().get(&USERS, "name").await?.map(|item| item.value);
            cx.store().put(&USERS, "name", to).await?;
            cx.interrupt(&"go?").await?;
            let now = cx.store().get(&USERS, "name").await?.map(|item| item.value);
            Ok(Outcome::update(says(format!("{} then {}", json!(seen), json!(now)))))
        })
    });
    chain("writer", vec![("write", write)])
}

#[tokio::test]
async fn a_value_is_written_once_and_read_as_it_was_first_read() {
    each(async |rig| {
        let (first, second) = (writer(json!(1)), writer(json!(2)));
        let (one, _) = rig.run(&first).await;
        rig.replays(&first, &one).await;
        let (two, _) = rig.run(&second).await;
        for (graph, id, log) in [(&first, &one, "null then 2"), (&second, &two, "1 then 2")] {
            // The node runs again from its top, and does not write again.
            rig.answer(id, "write", json!(1)).await;
            assert_eq!(rig.advance(graph, id).await.status, ThreadStatus::Succeeded);
            assert_eq!(rig.log(graph, id).await, json!([log]));
            rig.replays(graph, id).await;
        }
        let item = rig.engine.store().item("users/ada", "name", Utc::now()).await.unwrap().unwrap();
        assert_eq!(item.value, json!(2));
        assert!(item.created_at < item.updated_at);
    })
    .await;
}

#[tokio::test]
async fn values_are_found_by_namespace_and_get_old() {
    each(async |rig| {
        let node = step(|cx, _| {
            Box::pin(async move {
                let store = cx.store();
                for (namespace, key) in [(&["a"][..], "k"), (&["a", "b"], "l"), (&["a", "b"], "k"), (&["ab"], "k")] {
                    store.put(namespace, key, json!(namespace.len())).await?;
                }
                store.put_for(&["a"], "old", json!(0), Duration::ZERO).await?;
                store.put_for(&["a"], "young", json!(0), Duration::from_secs(3600)).await?;
                store.put(&["a"], "gone", json!(0)).await?;
                store.delete(&["a"], "gone").await?;
                let mut found = Vec::new();
                for (prefix, limit) in [(&["a"][..], 9), (&["a", "b"], 9), (&[], 2), (&["nowhere"], 9)] {
                    let items = store.search(prefix, limit).await?;
                    found.push(
                        items.into_iter().map(|item| format!("{} {}", item.namespace, item.key)).collect::<Vec<_>>(),
                    );
                }
                assert!(store.get(&["a"], "old").await?.is_none());
                Ok(Outcome::update(says(json!(found).to_string())))
            })
        });
        let graph = chain("finder", vec![("find", node)]);
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Succeeded, "{:?}", end.failure);
        let found = json!([["a k", "a young", "a/b k", "a/b l"], ["a/b k", "a/b l"], ["a k", "a young"], []]);
        assert_eq!(rig.log(&graph, &id).await, json!([found.to_string()]));
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused() {
    each(async |rig| {
        for (namespace, key, value, wrong) in [
            (vec![], "k", json!(1), "bad_namespace"),
            (vec!["a/b"], "k", json!(1), "bad_namespace"),
            (vec!["a", ""], "k", json!(1), "bad_namespace"),
            (vec!["a"], "", json!(1), "bad_key"),
            (vec!["a"], "k", json!("x".repeat(1 << 20)), "item_too_large"),
        ] {
            let node = step(move |cx, _| {
                let (namespace, value) = (namespace.clone(), value.clone());
                Box::pin(async move {
                    cx.store().put(&namespace, key, value).await?;
                    Ok(Outcome::update(Wrote::default()))
                })
            });
            let graph = chain("wrong", vec![("put", node)]);
            let (id, end) = rig.run(&graph).await;
            assert_eq!(code(&end), wrong);
            rig.replays(&graph, &id).await;
        }
        assert!(rig.engine.store().items("", Utc::now(), 9).await.unwrap().is_empty());
    })
    .await;
}

/// Hears messages.
#[derive(Default)]
struct Ears(Mutex<Vec<Value>>);

impl EventSink for Ears {
    fn event(&self, _: &ThreadId, _: DateTime<Utc>, event: &Event) {
        if let Event::Custom { name, data, .. } = event {
            self.0.lock().unwrap().push(json!([name, data]));
        }
    }
}

#[tokio::test]
async fn a_message_grows_before_eyes_and_is_not_recorded() {
    each(async |rig| {
        let node = step(|cx, _| {
            Box::pin(async move {
                for chunk in ["Hel", "lo"] {
                    cx.message("m1", &json!(chunk));
                }
                Ok(Outcome::update(says("Hello")))
            })
        });
        let graph = chain("speaks", vec![("say", node)]);
        let ears = Arc::new(Ears::default());
        let engine = rig.engine.clone().with_sink(ears.clone());
        let id = rig.create(&graph).await;
        engine.advance(&graph, &id, tidegate::graph::Advance::default()).await.unwrap();
        let heard = ears.0.lock().unwrap().clone();
        let piece = |chunk: &str| json!(["message", {"id": "m1", "chunk": chunk, "attempt": 1}]);
        assert_eq!(heard, [piece("Hel"), piece("lo")]);
        let events = rig.engine.store().events(&id, 0, 99).await.unwrap();
        assert!(!events.iter().any(|row| matches!(row.event, Event::Custom { .. })));
        rig.replays(&graph, &id).await;
    })
    .await;
}
