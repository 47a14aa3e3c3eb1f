//! How a run begins and ends: its lease comes with its first records and goes with its last.

use std::sync::Arc;

use serde_json::json;

use super::{Checked, Harness, at, begun, checkpoint, entry, owner, refused, result, same, state, thread, transaction};
use crate::graph::{
    EntryStatus, Event, Name, Owner, Partial, Recall, Record, StoreError, TaskPath, Thread, ThreadId, ThreadStatus,
};

fn running(owner: &Owner, epoch: u64) -> Vec<Record> {
    let status = Record::Status { status: ThreadStatus::Running, failure: None, unwinding: None };
    vec![Record::Event(Event::Advancing { owner: owner.to_string(), epoch }), Record::Seen(0), status]
}

pub(super) async fn runs_begin_with_their_first_records(harness: &dyn Harness) -> Checked {
    let store = harness.open();
    let id = ThreadId::from("run");
    let born = Thread { status: ThreadStatus::Running, owner: Some(owner(1)), epoch: 1, ..thread("run", 0) };
    store.create_quietly(&born, vec![]).await?;
    let again = store.create_quietly(&born, vec![]).await;
    refused("it is made once", again, StoreError::ThreadExists(id.clone()))?;
    let held = StoreError::Held { thread: id.clone(), owner: Box::new(owner(1)) };
    let none = || Box::new(|_: &Thread, _: u64| Vec::new());
    refused("a thread may be born with its lease", store.begin(&id, &owner(2), at(1), none()).await, held)?;
    let done = Record::Status { status: ThreadStatus::Interrupted, failure: None, unwinding: None };
    store.commit(transaction("run", 1, 2, vec![done, Record::Release])).await?;
    drop(store);
    let store = harness.open();
    let row = store.thread(&id).await?.map(|t| (t.status, t.owner, t.epoch, t.updated_at));
    same("the last records give it back", row, Some((ThreadStatus::Interrupted, None, 1, at(2))))?;
    let opening = Box::new(|found: &Thread, answers: u64| {
        let seen = Event::Custom { ns: Name::default(), node: "a".into(), name: "n".into(), data: json!(answers) };
        [running(&owner(2), found.epoch), vec![Record::Event(seen)]].concat()
    });
    let found = store.begin(&id, &owner(2), at(3), opening).await?;
    let seen = (found.status, found.epoch, found.owner);
    same("the row is as it was found, but for its lease", seen, (ThreadStatus::Interrupted, 2, Some(owner(2))))?;
    drop(store);
    let store = harness.open();
    let row = store.thread(&id).await?.map(|t| (t.status, t.owner, t.epoch, t.updated_at));
    same("lease and first records are one", row, Some((ThreadStatus::Running, Some(owner(2)), 2, at(3))))?;
    let events: Vec<Event> = store.events(&id, 0, 9).await?.into_iter().map(|row| row.event).collect();
    let said = Event::Custom { ns: Name::default(), node: "a".into(), name: "n".into(), data: json!(0) };
    let expected = vec![Event::Advancing { owner: owner(2).to_string(), epoch: 2 }, said];
    same("its first events are there", events, expected)?;
    let late = store.commit(transaction("run", 1, 4, vec![Record::Release])).await;
    refused("an old epoch gives nothing back", late, StoreError::Fenced { thread: id.clone(), ours: 1, current: 2 })?;
    let nobody = ThreadId::from("nobody");
    let unknown = StoreError::NoThread(nobody.clone());
    refused("an unknown thread has no run", store.begin(&nobody, &owner(1), at(1), none()).await, unknown.clone())?;
    refused("nor anything to recall", store.recall(&nobody).await, unknown)
}

pub(super) async fn a_run_recalls_where_it_stood(harness: &dyn Harness) -> Checked {
    let store = harness.open();
    let id = ThreadId::from("recall");
    begun(&*store, "recall").await?;
    let next = Arc::new(checkpoint("recall-1", Some("recall-0"), "", 1, state(json!({"n": 2}))));
    let inner = Arc::new(checkpoint("recall-s0", None, "sub:1", 0, state(json!({"n": 9}))));
    let noted = entry(1, "one", EntryStatus::Done);
    let first =
        vec![Record::Checkpoint(next.clone()), Record::Checkpoint(inner), Record::Entry(Box::new(noted.clone()))];
    store.commit(transaction("recall", 1, 1, first)).await?;
    let partial =
        Partial { results: vec![result(TaskPath::Push(1), json!(3))], attempts: vec![(TaskPath::Push(2), 4)] };
    let (ns, of) = (Name::default(), next.id.clone());
    let kept = vec![
        Record::Result { ns: ns.clone(), checkpoint: of.clone(), result: Box::new(partial.results[0].clone()) },
        Record::Attempts { ns, checkpoint: of, path: TaskPath::Push(2), attempts: 4 },
    ];
    store.commit(transaction("recall", 1, 2, kept)).await?;
    drop(store);
    let expected = Recall { journal: vec![noted], interrupts: vec![], latest: Some(next), partial };
    same("journal, root and its unfinished superstep", harness.open().recall(&id).await?, expected)
}
