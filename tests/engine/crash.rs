//! The crash matrix: a process is killed at every write point (each store write, before and after; each step of an effect), another
//! one goes on, and nobody can tell from the record or from the world.
//!
//! The test binary starts itself anew as the victim: [`victim`] does nothing unless the environment names a case.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use tidegate::graph::{
    Advance, Channel, ChannelType, Checkpoint, CheckpointId, Claim, Command, CompiledGraph, Durability, END, Engine,
    Entry, EntryStatus, Event, EventRow, Export, Failure, Goto, Inbox, Interrupt, InterruptId, Item, NewThread,
    NodePolicy, OnError, Opening, Outcome, Owner, Partial, Persistence, Produced, Recall, Record, Reducer, RetryPolicy,
    START, Signal, StateGraph, StopAsk, Store, StoreError, Thread, ThreadFilter, ThreadId, ThreadStatus, Transaction,
    Until, replay,
};

use crate::support::*;

const DIR: &str = "ENGINE_CRASH_DIR";
const CASE: &str = "ENGINE_CRASH_CASE";
const AT: &str = "ENGINE_CRASH_AT";
const THREAD: &str = "t";

/// The places that this process has passed.
static PASSED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A place where the process may be killed. Without the variable it only counts.
pub fn point(what: &str) {
    let at: Option<usize> = std::env::var(AT).ok().and_then(|text| text.parse().ok());
    let mut passed = PASSED.lock().unwrap();
    passed.push(what.to_owned());
    if at == Some(passed.len()) {
        nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL).unwrap();
        // The signal may take a moment; nothing must happen meanwhile.
        loop {
            std::thread::park();
        }
    }
}

