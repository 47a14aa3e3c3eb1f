//! What every store must do: one suite, run against the one in memory and the one in SQLite.

mod items;
mod questions;
mod runs;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::graph::{
    Checkpoint, CheckpointId, Entry, EntryKind, EntryStatus, Event, Failure, JournalKey, Name, Owner, Partial, Record,
    Source, State, Store, StoreError, Task, TaskPath, TaskResult, Thread, ThreadFilter, ThreadId, ThreadStatus,
    Transaction, Trigger, Unwinding, Visits, Write,
};

/// What a store did not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {detail}")]
pub struct StoreViolation {
    /// The rule.
    pub check: &'static str,
    /// What was seen.
    pub detail: String,
}

impl From<StoreError> for StoreViolation {
    fn from(error: StoreError) -> Self {
        Self { check: "a call that must succeed", detail: error.to_string() }
    }
}

/// Gives the suite its store.
pub trait Harness: Send + Sync {
    /// The store; empty at the first call, with what was committed at every later one (a durable store: opened anew). An owner
    /// that has not released counts as alive.
    fn open(&self) -> Arc<dyn Store>;
}

type Checked = Result<(), StoreViolation>;

/// Holds a store against every rule of [`Store`].
///
/// # Errors
/// The first rule that it breaks.
pub async fn store_conformance(harness: &dyn Harness) -> Checked {
    threads_are_created_once(harness).await?;
    leases_fence(harness).await?;
    runs::runs_begin_with_their_first_records(harness).await?;
    runs::a_run_recalls_where_it_stood(harness).await?;
    commits_are_whole(harness).await?;
    partials_are_kept_until_the_next_checkpoint(harness).await?;
    journal_keeps_numbers(harness).await?;
    history_comes_back(harness).await?;
    questions::questions_are_claimed_once(harness).await?;
    questions::answers_come_together(harness).await?;
    questions::questions_end(harness).await?;
    questions::questions_are_withdrawn(harness).await?;
    statuses_are_kept(harness).await?;
    events_are_ordered(harness).await?;
    questions::the_inbox_is_the_next_owners(harness).await?;
    items::items_are_shared(harness).await?;
    items::channels_come_and_go(harness).await?;
    threads_are_filtered(harness).await
}

fn same<T: PartialEq + std::fmt::Debug>(check: &'static str, got: T, expected: T) -> Checked {
    if got == expected {
        return Ok(());
    }
    Err(StoreViolation { check, detail: format!("got {got:?}, expected {expected:?}") })
}

fn refused<T: std::fmt::Debug>(check: &'static str, got: Result<T, StoreError>, expected: StoreError) -> Checked {
    match got {
        Err(error) => same(check, error, expected),
        Ok(value) => Err(StoreViolation { check, detail: format!("got {value:?}, expected the error {expected:?}") }),
    }
}

/// A time; nanoseconds, because the engine's clock has them.
pub(super) fn at(n: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(1_795_168_800 + n) + TimeDelta::nanoseconds(123_456_789)
}

/// A checkpoint with some values.
pub(super) fn checkpoint(id: &str, parent: Option<&str>, ns: &str, step: i64, values: State) -> Checkpoint {
    Checkpoint {
        id: id.into(),
        parent: parent.map(CheckpointId::from),
        ns: ns.into(),
        step,
        fork: 0,
        source: Source::Loop,
        written: values.clone(),
        values,
        barriers: BTreeMap::new(),
        deferred: Default::default(),
        frontier: vec![Task { path: TaskPath::Pull("a".into()), node: "a".into(), visit: 1, input: None }],
        visits: [("a", 1)].into(),
        at: at(step),
    }
}

fn state(value: Value) -> State {
    value.as_object().map(|map| map.clone().into_iter().collect()).unwrap_or_default()
}

