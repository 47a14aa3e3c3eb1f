//! Two processes on one database, both advancing all of its threads; and an owner that is stopped while another one takes over.
//!
//! The test binary starts itself anew as the other process: [`child`] does nothing unless the environment names a part.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tidegate::graph::{
    Advance, CompiledGraph, EngineError, Export, Goto, Liveness, NewThread, Outcome, Owner, START, Store, StoreError,
    ThreadFilter, ThreadId, ThreadStatus, replay,
};
use tidegate::store::{Options, ProcLiveness, SqliteStore, Synchronous};

use crate::faults::performed_once;
use crate::support::*;

const DIR: &str = "ENGINE_PROCESS_DIR";
const PART: &str = "ENGINE_PROCESS_PART";
const THREADS: usize = 24;

/// Effects in a row and beside each other, a fan-out and a join.
fn busy() -> Arc<CompiledGraph> {
    let fan = step(|_, _| {
        let send = |i: u32| Goto::Send { to: "work".into(), input: json!({"item": i}) };
        Box::pin(async move { Ok(Outcome { update: says("fan"), goto: vec![send(0), send(1), send(2)] }) })
    });
    let work = step(|cx, seen| {
        Box::pin(async move {
            let item = seen.item.unwrap_or_default();
            cx.effect("make", Make::of(&format!("w{item}"))).await?;
            Ok(Outcome::update(Wrote { n: Some(1), ..says(item.to_string()) }))
        })
    });
    let built = graph("busy").node("a", maker()).node("fan", fan).node("work", work).node("side", maker());
    let built = built.node("join", maker()).edge(START, "a").edge("a", "fan").edge("a", "side");
    Arc::new(built.barrier(["work", "side"], "join").compile().unwrap())
}

/// One effect, then a gate that opens when somebody puts a file there, then another effect.
fn gated(dir: &Path) -> Arc<CompiledGraph> {
    let gate = dir.join("open");
    let node = step(move |cx, _| {
        let gate = gate.clone();
        Box::pin(async move {
            cx.effect("make", Make::of("before")).await?;
            let opened = async {
                until(|| gate.exists()).await;
                Ok(true)
            };
            cx.pin("gate", opened).await?;
            cx.effect("late", Make::of("behind")).await?;
            Ok(Outcome::update(says("through")))
        })
    });
    chain("gated", vec![("gate", node)])
}

async fn until(mut there: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if there() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("it never came");
}

fn store(dir: &Path, liveness: Arc<dyn Liveness>) -> Arc<SqliteStore> {
    let options = Options { synchronous: Synchronous::Normal, liveness, ..Options::default() };
    Arc::new(SqliteStore::open_with(dir.join("store.db"), options).unwrap())
}