fn case(name: &str) -> Arc<CompiledGraph> {
    let inner = || {
        let built = graph("inner").node("x", maker()).node("ask", asker()).node("y", maker());
        Arc::new(built.edge(START, "x").edge("x", "ask").edge("ask", "y").compile().unwrap())
    };
    let built = match name {
        "chain" | "invoke" => {
            let twice = step(|cx, _| {
                Box::pin(async move {
                    cx.effect("make", Make::of("b1")).await?;
                    cx.effect("make", Make::of("lost-b2")).await?;
                    let now = cx.now().await?;
                    let answer = cx.interrupt(&json!({"go on?": "b"})).await?;
                    assert_eq!(now, cx.pin("again", async { Ok(now) }).await?);
                    cx.effect("late", Make::of("b3")).await?;
                    Ok(Outcome::update(says(answer.to_string())))
                })
            });
            let built = graph(name).node("a", maker()).node("b", twice).node("c", maker());
            built.edge(START, "a").edge("a", "b").edge("b", "c")
        }
        "fan" => {
            let fan = step(|_, _| {
                let send = |i: u32| Goto::Send { to: "work".into(), input: json!({"item": i}) };
                Box::pin(async move {
                    Ok(Outcome {
                        update: says("fan"),
                        goto: vec![send(0), send(1), send(2), Goto::Node("side".into())],
                    })
                })
            });
            let work = step(|cx, seen| {
                Box::pin(async move {
                    let item = seen.item.unwrap();
                    cx.effect("make", Make::of(&format!("w{item}"))).await?;
                    if item == json!(1) {
                        cx.interrupt(&"one?").await?;
                    }
                    Ok(Outcome::update(Wrote { n: Some(1), ..says(item.to_string()) }))
                })
            });
            let built = graph("fan").node("fan", fan).node("work", work).node("side", maker()).node("join", maker());
            built.edge(START, "fan").barrier(["work", "side"], "join")
        }
        "sub" => {
            let built = graph("sub").node("a", maker()).subgraph("s", inner()).node("side", maker()).node("z", maker());
            built.edge(START, "a").edge("a", "s").edge("a", "side").barrier(["s", "side"], "z")
        }
        "static" => {
            let built = graph("static").node("a", maker()).node("b", maker()).node("c", speaker());
            let built = built.edge(START, "a").edge("a", "b").route("b", ["c", END], |_| Ok("c".into()));
            built.interrupt_before(["a", "c"]).interrupt_after(["a"])
        }
        "saga" => {
            let commit = NodePolicy { commit_point: true, ..NodePolicy::default() };
            let built = graph("saga").node("a", maker()).policy("a", commit).node("b", maker()).subgraph("s", inner());
            let built = built.node("bad", failing()).edge(START, "a").edge("a", "b").edge("b", "s");
            built.edge("s", "bad").edge("s", "last").node("last", maker())
        }
        "cancel" | "leave" => {
            let built = graph(name).node("a", maker()).subgraph("s", inner()).node("side", maker());
            built.edge(START, "a").edge("a", "s").edge("a", "side")
        }
        "retry" => {
            let retry = RetryPolicy { max_attempts: 4, initial_ms: 1, max_ms: 1, ..RetryPolicy::default() };
            let policy = NodePolicy { retry: vec![retry], ..NodePolicy::default() };
            let built = graph("retry").node("a", maker()).node("flaky", maker()).policy("flaky", policy);
            built.edge(START, "a").edge("a", "flaky")
        }
        "waits" => {
            let wait = |signals: &'static [&'static str], until: Until| {
                step(move |cx, _| {
                    Box::pin(async move {
                        cx.effect("make", Make::of(&format!("{}-before", cx.node()))).await?;
                        let signals: Vec<String> = signals.iter().map(|&name| name.to_owned()).collect();
                        let woken = cx.wait(&signals, until).await?;
                        cx.effect("make", Make::of(&format!("{}-after", cx.node()))).await?;
                        Ok(Outcome::update(says(format!("{woken:?}"))))
                    })
                })
            };
            let nap = wait(&[], Until::After(Duration::from_millis(30)));
            let built = graph("waits").node("nap", nap).node("hear", wait(&["go"], Until::Never));
            built.node("z", maker()).edge(START, "nap").edge(START, "hear").barrier(["nap", "hear"], "z")
        }
        "handled" => {
            let broken = step(|cx, _| {
                Box::pin(async move {
                    cx.effect("make", Make::of("half")).await?;
                    Err(Failure::new("boom", "it broke").into())
                })
            });
            let on_error = Some(OnError { to: "mend".into(), into: None });
            let handled = NodePolicy { on_error, ..NodePolicy::default() };
            let deferred = NodePolicy { defer: true, ..NodePolicy::default() };
            let built = graph("handled").node("bad", broken).policy("bad", handled).node("mend", maker());
            let built = built.node("last", maker()).policy("last", deferred).node("z", maker());
            built.edge(START, "bad").edge(START, "last").edge("mend", "z")
        }
        "topics" => {
            // A subgraph that is left by a command while its other node asks, over channels that clear and accumulate.
            let topics = |name: &str| {
                StateGraph::new(name)
                    .channel("n", Channel::reduced(ChannelType::Integer, Reducer::Add))
                    .channel("log", Channel::topic(true))
                    .channel("item", Channel::topic(false))
            };
            let news = || {
                step(|cx, seen| {
                    Box::pin(async move {
                        cx.effect("make", Make::of(cx.node())).await?;
                        let (said, news) =
                            (format!("{} saw {}", cx.node(), json!(seen.item)), json!(["of", cx.node()]));
                        Ok(Outcome::update(Wrote { item: Some(news), ..says(said) }))
                    })
                })
            };
            let hand = step(|cx, _| {
                Box::pin(async move {
                    cx.effect("make", Make::of("hand")).await?;
                    cx.interrupt(&"hand over?").await?;
                    cx.effect("make", Make::of("handed")).await?;
                    let command =
                        Command::to_parent().update("log", json!(["handed"])).update("item", "news").goto("z");
                    Ok(Outcome { update: Wrote::default(), goto: vec![command.into()] })
                })
            });
            let inner = topics("inner").node("x", news()).node("hand", hand).node("late", news()).node("q", asker());
            let inner = inner.edge(START, "x").edge("x", "hand").edge("x", "q").edge("hand", "late");
            let built = topics("topics").node("a", news()).node("b", news()).node("z", news());
            let built = built.subgraph("s", Arc::new(inner.compile().unwrap())).node("y", news());
            built.edge(START, "a").edge(START, "b").barrier(["a", "b"], "s").edge("s", "y").edge("y", "z")
        }
        "visits" => {
            // A subgraph that keeps its state is visited twice, one that keeps nothing once; both ask, and write what threads share.
            let write = step(|cx, _| {
                Box::pin(async move {
                    let seen = cx.store().get(&["visits"], cx.node()).await?.map(|item| item.value);
                    let times = seen.as_ref().and_then(Value::as_i64).unwrap_or(0) + 1;
                    cx.store().put(&["visits"], cx.node(), json!(times)).await?;
                    cx.effect("make", Make::of(&format!("{}-{times}", cx.node()))).await?;
                    Ok(Outcome::update(Wrote { n: Some(1), ..says(format!("{times} times")) }))
                })
            });
            let once = step(|cx, _| {
                Box::pin(async move {
                    cx.store().put(&["visits"], "once", json!(true)).await?;
                    cx.effect("make", Make::of("once")).await?;
                    Ok(Outcome::update(says("once")))
                })
            });
            let visited = |name: &str, first: Step| {
                let built = graph(name).node("first", first).node("ask", asker()).node("y", maker());
                Arc::new(built.edge(START, "first").edge("first", "ask").edge("ask", "y").compile().unwrap())
            };
            let kept = |persistence| NodePolicy { persistence, ..NodePolicy::default() };
            let built = graph("visits").subgraph("s", visited("kept", write)).policy("s", kept(Persistence::Thread));
            let built = built.subgraph("o", visited("off", once)).policy("o", kept(Persistence::Off)).edge(START, "s");
            built.route("s", ["s", "o"], |state| {
                let visits = state["n"].as_i64().unwrap_or_default();
                Ok(if visits < 2 { "s" } else { "o" }.to_owned())
            })
        }
        "fork" | "async" | "exit" => {
            let built = graph(name).node("a", maker()).node("b", speaker()).node("c", speaker()).node("ask", asker());
            let built = built.subgraph("s", inner()).node("z", maker());
            built.edge(START, "a").edge("a", "b").edge("b", "c").edge("c", "ask").edge("ask", "s").edge("s", "z")
        }
        other => panic!("no case {other}"),
    };
    Arc::new(built.compile().unwrap())
}