/// A thread as the engine creates it.
pub(super) fn thread(id: &str, created: i64) -> Thread {
    Thread {
        id: id.into(),
        workflow: "model_deployer".into(),
        document: json!({"name": "model_deployer", "é": [1, 2.5]}),
        fingerprint: "sha256:1".into(),
        node_versions: [("plan".to_owned(), 3)].into(),
        input: json!({"request": {"model": "iris"}}),
        status: ThreadStatus::Pending,
        failure: None,
        unwinding: None,
        committed_seq: 0,
        undone: false,
        labels: [("model".to_owned(), "iris".to_owned())].into(),
        owner: None,
        epoch: 0,
        attendant: None,
        wake: None,
        imported: None,
        created_at: at(created),
        updated_at: at(created),
    }
}

fn owner(nonce: u64) -> Owner {
    Owner { pid: 4_000_000, start_ticks: 7, boot_id: "boot".into(), nonce, label: "deploy".into() }
}

fn transaction(thread: &str, epoch: u64, n: i64, records: Vec<Record>) -> Transaction {
    Transaction { thread: thread.into(), epoch, at: at(n), records }
}

/// A thread with its first checkpoint, held by owner 1 at epoch 1.
pub(super) async fn begun(store: &dyn Store, id: &str) -> Result<(), StoreError> {
    let first = checkpoint(&format!("{id}-0"), None, "", 0, state(json!({"n": 0})));
    store.create(&thread(id, 0), vec![Record::Checkpoint(Arc::new(first))]).await?;
    store.acquire(&id.into(), &owner(1)).await?;
    Ok(())
}

async fn threads_are_created_once(harness: &dyn Harness) -> Checked {
    let store = harness.open();
    let mut full = thread("created", 1);
    full.attendant = Some(owner(9));
    full.failure = Some(Failure::new("x", "y").hint("z"));
    let first = checkpoint("created-0", None, "", 0, state(json!({"a": 1})));
    let accepted = Event::Accepted { workflow: full.workflow.clone() };
    store.create(&full, vec![Record::Event(accepted), Record::Checkpoint(Arc::new(first.clone()))]).await?;
    refused("an id is taken once", store.create(&full, Vec::new()).await, StoreError::ThreadExists(full.id.clone()))?;
    drop(store);
    let store = harness.open();
    same("a thread comes back", store.thread(&full.id).await?, Some(full.clone()))?;
    same("its first checkpoint is there", store.latest(&full.id, "").await?, Some(first))?;
    same("its first event has number 1", store.events(&full.id, 0, 9).await?.first().map(|e| e.seq), Some(1))?;
    let nobody = ThreadId::from("nobody");
    same("an unknown thread is none", store.thread(&nobody).await?, None)?;
    let unknown = || StoreError::NoThread(nobody.clone());
    refused("an unknown thread has no history", store.history(&nobody, "").await, unknown())?;
    refused("it cannot be taken", store.acquire(&nobody, &owner(1)).await, unknown())?;
    refused("it cannot be attended", store.attend(&nobody, None).await, unknown())?;
    refused("it has no events", store.events(&nobody, 0, 9).await, unknown())?;
    refused("nothing can be committed to it", store.commit(transaction("nobody", 1, 1, vec![])).await, unknown())?;
    store.release(&nobody, 1).await?;
    Ok(())
}

async fn leases_fence(harness: &dyn Harness) -> Checked {
    let store = harness.open();
    let id = ThreadId::from("leased");
    begun(&*store, "leased").await?;
    let held = StoreError::Held { thread: id.clone(), owner: Box::new(owner(1)) };
    refused("a lease is held by one", store.acquire(&id, &owner(2)).await, held.clone())?;
    let again = store.acquire(&id, &owner(1)).await?;
    same("every acquire counts the epoch up", (again.epoch, again.owner), (2, Some(owner(1))))?;
    let stale = store.commit(transaction("leased", 1, 2, vec![Record::Undone(true)])).await;
    refused("an old epoch writes nothing", stale, StoreError::Fenced { thread: id.clone(), ours: 1, current: 2 })?;
    store.release(&id, 1).await?;
    refused("an old epoch releases nothing", store.acquire(&id, &owner(2)).await, held)?;
    store.attend(&id, Some(&owner(5))).await?;
    drop(store);
    let store = harness.open();
    let row = store.thread(&id).await?;
    let seen = row.map(|t| (t.undone, t.epoch, t.owner, t.attendant));
    same("lease and attendant are kept", seen, Some((false, 2, Some(owner(1)), Some(owner(5)))))?;
    store.attend(&id, None).await?;
    store.release(&id, 2).await?;
    let next = store.acquire(&id, &owner(2)).await?;
    same("a released lease is free", (next.epoch, next.owner, next.attendant), (3, Some(owner(2)), None))
}

