//! Random misfortune in the store: errors before a write and after it (the acknowledgement is lost), delays, stolen leases, the death of
//! whoever writes. After all of it a thread must end as if nothing had happened.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tidegate::graph::{
    Advance, Checkpoint, CheckpointId, Claim, Durability, Effects, Engine, Entry, EntryKind, EventRow, Export, Inbox,
    Interrupt, InterruptId, Item, MemoryStore, Opening, Owner, Partial, Produced, Recall, Record, Signal, StopAsk,
    Store, StoreError, Thread, ThreadFilter, ThreadId, ThreadStatus, Transaction, replay,
};
use tokio::sync::Notify;

use crate::random::{Case, Dice, THREAD, live};
use crate::support::*;

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fine,
    /// It takes a while.
    Slow(usize),
    /// An error, and nothing was done.
    Before,
    /// It was done, and an error all the same.
    After,
    /// Somebody else takes the lease first.
    Stolen,
}

/// A store in which calls meet their fate.
pub struct Faulty {
    inner: Arc<dyn Store>,
    dice: Mutex<Dice>,
    /// How many misfortunes are left: a life must end.
    left: AtomicUsize,
    /// The number of the write at which the caller dies; 0: never.
    dies_at: u64,
    writes: AtomicU64,
    dead: AtomicBool,
    /// One thief at a time.
    thief: Arc<tokio::sync::Mutex<()>>,
    /// Told when the caller has died.
    died: Notify,
}

impl Faulty {
    /// At most `most` misfortunes.
    pub fn new(inner: Arc<dyn Store>, seed: u64, most: usize) -> Arc<Self> {
        Arc::new(Self::over(inner, seed, most, 0))
    }

    /// No misfortunes; who makes the write of this number (counted from 1) never hears of it, nor of anything after it.
    pub fn deadly(inner: Arc<dyn Store>, seed: u64, dies_at: u64) -> Arc<Self> {
        Arc::new(Self::over(inner, seed, 0, dies_at))
    }

    fn over(inner: Arc<dyn Store>, seed: u64, most: usize, dies_at: u64) -> Self {
        Self {
            inner,
            dice: Mutex::new(Dice::new(seed ^ 0xFA17)),
            left: AtomicUsize::new(most),
            dies_at,
            writes: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            thief: Arc::default(),
            died: Notify::new(),
        }
    }

    /// Returns when the caller has died.
    pub async fn death(&self) {
        self.died.notified().await;
    }

    fn fate(&self) -> Fate {
        let mut dice = self.dice.lock().unwrap();
        if self.left.load(Ordering::Relaxed) == 0 {
            return Fate::Fine;
        }
        let fate = match dice.below(40) {
            0 | 1 => Fate::Before,
            2 | 3 => Fate::After,
            4 => Fate::Stolen,
            5..=15 => return Fate::Slow(1 + dice.below(4)),
            _ => return Fate::Fine,
        };
        self.left.fetch_sub(1, Ordering::Relaxed);
        fate
    }

    fn error(&self) -> StoreError {
        let mut dice = self.dice.lock().unwrap();
        if dice.one_in(2) {
            StoreError::CannotWrite("injected: the disk is full".into())
        } else {
            StoreError::Failed("injected: no acknowledgement".into())
        }
    }

    /// Another owner had the thread in between.
    async fn steal(&self, id: &ThreadId) {
        let (inner, id, one_thief) = (self.inner.clone(), id.clone(), self.thief.clone());
        // In a task: whoever is robbed may be dropped meanwhile, the thief goes on.
        let theft = tokio::spawn(async move {
            let _alone = one_thief.lock().await;
            let Ok(Some(thread)) = inner.thread(&id).await else { return };
            inner.release(&id, thread.epoch).await.unwrap();
            let stolen = inner.acquire(&id, &owner()).await.unwrap();
            inner.release(&id, stolen.epoch).await.unwrap();
        });
        theft.await.unwrap();
    }

