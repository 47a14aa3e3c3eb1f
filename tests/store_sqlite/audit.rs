//! The audit is a chain that cannot be changed unseen.

use rusqlite::Connection;
use tidegate::graph::{Event, Record, Store, ThreadStatus};
use tidegate::store::{AuditError, SqliteStore, this_process};

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
    assert_eq!(store.verify_audit().await?, 4);
    assert_eq!(store.audit(&id, 1, 9).await?.iter().map(|row| row.seq).collect::<Vec<_>>(), [3, 4]);

    let raw = Connection::open(&path)?;
    for sql in ["UPDATE audit SET at = 'never'", "DELETE FROM audit", "REPLACE INTO audit SELECT * FROM audit"] {
        let refused = raw.execute_batch(sql).map_err(|e| e.to_string());
        assert!(refused.is_err(), "{sql}: {refused:?}");
    }
    assert_eq!(store.verify_audit().await?, 4);

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
    assert_eq!(store.verify_audit().await?, 4);
    Ok(())
}