/// Advances whatever is there until all of it has ended; returns how many it saw at their end: one that
/// the other process has just ended is at its end too.
async fn advance_all(dir: &Path) -> usize {
    let (world, store, graph) = (World::at(dir), store(dir, Arc::new(ProcLiveness)), busy());
    let engine = engine(store.clone(), &world);
    let mut ended = 0;
    until(|| dir.join("open").exists()).await;
    loop {
        let mut left = store.threads(&ThreadFilter::default()).await.unwrap();
        left.retain(|thread| !thread.status.is_terminal());
        if left.is_empty() {
            return ended;
        }
        for thread in left {
            match engine.advance(&graph, &thread.id, Advance::default()).await {
                Ok(end) => {
                    assert_eq!(end.status, ThreadStatus::Succeeded, "{end:?}");
                    ended += 1;
                }
                Err(EngineError::Store(StoreError::Held { .. })) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}

/// The other process; as a test of its own it does nothing.
#[tokio::test]
async fn child() {
    let (Ok(dir), Ok(part)) = (std::env::var(DIR), std::env::var(PART)) else { return };
    let dir = Path::new(&dir);
    if part == "all" {
        println!("\n>{}", advance_all(dir).await);
        return;
    }
    let (world, store) = (World::at(dir), store(dir, Arc::new(ProcLiveness)));
    let end = engine(store, &world).advance(&gated(dir), &ThreadId::from("t"), Advance::default()).await;
    println!("\n>{}", end.map_or_else(|error| error.failure().code.clone(), |end| end.status.word().to_owned()));
}

fn spawn(dir: &Path, part: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "processes::child", "--nocapture"]).env(DIR, dir).env(PART, part);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What a child said.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{:?} {text} {}", output.status.signal(), String::from_utf8_lossy(&output.stderr));
    text.lines().find_map(|line| line.strip_prefix('>')).unwrap().to_owned()
}

#[tokio::test]
async fn two_processes_that_advance_everything_do_each_thing_once() {
    let dir = tempfile::tempdir().unwrap();
    let (world, graph) = (World::at(dir.path()), busy());
    let store = store(dir.path(), Arc::new(ProcLiveness));
    let engine = engine(store.clone(), &world);
    let mut ids = Vec::new();
    for n in 0..THREADS {
        let new = NewThread { id: Some(format!("t{n:02}").into()), ..NewThread::default() };
        ids.push(engine.create(&graph, new).await.unwrap());
    }
    let children = [spawn(dir.path(), "all"), spawn(dir.path(), "all")];
    std::fs::write(dir.path().join("open"), "").unwrap();
    let outputs = children.map(|child| child.wait_with_output().unwrap());
    let ended: Vec<usize> = outputs.iter().map(|output| said(output).parse().unwrap()).collect();
    assert!(
        ended.iter().all(|threads| *threads > 0) && ended.iter().sum::<usize>() >= THREADS,
        "both worked: {ended:?}"
    );
    // Nobody died: nothing had to be probed, nothing was done twice.
    performed_once(&world);
    assert_eq!((world.calls("perform").len(), world.calls("probe").len()), (6 * THREADS, 0));
    store.verify_audit().await.unwrap();
    store.check_integrity().await.unwrap();
    for id in &ids {
        let export = Export::of(&*store, id).await.unwrap();
        let steps: Vec<i64> = export.checkpoints.iter().map(|c| c.step).collect();
        assert_eq!(steps, (0..steps.len() as i64).collect::<Vec<_>>(), "each superstep was committed once");
        let seqs: BTreeSet<u64> = export.events.iter().map(|row| row.seq).collect();
        assert_eq!(seqs.len() as u64, export.events.last().unwrap().seq);
        assert_eq!(store.thread(id).await.unwrap().unwrap().owner, None);
        replay(&graph, &export).await.unwrap();
    }
}

/// Takes one process for dead, as a machine would that cannot see it.
struct Without(u32);

impl Liveness for Without {
    fn alive(&self, owner: &Owner) -> bool {
        owner.pid != self.0 && ProcLiveness.alive(owner)
    }
}

fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
}

#[tokio::test]
async fn an_owner_that_was_stopped_does_no_harm_when_it_wakes_up() {
    let dir = tempfile::tempdir().unwrap();
    let (world, graph) = (World::at(dir.path()), gated(dir.path()));
    let id = ThreadId::from("t");
    let honest = store(dir.path(), Arc::new(ProcLiveness));
    let new = NewThread { id: Some(id.clone()), ..NewThread::default() };
    engine(honest.clone(), &world).create(&graph, new).await.unwrap();
    let stopped = spawn(dir.path(), "gated");
    let pid = Pid::from_raw(i32::try_from(stopped.id()).unwrap());
    // Its receipt is there: it waits at the gate and writes nothing.
    loop {
        let journal = honest.journal(&id).await.unwrap();
        if journal.iter().any(|entry| entry.status == tidegate::graph::EntryStatus::Done) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    kill(pid, Signal::SIGSTOP).unwrap();
    until(|| is_stopped(stopped.id())).await;
    // Stopped is not dead: nobody takes its thread.
    let held = engine(honest.clone(), &world).advance(&graph, &id, Advance::default()).await.unwrap_err();
    assert_eq!(held.failure().code, "lease_held");
    std::fs::write(dir.path().join("open"), "").unwrap();
    let other = store(dir.path(), Arc::new(Without(stopped.id())));
    let end = engine(other.clone(), &world).advance(&graph, &id, Advance::default()).await.unwrap();
    assert_eq!(end.status, ThreadStatus::Succeeded);
    let before = (Export::of(&*other, &id).await.unwrap(), world.log());
    kill(pid, Signal::SIGCONT).unwrap();
    let woken = stopped.wait_with_output().unwrap();
    assert_eq!(said(&woken), "lease_lost");
    assert_eq!(world.log(), before.1, "it did nothing more");
    assert_eq!(world.calls("perform"), ["before", "behind"]);
    assert_eq!(Export::of(&*other, &id).await.unwrap(), before.0, "it wrote nothing more");
    replay(&graph, &before.0).await.unwrap();
}