    async fn alive(&self) {
        if self.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    async fn write<T>(
        &self,
        id: Option<&ThreadId>,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.alive().await;
        let number = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
        let fate = self.fate();
        let dies = number == self.dies_at;
        // Half of the dead had their last wish.
        if dies && self.dice.lock().unwrap().one_in(2) {
            return self.die().await;
        }
        match (fate, id) {
            (Fate::Before, _) => return Err(self.error()),
            (Fate::Slow(turns), _) => slowly(turns).await,
            (Fate::Stolen, Some(id)) => self.steal(id).await,
            (Fate::Fine | Fate::After | Fate::Stolen, _) => {}
        }
        let done = work.await;
        if dies {
            return self.die().await;
        }
        if fate == Fate::After { done.and(Err(self.error())) } else { done }
    }

    async fn die<T>(&self) -> T {
        self.dead.store(true, Ordering::Relaxed);
        self.died.notify_one();
        std::future::pending().await
    }

    async fn read<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.alive().await;
        match self.fate() {
            Fate::Before | Fate::After => Err(self.error()),
            Fate::Slow(turns) => {
                slowly(turns).await;
                work.await
            }
            Fate::Fine | Fate::Stolen => work.await,
        }
    }
}

async fn slowly(turns: usize) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

#[async_trait]
impl Store for Faulty {
    async fn create(&self, thread: &Thread, records: Vec<Record>) -> Result<(), StoreError> {
        self.write(None, self.inner.create(thread, records)).await
    }

    async fn create_quietly(&self, thread: &Thread, records: Vec<Record>) -> Result<(), StoreError> {
        self.write(None, self.inner.create_quietly(thread, records)).await
    }

    async fn acquire(&self, id: &ThreadId, owner: &Owner) -> Result<Thread, StoreError> {
        self.write(Some(id), self.inner.acquire(id, owner)).await
    }

    async fn begin(
        &self,
        id: &ThreadId,
        owner: &Owner,
        at: DateTime<Utc>,
        opening: Opening,
    ) -> Result<Thread, StoreError> {
        self.write(Some(id), self.inner.begin(id, owner, at, opening)).await
    }

    async fn release(&self, id: &ThreadId, epoch: u64) -> Result<(), StoreError> {
        self.write(Some(id), self.inner.release(id, epoch)).await
    }

    async fn attend(&self, id: &ThreadId, attendant: Option<&Owner>) -> Result<(), StoreError> {
        self.write(None, self.inner.attend(id, attendant)).await
    }

    async fn signal(&self, id: &ThreadId, signal: &Signal) -> Result<u64, StoreError> {
        self.write(None, self.inner.signal(id, signal)).await
    }

    async fn ask_stop(&self, id: &ThreadId, ask: &StopAsk) -> Result<(), StoreError> {
        self.write(None, self.inner.ask_stop(id, ask)).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        let id = transaction.thread.clone();
        self.write(Some(&id), self.inner.commit(transaction)).await
    }

    async fn answer_all(&self, claims: Vec<Claim>) -> Result<Vec<Interrupt>, StoreError> {
        self.write(None, self.inner.answer_all(claims)).await
    }

    async fn recall(&self, id: &ThreadId) -> Result<Recall, StoreError> {
        self.read(self.inner.recall(id)).await
    }

    async fn thread(&self, id: &ThreadId) -> Result<Option<Thread>, StoreError> {
        self.read(self.inner.thread(id)).await
    }

    async fn threads(&self, filter: &ThreadFilter) -> Result<Vec<Thread>, StoreError> {
        self.read(self.inner.threads(filter)).await
    }

    async fn signals(&self, id: &ThreadId) -> Result<Vec<Signal>, StoreError> {
        self.read(self.inner.signals(id)).await
    }

    async fn item(&self, namespace: &str, key: &str, now: DateTime<Utc>) -> Result<Option<Item>, StoreError> {
        self.read(self.inner.item(namespace, key, now)).await
    }