async fn commits_are_whole(harness: &dyn Harness) -> Checked {
    let store = harness.open();
    let id = ThreadId::from("whole");
    begun(&*store, "whole").await?;
    let failure = Failure::new("f", "failed").because("b").retryable().at("n");
    let unwinding = Unwinding { becomes: ThreadStatus::Failed, failure: failure.clone() };
    let status = Record::Status {
        status: ThreadStatus::Running,
        failure: Some(failure.clone()),
        unwinding: Some(unwinding.clone()),
    };
    let records = vec![status, Record::CommitPoint(7), Record::Undone(true)];
    store.commit(transaction("whole", 1, 5, records)).await?;
    drop(store);
    let row = harness.open().thread(&id).await?;
    let seen = row.map(|t| (t.status, t.failure, t.unwinding, t.committed_seq, t.undone, t.updated_at));
    let expected = Some((ThreadStatus::Running, Some(failure), Some(unwinding), 7, true, at(5)));
    same("status, commit point and time are kept", seen, expected)
}

fn result(path: TaskPath, value: Value) -> TaskResult {
    let write = Write { channel: "n".into(), value: value.clone(), overwrite: true };
    let triggers = vec![
        Trigger::Node("b".into()),
        Trigger::Send { to: "c".into(), input: value },
        Trigger::Arrived { barrier: "a+b".into(), from: "a".into() },
    ];
    TaskResult { path, node: "a".into(), writes: vec![write], triggers, command: None }
}

async fn partials_are_kept_until_the_next_checkpoint(harness: &dyn Harness) -> Checked {
    let store = harness.open();
    let id = ThreadId::from("partial");
    begun(&*store, "partial").await?;
    let of = CheckpointId::from("partial-0");
    let keep = |path: TaskPath, value| Record::Result {
        ns: Name::default(),
        checkpoint: of.clone(),
        result: Box::new(result(path, value)),
    };
    let (a, b) = (TaskPath::Pull("a".into()), TaskPath::Push(1));
    let failed = |attempts| Record::Attempts { ns: Name::default(), checkpoint: of.clone(), path: a.clone(), attempts };
    let records = vec![keep(a.clone(), json!(1)), keep(b.clone(), json!(2)), keep(a.clone(), json!(3.5)), failed(1)];
    store.commit(transaction("partial", 1, 1, records)).await?;
    store.commit(transaction("partial", 1, 2, vec![failed(2)])).await?;
    drop(store);
    let store = harness.open();
    let expected =
        Partial { results: vec![result(b, json!(2)), result(a.clone(), json!(3.5))], attempts: vec![(a.clone(), 2)] };
    same("results are kept, the newest of a task last", store.partial(&id, "", &of).await?, expected)?;
    same("none of another namespace", store.partial(&id, "sub:1", &of).await?, Partial::default())?;
    let inner = checkpoint("partial-s0", None, "sub:1", 0, State::new());
    store.commit(transaction("partial", 1, 3, vec![Record::Checkpoint(Arc::new(inner))])).await?;
    same("another namespace's checkpoint leaves them", store.partial(&id, "", &of).await?.results.len(), 2)?;
    let next = checkpoint("partial-1", Some("partial-0"), "", 1, state(json!({"n": 4})));
    store.commit(transaction("partial", 1, 4, vec![Record::Checkpoint(Arc::new(next))])).await?;
    same("the next checkpoint drops them", store.partial(&id, "", &of).await?, Partial::default())?;
    let new = CheckpointId::from("partial-1");
    let again = Record::Attempts { ns: Name::default(), checkpoint: new.clone(), path: a.clone(), attempts: 1 };
    same("a new superstep has none", store.partial(&id, "", &new).await?, Partial::default())?;
    store.commit(transaction("partial", 1, 5, vec![again])).await?;
    same("and then has some", store.partial(&id, "", &new).await?.attempts, vec![(a, 1)])
}

