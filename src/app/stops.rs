//! Letting go: threads that are asked from elsewhere to stop, and homes that are down.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::sync::watch;

use super::{App, Home};
use crate::graph::{
    Failure, Liveness, Owner, RunEnd, Stop, StopAsk, Store, Thread, ThreadFilter, ThreadId, ThreadStatus,
};
use crate::host;
use crate::store::ProcLiveness;

/// What `down` calls itself.
const DOWN: &str = "down";
/// How often an owner looks whether it is asked to let go.
const LISTEN_EVERY: Duration = Duration::from_millis(200);
/// A request is repeated this often: the next owner's lease empties the inbox.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Pause between two looks whether somebody has let go.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A release lets go within moments; one that undoes something first gets this long.
const LET_GO_WITHIN: Duration = Duration::from_secs(60);

/// What a run obeys: its caller, and requests that others leave in the thread's inbox. Listening ends when this is dropped.
pub(super) struct Listening {
    /// What the engine looks at.
    pub stop: watch::Receiver<Stop>,
    asked: Arc<OnceLock<StopAsk>>,
    task: tokio::task::JoinHandle<()>,
}

impl Listening {
    /// Listens to `caller`, to the thread's inbox, and, where the thread needs the host daemon, to whether the home goes down.
    pub async fn begin(app: &App, thread: &Thread, caller: watch::Receiver<Stop>) -> Result<Self, Failure> {
        // What was asked of owners before us is none of our business.
        let before = app.store.inbox(&thread.id).await.map_err(|e| e.failure())?.epoch;
        Ok(Self::listen(Ears::of(app, &thread.id, needs_host(thread), before), caller))
    }

    /// The same for a thread that is about to be made, and does not need the host daemon: nobody has owned it before.
    pub fn to_new(app: &App, thread: &ThreadId, caller: watch::Receiver<Stop>) -> Self {
        Self::listen(Ears::of(app, thread, false, 0), caller)
    }

    fn listen(ears: Ears, mut caller: watch::Receiver<Stop>) -> Self {
        let (tell, stop) = watch::channel(*caller.borrow());
        let asked = Arc::new(OnceLock::new());
        let heard = asked.clone();
        let task = tokio::spawn(async move {
            let mut caller_is_there = true;
            loop {
                tokio::select! {
                    changed = caller.changed(), if caller_is_there => match changed {
                        Ok(()) => { tell.send_replace(*caller.borrow_and_update()); }
                        Err(_) => caller_is_there = false,
                    },
                    () = tokio::time::sleep(LISTEN_EVERY) => {
                        let Some(ask) = ears.hear().await else { continue };
                        let wanted = if ask.hold { Stop::Hold } else { Stop::Drain };
                        heard.get_or_init(|| ask);
                        tell.send_if_modified(|now| {
                            let news = *now == Stop::No;
                            if news {
                                *now = wanted;
                            }
                            news
                        });
                    }
                }
            }
        });
        Self { stop, asked, task }
    }

    /// How a run ended, with who asked it to let go.
    pub fn heard_by(&self, end: RunEnd) -> RunEnd {
        match end.status {
            ThreadStatus::Running => RunEnd { failure: self.why(), ..end },
            _ => end,
        }
    }

    /// Who asked from elsewhere, for the one who is stopped by it.
    fn why(&self) -> Option<Failure> {
        let ask = self.asked.get()?;
        let hint = match ask.by.as_str() {
            DOWN => "`tidegate up` goes on with it",
            _ => "`tidegate run show` tells how it went on",
        };
        Some(Failure::new("stop_asked", format!("`tidegate {}` asked this run to let go", ask.by)).hint(hint))
    }
}

/// What can be heard of a thread from outside.
struct Ears {
    store: Arc<dyn Store>,
    home: Home,
    thread: ThreadId,
    needs_host: bool,
    before: u64,
}

impl Ears {
    fn of(app: &App, thread: &ThreadId, needs_host: bool, before: u64) -> Self {
        let (store, home, thread) = (app.store.clone(), app.home.clone(), thread.clone());
        Self { store, home, thread, needs_host, before }
    }