    async fn items(&self, prefix: &str, now: DateTime<Utc>, limit: usize) -> Result<Vec<Item>, StoreError> {
        self.read(self.inner.items(prefix, now, limit)).await
    }

    async fn cached(&self, key: &str, now: DateTime<Utc>) -> Result<Option<Produced>, StoreError> {
        self.read(self.inner.cached(key, now)).await
    }

    async fn inbox(&self, id: &ThreadId) -> Result<Inbox, StoreError> {
        self.read(self.inner.inbox(id)).await
    }

    async fn latest(&self, id: &ThreadId, ns: &str) -> Result<Option<Checkpoint>, StoreError> {
        self.read(self.inner.latest(id, ns)).await
    }

    async fn history(&self, id: &ThreadId, ns: &str) -> Result<Vec<Checkpoint>, StoreError> {
        self.read(self.inner.history(id, ns)).await
    }

    async fn namespaces(&self, id: &ThreadId) -> Result<Vec<String>, StoreError> {
        self.read(self.inner.namespaces(id)).await
    }

    async fn partial(&self, id: &ThreadId, ns: &str, checkpoint: &CheckpointId) -> Result<Partial, StoreError> {
        self.read(self.inner.partial(id, ns, checkpoint)).await
    }

    async fn journal(&self, id: &ThreadId) -> Result<Vec<Entry>, StoreError> {
        self.read(self.inner.journal(id)).await
    }

    async fn interrupts(&self, thread: Option<&ThreadId>, open_only: bool) -> Result<Vec<Interrupt>, StoreError> {
        self.read(self.inner.interrupts(thread, open_only)).await
    }

    async fn interrupt(&self, id: &InterruptId) -> Result<Option<Interrupt>, StoreError> {
        self.read(self.inner.interrupt(id)).await
    }

    async fn events(&self, id: &ThreadId, after: u64, limit: usize) -> Result<Vec<EventRow>, StoreError> {
        self.read(self.inner.events(id, after, limit)).await
    }
}

/// A store and a world of their own, and one owner: whoever goes on after a death or an error is the same process to the store.
pub struct Place {
    pub store: Arc<dyn Store>,
    pub world: Arc<World>,
    owner: Owner,
    _dir: tempfile::TempDir,
}

impl Place {
    pub fn new(kind: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = match kind {
            "memory" => Arc::new(MemoryStore::default()),
            _ => Arc::new(sqlite(dir.path())),
        };
        Self { store, world: World::at(dir.path()), owner: owner(), _dir: dir }
    }

    pub fn engine(&self, store: Arc<dyn Store>) -> Engine {
        Engine::new(store, Effects::new().with::<Make>(self.world.clone()), self.owner.clone())
    }
}

/// What must be the same, with faults and without.
#[derive(Debug, PartialEq)]
pub struct Seen {
    status: ThreadStatus,
    code: Option<String>,
    values: Value,
    history: Vec<Value>,
    journal: BTreeMap<String, String>,
    questions: Vec<(String, bool)>,
    things: Vec<String>,
}

impl Seen {
    pub fn of(case: &Case, export: &Export, world: &World) -> Self {
        let row = |c: &Checkpoint| json!({"ns": c.ns, "step": c.step, "values": c.values, "due": c.frontier});
        let last = export.checkpoints.iter().rfind(|c| c.ns.is_empty()).unwrap();
        // A run that is broken off is durable where it is: the others supersede less.
        let history = if case.durability == Durability::Exit { &[] } else { &*export.checkpoints };
        // What came from the cache after a fault was computed without one.
        let journal = export.journal.iter().filter(|e| e.key.name != "cached");
        let mut questions: Vec<_> =
            export.interrupts.iter().map(|i| (i.key.place(), i.answer.is_some() || i.withdrawn)).collect();
        questions.sort();
        Self {
            status: export.thread.status,
            code: export.thread.failure.as_ref().map(|f| f.code.clone()),
            values: json!(last.values),
            history: history.iter().map(row).collect(),
            journal: journal.map(|e| (e.key.place(), how_far(e))).collect(),
            questions,
            things: world.things(),
        }
    }