fn key(ns: &str, name: &str) -> JournalKey {
    JournalKey { fork: 0, ns: ns.into(), node: "exec".into(), visit: 1, send: None, name: name.into(), ordinal: 0 }
}

fn entry(seq: u64, name: &str, status: EntryStatus) -> Entry {
    Entry {
        seq,
        key: key("sub:1", name),
        kind: EntryKind::Effect,
        effect: "start_slot".into(),
        input: json!({"slot": "green", "share": 0.1}),
        status,
        receipt: (status == EntryStatus::Done).then(|| json!({"port": 3001})),
        failure: None,
        attempts: 1,
        at: at(1),
        updated_at: at(2),
    }
}

async fn journal_keeps_numbers(harness: &dyn Harness) -> Checked {
    let store = harness.open();
    let id = ThreadId::from("journal");
    begun(&*store, "journal").await?;
    let put = |entry| Record::Entry(Box::new(entry));
    // The second intent may be committed first: siblings run at the same time.
    store.commit(transaction("journal", 1, 1, vec![put(entry(2, "two", EntryStatus::Intent))])).await?;
    store.commit(transaction("journal", 1, 2, vec![put(entry(1, "one", EntryStatus::Intent))])).await?;
    let moved = Entry { seq: 9, ..entry(2, "two", EntryStatus::Done) };
    store.commit(transaction("journal", 1, 3, vec![put(moved)])).await?;
    drop(store);
    let expected = vec![entry(1, "one", EntryStatus::Intent), entry(2, "two", EntryStatus::Done)];
    same("entries are replaced by key and keep their number", harness.open().journal(&id).await?, expected)
}

async fn history_comes_back(harness: &dyn Harness) -> Checked {
    let store = harness.open();
    let id = ThreadId::from("history");
    begun(&*store, "history").await?;
    let mut expected = store.history(&id, "").await?;
    let mut items = Vec::new();
    for step in 1..=60_i64 {
        items.push(json!({"text": "x".repeat(60), "n": step, "share": 0.1 * step as f64}));
        let parent = format!("history-{}", step - 1);
        let mut next = checkpoint(&format!("history-{step}"), Some(&parent), "", step, State::new());
        next.values = state(json!({"items": items, "last": step, "odd": step % 2, "tiny": f64::MIN_POSITIVE}));
        next.written = state(json!({"items": items}));
        next.visits.set("a", step as u64);
        match step {
            10 => next.written = State::new(),
            20 => next.source = Source::Update,
            30 => (next.parent, next.source) = (Some("history-3".into()), Source::Fork),
            // What went away cannot be told as a change.
            35 => next.values = state(json!({"items": [], "other": {"k": [u64::MAX, i64::MIN, null]}})),
            40 => (next.parent, next.visits) = (None, Visits::new()),
            45 => next.barriers = [("a+b".into(), ["a".into()].into())].into(),
            50 => next.frontier = Vec::new(),
            52 => next.frontier[0].visit = 52,
            53 => next.frontier.push(Task { path: TaskPath::Push(0), node: "b".into(), visit: 1, input: None }),
            _ => {
                next.frontier[0] =
                    Task { path: TaskPath::Push(2), node: "a".into(), visit: 2, input: Some(json!([step])) }
            }
        }
        expected.push(next.clone());
        store.commit(transaction("history", 1, step, vec![Record::Checkpoint(Arc::new(next))])).await?;
    }
    let inner = checkpoint("history-s0", None, "sub:1", 0, state(json!({"n": 1})));
    store.commit(transaction("history", 1, 99, vec![Record::Checkpoint(Arc::new(inner.clone()))])).await?;
    drop(store);
    let store = harness.open();
    same("the newest checkpoint comes back", store.latest(&id, "").await?, expected.last().cloned())?;
    let back = store.history(&id, "").await?;
    same("every checkpoint comes back, byte for byte", format!("{back:?}"), format!("{expected:?}"))?;
    same("namespaces are apart", store.history(&id, "sub:1").await?, vec![inner])?;
    same("an unknown namespace is empty", store.latest(&id, "no:1").await?, None)?;
    same("namespaces are sorted", store.namespaces(&id).await?, vec![String::new(), "sub:1".to_owned()])
}

