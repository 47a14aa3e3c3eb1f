//! What only the store in SQLite must do: several processes on one file, group commit, growth, damage, a full disk, the audit.

mod audit;
mod file;
mod growth;
mod processes;
mod repair;
mod served;
mod writing;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::graph::{
    Answer, Checkpoint, CheckpointId, Event, Interrupt, JournalKey, Name, Record, Source, State, Store, Task, TaskPath,
    Thread, ThreadId, ThreadStatus, Transaction, digest,
};
use tidegate::store::{Options, SqliteStore, Synchronous};

type Tested = Result<(), Box<dyn Error>>;

/// A directory of its own with a file in it.
fn place() -> Result<(TempDir, PathBuf), std::io::Error> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("home/tidegate.db");
    Ok((dir, path))
}

/// Fast: tests that pull no plug need no fsync.
fn normal() -> Options {
    Options { synchronous: Synchronous::Normal, ..Options::default() }
}

fn at(n: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(1_795_168_800 + n)
}

fn state(value: Value) -> State {
    value.as_object().map(|map| map.clone().into_iter().collect()).unwrap_or_default()
}

fn checkpoint(step: i64, values: State) -> Checkpoint {
    let id = |step: i64| CheckpointId::from(format!("019376a1-0000-7000-8000-{step:012}"));
    let visit = step.unsigned_abs();
    let task = Task { path: TaskPath::Pull("a".into()), node: "a".into(), visit, input: None };
    Checkpoint {
        id: id(step),
        parent: (step > 0).then(|| id(step - 1)),
        ns: Name::default(),
        step,
        source: Source::Loop,
        written: values.clone(),
        values,
        barriers: BTreeMap::new(),
        deferred: Default::default(),
        fork: 0,
        frontier: vec![task],
        visits: [("a", visit)].into(),
        at: at(step),
    }
}

fn thread(id: &str) -> Thread {
    Thread {
        id: id.into(),
        workflow: "w".into(),
        document: Value::Null,
        fingerprint: "f".into(),
        node_versions: BTreeMap::new(),
        input: Value::Null,
        status: ThreadStatus::Pending,
        failure: None,
        unwinding: None,
        committed_seq: 0,
        undone: false,
        labels: BTreeMap::new(),
        owner: None,
        epoch: 0,
        attendant: None,
        wake: None,
        imported: None,
        created_at: at(0),
        updated_at: at(0),
    }
}

/// A new thread with its checkpoint 0 and its first audited event.
async fn create(store: &SqliteStore, id: &str) -> Result<ThreadId, tidegate::graph::StoreError> {
    let first = Record::Checkpoint(Arc::new(checkpoint(0, state(json!({"n": 0})))));
    store.create(&thread(id), vec![Record::Event(Event::Accepted { workflow: "w".into() }), first]).await?;
    Ok(id.into())
}

fn transaction(thread: &ThreadId, epoch: u64, records: Vec<Record>) -> Transaction {
    Transaction { thread: thread.clone(), epoch, at: at(1), records }
}

fn note(n: usize) -> Record {
    Record::Event(Event::Custom { ns: Name::default(), node: "a".into(), name: "n".into(), data: json!(n) })
}

fn question(thread: &ThreadId) -> Interrupt {
    let key = JournalKey {
        fork: 0,
        ns: Name::default(),
        node: "gate".into(),
        visit: 1,
        send: None,
        name: "approve".into(),
        ordinal: 0,
    };
    let value = json!({"deploy": "iris"});
    Interrupt {
        id: key.interrupt_id(thread),
        thread: thread.clone(),
        key,
        digest: digest(&value),
        value,
        asked_at: at(1),
        expires_at: None,
        answer: None,
        withdrawn: false,
        expired: false,
    }
}

fn answer(by: &str) -> Answer {
    Answer { value: json!(true), by: by.into(), via: "terminal".into(), at: at(2) }
}