    /// Field by field, so that a difference can be seen.
    pub fn is_as(&self, calm: &Self) {
        assert_eq!((self.status, &self.code), (calm.status, &calm.code));
        assert_eq!(self.journal, calm.journal);
        assert_eq!(self.questions, calm.questions);
        assert_eq!(self.things, calm.things);
        assert_eq!(self.values, calm.values);
        assert_eq!(self.history, calm.history);
    }
}

fn how_far(entry: &Entry) -> String {
    // A timer beside a failure goes off sooner or later.
    if entry.kind == EntryKind::Wait { "a wait".to_owned() } else { format!("{:?}", entry.status) }
}

/// Each effect was performed once, and again only after a probe that found nothing; a flaky one fails twice first.
pub fn performed_once(world: &World) {
    let mut calls: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (call, token) in world.calls_with_tokens() {
        calls.entry(token).or_default().push(call);
    }
    for (token, calls) in calls {
        let performed: Vec<usize> =
            calls.iter().enumerate().filter(|(_, call)| call.starts_with("perform")).map(|(at, _)| at).collect();
        for between in performed.windows(2).map(|pair| &calls[pair[0]..pair[1]]) {
            assert!(between.iter().any(|c| c.starts_with("probe")), "{token} was performed again unprobed: {calls:?}");
        }
        let lost = calls[0].contains("lost") || calls[0].contains("flaky");
        assert!(lost || performed.len() == 1, "{token}: a probe found it and it was performed again: {calls:?}");
    }
}

/// Nothing is missing between the first checkpoint and the last, and between the first event and the last.
fn without_gaps(case: &Case, export: &Export) {
    let ids: std::collections::BTreeSet<_> = export.checkpoints.iter().map(|c| (&c.ns, &c.id)).collect();
    assert_eq!(ids.len(), export.checkpoints.len(), "a checkpoint is there twice");
    for c in &export.checkpoints {
        let parent = c.parent.as_ref().map(|parent| export.checkpoints.iter().find(|p| p.id == *parent));
        match parent {
            // Durable at its exit: what was before it in a subgraph is not kept.
            None => assert!(c.step == 0 || case.durability == Durability::Exit, "{} has no parent", c.id),
            Some(None) => panic!("the parent of {} is missing", c.id),
            Some(Some(parent)) => {
                assert_eq!(parent.ns, c.ns);
                let follows = parent.step + 1 == c.step;
                assert!(follows || case.durability == Durability::Exit, "{} follows {}", c.step, parent.step);
            }
        }
    }
    let seqs: Vec<u64> = export.events.iter().map(|row| row.seq).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "events");
    assert_eq!(export.thread.unwinding, None);
}

/// What a store's error may be called.
const NAMED: [&str; 5] = ["store_failed", "store_cannot_write", "lease_lost", "thread_exists", "already_decided"];

/// The record of a case that nothing disturbs.
pub async fn calm(case: &Case, kind: &str) -> Seen {
    let place = Place::new(kind);
    let errors = live(case, &place.engine(place.store.clone())).await;
    assert_eq!(errors, Vec::<String>::new(), "nothing was wrong");
    let export = Export::of(&*place.store, &ThreadId::from(THREAD)).await.unwrap();
    without_gaps(case, &export);
    performed_once(&place.world);
    replays(case, &export).await;
    Seen::of(case, &export, &place.world)
}