/// Drives the case's thread to its end, however far it is: the program that is killed, and the one that goes on.
async fn drive(name: &str, dir: &Path) {
    let world = World::at(dir);
    let store: Arc<dyn Store> = Arc::new(Deadly(sqlite(dir)));
    let engine = engine(store.clone(), &world);
    let (graph, id) = (case(name), ThreadId::from(THREAD));
    let is_new = store.thread(&id).await.unwrap().is_none();
    if is_new && name == "invoke" {
        let new = NewThread { id: Some(id.clone()), ..NewThread::default() };
        engine.invoke(&graph, new, Advance::default()).await.unwrap();
    } else if is_new {
        engine.create(&graph, NewThread { id: Some(id.clone()), ..NewThread::default() }).await.unwrap();
    }
    loop {
        let thread = store.thread(&id).await.unwrap().unwrap();
        match thread.status {
            ThreadStatus::Succeeded | ThreadStatus::Failed | ThreadStatus::Cancelled | ThreadStatus::Stuck => break,
            ThreadStatus::Interrupted => person(name, &engine, &graph, &world).await,
            ThreadStatus::Sleeping => somebody(&*store).await,
            ThreadStatus::Pending | ThreadStatus::Running => {}
        }
        let over = store.thread(&id).await.unwrap().unwrap().status.is_terminal();
        if !over {
            let durability = match name {
                "async" => Durability::Async,
                "exit" => Durability::Exit,
                _ => Durability::Sync,
            };
            engine.advance(&graph, &id, Advance { durability, ..Advance::default() }).await.unwrap();
        }
    }
}

/// What somebody does who sees it sleep: sends the one signal, unless it was sent.
async fn somebody(store: &dyn Store) {
    let id = ThreadId::from(THREAD);
    let events = store.events(&id, 0, usize::MAX).await.unwrap();
    if !events.iter().any(|row| matches!(row.event, Event::Signalled { .. })) {
        let at = Utc::now();
        let signal = Signal { seq: 0, name: "go".into(), value: json!(1), by: "ada".into(), at };
        store.signal(&id, &signal).await.unwrap();
    }
    // The timer takes its time.
    tokio::time::sleep(Duration::from_millis(2)).await;
}

