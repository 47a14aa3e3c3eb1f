//! The file: rights, versions, damage.

use std::os::unix::fs::PermissionsExt;

use rusqlite::Connection;
use tidegate::graph::{Store, StoreError, ThreadFilter};
use tidegate::store::SqliteStore;

use super::{Tested, create, normal, place};

#[tokio::test]
async fn only_its_owner_may_read_it() -> Tested {
    let (_dir, path) = place()?;
    let store = SqliteStore::open(&path)?;
    create(&store, "t").await?;
    let mode = |path: &std::path::Path| std::fs::metadata(path).map(|m| m.permissions().mode() & 0o777);
    assert_eq!(mode(path.parent().expect("it has one"))?, 0o700);
    for file in ["tidegate.db", "tidegate.db-wal", "tidegate.db-shm"] {
        assert_eq!(mode(&path.with_file_name(file))?, 0o600, "{file}");
    }
    Ok(())
}

#[tokio::test]
async fn many_may_open_a_new_file_at_once() -> Tested {
    let (_dir, path) = place()?;
    let openers: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || SqliteStore::open_with(path, normal()).map(drop))
        })
        .collect();
    for opener in openers {
        opener.join().expect("no panic")?;
    }
    create(&SqliteStore::open(&path)?, "t").await?;
    Ok(())
}

#[test]
fn a_newer_file_is_refused() -> Tested {
    let (_dir, path) = place()?;
    drop(SqliteStore::open(&path)?);
    Connection::open(&path)?.pragma_update(None, "user_version", 999)?;
    let error = SqliteStore::open(&path).err().expect("it is refused");
    assert!(matches!(&error, StoreError::TooNew { file, schema: 999, ours: 1.. } if file.ends_with(".db")), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_file_of_version_two_is_taken_over() -> Tested {
    let (_dir, path) = place()?;
    std::fs::create_dir_all(path.parent().expect("it has one"))?;
    let old = Connection::open(&path)?;
    old.execute_batch(include_str!("../../src/store/migrations/0001_init.sql"))?;
    old.execute_batch(include_str!("../../src/store/migrations/0002_inbox.sql"))?;
    old.execute_batch(
        r#"INSERT INTO threads VALUES (7, 't', 'interrupted', 1, NULL, NULL, NULL, NULL, 0, 0, 3, 5, 9, NULL, 0, 0);
        INSERT INTO thread_origins VALUES (7, '{"workflow":"w","document":null,"fingerprint":"f","node_versions":{},"input":{},"labels":{}}');
        INSERT INTO lines VALUES (1, 7, ''), (2, 7, 'sub:1');
        INSERT INTO checkpoints VALUES
          (1, 1, '019376a1-0000-7000-8000-000000000000', 0, 'loop', 1, 1, '{"parent":null,"values":[{"set":["n",1]}],"visits":{"a":1},"due":["a"]}'),
          (2, 2, 'inner', 0, 'loop', 2, 1, '{"parent":null}'),
          (3, 1, '019376A1-0000-7000-8000-000000000001', 1, 'update', 3, 0, '{"both":[{"set":["n",2]}],"visits":{"a":2},"due":["a"]}');
        INSERT INTO events VALUES
          (7, 1, 1, '{"type":"accepted","workflow":"w"}'), (7, 2, 2, '{"type":"node_started","ns":"","node":"a","attempt":1}'),
          (7, 3, 8, '{"type":"checkpointed","ns":"","step":1,"source":"loop","next":["a"]}');
        PRAGMA application_id = 1416193125;
        PRAGMA user_version = 2;"#,
    )?;
    drop(old);
    let store = SqliteStore::open_with(&path, normal())?;
    let id = "t".into();
    let history = store.history(&id, "").await?;
    let seen: Vec<_> = history.iter().map(|c| (c.id.as_str(), c.step, c.values["n"].as_i64(), c.visits["a"])).collect();
    // An id that is no UUID as we write it stays as it is.
    let ids = ["019376a1-0000-7000-8000-000000000000", "019376A1-0000-7000-8000-000000000001"];
    assert_eq!(seen, [(ids[0], 0, Some(1), 1), (ids[1], 1, Some(2), 2)]);
    assert_eq!(history[1].parent.as_ref(), Some(&history[0].id));
    assert_eq!(store.latest(&id, "sub:1").await?.map(|c| c.id.to_string()), Some("inner".to_owned()));
    let events = store.events(&id, 1, 9).await?;
    assert_eq!(
        events.iter().map(|row| (row.seq, row.at.timestamp_nanos_opt())).collect::<Vec<_>>(),
        [(2, Some(2)), (3, Some(8))]
    );
    store.acquire(&id, &tidegate::store::this_process("test")).await?;
    let next = super::checkpoint(2, super::state(serde_json::json!({"n": 3})));
    let records = vec![super::note(4), tidegate::graph::Record::Checkpoint(std::sync::Arc::new(next.clone()))];
    store.commit(super::transaction(&id, 2, records)).await?;
    assert_eq!(store.history(&id, "").await?.pop(), Some(next));
    assert_eq!(store.events(&id, 3, 9).await?.first().map(|row| row.seq), Some(4));
    drop(store);
    let raw = Connection::open(&path)?;
    raw.execute_batch("PRAGMA foreign_keys = ON; DELETE FROM threads")?;
    let left: i64 =
        raw.query_row("SELECT (SELECT count(*) FROM checkpoints) + (SELECT count(*) FROM events)", [], |row| {
            row.get(0)
        })?;
    assert_eq!(left, 0, "a thread takes its checkpoints and events with it");
    Ok(())
}

#[test]
fn what_is_not_ours_is_refused() -> Tested {
    let (_dir, path) = place()?;
    std::fs::create_dir_all(path.parent().expect("it has one"))?;
    std::fs::write(&path, "no database at all, but long enough to be taken for one".repeat(100))?;
    let error = SqliteStore::open(&path).err().expect("it is refused");
    assert!(matches!(&error, StoreError::Damaged(why) if why.contains("tidegate.db")), "{error}");
    let other = path.with_file_name("other.db");
    Connection::open(&other)?.execute_batch("CREATE TABLE theirs (x)")?;
    let error = SqliteStore::open(&other).err().expect("it is refused");
    assert!(matches!(&error, StoreError::Damaged(why) if why.contains("another program")), "{error}");
    let nowhere = std::path::Path::new("/proc/nowhere/tidegate.db");
    let error = SqliteStore::open(nowhere).err().expect("it is refused");
    assert!(matches!(&error, StoreError::CannotWrite(why) if why.contains("/proc/nowhere")), "{error}");
    Ok(())
}

#[tokio::test]
async fn damage_is_told_apart() -> Tested {
    let (_dir, path) = place()?;
    let store = SqliteStore::open_with(&path, normal())?;
    for n in 0..50 {
        create(&store, &format!("t{n}")).await?;
    }
    drop(store);
    let mut bytes = std::fs::read(&path)?;
    let end = bytes.len();
    bytes[8192..end].fill(0xA5);
    std::fs::write(&path, bytes)?;
    let end = match SqliteStore::open_with(&path, normal()) {
        Ok(store) => store.threads(&ThreadFilter::default()).await.map(drop),
        Err(error) => Err(error),
    };
    assert!(matches!(end, Err(StoreError::Damaged(_))), "{end:?}");
    Ok(())
}
