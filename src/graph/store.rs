//! What the engine asks of a store. A store is a reducer over [`Record`]s plus a few reads; `store/` holds the SQLite one,
//! [`super::MemoryStore`] is for tests and replay, and one conformance suite holds both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{
    Alarm, Answer, Checkpoint, CheckpointId, Entry, Event, EventRow, Failure, Inbox, Interrupt, InterruptId, Item,
    Name, Owner, Produced, Signal, StopAsk, TaskPath, TaskResult, Thread, ThreadId, ThreadStatus, Unwinding,
};

/// Why a store refused or failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StoreError {
    /// There is no such thread.
    #[error("there is no thread {0}")]
    NoThread(ThreadId),
    /// A thread of that id exists.
    #[error("thread {0} exists already")]
    ThreadExists(ThreadId),
    /// Somebody else advances the thread.
    #[error("thread {thread} is being advanced by {owner}")]
    Held {
        /// The thread.
        thread: ThreadId,
        /// Who holds it.
        owner: Box<Owner>,
    },
    /// The writer's lease was taken over: it must stop at once.
    #[error("the lease on thread {thread} was lost: epoch {ours} is not the current one ({current})")]
    Fenced {
        /// The thread.
        thread: ThreadId,
        /// The writer's epoch.
        ours: u64,
        /// The current one.
        current: u64,
    },
    /// There is no such question.
    #[error("there is no open question {0}")]
    NoInterrupt(InterruptId),
    /// Somebody answered first.
    #[error("question {id} was answered by {by} at {at} through {via}")]
    Answered {
        /// The question.
        id: InterruptId,
        /// By whom.
        by: String,
        /// When.
        at: DateTime<Utc>,
        /// Through what.
        via: String,
    },
    /// So many signals wait in the thread that no more is taken.
    #[error("thread {0} has {MOST_SIGNALS} signals that it has not taken")]
    InboxFull(ThreadId),
    /// The thread is a record from elsewhere: nobody changes it here.
    #[error("thread {0} is a record that was imported: it is not advanced, answered or changed here")]
    Imported(ThreadId),
    /// What an import says cannot be kept as it is.
    #[error("the record of thread {thread} cannot be kept as it is: {place} would not come out again")]
    NotKept {
        /// The thread.
        thread: ThreadId,
        /// The first place that differs.
        place: String,
    },
    /// Nobody waits for the answer any more.
    #[error("question {0} was withdrawn: its thread went on or ended")]
    Withdrawn(InterruptId),
    /// The answer came too late.
    #[error("question {id} expired at {at}")]
    Expired {
        /// The question.
        id: InterruptId,
        /// When.
        at: DateTime<Utc>,
    },
    /// The answer was meant for something else than what is asked now.
    #[error("question {id} has changed since it was shown: it is {current} now")]
    Changed {
        /// The question.
        id: InterruptId,
        /// Its digest now.
        current: String,
    },
    /// Nothing can be written: full disk, read-only file system, missing rights.
    #[error("the store cannot write: {0}")]
    CannotWrite(String),
    /// The file is damaged.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// A newer program wrote the file; it is as sound as it was.
    #[error("the store {file} is of a newer version: its schema is {schema}, this program knows up to {ours}")]
    TooNew {
        /// The file.
        file: String,
        /// Its schema's version.
        schema: i64,
        /// The newest that this program knows.
        ours: i64,
    },
    /// Anything else.
    #[error("the store failed: {0}")]
    Failed(String),
}

