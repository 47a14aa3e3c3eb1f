//! The audit is a chain that cannot be changed unseen.

use rusqlite::Connection;
use tidegate::graph::{Event, Record, Store, ThreadStatus};
use tidegate::store::{AuditError, AuditExport, SqliteStore, this_process};

use super::{Tested, create, normal, note, place, transaction};

#[tokio::test]
async fn the_audit_shows_every_change() -> Tested {
    let (_dir, path) = place()?;
    let store = SqliteStore::open_with(&path, normal())?;
    let id = create(&store, "t").await?;
    create(&store, "u").await?;
    store.acquire(&id, &this_process("test")).await?;
    for status in [ThreadStatus::Running, ThreadStatus::Succeeded] {
        let event = Event::StatusChanged { status, failure: None };
        store.commit(transaction(&id, 1, vec![Record::Event(event), note(1)])).await?;
    }
    assert_eq!(store.verify_audit().await?.rows, 4);
    assert_eq!(store.audit(&id, 1, 9).await?.iter().map(|row| row.seq).collect::<Vec<_>>(), [3, 4]);

    let raw = Connection::open(&path)?;
    for sql in ["UPDATE audit SET at = 'never'", "DELETE FROM audit", "REPLACE INTO audit SELECT * FROM audit"] {
        let refused = raw.execute_batch(sql).map_err(|e| e.to_string());
        assert!(refused.is_err(), "{sql}: {refused:?}");
    }
    assert_eq!(store.verify_audit().await?.rows, 4);

    raw.execute_batch("DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_deleted")?;
    let tampered = [
        ("UPDATE audit SET body = replace(body, 'running', 'stuck') WHERE seq = 3", 3),
        ("UPDATE audit SET thread = 'u' WHERE seq = 1", 1),
        ("UPDATE audit SET at = '2026-01-01T00:00:00.000000000Z' WHERE seq = 2", 2),
        ("DELETE FROM audit WHERE seq = 2", 2),
        ("DELETE FROM audit WHERE seq = 4", 4),
    ];
    raw.execute_batch("CREATE TEMP TABLE good AS SELECT * FROM audit")?;
    for (sql, row) in tampered {
        raw.execute_batch(sql)?;
        let found = store.verify_audit().await;
        assert!(matches!(&found, Err(AuditError::Broken { seq, .. }) if *seq == row), "{sql}: {found:?}");
        raw.execute_batch("DELETE FROM audit; INSERT INTO audit SELECT * FROM good")?;
    }
    assert_eq!(store.verify_audit().await?.rows, 4);
    Ok(())
}

#[tokio::test]
async fn an_export_proves_itself_and_shows_every_change() -> Tested {
    let (_dir, path) = place()?;
    let store = SqliteStore::open_with(&path, normal())?;
    let id = create(&store, "t").await?;
    create(&store, "u").await?;
    store.acquire(&id, &this_process("test")).await?;
    let event = Event::StatusChanged { status: ThreadStatus::Running, failure: None };
    store.commit(transaction(&id, 1, vec![Record::Event(event), note(1)])).await?;
    let whole = store.audit_export(None).await?;
    assert_eq!(whole.verify()?, store.verify_audit().await?);
    // As a file it is the same.
    let read: AuditExport = serde_json::from_str(&serde_json::to_string_pretty(&whole)?)?;
    assert_eq!((read.verify()?, &read), (whole.verify()?, &whole));
    let own = store.audit_export(Some(&id)).await?;
    assert_eq!(own.rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(own.verify()?.hash, whole.rows[2].hash);

    let broken = |export: &AuditExport, change: &dyn Fn(&mut AuditExport)| {
        let mut changed = export.clone();
        change(&mut changed);
        match changed.verify() {
            Err(AuditError::Broken { seq, .. }) => Some(seq),
            _ => None,
        }
    };
    assert_eq!(broken(&whole, &|a| a.rows[2].event["status"] = "failed".into()), Some(3));
    assert_eq!(broken(&whole, &|a| a.rows[1].at = "2026-01-01T00:00:00.000000000Z".into()), Some(2));
    assert_eq!(broken(&whole, &|a| drop(a.rows.remove(0))), Some(1));
    assert_eq!(broken(&whole, &|a| a.rows.swap(0, 1)), Some(1));
    assert_eq!(broken(&own, &|a| a.rows[1].thread = "u".into()), Some(3));
    assert_eq!(broken(&own, &|a| a.rows.swap(0, 1)), Some(1));
    // One of a thread's rows may be missing unseen; who has noted the newest hash sees it at the end.
    assert_eq!(broken(&own, &|a| drop(a.rows.pop())), None);
    Ok(())
}
