//! Group commit, and a disk that is full.

use std::sync::Arc;

use serde_json::Value;
use tidegate::graph::{Event, Name, Record, Store, StoreError};
use tidegate::store::{Options, SqliteStore, this_process};

use super::{Tested, create, normal, note, place, transaction};

#[tokio::test]
async fn waiting_requests_share_a_transaction() -> Tested {
    const AT_ONCE: usize = 500;
    let (_dir, path) = place()?;
    let store = Arc::new(SqliteStore::open(&path)?);
    let id = create(&store, "t").await?;
    store.acquire(&id, &this_process("test")).await?;
    let before = store.transactions();
    let commits: Vec<_> = (0..AT_ONCE)
        .map(|n| {
            // Every tenth carries an old epoch: it must fail alone.
            let epoch = u64::from(n % 10 != 0);
            let (store, transaction) = (store.clone(), transaction(&id, epoch, vec![note(n)]));
            tokio::spawn(async move { store.commit(transaction).await })
        })
        .collect();
    let mut fenced = 0;
    for commit in commits {
        match commit.await? {
            Ok(()) => {}
            Err(StoreError::Fenced { ours: 0, current: 1, .. }) => fenced += 1,
            Err(other) => return Err(other.into()),
        }
    }
    let used = store.transactions() - before;
    eprintln!("{AT_ONCE} commits in {used} transactions");
    assert_eq!(fenced, AT_ONCE / 10);
    assert!(used <= AT_ONCE as u64 / 10, "{used} transactions for {AT_ONCE} commits");
    let events = store.events(&id, 1, usize::MAX).await?;
    assert_eq!(events.len(), AT_ONCE - fenced);
    assert!(events.iter().zip(2..).all(|(row, n)| row.seq == n), "numbers are without gaps");
    Ok(())
}

fn large() -> Record {
    let data = Value::String("x".repeat(2_000_000));
    Record::Event(Event::Custom { ns: Name::default(), node: "a".into(), name: "n".into(), data })
}

#[tokio::test]
async fn a_full_file_refuses_and_recovers() -> Tested {
    let (_dir, path) = place()?;
    let store = Arc::new(SqliteStore::open_with(&path, Options { max_pages: Some(200), ..normal() })?);
    let id = create(&store, "t").await?;
    store.acquire(&id, &this_process("test")).await?;
    let told = store.commit(transaction(&id, 1, vec![note(1), large()])).await;
    let full = |end: &Result<(), StoreError>| matches!(end, Err(StoreError::CannotWrite(why)) if why.contains("tidegate.db") && why.contains("full"));
    assert!(full(&told), "{told:?}");
    assert_eq!(store.events(&id, 0, 9).await?.len(), 1, "nothing of it is there");
    let commits: Vec<_> = (0..20)
        .map(|n| {
            let record = if n == 7 { large() } else { note(n) };
            let (store, transaction) = (store.clone(), transaction(&id, 1, vec![record]));
            tokio::spawn(async move { store.commit(transaction).await })
        })
        .collect();
    for (n, commit) in commits.into_iter().enumerate() {
        let end = commit.await?;
        assert_eq!(full(&end), n == 7, "the one that is too large fails alone: {n}: {end:?}");
    }
    assert_eq!(store.events(&id, 0, 99).await?.len(), 20);
    drop(store);
    let store = SqliteStore::open_with(&path, normal())?;
    store.commit(transaction(&id, 1, vec![large()])).await?;
    assert_eq!(store.events(&id, 20, 9).await?.len(), 1);
    assert_eq!(store.verify_audit().await?.rows, 1);
    Ok(())
}

#[tokio::test]
async fn a_held_file_is_waited_for_and_not_for_ever() -> Tested {
    let (_dir, path) = place()?;
    let patience = std::time::Duration::from_millis(200);
    let store = Arc::new(SqliteStore::open_with(&path, Options { busy_timeout: patience, ..normal() })?);
    let id = create(&store, "t").await?;
    let raw = rusqlite::Connection::open(&path)?;
    raw.execute_batch("BEGIN IMMEDIATE")?;
    let held = store.attend(&id, None).await;
    assert!(matches!(&held, Err(StoreError::CannotWrite(why)) if why.contains("another process")), "{held:?}");
    let waits = tokio::spawn({
        let (store, id) = (store.clone(), id.clone());
        async move { store.attend(&id, Some(&this_process("waits"))).await }
    });
    tokio::time::sleep(patience / 4).await;
    raw.execute_batch("COMMIT")?;
    waits.await??;
    assert_eq!(store.thread(&id).await?.and_then(|t| t.attendant).map(|o| o.label), Some("waits".to_owned()));
    Ok(())
}
