//! Real damage to real files: what is mended, what is only told, and what a salvage still finds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::Utc;
use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;
use tidegate::graph::{Liveness, Owner, Record, Store, ThreadFilter, ThreadStatus};
use tidegate::store::{ProcLiveness, RepairError, SqliteStore, examine, repair, salvage, this_process};

use super::{Tested, checkpoint, create, normal, note, place, state, transaction};

const THREADS: usize = 60;
const STEPS: i64 = 30;

/// A file with threads, each with a history, closed.
async fn filled() -> Result<(TempDir, PathBuf), Box<dyn std::error::Error>> {
    let (dir, path) = place()?;
    let store = SqliteStore::open_with(&path, normal())?;
    for n in 0..THREADS {
        let id = create(&store, &format!("t{n:03}")).await?;
        let epoch = store.acquire(&id, &this_process("test")).await?.epoch;
        for step in 1..STEPS {
            let next = checkpoint(step, state(json!({"n": step, "text": "x".repeat(50)})));
            let records = vec![note(usize::try_from(step)?), Record::Checkpoint(std::sync::Arc::new(next))];
            store.commit(transaction(&id, epoch, records)).await?;
        }
        store.release(&id, epoch).await?;
    }
    drop(store);
    Ok((dir, path))
}

/// The pages of the tree of a table or an index, without its root.
fn pages(path: &Path, name: &str) -> Result<Vec<usize>, Box<dyn std::error::Error>> {
    let conn = Connection::open(path)?;
    let root: i64 = conn.query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [name], |row| row.get(0))?;
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    drop(conn);
    let bytes = std::fs::read(path)?;
    let size = 4096;
    let at = usize::try_from(root - 1)? * size;
    // An inner page: its cells begin with the page number of a child (`fileformat2.html`, 1.6).
    assert!([2, 5].contains(&bytes[at]), "{name} has grown beyond one page: {}", bytes[at]);
    let cells = usize::from(u16::from_be_bytes([bytes[at + 3], bytes[at + 4]]));
    let child = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
    let pointer = |n: usize| usize::from(u16::from_be_bytes([bytes[at + 12 + 2 * n], bytes[at + 13 + 2 * n]]));
    let mut found: Vec<usize> = (0..cells).map(|n| child(at + pointer(n))).collect();
    found.push(child(at + 8));
    Ok(found)
}

/// The names of all tables.
fn tables(path: &Path) -> Result<Vec<String>, rusqlite::Error> {
    let conn = Connection::open(path)?;
    let named = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
    conn.prepare(named)?.query_map([], |row| row.get(0))?.collect()
}

fn spoil(path: &Path, page: usize) -> std::io::Result<()> {
    let mut bytes = std::fs::read(path)?;
    bytes[(page - 1) * 4096..page * 4096].fill(0xA5);
    std::fs::write(path, bytes)
}

/// Whether the page is a page of a tree: a test that damages nothing proves nothing.
fn look(path: &Path) -> Result<tidegate::store::Checkup, tidegate::graph::StoreError> {
    examine(path, &ProcLiveness, Utc::now())
}

fn files(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path.parent().expect("it has one")).expect("it is there");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("it is there").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_sound_file_is_called_sound_and_left_alone() -> Tested {
    let (_dir, path) = filled().await?;
    let bytes = std::fs::read(&path)?;
    let found = look(&path)?;
    assert!(found.is_whole() && !found.can_be_mended(), "{found:?}");
    assert_eq!((found.orphans.len(), found.gaps.len(), found.audit.clone()), (0, 0, Ok(THREADS as u64)));
    let rows: BTreeMap<_, _> = found.tables.iter().map(|table| (table.name, table.rows)).collect();
    assert_eq!(
        rows.keys().copied().collect::<Vec<_>>(),
        tables(&path)?,
        "a table that nobody looks at is lost by a repair"
    );
    assert_eq!((rows["threads"], rows["checkpoints"]), (THREADS as u64, THREADS as u64 * STEPS as u64));
    let repaired = repair(&path, &ProcLiveness, Utc::now())?;
    assert_eq!((repaired.backup, repaired.done.len()), (None, 0));
    assert_eq!(std::fs::read(&path)?, bytes, "not a byte has changed");
    Ok(())
}

