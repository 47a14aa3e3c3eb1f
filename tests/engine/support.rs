//! What the engine's tests share: a world in a directory whose performances can be counted, scriptable typed nodes, and both stores.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::crash::point;
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tidegate::graph::{
    Advance, Answer, Channel, ChannelType, CompiledGraph, Context, Effect, EffectCx, Effects, Engine, EngineError,
    EntryStatus, Export, Failure, MemoryStore, NewThread, Node, NodeError, Outcome, Owner, Probe, Reducer, RunEnd,
    StateGraph, Store, ThreadId, replay,
};
use tidegate::store::{Options, SqliteStore, Synchronous, this_process};

/// What a call into the world does instead of its usual work.
#[derive(Debug, Clone)]
pub enum Act {
    /// Fails, leaving nothing.
    Fail { retryable: bool },
    /// Does its work, then never returns.
    DoAndHang,
    /// Never returns, having done nothing.
    Hang,
    /// Does its work, then panics.
    Panic,
    /// A probe that cannot tell.
    Unknown,
}

/// Things in a directory, a log of every call, and a script of misfortunes.
pub struct World {
    dir: PathBuf,
    script: Mutex<BTreeMap<String, VecDeque<Act>>>,
}

impl World {
    /// A world in `dir`; what is there already stays.
    pub fn at(dir: &Path) -> Arc<Self> {
        std::fs::create_dir_all(dir.join("things")).unwrap();
        Arc::new(Self { dir: dir.to_owned(), script: Mutex::default() })
    }

    /// The next `call` (`perform a`, `probe a`, `undo a`) does this instead.
    pub fn next(&self, call: &str, act: Act) {
        self.script.lock().unwrap().entry(call.to_owned()).or_default().push_back(act);
    }

    /// How often `call` was made, or begins so.
    pub fn count(&self, call: &str) -> usize {
        self.log().iter().filter(|line| line.starts_with(call)).count()
    }

    /// All calls in order: `perform a`, without their tokens.
    pub fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        text.lines().map(|line| line.split(" @").next().unwrap().to_owned()).collect()
    }

    /// The calls of one kind, in order, without their first word.
    pub fn calls(&self, verb: &str) -> Vec<String> {
        self.log().iter().filter_map(|line| line.strip_prefix(verb)).map(|rest| rest.trim().to_owned()).collect()
    }

    /// All calls with their tokens.
    pub fn calls_with_tokens(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let line = |line: &str| line.split_once(" @").map(|(call, token)| (call.to_owned(), token.to_owned())).unwrap();
        text.lines().map(line).collect()
    }

    /// A line that is no call.
    pub fn say(&self, what: &str) {
        self.note(what, "");
    }

    /// Names of what is there.
    pub fn things(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.join("things")).unwrap();
        let name = |file: std::fs::DirEntry| file.file_name().to_string_lossy().split('@').next().unwrap().to_owned();
        let mut names: Vec<String> = entries.map(|entry| name(entry.unwrap())).collect();
        names.sort();
        names
    }

    fn thing(&self, name: &str, token: &str) -> PathBuf {
        self.dir.join("things").join(format!("{name}@{token}"))
    }

    fn note(&self, call: &str, token: &str) -> Option<Act> {
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log")).unwrap();
        // One write, so that a line is there as a whole or not at all.
        log.write_all(format!("{call} @{token}\n").as_bytes()).unwrap();
        let act = self.script.lock().unwrap().get_mut(call).and_then(VecDeque::pop_front);
        // A flaky world says no twice, and remembers over the death of a process.
        let flaky = call.starts_with("perform flaky") && self.count(call) < 3;
        act.or(flaky.then_some(Act::Fail { retryable: true }))
    }
}

/// Makes a thing.
#[derive(Debug, Serialize, Deserialize)]
pub struct Make {
    pub name: String,
}

impl Make {
    pub fn of(name: &str) -> Self {
        Self { name: name.to_owned() }
    }
}

/// What is kept of a made thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Made {
    pub path: PathBuf,
}

#[async_trait]
impl Effect for Make {
    const KIND: &'static str = "make";
    type World = World;
    type Receipt = Made;

    async fn perform(&self, world: &World, cx: &EffectCx) -> Result<Made, Failure> {
        assert!(cx.reason.is_none());
        let path = world.thing(&self.name, &cx.token);
        let act = world.note(&format!("perform {}", self.name), &cx.token);
        match act {
            Some(Act::Fail { retryable }) => return Err(misfortune(retryable)),
            Some(Act::Hang) => std::future::pending::<()>().await,
            _ => {}
        }
        point("before an effect is done");
        if !self.name.starts_with("lost") {
            std::fs::write(&path, "").unwrap();
        }
        point("after an effect is done");
        match act {
            Some(Act::DoAndHang) => std::future::pending::<()>().await,
            Some(Act::Panic) => panic!("perform panics"),
            _ => {}
        }
        // A real world takes its time: siblings come between.
        tokio::task::yield_now().await;
        Ok(Made { path })
    }