/// The record replays; if not, everything that is needed to see why.
pub async fn replays(case: &Case, export: &Export) {
    let Err(error) = replay(&case.graph, export).await else { return };
    let row = |c: &Checkpoint| {
        let due: Vec<_> = c.frontier.iter().map(|task| format!("{}{:?}", task.node, task.path)).collect();
        format!("{}/{} fork {} {:?} due {due:?} written {:?}", c.ns, c.step, c.fork, c.source, c.written)
    };
    let rows: Vec<String> = export.checkpoints.iter().map(row).collect();
    let entries: Vec<String> = export.journal.iter().map(|e| format!("{} {:?}", e.key.place(), e.status)).collect();
    let events: Vec<String> = export.events.iter().map(|row| format!("{:?}", row.event)).collect();
    let graph = tidegate::graph::mermaid(&case.graph);
    panic!(
        "{:#?}\n{:?} {:?} {:?}\n{graph}\n{rows:#?}\n{entries:#?}\n{events:#?}",
        error.failure(),
        case.deed,
        case.durability,
        export.thread.status,
    );
}

async fn faulted(seed: u64, kind: &str) -> usize {
    let case = Case::of(seed);
    let expected = calm(&case, kind).await;
    let place = Place::new(kind);
    let faulty = Faulty::new(place.store.clone(), seed, 4 + Dice::new(seed).below(12));
    let errors = live(&case, &place.engine(faulty)).await;
    if let Some(unnamed) = errors.iter().find(|code| !NAMED.contains(&code.as_str())) {
        panic!("an error without a proper name: {unnamed}");
    }
    let id = ThreadId::from(THREAD);
    let held = async || place.store.thread(&id).await.unwrap().unwrap().owner;
    if held().await.is_some() {
        // Only where giving it back was what failed; and the next that its owner does gives it back.
        assert!(!errors.is_empty(), "a lease is left");
        let engine = place.engine(place.store.clone());
        drop(engine.advance(&case.graph, &id, Advance::default()).await);
        assert_eq!(held().await, None, "a lease is left for good");
    }
    let export = Export::of(&*place.store, &id).await.unwrap();
    without_gaps(&case, &export);
    performed_once(&place.world);
    Seen::of(&case, &export, &place.world).is_as(&expected);
    replays(&case, &export).await;
    errors.len()
}

/// Runs a test for many seeds, several at once, and says which one failed. `ENGINE_SEEDS=N` runs N seeds, `ENGINE_SEEDS=A..B` those.
pub async fn seeds(most: u64, limit: Duration, test: impl AsyncFn(u64) -> usize) -> usize {
    let wanted = std::env::var("ENGINE_SEEDS").unwrap_or_default();
    let seeds = match wanted.split_once("..") {
        Some((from, to)) => from.parse().unwrap()..to.parse().unwrap(),
        None => 0..wanted.parse().unwrap_or(most),
    };
    let mut sum = 0;
    for seed in seeds {
        let one = std::panic::AssertUnwindSafe(tokio::time::timeout(limit, test(seed)));
        match futures_util::FutureExt::catch_unwind(one).await {
            Ok(Ok(count)) => sum += count,
            Ok(Err(_)) => panic!("seed {seed} hangs; ENGINE_SEEDS={seed}..{} runs it alone", seed + 1),
            Err(panic) => {
                eprintln!("seed {seed} failed; ENGINE_SEEDS={seed}..{} runs it alone", seed + 1);
                std::panic::resume_unwind(panic);
            }
        }
    }
    sum
}

#[tokio::test]
async fn random_faults_of_a_store_in_memory_change_nothing() {
    let errors = seeds(80, Duration::from_secs(20), async |seed| faulted(seed, "memory").await).await;
    assert!(errors > 100, "{errors} errors: the store was too kind");
}

#[tokio::test]
async fn random_faults_of_the_store_in_sqlite_change_nothing() {
    seeds(20, Duration::from_secs(20), async |seed| faulted(seed, "sqlite").await).await;
}

/// Where checkpoints wait for the next commit, the sibling that made it failed, and another one recorded its effect behind the gap: a commit
/// point was then set above it.
#[tokio::test]
async fn a_sibling_records_nothing_behind_a_gap() {
    faulted(1979, "memory").await;
}