/// What a person does with a thread that waits: answer, resume, or cancel.
async fn person(name: &str, engine: &Engine, graph: &Arc<CompiledGraph>, world: &World) {
    let id = ThreadId::from(THREAD);
    if name == "cancel" || name == "leave" {
        let why = Failure::new("cancelled_by_user", "no more");
        engine.cancel(graph, &id, name == "cancel", why).await.unwrap();
        return;
    }
    let history = engine.store().history(&id, "").await.unwrap();
    if name == "fork" && history.iter().all(|c| c.fork == 0) {
        let from = history.iter().find(|c| c.step == 1).unwrap();
        engine.fork(graph, &id, &from.id, &Map::new(), None).await.unwrap();
        return;
    }
    let open = engine.store().interrupts(Some(&id), true).await.unwrap();
    world.say("resume");
    for question in open {
        engine.store().answer(&question.id, &by("ada", json!(true)), None).await.unwrap();
    }
}

/// The program that is started anew; as a test of its own it does nothing.
#[test]
fn victim() {
    let (Ok(dir), Ok(name)) = (std::env::var(DIR), std::env::var(CASE)) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(drive(&name, Path::new(&dir)));
    std::fs::write(Path::new(&dir).join("points"), PASSED.lock().unwrap().join("\n")).unwrap();
}

/// Runs the victim; false: it was killed.
fn start(name: &str, dir: &Path, at: Option<u64>) -> bool {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["crash::victim", "--exact", "--nocapture"]).env(DIR, dir).env(CASE, name).env_remove(AT);
    if let Some(at) = at {
        command.env(AT, at.to_string());
    }
    let output = command.output().unwrap();
    if output.status.signal() == Some(9) {
        return false;
    }
    assert!(output.status.success(), "{name} at {at:?}: {}", String::from_utf8_lossy(&output.stderr));
    true
}

/// What must be the same, killed or not.
#[derive(Debug, PartialEq)]
struct Seen {
    status: ThreadStatus,
    code: Option<String>,
    values: Value,
    history: Vec<Value>,
    journal: BTreeMap<String, String>,
    questions: Vec<(String, bool)>,
    items: Vec<(String, Value)>,
    things: Vec<String>,
}

async fn seen(name: &str, dir: &Path) -> Seen {
    let (store, world, id, graph) = (sqlite(dir), World::at(dir), ThreadId::from(THREAD), case(name));
    let export = Export::of(&store, &id).await.unwrap();
    replay(&graph, &export).await.unwrap_or_else(|e| panic!("{:#?}", e.failure()));
    store.verify_audit().await.unwrap();
    let row = |c: &Checkpoint| json!({"ns": c.ns, "step": c.step, "values": c.values, "due": c.frontier});
    let (thread, last) = (&export.thread, store.latest(&id, "").await.unwrap().unwrap());
    assert_eq!((&thread.owner, &thread.unwinding), (&None, &None));
    let mut questions: Vec<_> =
        export.interrupts.iter().map(|i| (i.key.place(), i.answer.is_some() || i.withdrawn)).collect();
    questions.sort();
    Seen {
        status: thread.status,
        code: thread.failure.as_ref().map(|f| f.code.clone()),
        values: json!(last.values),
        history: export.checkpoints.iter().map(row).collect(),
        journal: export.journal.iter().map(|e| (e.key.place(), format!("{:?}", e.status))).collect(),
        questions,
        items: store.items("", Utc::now(), 99).await.unwrap().into_iter().map(|item| (item.key, item.value)).collect(),
        things: world.things(),
    }
}

/// Each effect was performed once; again only after a probe that found nothing. Each was undone if it must be.
fn performed_once(dir: &Path, flaky: usize) {
    let mut calls: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (call, token) in World::at(dir).calls_with_tokens() {
        calls.entry(token).or_default().push(call);
    }
    for (token, calls) in calls {
        if token.is_empty() {
            continue;
        }
        let is = |verb: &'static str| move |call: &&String| call.starts_with(verb);
        let performs = calls.iter().filter(is("perform")).count();
        let allowed = if calls[0].contains("flaky") { flaky } else { 1 };
        assert!((1..=allowed + 1).contains(&performs), "{token}: {calls:?}");
        let performed: Vec<usize> =
            calls.iter().enumerate().filter(|(_, call)| call.starts_with("perform")).map(|(at, _)| at).collect();
        for between in performed.windows(2).map(|pair| &calls[pair[0]..pair[1]]) {
            assert!(between.iter().any(|call| call.starts_with("probe")), "performed again unprobed: {calls:?}");
        }
        assert!(calls.iter().filter(is("undo")).count() <= 2, "{calls:?}");
    }
}