    async fn probe(&self, world: &World, cx: &EffectCx) -> Result<Probe<Made>, Failure> {
        let path = world.thing(&self.name, &cx.token);
        match world.note(&format!("probe {}", self.name), &cx.token) {
            Some(Act::Unknown) => Ok(Probe::Unknown("the world is silent".into())),
            Some(Act::Panic) => panic!("probe panics"),
            Some(Act::Fail { retryable }) => Err(misfortune(retryable)),
            _ if path.exists() => Ok(Probe::Done(Made { path })),
            _ => Ok(Probe::NotDone),
        }
    }

    async fn undo(&self, world: &World, receipt: &Made, cx: &EffectCx) -> Result<(), Failure> {
        assert!(cx.reason.is_some(), "an undo knows why");
        match world.note(&format!("undo {}", self.name), &cx.token) {
            Some(Act::Fail { retryable }) => return Err(misfortune(retryable)),
            Some(Act::Panic) => panic!("undo panics"),
            _ => {}
        }
        point("before an effect is undone");
        match std::fs::remove_file(&receipt.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::new("io", e.to_string())),
            _ => Ok(()),
        }
    }
}

fn misfortune(retryable: bool) -> Failure {
    let failure = Failure::new("misfortune", "the world said no");
    if retryable { failure.retryable() } else { failure }
}

/// What the nodes here see.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Seen {
    pub n: i64,
    pub log: Vec<String>,
    pub item: Option<Value>,
}

/// What they may write.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Wrote {
    pub n: Option<i64>,
    pub log: Option<Vec<String>>,
    pub item: Option<Value>,
}

/// One line in the log.
pub fn says(line: impl Into<String>) -> Wrote {
    Wrote { log: Some(vec![line.into()]), ..Wrote::default() }
}

pub type Ran = Result<Outcome<Wrote>, NodeError>;

/// A typed node from a function.
pub struct Step(Box<Run>);

type Run = dyn for<'a> Fn(&'a Context, Seen) -> BoxFuture<'a, Ran> + Send + Sync;

pub fn step(run: impl for<'a> Fn(&'a Context, Seen) -> BoxFuture<'a, Ran> + Send + Sync + 'static) -> Step {
    Step(Box::new(run))
}

#[async_trait]
impl Node for Step {
    const KIND: &'static str = "step";
    const VERSION: u32 = 1;
    type Reads = Seen;
    type Writes = Wrote;

    async fn run(&self, cx: &Context, reads: Seen) -> Ran {
        (self.0)(cx, reads).await
    }
}

/// A node that makes one thing of its own name.
pub fn maker() -> Step {
    step(|cx, _| {
        Box::pin(async move {
            cx.effect("make", Make::of(cx.node())).await?;
            Ok(Outcome::update(says(format!("made {}", cx.node()))))
        })
    })
}

/// A node that does nothing but say its name.
pub fn speaker() -> Step {
    step(|cx, _| Box::pin(async move { Ok(Outcome::update(says(cx.node()))) }))
}

/// A node that fails.
pub fn failing() -> Step {
    step(|_, _| Box::pin(async move { Err(Failure::new("boom", "it broke").into()) }))
}

/// A node that asks and says the answer.
pub fn asker() -> Step {
    step(|cx, _| {
        Box::pin(async move {
            let answer = cx.interrupt(&json!({"ask": cx.node()})).await?;
            Ok(Outcome::update(says(format!("{} heard {answer}", cx.node()))))
        })
    })
}

/// A graph with the channels `n`, `log`, `item`.
pub fn graph(name: &str) -> StateGraph {
    StateGraph::new(name)
        .channel("n", Channel::reduced(ChannelType::Integer, Reducer::Add))
        .channel("log", Channel::reduced(ChannelType::Array, Reducer::Append))
        .channel("item", Channel::last(ChannelType::Any))
}

/// Nodes one after the other.
pub fn chain(name: &str, nodes: Vec<(&str, Step)>) -> Arc<CompiledGraph> {
    let mut built = graph(name);
    let mut before = tidegate::graph::START.to_owned();
    for (node, step) in nodes {
        built = built.node(node, step).edge(&before, node);
        before = node.to_owned();
    }
    Arc::new(built.compile().unwrap())
}