impl StoreError {
    /// As data for people.
    pub fn failure(&self) -> Failure {
        let failure = |code: &str, hint: &str| Failure::new(code, self.to_string()).hint(hint);
        match self {
            Self::NoThread(_) => failure("no_thread", "`tidegate runs` lists the threads"),
            Self::ThreadExists(_) => failure("thread_exists", "choose another id, or continue that thread"),
            Self::Held { .. } => {
                failure("lease_held", "wait for it, or stop that process; its death frees the thread at once")
            }
            Self::Fenced { .. } => failure("lease_lost", "look at the thread: somebody else advances it now"),
            Self::NoInterrupt(_) => failure("no_interrupt", "`tidegate approvals` lists the open questions"),
            Self::Answered { .. } => {
                failure("already_decided", "nothing to do; `tidegate run show` tells how it went on")
            }
            Self::InboxFull(_) => failure("inbox_full", "let the thread take them, or cancel it"),
            Self::Imported(_) => failure(
                "thread_imported",
                "look at it, replay it, export it; what it is about goes on in the home that it came from",
            ),
            Self::NotKept { .. } => {
                failure("import_not_kept", "nothing was imported; export it again with the version that this home has")
            }
            Self::Withdrawn(_) => failure("withdrawn", "nothing to do; `tidegate run show` tells how it went on"),
            Self::Expired { .. } => failure(
                "expired",
                "`tidegate run show` tells how it went on: with the outcome that its node declares, or it failed; then start again",
            ),
            Self::Changed { .. } => failure("changed", "look at it again, then decide"),
            Self::CannotWrite(_) => {
                failure("store_cannot_write", "make room or mend the rights, then `tidegate run resume` the thread")
            }
            Self::Damaged(_) => failure("store_damaged", "`tidegate doctor --db` checks the file"),
            Self::TooNew { .. } => failure(
                "store_too_new",
                "use the version of Tidegate that wrote it, or a later one; or another home, with --home",
            ),
            Self::Failed(_) => failure("store_failed", "`tidegate doctor --db` checks the file"),
        }
    }
}

/// One change to a thread. A transaction's records are applied in order, all or none.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A checkpoint became the newest of its namespace; results kept for its parent are dropped.
    Checkpoint(Arc<Checkpoint>),
    /// A task of a checkpoint finished while its siblings have not.
    Result {
        /// Namespace.
        ns: Name,
        /// The checkpoint whose frontier holds the task.
        checkpoint: CheckpointId,
        /// What it left.
        result: Box<TaskResult>,
    },
    /// Attempts that a task has had.
    Attempts {
        /// Namespace.
        ns: Name,
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The task.
        path: TaskPath,
        /// How many have failed.
        attempts: u32,
    },
    /// A journal entry, new or changed (by key).
    Entry(Box<Entry>),
    /// A question was asked (a re-run asks the same one again: the first stays).
    Interrupt(Box<Interrupt>),
    /// Open questions below this namespace prefix are not needed any more (empty: all of the thread).
    Withdraw {
        /// Namespace; those inside it are withdrawn too.
        ns: Name,
    },
    /// The thread's status, failure, unwinding.
    Status {
        /// What it is now.
        status: ThreadStatus,
        /// Why it failed.
        failure: Option<Failure>,
        /// Set while undoing.
        unwinding: Option<Unwinding>,
    },
    /// A run has begun that knows so many answers to the thread's questions.
    Seen(u64),
    /// Entries up to this number are never undone.
    CommitPoint(u64),
    /// Whether something was undone: then the thread cannot be continued, unless in a branch of its own.
    Undone(bool),
    /// The thread goes on with other versions of its nodes.
    Migrated {
        /// The graph's fingerprint.
        fingerprint: String,
        /// Node kinds with their versions.
        node_versions: BTreeMap<String, u32>,
    },
    /// A wait has taken the signal of this number.
    Took(u64),
    /// What the thread waits for beside answers, as its run ends.
    Sleeps {
        /// Its next timer.
        wake: Option<Alarm>,
        /// Names of the signals that its waits wait for.
        listens: BTreeSet<String>,
    },
    /// What the thread's nodes gave is given to nobody any more: what they did is about to be undone.
    Uncache,
    /// What a node gave, to be given again for the same input.
    Cached {
        /// Digest of the node and what it saw.
        key: String,
        /// What it gave.
        produced: Produced,
        /// Until when; `None`: for good.
        expires_at: Option<DateTime<Utc>>,
    },
    /// A value that threads share is written, over what is there; the time of its first write stays.
    Keep(Box<Item>),
    /// A value that threads share is taken away.
    Forget {
        /// Its namespace.
        namespace: String,
        /// Its key.
        key: String,
    },
    /// The run is over: its lease is given back with its last records.
    Release,
    /// An event.
    Event(Event),
}