async fn matrix(name: &str) {
    let calm = tempfile::tempdir().unwrap();
    assert!(start(name, calm.path(), None));
    let expected = seen(name, calm.path()).await;
    let resumed = World::at(calm.path()).calls("resume").len();
    let text = std::fs::read_to_string(calm.path().join("points")).unwrap();
    let places: Vec<&str> = text.lines().collect();
    let points = places.len() as u64;
    assert!(points > 20, "{name} has {points} points");
    let mut killed: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    performed_once(calm.path(), 3);
    let mut unhurt = 0;
    for at in 1..=points {
        let dir = tempfile::tempdir().unwrap();
        // Siblings that end together share a transaction, so a run may have a point or two less than the calm one.
        let row = killed.entry(places[at as usize - 1]).or_default();
        if start(name, dir.path(), Some(at)) {
            (unhurt, row.1) = (unhurt + 1, row.1 + 1);
        } else {
            row.0 += 1;
            assert!(start(name, dir.path(), None));
        }
        let found = seen(name, dir.path()).await;
        assert_eq!(found, expected, "{name}, killed at {at} of {points}: {:?}", World::at(dir.path()).log());
        performed_once(dir.path(), 3);
        // Who was killed between a person's word and its record is told again; no stop is passed over.
        let again = World::at(dir.path()).calls("resume").len();
        assert!((resumed..=resumed + 1).contains(&again), "{name}, killed at {at}: {again} instead of {resumed}");
    }
    // Seen with `--nocapture`.
    println!("{name}: killed at {points} points, each ended as if nothing had happened");
    for (place, (killed, missed)) in killed {
        println!("  {place:<28} killed {killed:>3}, not reached {missed:>2}, as uncrashed {:>3}", killed + missed);
    }
    assert!(unhurt * 5 <= points, "{unhurt} of {points} points of {name} were not there");
}

macro_rules! matrices {
    ($($test:ident: $case:literal,)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                matrix($case).await;
            }
        )*
    };
}

matrices! {
    a_chain_with_a_question_survives: "chain",
    a_thread_that_is_born_with_its_lease_survives: "invoke",
    a_fan_out_with_a_question_survives: "fan",
    a_subgraph_with_a_question_survives: "sub",
    static_interrupts_survive: "static",
    a_saga_survives: "saga",
    a_cancel_survives: "cancel",
    a_cancel_without_undo_survives: "leave",
    retries_survive: "retry",
    timers_and_signals_survive: "waits",
    handlers_and_deferred_nodes_survive: "handled",
    topics_and_commands_survive: "topics",
    visits_of_subgraphs_and_what_threads_share_survive: "visits",
    a_fork_survives: "fork",
    commits_beside_the_run_survive: "async",
    a_run_that_is_durable_at_its_exit_survives: "exit",
}

/// What a transaction is about.
fn what(records: &[Record]) -> &'static str {
    let entry = |record: &Record| match record {
        Record::Entry(entry) => Some(match entry.status {
            EntryStatus::Intent => "the intent",
            EntryStatus::Done => "the receipt",
            EntryStatus::Failed => "the failure",
            EntryStatus::Undoing | EntryStatus::Undone | EntryStatus::UndoFailed | EntryStatus::Accepted => "the undo",
        }),
        _ => None,
    };
    let is = |wanted: fn(&Record) -> bool| records.iter().any(wanted);
    match records.iter().find_map(entry) {
        Some(entry) => entry,
        None if is(|r| matches!(r, Record::Release)) => "the end of a run",
        None if is(|r| matches!(r, Record::Checkpoint(_))) => "a superstep",
        None if is(|r| matches!(r, Record::Interrupt(_))) => "a question",
        None if is(|r| matches!(r, Record::Result { .. } | Record::Attempts { .. })) => "a task",
        None => "another record",
    }
}

/// A store that kills its process around its writes.
struct Deadly<S>(S);

#[async_trait]
impl<S: Store> Store for Deadly<S> {
    async fn create(&self, thread: &Thread, records: Vec<Record>) -> Result<(), StoreError> {
        point("before create");
        let done = self.0.create(thread, records).await;
        point("after create");
        done
    }