/// An engine over one store and one world.
pub struct Rig {
    pub engine: Engine,
    pub world: Arc<World>,
    pub kind: &'static str,
    /// Held for as long as the world is used.
    _dir: tempfile::TempDir,
}

/// Runs a test over every store.
pub async fn each(test: impl AsyncFn(Rig)) {
    for kind in ["memory", "sqlite"] {
        test(Rig::new(kind)).await;
    }
}

impl Rig {
    pub fn new(kind: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = match kind {
            "memory" => Arc::new(MemoryStore::default()),
            _ => Arc::new(sqlite(dir.path())),
        };
        let world = World::at(dir.path());
        Self { engine: engine(store, &world), world, kind, _dir: dir }
    }

    /// Another engine on the same store and world, as another owner.
    pub fn other(&self) -> Engine {
        engine(self.engine.store().clone(), &self.world)
    }

    pub async fn create(&self, graph: &CompiledGraph) -> ThreadId {
        self.create_with(graph, json!({})).await
    }

    pub async fn create_with(&self, graph: &CompiledGraph, input: Value) -> ThreadId {
        let new = NewThread { input: object(input), ..NewThread::default() };
        self.engine.create(graph, new).await.unwrap()
    }

    pub async fn advance(&self, graph: &Arc<CompiledGraph>, id: &ThreadId) -> RunEnd {
        self.try_advance(graph, id).await.unwrap()
    }

    pub async fn try_advance(&self, graph: &Arc<CompiledGraph>, id: &ThreadId) -> Result<RunEnd, EngineError> {
        self.engine.advance(graph, id, Advance::default()).await
    }

    /// Creates and advances.
    pub async fn run(&self, graph: &Arc<CompiledGraph>) -> (ThreadId, RunEnd) {
        let id = self.create(graph).await;
        let end = self.advance(graph, &id).await;
        (id, end)
    }

    /// The log of the thread's state.
    pub async fn log(&self, graph: &CompiledGraph, id: &ThreadId) -> Value {
        self.engine.state(graph, id).await.unwrap().values["log"].clone()
    }

    /// Answers all open questions of the node.
    pub async fn answer(&self, id: &ThreadId, node: &str, value: Value) {
        for open in self.engine.store().interrupts(Some(id), true).await.unwrap() {
            if open.key.node == node {
                self.engine.store().answer(&open.id, &by("ada", value.clone()), None).await.unwrap();
            }
        }
    }

    /// Questions that are open.
    pub async fn open(&self, id: &ThreadId) -> Vec<String> {
        let open = self.engine.store().interrupts(Some(id), true).await.unwrap();
        let mut nodes: Vec<String> = open.into_iter().map(|i| i.key.node.to_string()).collect();
        nodes.sort();
        nodes
    }

    /// The journal's entries as `place status`, by number.
    pub async fn journal(&self, id: &ThreadId) -> Vec<(String, EntryStatus)> {
        let entries = self.engine.store().journal(id).await.unwrap();
        entries.into_iter().map(|e| (e.key.place(), e.status)).collect()
    }

    /// The thread's record, taken through JSON, replays without a difference and without touching the world.
    pub async fn replays(&self, graph: &Arc<CompiledGraph>, id: &ThreadId) {
        let before = self.world.log();
        let export = Export::of(&**self.engine.store(), id).await.unwrap();
        let read: Export = serde_json::from_str(&serde_json::to_string(&export).unwrap()).unwrap();
        assert_eq!(read, export);
        let replayed = tokio::time::timeout(std::time::Duration::from_secs(20), replay(graph, &read)).await;
        if let Err(error) = replayed.expect("a replay waits for nothing") {
            panic!("{}: {:#?}\n{:#?}", self.kind, error.failure(), export.journal);
        }
        assert_eq!(self.world.log(), before, "a replay touches nothing");
    }
}

pub fn sqlite(dir: &Path) -> SqliteStore {
    let options = Options { synchronous: Synchronous::Normal, ..Options::default() };
    SqliteStore::open_with(dir.join("store.db"), options).unwrap()
}

pub fn engine(store: Arc<dyn Store>, world: &Arc<World>) -> Engine {
    Engine::new(store, Effects::new().with::<Make>(world.clone()), owner())
}

/// An owner of its own in this process.
pub fn owner() -> Owner {
    this_process("test")
}

pub fn by(who: &str, value: Value) -> Answer {
    Answer { value, by: who.into(), via: "test".into(), at: chrono::Utc::now() }
}

pub fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

pub fn code(end: &RunEnd) -> &str {
    end.failure.as_ref().map_or("", |f| f.code.as_str())
}
