//! A store that cannot write, or cannot be read: the run stops with a named error, nothing is half written, and it goes on when the disk is
//! mended. (A real full disk under a whole release: `release_failures.rs`; a file size limit: `store_sqlite/processes.rs`.)

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use tidegate::graph::{
    Advance, CompiledGraph, Effects, Engine, EngineError, Export, NewThread, Outcome, Owner, StoreError, ThreadId,
    ThreadStatus, replay,
};
use tidegate::store::{Options, SqliteStore, Synchronous};

use crate::support::*;

const NODES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Each node makes a thing and writes much; the third asks.
fn large() -> Arc<CompiledGraph> {
    let node = |name: &'static str| {
        let step = step(move |cx, _| {
            Box::pin(async move {
                cx.effect("make", Make::of(name)).await?;
                if name == "c" {
                    cx.interrupt(&"go on?").await?;
                }
                Ok(Outcome::update(says(format!("{name}{}", "x".repeat(60_000)))))
            })
        });
        (name, step)
    };
    chain("large", NODES.map(node).into())
}

fn options(max_pages: Option<u32>) -> Options {
    Options { synchronous: Synchronous::Normal, max_pages, ..Options::default() }
}

fn engine_on(store: SqliteStore, world: &Arc<World>, owner: &Owner) -> Engine {
    Engine::new(Arc::new(store), Effects::new().with::<Make>(world.clone()), owner.clone())
}

/// Goes on until it ends.
async fn finish(engine: &Engine, graph: &Arc<CompiledGraph>, id: &ThreadId) {
    for _ in 0..10 {
        for open in engine.store().interrupts(Some(id), true).await.unwrap() {
            engine.store().answer(&open.id, &by("ada", serde_json::json!(true)), None).await.unwrap();
        }
        if engine.advance(graph, id, Advance::default()).await.unwrap().status == ThreadStatus::Succeeded {
            return;
        }
    }
    panic!("it does not end");
}

/// As if nothing had happened: each thing made once, the record whole, the lease free.
async fn as_ever(engine: &Engine, graph: &Arc<CompiledGraph>, id: &ThreadId, world: &World) {
    let performed = world.calls("perform");
    assert!(NODES.iter().all(|node| performed.iter().filter(|made| made == node).count() == 1), "{performed:?}");
    let export = Export::of(&**engine.store(), id).await.unwrap();
    let seqs: Vec<u64> = export.events.iter().map(|row| row.seq).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    replay(graph, &export).await.unwrap();
    assert_eq!(engine.store().thread(id).await.unwrap().unwrap().owner, None);
}

#[tokio::test]
async fn a_full_disk_stops_a_run_that_goes_on_when_there_is_room() {
    let (dir, graph, owner) = (tempfile::tempdir().unwrap(), large(), owner());
    let (world, path) = (World::at(dir.path()), dir.path().join("db"));
    let engine = engine_on(SqliteStore::open_with(&path, options(Some(90))).unwrap(), &world, &owner);
    let id = engine.create(&graph, NewThread::default()).await.unwrap();
    let stopped = loop {
        match engine.advance(&graph, &id, Advance::default()).await {
            Ok(end) => assert_eq!(end.status, ThreadStatus::Interrupted),
            Err(error) => break error,
        }
        for open in engine.store().interrupts(Some(&id), true).await.unwrap() {
            engine.store().answer(&open.id, &by("ada", serde_json::json!(true)), None).await.unwrap();
        }
    };
    assert_eq!(stopped.failure().code, "store_cannot_write", "{stopped:?}");
    let row = engine.store().thread(&id).await.unwrap().unwrap();
    assert!(!row.status.is_terminal() && row.unwinding.is_none(), "it can be resumed: {row:?}");
    let history = engine.store().history(&id, "").await.unwrap();
    assert!(history.iter().zip(0..).all(|(c, step)| c.step == step), "whole supersteps only");
    drop(engine);
    let engine = engine_on(SqliteStore::open_with(&path, options(None)).unwrap(), &world, &owner);
    finish(&engine, &graph, &id).await;
    as_ever(&engine, &graph, &id, &world).await;
}

