//! What threads share, and channels that come and go.

use std::sync::Arc;

use serde_json::json;

use super::{Checked, Harness, at, begun, checkpoint, refused, same, state, transaction};
use crate::graph::{Item, Record, StoreError, ThreadId};

fn item(namespace: &str, key: &str, n: i64, over: Option<i64>) -> Item {
    let (value, expires_at) = (json!({"n": n, "f": 0.1}), over.map(at));
    Item { namespace: namespace.into(), key: key.into(), value, created_at: at(n), updated_at: at(n), expires_at }
}

fn keep(namespace: &str, key: &str, n: i64, over: Option<i64>) -> Record {
    Record::Keep(Box::new(item(namespace, key, n, over)))
}

pub(super) async fn items_are_shared(harness: &dyn Harness) -> Checked {
    let store = harness.open();
    begun(&*store, "one").await?;
    begun(&*store, "two").await?;
    let first =
        vec![keep("a", "k", 1, None), keep("a/b", "k", 1, None), keep("ab", "k", 1, None), keep("a", "t", 1, Some(5))];
    store.commit(transaction("one", 1, 1, first)).await?;
    let late = store.commit(transaction("one", 0, 2, vec![keep("a", "k", 9, None)])).await;
    let fenced = StoreError::Fenced { thread: ThreadId::from("one"), ours: 0, current: 1 };
    refused("a stale owner writes nothing that is shared", late, fenced)?;
    store.commit(transaction("two", 1, 3, vec![keep("a", "k", 3, None)])).await?;
    drop(store);
    let store = harness.open();
    let again = Item { created_at: at(1), ..item("a", "k", 3, None) };
    same("another thread writes over it", store.item("a", "k", at(4)).await?, Some(again.clone()))?;
    same("there is nothing else", store.item("a", "x", at(4)).await?, None)?;
    let inside = vec![again.clone(), item("a", "t", 1, Some(5)), item("a/b", "k", 1, None)];
    same("a namespace has those inside it", store.items("a", at(4), 9).await?, inside)?;
    same("what is over is not there", store.item("a", "t", at(5)).await?, None)?;
    same("nor found", store.items("a", at(5), 9).await?.len(), 2)?;
    same("at most so many", store.items("", at(5), 1).await?, vec![again])?;
    let gone = Record::Forget { namespace: "a".into(), key: "k".into() };
    store.commit(transaction("one", 1, 6, vec![gone, keep("a", "t", 6, None)])).await?;
    same("taken away", store.item("a", "k", at(6)).await?, None)?;
    same("written anew after its time", store.item("a", "t", at(6)).await?, Some(item("a", "t", 6, None)))
}

pub(super) async fn channels_come_and_go(harness: &dyn Harness) -> Checked {
    let store = harness.open();
    begun(&*store, "brief").await?;
    let states =
        [json!({"n": 1}), json!({"n": 1, "brief": [1, 2]}), json!({"n": 2}), json!({"brief": [1, 2, 3], "n": 2})];
    let mut line = Vec::new();
    for (values, step) in states.into_iter().zip(1_i64..) {
        let (id, parent) = (format!("brief-{step}"), format!("brief-{}", step - 1));
        let mut next = checkpoint(&id, Some(&parent), "", step, state(values));
        // What nodes wrote comes and goes with it.
        next.written = next.values.clone();
        store.commit(transaction("brief", 1, step, vec![Record::Checkpoint(Arc::new(next.clone()))])).await?;
        line.push(next);
    }
    drop(store);
    let store = harness.open();
    let history = store.history(&ThreadId::from("brief"), "").await?;
    same("a channel without a value has none", history[1..].to_vec(), line.clone())?;
    same("nor in the newest", store.latest(&ThreadId::from("brief"), "").await?, line.pop())
}
