//! What clients of the server make: kept, found again, accepted or refused in one transaction.

use serde_json::{Map, Value, json};
use tidegate::graph::{Event, Record, Store, Thread, ThreadId};
use tidegate::store::{
    Accepted, AskedCancel, AssistantFilter, AssistantText, NewRun, RunBody, RunEnded, RunStatus, ServedStatus,
    SqliteStore, ThreadSearch,
};

use super::{Tested, at, normal, place, thread};

fn map(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn run(thread: &ThreadId, id: &str, graph: &str, strategy: &str) -> NewRun {
    let body = RunBody {
        graph: graph.to_owned(),
        assistant: format!("{graph}-assistant"),
        strategy: strategy.to_owned(),
        kwargs: json!({"temporary": false}),
        ..RunBody::default()
    };
    NewRun { id: id.to_owned(), thread: thread.clone(), create: None, body, due_at: at(2), most_waiting: 3, at: at(1) }
}

#[tokio::test]
async fn runs_are_accepted_in_the_order_of_their_thread() -> Tested {
    let (_dir, path) = place()?;
    let store = SqliteStore::open_with(&path, normal())?;
    let thread = ThreadId::from("t");
    assert_eq!(store.accept_run(run(&thread, "0", "g", "enqueue")).await?, Accepted::NoThread);
    let (made, new) = store.add_api_thread(&thread, map(json!({"a": 1})), at(0)).await?;
    assert!(new && !made.begun && made.status == ServedStatus::Idle);
    assert!(!store.add_api_thread(&thread, Map::new(), at(0)).await?.1);
    for id in ["1", "2"] {
        let queued = store.accept_run(run(&thread, id, "g", "enqueue")).await?;
        assert!(
            matches!(queued, Accepted::Queued { ref before, .. } if before.len() == id.parse::<usize>().unwrap() - 1)
        );
    }
    assert_eq!(store.accept_run(run(&thread, "3", "g", "reject")).await?, Accepted::Busy);
    assert_eq!(store.accept_run(run(&thread, "3", "h", "enqueue")).await?, Accepted::OtherGraph("g".to_owned()));
    store.accept_run(run(&thread, "3", "g", "enqueue")).await?;
    assert_eq!(store.accept_run(run(&thread, "4", "g", "enqueue")).await?, Accepted::Full);

    let alone = ThreadId::from("alone");
    let at_once = NewRun { create: Some(Map::new()), due_at: at(1), ..run(&alone, "5", "g", "enqueue") };
    store.accept_run(at_once).await?;
    let begun = store.api_run("5").await?.ok_or("it is there")?;
    assert_eq!((begun.status, begun.first), (RunStatus::Running, Some(0)), "what need not wait has begun");
    assert!(begun.updated_at > at(1), "when it was accepted, which is not when it was asked for");
    store.delete_run("5").await?;

    assert!(store.begin_run("1", 7, at(2)).await? && !store.begin_run("1", 8, at(3)).await?, "once");
    let asked = |rollback, by: &str| AskedCancel { rollback, by: by.to_owned(), at: at(3) };
    for (rollback, by) in [(false, "ann"), (true, "bob"), (false, "eve")] {
        assert!(store.cancel_run("1", asked(rollback, by), None).await?.is_some());
    }
    let stopped = store.api_run("1").await?.and_then(|run| run.cancel);
    assert_eq!(stopped, Some(asked(true, "bob")), "that it is taken back is not taken back");
    let end =
        RunEnded { status: RunStatus::Success, last: 9, outcome: json!({"x": 1}), cancel: None, at: at(4), told: None };
    assert!(!store.end_run("1", end.clone()).await?, "its end must know that it was stopped");
    assert!(store.end_run("1", RunEnded { cancel: stopped, ..end.clone() }).await?);
    store.end_run("1", RunEnded { status: RunStatus::Error, last: 10, at: at(5), ..end }).await?;
    assert_eq!(store.cancel_run("1", asked(true, "ann"), None).await?, None, "it is over");
    let ended = store.api_run("1").await?.ok_or("it is there")?;
    assert_eq!(
        (ended.status, ended.first, ended.last, &ended.outcome),
        (RunStatus::Success, Some(7), Some(9), &json!({"x": 1}))
    );
    let open: Vec<String> = store.open_runs(&thread).await?.into_iter().map(|run| run.id).collect();
    assert_eq!(open, ["2", "3"]);
    let newest: Vec<String> = store.api_runs(&thread, None, 2, 0).await?.into_iter().map(|run| run.id).collect();
    assert_eq!(newest, ["3", "2"]);
    drop(store);

    let store = SqliteStore::open_with(&path, normal())?;
    assert_eq!(store.threads_with_open_runs().await?, std::slice::from_ref(&thread), "after a restart too");
    let found = store.api_thread(&thread).await?.ok_or("it is there")?;
    assert_eq!((found.status, found.graph.as_deref()), (ServedStatus::Busy, Some("g")));
    assert_eq!(json!(found.metadata), json!({"a": 1, "graph_id": "g", "assistant_id": "g-assistant"}));
    let own = tidegate::store::this_process("test");
    assert!(store.delete_api_thread(&thread, &own).await? && !store.delete_api_thread(&thread, &own).await?);
    assert!(store.api_run("2").await?.is_none() && store.thread(&thread).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_run_and_its_thread_are_kept_together_and_go_together() -> Tested {
    let (_dir, path) = place()?;
    let store = SqliteStore::open_with(&path, normal())?;
    let own = tidegate::store::this_process("test");
    let alone = |id: &str, due: i64| {
        let new = run(&ThreadId::from(id), id, "g", "enqueue");
        NewRun { create: Some(Map::new()), due_at: at(due), ..new }
    };
    let leased = |id: &str| Thread { owner: Some(own.clone()), epoch: 1, ..thread(id) };
    let said = || vec![Record::Event(Event::Accepted { workflow: "g".into() })];
    for id in ["a", "b", "c"] {
        let queued = store.accept_run_with(alone(id, 1), (leased(id), said())).await?;
        assert!(matches!(queued, Accepted::Queued { ref run, .. } if run.status == RunStatus::Running), "{queued:?}");
        let made = store.thread(&id.into()).await?.ok_or("it is there")?;
        assert_eq!((made.epoch, made.owner.as_ref(), store.last_event(&id.into()).await?), (1, Some(&own), 1));
    }
    // One that waits has none, and what cannot be kept leaves no run.
    store.accept_run_with(alone("later", 9), (leased("later"), said())).await?;
    assert!(store.thread(&"later".into()).await?.is_none() && store.api_run("later").await?.is_some());
    let end = RunEnded { status: RunStatus::Success, last: 1, outcome: json!({}), cancel: None, at: at(4), told: None };
    let rests = store.run_rests_on("a", &"a".into()).await?;
    assert_eq!((rests.cancel, rests.begun, rests.open.len(), rests.last), (None, true, 0, 1));
    for id in ["a", "c"] {
        store.end_run(id, end.clone()).await?;
    }
    // Somebody else who lives is at work on `c`; the run of `b` is not over; nobody knows `d`.
    let other = tidegate::graph::Owner { nonce: own.nonce + 1, ..own.clone() };
    let all: Vec<ThreadId> = ["a", "b", "c", "d"].map(ThreadId::from).to_vec();
    assert_eq!(store.clear_threads(all, &other).await?, ["a", "b", "c"].map(ThreadId::from));
    let all: Vec<ThreadId> = ["a", "b", "c", "d"].map(ThreadId::from).to_vec();
    assert_eq!(store.clear_threads(all, &own).await?, [ThreadId::from("b")]);
    for id in ["a", "c"] {
        assert!(store.thread(&id.into()).await?.is_none() && store.api_thread(&id.into()).await?.is_none());
        assert!(store.newest(&id.into()).await?.is_none() && store.api_run(id).await?.is_none());
    }
    Ok(())
}

#[tokio::test]
async fn what_is_large_is_read_as_well() -> Tested {
    let (_dir, path) = place()?;
    let store = SqliteStore::open_with(&path, normal())?;
    let text = "x".repeat(100_000);
    let mut new = run(&ThreadId::from("t"), "1", "g", "enqueue");
    (new.create, new.body.kwargs) = (Some(Map::new()), json!({"input": {"text": text}}));
    store.accept_run(new).await?;
    assert_eq!(store.api_run("1").await?.ok_or("it is there")?.body.kwargs["input"]["text"], json!(text));
    Ok(())
}

#[tokio::test]
async fn threads_are_found_by_what_they_are() -> Tested {
    let (_dir, path) = place()?;
    let store = SqliteStore::open_with(&path, normal())?;
    for n in 0..5 {
        let metadata = map(json!({"n": n, "odd": n % 2 == 1, "deep": {"x": n, "y": 0}}));
        store.add_api_thread(&ThreadId::from(format!("t{n}")), metadata, at(n)).await?;
    }
    let search = ThreadSearch { limit: 10, ..ThreadSearch::default() };
    let ids = async |search: ThreadSearch| -> Result<(Vec<String>, usize), Box<dyn std::error::Error>> {
        let (found, total) = store.api_threads(&search).await?;
        Ok((found.into_iter().map(|thread| thread.id.to_string()).collect(), total))
    };
    let odd = ThreadSearch { metadata: map(json!({"odd": true})), limit: 1, ..search.clone() };
    assert_eq!(ids(odd).await?, (vec!["t3".to_owned()], 2));
    let deep = ThreadSearch { metadata: map(json!({"deep": {"x": 4}})), ..search.clone() };
    assert_eq!(ids(deep).await?.0, ["t4"]);
    let some =
        ThreadSearch { ids: Some(vec!["t1".into(), "t9".into(), "t0".into()]), ascending: true, ..search.clone() };
    assert_eq!(ids(some).await?.0, ["t0", "t1"]);
    let page = ThreadSearch { offset: 3, ..search.clone() };
    assert_eq!(ids(page).await?, (vec!["t1".to_owned(), "t0".to_owned()], 5));
    let busy = ThreadSearch { status: Some(ServedStatus::Busy), ..search };
    assert_eq!(ids(busy).await?.1, 0);
    Ok(())
}

#[tokio::test]
async fn assistants_keep_their_versions() -> Tested {
    let (_dir, path) = place()?;
    let store = SqliteStore::open_with(&path, normal())?;
    let text = |name: &str| AssistantText { name: name.to_owned(), ..AssistantText::default() };
    assert!(store.add_assistant("a", "g", text("one"), at(0)).await?.is_some());
    assert!(store.add_assistant("a", "g", text("other"), at(1)).await?.is_none(), "the first one stays");
    let changed = store.change_assistant("a", "g", text("two"), at(2)).await?.ok_or("it is there")?;
    assert_eq!((changed.version, changed.text.name.as_str(), changed.created_at), (2, "two", at(0)));
    let back = store.set_assistant_version("a", 1, at(3)).await?.ok_or("it is there")?;
    assert_eq!((back.version, back.text.name.as_str()), (1, "one"));
    assert!(store.set_assistant_version("a", 9, at(3)).await?.is_none());
    assert_eq!(store.change_assistant("a", "g", text("three"), at(4)).await?.ok_or("it is there")?.version, 3);
    assert_eq!(store.assistant_versions("a").await?.len(), 3);
    let named = AssistantFilter { name: Some("three".to_owned()), ..AssistantFilter::default() };
    assert_eq!(store.assistants(&named).await?.len(), 1);
    assert!(store.delete_assistant("a").await? && store.assistant_versions("a").await?.is_empty());
    Ok(())
}