async fn statuses_are_kept(harness: &dyn Harness) -> Checked {
    let store = harness.open();
    begun(&*store, "status").await?;
    let all = [
        ThreadStatus::Pending,
        ThreadStatus::Running,
        ThreadStatus::Interrupted,
        ThreadStatus::Sleeping,
        ThreadStatus::Succeeded,
        ThreadStatus::Failed,
        ThreadStatus::Cancelled,
        ThreadStatus::Stuck,
    ];
    for status in all {
        let record = Record::Status { status, failure: None, unwinding: None };
        store.commit(transaction("status", 1, 1, vec![record])).await?;
        same("a status is kept", store.thread(&"status".into()).await?.map(|t| t.status), Some(status))?;
    }
    Ok(())
}

async fn events_are_ordered(harness: &dyn Harness) -> Checked {
    let store = harness.open();
    let id = ThreadId::from("events");
    begun(&*store, "events").await?;
    let event = |n: i64| Event::Custom { ns: Name::default(), node: "a".into(), name: "n".into(), data: json!(n) };
    for n in 0..5 {
        let records = vec![Record::Event(event(2 * n)), Record::Event(event(2 * n + 1))];
        store.commit(transaction("events", 1, n, records)).await?;
    }
    drop(store);
    let store = harness.open();
    let seen = store.events(&id, 3, 4).await?;
    let expected: Vec<_> = (3..7).map(|n| (n as u64 + 1, at(n / 2), event(n))).collect();
    same("a page of events", seen.into_iter().map(|e| (e.seq, e.at, e.event)).collect(), expected)?;
    same("all of them", store.events(&id, 0, usize::MAX).await?.len(), 10)?;
    same("none after the last", store.events(&id, 10, 9).await?, Vec::new())
}

async fn threads_are_filtered(harness: &dyn Harness) -> Checked {
    let store = harness.open();
    for (id, created, model, status) in [
        ("f-1", 100, "wine", ThreadStatus::Succeeded),
        ("f-3", 101, "wine", ThreadStatus::Stuck),
        ("f-2", 101, "wine", ThreadStatus::Sleeping),
        ("f-4", 102, "beer", ThreadStatus::Stuck),
    ] {
        let labels = [("model".to_owned(), model.to_owned())].into();
        store.create(&Thread { labels, status, ..thread(id, created) }, Vec::new()).await?;
    }
    let wine = Some(("model".to_owned(), "wine".to_owned()));
    let ids = |threads: Vec<Thread>| threads.into_iter().map(|t| t.id.to_string()).collect::<Vec<_>>();
    let by = |statuses: Vec<ThreadStatus>, label, limit| ThreadFilter { statuses, label, limit };
    let listed = store.threads(&by(vec![], wine.clone(), 0)).await?;
    same("by label, newest first", ids(listed), vec!["f-3".to_owned(), "f-2".into(), "f-1".into()])?;
    let listed = store.threads(&by(vec![ThreadStatus::Stuck, ThreadStatus::Sleeping], wine, 0)).await?;
    same("by status and label", ids(listed), vec!["f-3".to_owned(), "f-2".into()])?;
    let listed = store.threads(&by(vec![ThreadStatus::Stuck], None, 1)).await?;
    same("at most so many", ids(listed), vec!["f-4".to_owned()])?;
    let none = Some(("model".to_owned(), "none".to_owned()));
    same("none", store.threads(&by(vec![], none, 0)).await?, Vec::new())
}