#[tokio::test]
async fn a_damaged_index_is_built_anew_after_a_copy() -> Tested {
    let (_dir, path) = filled().await?;
    let conn = Connection::open(&path)?;
    // Rows enough that the index has pages of its own.
    conn.execute_batch(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO threads (id, status, epoch, committed_seq, undone, created_at, updated_at)
           SELECT 'more-' || i, 'succeeded', 1, 0, 0, i, i FROM n;
         INSERT INTO thread_origins SELECT n, (SELECT body FROM thread_origins LIMIT 1) FROM threads WHERE id LIKE 'more-%';
         INSERT INTO items (namespace, key, value, created_at, updated_at) VALUES ('a/b', 'k', '{\"x\": 1}', 1, 2), ('a/b', 'l', '2', 1, 2);",
    )?;
    drop(conn);
    let page = pages(&path, "threads_newest")?[1];
    spoil(&path, page)?;
    let damaged = std::fs::read(&path)?;
    let found = look(&path)?;
    assert!(found.only_indexes() && found.can_be_mended(), "{found:?}");
    assert_eq!(std::fs::read(&path)?, damaged, "looking changes nothing");
    let repaired = repair(&path, &ProcLiveness, Utc::now())?;
    assert!(repaired.left.is_whole(), "{repaired:?}");
    assert_eq!(repaired.done, ["all rows were written anew with their indexes"], "REINDEX needs the old one");
    let backup = repaired.backup.expect("there was something to mend");
    assert_eq!(std::fs::read(&backup)?[(page - 1) * 4096..page * 4096], [0xA5; 4096], "the copy is the file as it was");
    let store = SqliteStore::open_with(&path, normal())?;
    store.check_integrity().await?;
    assert_eq!(store.threads(&ThreadFilter::default()).await?.len(), THREADS + 2000);
    let items: Vec<_> = store.items("a", Utc::now(), 10).await?.into_iter().map(|item| item.value).collect();
    assert_eq!(items, [json!({"x": 1}), json!(2)]);
    Ok(())
}

#[tokio::test]
async fn an_index_that_says_something_else_than_its_table_is_built_anew() -> Tested {
    let (_dir, path) = filled().await?;
    let conn = Connection::open(&path)?;
    // The index of another table of the same shape: its pages are whole, what they say is wrong.
    conn.execute_batch(
        "CREATE TABLE other (created_at INTEGER, id TEXT); INSERT INTO other VALUES (1, 'x');
         CREATE INDEX other_newest ON other (created_at, id);
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'other_newest') WHERE name = 'threads_newest';
         DELETE FROM sqlite_schema WHERE tbl_name = 'other';
         PRAGMA writable_schema = RESET;",
    )?;
    drop(conn);
    let found = look(&path)?;
    assert!(found.only_indexes(), "{found:?}");
    let repaired = repair(&path, &ProcLiveness, Utc::now())?;
    // The pages of the old index belong to nobody now: that is not sound either, so all is written anew.
    assert!(repaired.left.is_whole(), "{repaired:?}");
    let store = SqliteStore::open_with(&path, normal())?;
    assert_eq!(store.threads(&ThreadFilter::default()).await?.len(), THREADS);
    assert_eq!(store.history(&"t007".into(), "").await?.len() as i64, STEPS);
    Ok(())
}

