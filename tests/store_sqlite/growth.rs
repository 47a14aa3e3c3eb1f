//! A growing state makes the file grow with what is new, not with what is there.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use tidegate::graph::{Record, Store, ThreadStatus};
use tidegate::store::{SqliteStore, this_process};

use super::{Tested, checkpoint, create, normal, place, state, transaction};

#[tokio::test]
async fn a_growing_list_grows_the_file_linearly() -> Tested {
    const STEPS: i64 = 1000;
    const ITEM: usize = 100;
    let (_dir, path) = place()?;
    let store = SqliteStore::open_with(&path, normal())?;
    let id = create(&store, "grows").await?;
    store.acquire(&id, &this_process("test")).await?;
    let mut items: Vec<Value> = Vec::new();
    for step in 1..=STEPS {
        items.push(json!(format!("{step:0ITEM$}")));
        let next = checkpoint(step, state(json!({"items": items})));
        store.commit(transaction(&id, 1, vec![Record::Checkpoint(Arc::new(next))])).await?;
    }
    let begun = Instant::now();
    let latest = store.latest(&id, "").await?;
    let read = begun.elapsed();
    assert_eq!(latest.map(|c| (c.step, c.values["items"].as_array().map(Vec::len))), Some((STEPS, Some(1000))));
    assert_eq!(store.history(&id, "").await?.len(), 1001);
    drop(store);
    let bytes = std::fs::metadata(&path)?.len() as usize;
    eprintln!("{bytes} bytes for {STEPS} supersteps of {ITEM} bytes; the newest read in {read:?}");
    // Ids, tasks and times of a checkpoint weigh about as much as its item, all snapshots together about twice the last one.
    let payload = STEPS as usize * ITEM;
    assert!(bytes < 6 * payload, "{bytes} bytes for a payload of {payload}");
    Ok(())
}

#[tokio::test]
async fn where_a_thread_stands_its_state_is_read_at_once_and_the_file_still_grows_linearly() -> Tested {
    const STEPS: i64 = 1000;
    const ITEM: usize = 100;
    let (_dir, path) = place()?;
    let store = SqliteStore::open_with(&path, normal())?;
    let id = create(&store, "stands").await?;
    store.acquire(&id, &this_process("test")).await?;
    let (mut items, mut expected): (Vec<Value>, _) = (Vec::new(), store.history(&id, "").await?);
    let asked = |step: i64| if step < 500 { step % 3 == 0 } else { step == STEPS };
    let rows = rusqlite::Connection::open(&path)?;
    let snapshots = |of: &str| rows.query_row(&format!("SELECT {of} FROM checkpoints"), [], |row| row.get::<_, i64>(0));
    for step in 1..=STEPS {
        items.push(json!(format!("{step:0ITEM$}")));
        let next = checkpoint(step, state(json!({"items": items})));
        expected.push(next.clone());
        let mut records = vec![Record::Checkpoint(Arc::new(next))];
        if asked(step) {
            records.push(Record::Status { status: ThreadStatus::Interrupted, failure: None, unwinding: None });
        }
        store.commit(transaction(&id, 1, records)).await?;
        if step == 498 {
            // Of so many stops few wrote the state once more: each of them at least doubled what is spared.
            let all = snapshots("sum(base)")?;
            assert!((3..=6).contains(&all), "{all} snapshots");
        }
    }
    assert_eq!(snapshots("max(n * base) = max(n)")?, 1, "the newest row is a snapshot");
    assert_eq!(store.history(&id, "").await?, expected);
    assert_eq!(store.latest(&id, "").await?.as_ref(), expected.last());
    drop((rows, store));
    let (bytes, payload) = (std::fs::metadata(&path)?.len() as usize, STEPS as usize * ITEM);
    // As without the stops, and all snapshots together twice the last one.
    assert!(bytes < 8 * payload, "{bytes} bytes for a payload of {payload}");
    Ok(())
}

#[tokio::test]
async fn another_handle_may_write_in_between() -> Tested {
    let (_dir, path) = place()?;
    let stores = [SqliteStore::open_with(&path, normal())?, SqliteStore::open_with(&path, normal())?];
    let id = create(&stores[0], "shared").await?;
    stores[0].acquire(&id, &this_process("test")).await?;
    let mut expected = stores[0].history(&id, "").await?;
    for step in 1..=40 {
        let items: Vec<i64> = (0..step).collect();
        let next = checkpoint(step, state(json!({"items": items, "who": step % 3})));
        expected.push(next.clone());
        let store = &stores[usize::from(step % 3 == 0)];
        store.commit(transaction(&id, 1, vec![Record::Checkpoint(Arc::new(next))])).await?;
    }
    assert_eq!(stores[1].history(&id, "").await?, expected);
    Ok(())
}