    async fn hear(&self) -> Option<StopAsk> {
        if self.needs_host && self.home.is_down() {
            return Some(StopAsk { hold: false, by: DOWN.to_owned(), at: Utc::now() });
        }
        // A store that cannot be read for a moment asks for nothing.
        let inbox = self.store.inbox(&self.thread).await.ok()?;
        inbox.stop.filter(|_| inbox.epoch > self.before)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl App {
    /// Refuses what needs the host daemon while the home is down; nothing is lost by it.
    pub(super) fn refuse_while_down(&self) -> Result<(), Failure> {
        if !self.home.is_down() {
            return Ok(());
        }
        Err(Failure::new("host_is_down", "this home is down: `tidegate down` stopped everything that serves")
            .hint("`tidegate up` starts it again; releases that wait go on then"))
    }

    /// Whether the process that holds, or held, a thread still lives.
    pub fn is_alive(&self, owner: &Owner) -> bool {
        ProcLiveness.alive(owner)
    }

    /// Asks whoever advances a thread to let go of it and waits until nobody does, bounded. `hold`: the thread then waits for a person.
    pub async fn let_go(&self, id: &ThreadId, hold: bool, by: &str) -> Result<bool, Failure> {
        let began = Instant::now();
        let mut asked: Option<Instant> = None;
        while began.elapsed() < LET_GO_WITHIN {
            let thread = self.thread(id).await?;
            if !thread.owner.as_ref().is_some_and(|owner| *owner != self.owner && ProcLiveness.alive(owner)) {
                return Ok(true);
            }
            if asked.is_none_or(|at| at.elapsed() >= ASK_EVERY) {
                let ask = StopAsk { hold, by: by.to_owned(), at: Utc::now() };
                self.store.ask_stop(id, &ask).await.map_err(|e| e.failure())?;
                asked = Some(Instant::now());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(false)
    }

    /// Lets go of every release and rollback under way, so that the home can go down; `up` goes on with them. Nobody takes them up
    /// again for as long as the result is held: whoever advances one looks whether the home goes down.
    pub async fn pause_releases(&self) -> Result<Paused, Failure> {
        let lock = lock_down(&self.home.down_lock()).await?;
        let began = Instant::now();
        let mut seen: BTreeSet<ThreadId> = BTreeSet::new();
        loop {
            let under_way = self.advanced_elsewhere().await?;
            seen.extend(under_way.iter().cloned());
            if under_way.is_empty() || began.elapsed() >= LET_GO_WITHIN {
                let paused = seen.into_iter().filter(|id| !under_way.contains(id)).collect();
                return Ok(Paused { paused, not: under_way, _lock: lock });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Releases and rollbacks that another process has the lease of, whatever their status: one that was just taken has its old one.
    async fn advanced_elsewhere(&self) -> Result<Vec<ThreadId>, Failure> {
        let statuses =
            vec![ThreadStatus::Pending, ThreadStatus::Running, ThreadStatus::Interrupted, ThreadStatus::Stuck];
        let filter = ThreadFilter { statuses, ..ThreadFilter::default() };
        let threads = self.store.threads(&filter).await.map_err(|e| e.failure())?;
        let advanced = |t: &Thread| t.owner.as_ref().is_some_and(|o| *o != self.owner && ProcLiveness.alive(o));
        Ok(threads.into_iter().filter(|t| needs_host(t) && advanced(t)).map(|t| t.id).collect())
    }
}

impl Home {
    /// Waits until a `down` that is at work has ended.
    pub async fn after_down(&self) -> Result<(), Failure> {
        lock_down(&self.down_lock()).await.map(drop)
    }

    /// Whether everything that serves was stopped on purpose, or is being stopped: then no release advances until `up`.
    pub fn is_down(&self) -> bool {
        let going_down = || {
            // A home that never went down has no such file; one that cannot be opened is found out by whoever writes to it.
            File::open(self.down_lock()).is_ok_and(|lock| lock.try_lock_shared().is_err())
        };
        host::is_down(self.dir()) || going_down()
    }
}

/// Releases that have let go for `down`.
pub struct Paused {
    /// Those that go on with `up`.
    pub paused: Vec<ThreadId>,
    /// Those that did not let go in time.
    pub not: Vec<ThreadId>,
    _lock: File,
}

/// Takes the lock, after another `down` that works.
async fn lock_down(path: &Path) -> Result<File, Failure> {
    let fail = |e: std::io::Error| {
        Failure::new("down_lock", format!("{} cannot be locked", path.display())).because(e.to_string())
    };
    let lock = File::options().create(true).append(true).open(path).map_err(fail)?;
    let began = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(std::fs::TryLockError::Error(e)) => return Err(fail(e)),
            // Whoever looks whether we are at work holds it for a moment.
            Err(std::fs::TryLockError::WouldBlock) if began.elapsed() < LET_GO_WITHIN => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(e) => return Err(fail(e.into())),
        }
    }
}

/// Whether a thread works with what the host daemon serves.
pub(super) fn needs_host(thread: &Thread) -> bool {
    thread.labels.contains_key("model")
}