#[tokio::test]
async fn of_a_damaged_table_the_rest_is_salvaged_and_the_file_not_touched() -> Tested {
    let (_dir, path) = filled().await?;
    let leaves = pages(&path, "checkpoints")?;
    spoil(&path, leaves[leaves.len() / 2])?;
    let damaged = std::fs::read(&path)?;
    let found = look(&path)?;
    let broken: Vec<_> = found.tables.iter().filter(|table| table.error.is_some()).map(|table| table.name).collect();
    assert_eq!(broken, ["checkpoints"], "the other tables are readable: {found:?}");
    assert!(!found.can_be_mended() && !found.only_indexes());
    assert_eq!(repair(&path, &ProcLiveness, Utc::now())?.backup, None, "nothing is done to what cannot be mended");
    let into = path.with_file_name("salvaged.db");
    let salvaged = salvage(&path, &into)?;
    assert_eq!(std::fs::read(&path)?, damaged, "not a byte has changed");
    assert_eq!(files(&path).iter().filter(|name| name.contains("copy")).count(), 0, "{:?}", files(&path));
    let taken: BTreeMap<_, _> = salvaged.tables.iter().map(|(name, rows, all)| (*name, (*rows, *all))).collect();
    assert_eq!(taken["threads"], (THREADS as u64, true));
    let (rows, all) = taken["checkpoints"];
    let of = THREADS as u64 * STEPS as u64;
    assert!(!all && rows > of * 3 / 4 && rows < of, "{rows} of {of}");
    let store = SqliteStore::open_with(&into, normal())?;
    store.check_integrity().await?;
    assert_eq!(store.verify_audit().await?.rows, THREADS as u64);
    let mut whole = 0;
    for thread in store.threads(&ThreadFilter::default()).await? {
        let history = store.history(&thread.id, "").await?;
        // What is there is right: nothing was put together over a gap.
        assert!(history.iter().all(|c| c.step == 0 || c.values["n"] == json!(c.step)), "{}", thread.id);
        whole += usize::from(history.len() as i64 == STEPS);
    }
    assert!(whole > THREADS / 2 && whole < THREADS, "{whole} of {THREADS} are whole");
    assert!(matches!(salvage(&path, &into), Err(RepairError::Exists(_))));
    Ok(())
}

#[tokio::test]
async fn of_a_truncated_file_what_is_left_is_salvaged() -> Tested {
    let (_dir, path) = filled().await?;
    pages(&path, "checkpoints")?;
    let bytes = std::fs::read(&path)?;
    std::fs::write(&path, &bytes[..bytes.len() * 4 / 5 / 4096 * 4096])?;
    let found = look(&path)?;
    assert!(!found.is_whole() && !found.can_be_mended(), "{found:?}");
    let into = path.with_file_name("salvaged.db");
    let salvaged = salvage(&path, &into)?;
    assert!(salvaged.tables.iter().any(|(_, rows, all)| *rows > 0 && !all), "{salvaged:?}");
    let store = SqliteStore::open_with(&into, normal())?;
    store.check_integrity().await?;
    let rows: BTreeMap<_, _> = salvaged.tables.iter().map(|(name, rows, _)| (*name, *rows)).collect();
    assert!(rows["checkpoints"] > THREADS as u64 * STEPS as u64 / 2, "{salvaged:?}");
    for thread in store.threads(&ThreadFilter::default()).await? {
        let history = store.history(&thread.id, "").await?;
        assert!(history.iter().all(|c| c.step == 0 || c.values["n"] == json!(c.step)), "{}", thread.id);
    }
    Ok(())
}

#[tokio::test]
async fn what_is_missing_is_told_and_never_invented() -> Tested {
    let (_dir, path) = filled().await?;
    let conn = Connection::open(&path)?;
    conn.execute_batch(
        "DROP TRIGGER audit_is_not_deleted; DELETE FROM audit WHERE seq = 7;
         DELETE FROM checkpoints WHERE n IN (SELECT n FROM checkpoints WHERE base = 0 ORDER BY n LIMIT 1 OFFSET 4);
         DELETE FROM events WHERE n IN (SELECT n FROM events WHERE n >> 32 = 2 ORDER BY n LIMIT 1 OFFSET 5);
         DELETE FROM thread_origins WHERE thread = 3;
         PRAGMA foreign_keys = OFF; INSERT INTO labels VALUES (999, 'a', 'b');
         INSERT INTO events VALUES ((999 << 32) + 1, 0, '[]');
         INSERT INTO checkpoints VALUES ((999 << 32) + 1, 'x', 0, 'loop', 0, 1, '{}');",
    )?;
    drop(conn);
    let found = look(&path)?;
    assert!(found.is_whole(), "SQLite sees nothing: {found:?}");
    let audit = found.audit.clone().expect_err("a row is missing");
    assert!(audit.contains('7'), "{audit}");
    let says = |what: &str| found.gaps.iter().chain(&found.orphans).any(|line| line.contains(what));
    for what in [
        "checkpoints 6 to 6 are missing",
        "events 6 to 6",
        "has no origin",
        "labels without its row in threads",
        "events 4290672328705 without its row in threads",
        "checkpoints 4290672328705 without its row in lines",
    ] {
        assert!(says(what), "{what}: {found:?}");
    }
    let repaired = repair(&path, &ProcLiveness, Utc::now())?;
    assert_eq!((repaired.left.audit, repaired.left.gaps), (found.audit, found.gaps), "it stays as it is");
    Ok(())
}