    async fn create_quietly(&self, thread: &Thread, records: Vec<Record>) -> Result<(), StoreError> {
        point("before create");
        let done = self.0.create_quietly(thread, records).await;
        point("after create");
        done
    }

    async fn acquire(&self, id: &ThreadId, owner: &Owner) -> Result<Thread, StoreError> {
        let done = self.0.acquire(id, owner).await;
        point("after acquire");
        done
    }

    async fn begin(
        &self,
        id: &ThreadId,
        owner: &Owner,
        at: DateTime<Utc>,
        opening: Opening,
    ) -> Result<Thread, StoreError> {
        point("before begin");
        let done = self.0.begin(id, owner, at, opening).await;
        point("after begin");
        done
    }

    async fn recall(&self, id: &ThreadId) -> Result<Recall, StoreError> {
        self.0.recall(id).await
    }

    async fn release(&self, id: &ThreadId, epoch: u64) -> Result<(), StoreError> {
        let done = self.0.release(id, epoch).await;
        point("after release");
        done
    }

    async fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        let what = what(&transaction.records);
        point(&format!("before {what}"));
        let done = self.0.commit(transaction).await;
        point(&format!("after {what}"));
        done
    }

    async fn answer_all(&self, claims: Vec<Claim>) -> Result<Vec<Interrupt>, StoreError> {
        let done = self.0.answer_all(claims).await;
        point("after answer");
        done
    }

    async fn thread(&self, id: &ThreadId) -> Result<Option<Thread>, StoreError> {
        self.0.thread(id).await
    }

    async fn threads(&self, filter: &ThreadFilter) -> Result<Vec<Thread>, StoreError> {
        self.0.threads(filter).await
    }

    async fn signal(&self, id: &ThreadId, signal: &Signal) -> Result<u64, StoreError> {
        let done = self.0.signal(id, signal).await;
        point("after signal");
        done
    }

    async fn signals(&self, id: &ThreadId) -> Result<Vec<Signal>, StoreError> {
        self.0.signals(id).await
    }

    async fn item(&self, namespace: &str, key: &str, now: DateTime<Utc>) -> Result<Option<Item>, StoreError> {
        self.0.item(namespace, key, now).await
    }

    async fn items(&self, prefix: &str, now: DateTime<Utc>, limit: usize) -> Result<Vec<Item>, StoreError> {
        self.0.items(prefix, now, limit).await
    }

    async fn cached(&self, key: &str, now: DateTime<Utc>) -> Result<Option<Produced>, StoreError> {
        self.0.cached(key, now).await
    }

    async fn attend(&self, id: &ThreadId, attendant: Option<&Owner>) -> Result<(), StoreError> {
        self.0.attend(id, attendant).await
    }

    async fn ask_stop(&self, id: &ThreadId, ask: &StopAsk) -> Result<(), StoreError> {
        self.0.ask_stop(id, ask).await
    }

    async fn inbox(&self, id: &ThreadId) -> Result<Inbox, StoreError> {
        self.0.inbox(id).await
    }

    async fn latest(&self, id: &ThreadId, ns: &str) -> Result<Option<Checkpoint>, StoreError> {
        self.0.latest(id, ns).await
    }

    async fn history(&self, id: &ThreadId, ns: &str) -> Result<Vec<Checkpoint>, StoreError> {
        self.0.history(id, ns).await
    }

    async fn namespaces(&self, id: &ThreadId) -> Result<Vec<String>, StoreError> {
        self.0.namespaces(id).await
    }

    async fn partial(&self, id: &ThreadId, ns: &str, checkpoint: &CheckpointId) -> Result<Partial, StoreError> {
        self.0.partial(id, ns, checkpoint).await
    }

    async fn journal(&self, id: &ThreadId) -> Result<Vec<Entry>, StoreError> {
        self.0.journal(id).await
    }

    async fn interrupts(&self, thread: Option<&ThreadId>, open_only: bool) -> Result<Vec<Interrupt>, StoreError> {
        self.0.interrupts(thread, open_only).await
    }

    async fn interrupt(&self, id: &InterruptId) -> Result<Option<Interrupt>, StoreError> {
        self.0.interrupt(id).await
    }

    async fn events(&self, id: &ThreadId, after: u64, limit: usize) -> Result<Vec<EventRow>, StoreError> {
        self.0.events(id, after, limit).await
    }
}