/// Most signals that may wait in one thread: one that nothing takes must not fill the disk.
pub const MOST_SIGNALS: usize = 1_000;

/// Records that are committed together.
#[derive(Debug, Clone, PartialEq)]
pub struct Transaction {
    /// The thread.
    pub thread: ThreadId,
    /// The writer's epoch; another current one refuses the whole transaction.
    pub epoch: u64,
    /// When.
    pub at: DateTime<Utc>,
    /// What, in order.
    pub records: Vec<Record>,
}

/// Makes a run's first records of the row as it was found, with its new owner and epoch, and of how many answers its questions have. A
/// store may call it more than once.
pub type Opening = Box<dyn Fn(&Thread, u64) -> Vec<Record> + Send>;

/// What a run must know when it begins, as of one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recall {
    /// The journal, by number.
    pub journal: Vec<Entry>,
    /// All questions, oldest first.
    pub interrupts: Vec<Interrupt>,
    /// The root's newest checkpoint.
    pub latest: Option<Arc<Checkpoint>>,
    /// What is kept of the superstep behind it.
    pub partial: Partial,
}

/// Which threads to list, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ThreadFilter {
    /// Only these statuses; empty: all.
    pub statuses: Vec<ThreadStatus>,
    /// Only threads with this label.
    pub label: Option<(String, String)>,
    /// At most this many; 0: no limit.
    pub limit: usize,
}

/// What is kept of a superstep that is not complete.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Partial {
    /// Results of finished tasks.
    pub results: Vec<TaskResult>,
    /// Failed attempts of unfinished ones.
    pub attempts: Vec<(TaskPath, u32)>,
}

/// An answer on its way to its question.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The question.
    pub id: InterruptId,
    /// What is answered.
    pub answer: Answer,
    /// Digest of what the answer was meant for; another one refuses. `None`: as it is now.
    pub digest: Option<String>,
}