/// Owners that have died.
struct Dead(u64);

impl Liveness for Dead {
    fn alive(&self, owner: &Owner) -> bool {
        owner.nonce != self.0
    }
}

#[tokio::test]
async fn leases_of_the_dead_and_what_has_expired_go() -> Tested {
    let (_dir, path) = filled().await?;
    let (gone, here) = (this_process("gone"), this_process("here"));
    let store = SqliteStore::open_with(&path, normal())?;
    store.acquire(&"t001".into(), &gone).await?;
    store.acquire(&"t002".into(), &here).await?;
    let asked = store.acquire(&"t003".into(), &gone).await?;
    let status = Record::Status { status: ThreadStatus::Interrupted, failure: None, unwinding: None };
    store.commit(transaction(&asked.id, asked.epoch, vec![status])).await?;
    let refused = repair(&path, &Dead(gone.nonce), Utc::now());
    assert!(matches!(refused, Err(RepairError::InUse(_))), "{refused:?}");
    drop(store);
    let conn = Connection::open(&path)?;
    conn.execute_batch("INSERT INTO cache (key, body, expires_at) VALUES ('old', '{}', 5), ('new', '{}', NULL)")?;
    drop(conn);
    let repaired = repair(&path, &Dead(gone.nonce), Utc::now())?;
    assert_eq!(repaired.done.len(), 2, "{:?}", repaired.done);
    assert!(repaired.backup.is_some_and(|backup| backup.exists()));
    let store = SqliteStore::open_with(&path, normal())?;
    let owner = async |id: &str| store.thread(&id.into()).await.map(|thread| thread.and_then(|t| t.owner));
    assert_eq!(owner("t001").await?, None);
    assert_eq!(owner("t002").await?, Some(here), "who lives keeps it");
    assert_eq!(owner("t003").await?, Some(gone), "a runner knows by it that an answered run was lost");
    Ok(())
}

#[tokio::test]
async fn a_log_that_a_crash_has_left_is_taken_in() -> Tested {
    let (dir, path) = filled().await?;
    // As a killed process leaves it: the log is there, and an index of it that nobody may trust.
    let store = SqliteStore::open_with(&path, normal())?;
    create(&store, "newest").await?;
    let crashed = dir.path().join("crashed.db");
    for end in ["", "-wal"] {
        std::fs::copy(format!("{}{end}", path.display()), format!("{}{end}", crashed.display()))?;
    }
    std::fs::write(dir.path().join("crashed.db-shm"), [0x5A; 32768])?;
    drop(store);
    let found = look(&crashed)?;
    assert!(found.leftover_wal > 0 && found.is_whole(), "{found:?}");
    assert!(dir.path().join("crashed.db-wal").exists(), "looking leaves it");
    let repaired = repair(&crashed, &ProcLiveness, Utc::now())?;
    assert_eq!(repaired.done, ["the write-ahead log that a crash had left was taken into the file"]);
    let of_backup = Connection::open(repaired.backup.expect("a copy was made"))?;
    let newest = "SELECT count(*) FROM threads WHERE id = 'newest'";
    assert_eq!(of_backup.query_row(newest, [], |row| row.get::<_, i64>(0))?, 1, "the log belongs to the copy");
    let store = SqliteStore::open_with(&crashed, normal())?;
    assert!(store.thread(&"newest".into()).await?.is_some());
    Ok(())
}