#[tokio::test]
async fn a_file_that_was_removed_or_replaced_under_a_run_is_told() {
    let (dir, graph, owner) = (tempfile::tempdir().unwrap(), large(), owner());
    let (world, path) = (World::at(dir.path()), dir.path().join("db"));
    let engine = engine_on(SqliteStore::open_with(&path, options(None)).unwrap(), &world, &owner);
    let id = engine.create(&graph, NewThread::default()).await.unwrap();
    let aside = dir.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    for replaced in [false, true] {
        if replaced {
            std::fs::copy(&aside, &path).unwrap();
        }
        let told = engine.advance(&graph, &id, Advance::default()).await.unwrap_err().failure();
        assert_eq!(told.code, "store_damaged", "{told:?}");
        assert!(
            told.message.contains("removed or replaced") && told.message.contains(path.to_str().unwrap()),
            "{told:?}"
        );
    }
    assert!(world.calls("perform").is_empty());
    // Put back, it goes on.
    std::fs::rename(&aside, &path).unwrap();
    finish(&engine, &graph, &id).await;
    as_ever(&engine, &graph, &id, &world).await;
}

/// Opens as somebody who may only read: this thread's eyes on files, also where the tests run as root.
fn open_as_reader(path: &Path) -> Result<SqliteStore, StoreError> {
    let (path, nobody) = (path.to_owned(), nix::unistd::Uid::from_raw(65534));
    let opened = std::thread::spawn(move || {
        nix::unistd::setfsuid(nobody);
        SqliteStore::open_with(path, options(None))
    });
    opened.join().unwrap()
}

#[tokio::test]
async fn a_file_that_may_only_be_read_is_refused_and_stays_as_it_was() {
    let (dir, graph, owner) = (tempfile::tempdir().unwrap(), large(), owner());
    let (world, path) = (World::at(dir.path()), dir.path().join("db"));
    let engine = engine_on(SqliteStore::open_with(&path, options(None)).unwrap(), &world, &owner);
    let id = engine.create(&graph, NewThread::default()).await.unwrap();
    engine.advance(&graph, &id, Advance::default()).await.unwrap();
    drop(engine);
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(dir.path(), 0o555);
    mode(&path, 0o444);
    let before = std::fs::read(&path).unwrap();
    // Whether it is told as it opens or as it writes: it is told, with the file.
    let told = match open_as_reader(&path) {
        Err(error) => EngineError::from(error),
        Ok(store) => {
            let engine = engine_on(store, &world, &owner);
            engine.advance(&graph, &id, Advance::default()).await.unwrap_err()
        }
    };
    assert_eq!(told.failure().code, "store_cannot_write", "{told:?}");
    assert!(told.failure().message.contains(path.to_str().unwrap()), "{told:?}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    mode(dir.path(), 0o755);
    mode(&path, 0o600);
    let engine = engine_on(SqliteStore::open_with(&path, options(None)).unwrap(), &world, &owner);
    finish(&engine, &graph, &id).await;
    as_ever(&engine, &graph, &id, &world).await;
}

#[tokio::test]
async fn a_damaged_page_stops_a_run_before_it_does_anything() {
    let (dir, graph, owner) = (tempfile::tempdir().unwrap(), large(), owner());
    let (world, path) = (World::at(dir.path()), dir.path().join("db"));
    let engine = engine_on(SqliteStore::open_with(&path, options(None)).unwrap(), &world, &owner);
    let id = engine.create(&graph, NewThread::default()).await.unwrap();
    engine.advance(&graph, &id, Advance::default()).await.unwrap();
    for open in engine.store().interrupts(Some(&id), true).await.unwrap() {
        engine.store().answer(&open.id, &by("ada", serde_json::json!(true)), None).await.unwrap();
    }
    drop(engine);
    let whole = std::fs::read(&path).unwrap();
    let raw = rusqlite::Connection::open(&path).unwrap();
    let root: usize = raw
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'entries'", [], |row| row.get::<_, i64>(0))
        .map(|page| page.try_into().unwrap())
        .unwrap();
    drop(raw);
    let mut spoiled = whole.clone();
    spoiled[(root - 1) * 4096..root * 4096].fill(0xA5);
    std::fs::write(&path, spoiled).unwrap();
    let log = world.log();
    let engine = engine_on(SqliteStore::open_with(&path, options(None)).unwrap(), &world, &owner);
    let stopped = engine.advance(&graph, &id, Advance::default()).await.unwrap_err();
    assert_eq!(stopped.failure().code, "store_damaged", "{stopped:?}");
    assert!(stopped.failure().hint.clone().is_some_and(|hint| hint.contains("doctor --db")));
    assert_eq!(world.log(), log, "nothing was done that nobody could write down");
    drop(engine);
    // The last good copy goes on.
    std::fs::write(&path, whole).unwrap();
    ["-wal", "-shm"].iter().for_each(|end| drop(std::fs::remove_file(format!("{}{end}", path.display()))));
    let engine = engine_on(SqliteStore::open_with(&path, options(None)).unwrap(), &world, &owner);
    finish(&engine, &graph, &id).await;
    as_ever(&engine, &graph, &id, &world).await;
}