/// Durable threads. Every method that changes something returns after it is durable.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Adds a thread with its first records (its checkpoint 0 among them): accepted is durable.
    async fn create(&self, thread: &Thread, records: Vec<Record>) -> Result<(), StoreError>;
    /// The same for a thread whose acceptance nobody is told of before something else of it is committed: it need not survive the loss of power by
    /// itself (the death of any process it does), but with the next commit of the store, and after some milliseconds at the latest. Whoever looks
    /// in between sees it: what he sees may be gone after the loss of power.
    async fn create_quietly(&self, thread: &Thread, records: Vec<Record>) -> Result<(), StoreError> {
        self.create(thread, records).await
    }
    /// The thread's row.
    async fn thread(&self, id: &ThreadId) -> Result<Option<Thread>, StoreError>;
    /// Rows, newest first.
    async fn threads(&self, filter: &ThreadFilter) -> Result<Vec<Thread>, StoreError>;
    /// Takes the lease: the owner is set, the epoch counted up. Refused while another owner lives.
    async fn acquire(&self, id: &ThreadId, owner: &Owner) -> Result<Thread, StoreError>;
    /// Takes the lease as `acquire` does and commits what `opening` makes of the row in the same transaction. Returns the row as
    /// `opening` saw it.
    async fn begin(
        &self,
        id: &ThreadId,
        owner: &Owner,
        at: DateTime<Utc>,
        opening: Opening,
    ) -> Result<Thread, StoreError>;
    /// What a run must know when it begins.
    async fn recall(&self, id: &ThreadId) -> Result<Recall, StoreError>;
    /// Gives the lease back; fine when it was lost.
    async fn release(&self, id: &ThreadId, epoch: u64) -> Result<(), StoreError>;
    /// Says that a process waits for this thread and goes on by itself; `None` takes it back.
    async fn attend(&self, id: &ThreadId, attendant: Option<&Owner>) -> Result<(), StoreError>;
    /// Leaves a signal for the thread, whoever advances it, and returns its number. Adds the event `Signalled`. Its own `seq` does not
    /// count. At most [`MOST_SIGNALS`] wait in a thread.
    async fn signal(&self, id: &ThreadId, signal: &Signal) -> Result<u64, StoreError>;
    /// Signals that no wait has taken, oldest first.
    async fn signals(&self, id: &ThreadId) -> Result<Vec<Signal>, StoreError>;
    /// What a node gave before for the same input, unless it is over at `now`.
    async fn cached(&self, key: &str, now: DateTime<Utc>) -> Result<Option<Produced>, StoreError>;
    /// What threads share under a key, unless it is over at `now`.
    async fn item(&self, namespace: &str, key: &str, now: DateTime<Utc>) -> Result<Option<Item>, StoreError>;
    /// What threads share in a namespace and those inside it (empty: in all), unless it is over at `now`; by namespace and key, at most
    /// `limit`.
    async fn items(&self, prefix: &str, now: DateTime<Utc>, limit: usize) -> Result<Vec<Item>, StoreError>;
    /// Asks the owner of the current epoch to let go of the thread; the newest request counts. Adds the event `StopAsked`.
    async fn ask_stop(&self, id: &ThreadId, ask: &StopAsk) -> Result<(), StoreError>;
    /// What has arrived. Cheap: its owner looks several times a second.
    async fn inbox(&self, id: &ThreadId) -> Result<Inbox, StoreError>;
    /// Commits records under a lease.
    async fn commit(&self, transaction: Transaction) -> Result<(), StoreError>;
    /// The newest checkpoint of a namespace.
    async fn latest(&self, id: &ThreadId, ns: &str) -> Result<Option<Checkpoint>, StoreError>;
    /// All checkpoints of a namespace, oldest first.
    async fn history(&self, id: &ThreadId, ns: &str) -> Result<Vec<Checkpoint>, StoreError>;
    /// The namespaces of a thread that have checkpoints, sorted.
    async fn namespaces(&self, id: &ThreadId) -> Result<Vec<String>, StoreError>;
    /// What is kept of an incomplete superstep.
    async fn partial(&self, id: &ThreadId, ns: &str, checkpoint: &CheckpointId) -> Result<Partial, StoreError>;
    /// The journal, by number.
    async fn journal(&self, id: &ThreadId) -> Result<Vec<Entry>, StoreError>;
    /// Questions of one thread, or of all; open ones only, or all; oldest first.
    async fn interrupts(&self, thread: Option<&ThreadId>, open_only: bool) -> Result<Vec<Interrupt>, StoreError>;
    /// One question.
    async fn interrupt(&self, id: &InterruptId) -> Result<Option<Interrupt>, StoreError>;
    /// Claims questions, all or none: the first answer wins. Adds the event `Answered` for each.
    async fn answer_all(&self, claims: Vec<Claim>) -> Result<Vec<Interrupt>, StoreError>;
    /// Claims one question. `digest`: what the answer was meant for.
    async fn answer(&self, id: &InterruptId, answer: &Answer, digest: Option<&str>) -> Result<Interrupt, StoreError> {
        let claim = Claim { id: id.clone(), answer: answer.clone(), digest: digest.map(str::to_owned) };
        self.answer_all(vec![claim]).await?.pop().ok_or_else(|| StoreError::NoInterrupt(id.clone()))
    }
    /// Events after `after` (0: from the first), at most `limit`.
    async fn events(&self, id: &ThreadId, after: u64, limit: usize) -> Result<Vec<EventRow>, StoreError>;
}
