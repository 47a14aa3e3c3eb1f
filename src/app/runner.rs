//! The detached runner: advances threads that nobody else does. One per home; started on demand, ends when nothing is due or ahead.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::runs::APPROVED_BY;
use super::stops::needs_host;
use super::{App, Home};
use crate::graph::{Advance, Failure, Liveness, Owner, Stop, Thread, ThreadFilter, ThreadId, ThreadStatus};
use crate::store::ProcLiveness;

/// Pause between two looks for due threads while some are at work or may come.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Pause between two looks while all it waits for is a question's expiry.
const LOOK_SELDOM: Duration = Duration::from_secs(1);
/// Looks without anything due or running before it ends, or looks more seldom.
const IDLE_LOOKS: u32 = 10;
/// Looks in a row that may fail: a database that is busy for a moment ends no runner.
const BLIND_LOOKS: u32 = 50;
/// A thread that could not be advanced is tried again after this, then after twice as long, and so on.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How long a second runner waits for the first one's end.
const SUCCEEDS_WITHIN: Duration = Duration::from_secs(3);
/// Threads advanced at once: releases mostly wait, so this is about memory, not processors.
const MOST_AT_ONCE: usize = 16;

fn fail(what: &str, error: std::io::Error) -> Failure {
    Failure::new("runner_not_started", format!("the detached runner could not be started: {what}"))
        .because(error.to_string())
}

/// Starts a runner in a session of its own; where there is one already, the second ends by itself.
pub fn spawn_detached(home: &Home) -> Result<(), Failure> {
    let exe = std::env::current_exe().map_err(|e| fail("this program's file is unknown", e))?;
    // The file may have been replaced since we were started: then what we are goes on.
    let exe = if exe.exists() { exe } else { PathBuf::from("/proc/self/exe") };
    spawn(&exe, home)
}

fn spawn(exe: &Path, home: &Home) -> Result<(), Failure> {
    let (_, log) = home.runner();
    let log = std::fs::File::options().create(true).append(true).open(log).map_err(|e| fail("its log", e))?;
    let errors = log.try_clone().map_err(|e| fail("its log", e))?;
    let mut command = Command::new(exe);
    command.arg("--home").arg(home.dir()).arg("runner").current_dir("/");
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    // SAFETY: setsid is async-signal-safe and touches nothing of the parent.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(std::io::Error::from));
    }
    command.spawn().map_err(|e| fail("the process", e))?;
    Ok(())
}

/// The runner's body: advances what is due until nothing has been for a while and no question can expire.
pub async fn run_detached(app: Arc<App>, stop: watch::Receiver<Stop>) -> Result<(), Failure> {
    run_while(app, stop, false).await
}

/// `stays`: it ends only when it is asked to.
async fn run_while(app: Arc<App>, stop: watch::Receiver<Stop>, stays: bool) -> Result<(), Failure> {
    let (path, _) = app.home().runner();
    let Some(lock) = lock(&path).await? else { return Ok(()) };
    let program = Program::now();
    let mut hands = Hands::new(&app, &stop);
    let (mut idle, mut blind) = (0, 0);
    while *stop.borrow() == Stop::No && is_still(&lock, &path) {
        hands.let_go_of_ended();
        let mut ahead = true;
        match look(&app).await {
            Ok(work) => {
                (ahead, blind) = (work.ahead, 0);
                work.due.into_iter().for_each(|thread| hands.take(thread));
            }
            Err(failure) if blind < BLIND_LOOKS => {
                tracing::warn!(code = failure.code, "cannot look for due threads: {failure}");
                blind += 1;
            }
            Err(failure) => {
                hands.finish().await;
                return Err(failure);
            }
        }
        idle = if hands.active.is_empty() { idle + 1 } else { 0 };
        let newer = !stays && hands.active.is_empty() && program.has_changed();
        if newer || (!stays && idle >= IDLE_LOOKS && !ahead) {
            drop(lock);
            return if newer { program.start_again(app.home()) } else { Ok(()) };
        }
        tokio::time::sleep(if idle >= IDLE_LOOKS { LOOK_SELDOM } else { LOOK_EVERY }).await;
    }
    hands.finish().await;
    Ok(())
}

/// A runner that stays for as long as its process: whenever another one has taken the home for a while, it takes it back.
pub async fn keep_running(app: Arc<App>, stop: watch::Receiver<Stop>) {
    while *stop.borrow() == Stop::No {
        if let Err(failure) = run_while(app.clone(), stop.clone(), true).await {
            tracing::error!(code = failure.code, "the runner begins again: {failure}");
        }
        // Another process is the home's runner for now, until nothing is due.
        tokio::time::sleep(LOOK_SELDOM).await;
    }
}

/// One runner per home. The one before may be about to end, after its last look: whoever was started for something new waits for it.
async fn lock(path: &Path) -> Result<Option<File>, Failure> {
    let open = File::options().create(true).append(true).open(path);
    let lock =
        open.map_err(|e| Failure::new("runner_lock", "the runner's lock cannot be opened").because(e.to_string()))?;
    let began = Instant::now();
    while lock.try_lock().is_err() {
        if began.elapsed() > SUCCEEDS_WITHIN {
            return Ok(None);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(Some(lock))
}

/// Whether the lock is still the file at its path: a home that was removed or replaced is none of ours.
fn is_still(lock: &File, path: &Path) -> bool {
    matches!((lock.metadata().map(file), std::fs::metadata(path).map(file)), (Ok(ours), Ok(there)) if ours == there)
}

fn file(meta: std::fs::Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

/// The file of the program that we run: a runner may wait for a day, and somebody may put a newer version in its place.
struct Program {
    path: Option<PathBuf>,
    then: Option<(u64, u64)>,
}

impl Program {
    fn now() -> Self {
        let path = std::env::current_exe().ok();
        let then = path.as_deref().and_then(|path| std::fs::metadata(path).ok()).map(file);
        Self { path, then }
    }

    fn has_changed(&self) -> bool {
        let now = self.path.as_deref().and_then(|path| std::fs::metadata(path).ok()).map(file);
        // While it is being replaced there is none.
        now.is_some() && now != self.then
    }

    fn start_again(&self, home: &Home) -> Result<(), Failure> {
        self.path.as_deref().map_or(Ok(()), |path| spawn(path, home))
    }
}

/// The threads that a runner advances now.
struct Hands {
    app: Arc<App>,
    stop: watch::Receiver<Stop>,
    running: JoinSet<bool>,
    active: BTreeMap<ThreadId, tokio::task::Id>,
    /// Threads that could not be advanced (their node types have changed, the disk is full): tried again more and more seldom.
    failed: BTreeMap<ThreadId, (Instant, u32)>,
}

impl Hands {
    fn new(app: &Arc<App>, stop: &watch::Receiver<Stop>) -> Self {
        let (app, stop) = (app.clone(), stop.clone());
        Self { app, stop, running: JoinSet::new(), active: BTreeMap::new(), failed: BTreeMap::new() }
    }

    fn let_go_of_ended(&mut self) {
        while let Some(done) = self.running.try_join_next_with_id() {
            let (task, well) = match done {
                Ok(ended) => ended,
                Err(panicked) => (panicked.id(), false),
            };
            let Some(id) = self.active.iter().find(|(_, of)| **of == task).map(|(id, _)| id.clone()) else { continue };
            self.active.remove(&id);
            if well {
                self.failed.remove(&id);
            } else {
                let times = self.failed.get(&id).map_or(0, |(_, times)| *times) + 1;
                let pause = TRY_AGAIN.saturating_mul(1 << times.min(8));
                self.failed.insert(id, (Instant::now() + pause, times));
            }
        }
    }

    fn take(&mut self, thread: Thread) {
        let waits = self.failed.get(&thread.id).is_some_and(|(until, _)| Instant::now() < *until);
        if waits || self.active.len() >= MOST_AT_ONCE || self.active.contains_key(&thread.id) {
            return;
        }
        let (app, stop, id) = (self.app.clone(), self.stop.clone(), thread.id.clone());
        let task = self.running.spawn(async move {
            let end = app.advance_approved(&thread.id, Advance { stop, ..Advance::default() }).await;
            match &end {
                Ok(end) => tracing::info!(thread = %thread.id, status = end.status.word(), "advanced"),
                Err(failure) => tracing::warn!(thread = %thread.id, code = failure.code, "{failure}"),
            }
            // Somebody else has it, or the home went down in this very moment: nothing is wrong with the thread.
            end.as_ref().err().is_none_or(|failure| ["lease_held", "host_is_down"].contains(&failure.code.as_str()))
        });
        self.active.insert(id, task.id());
    }

    async fn finish(mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

impl App {
    /// Starts a runner when there are threads that somebody should advance and nobody does: what a crash left behind goes on with the
    /// next command that advances anything, and a question that nobody answers in time is ended.
    pub async fn pick_up_orphans(&self) -> Result<usize, Failure> {
        let Work { due, ahead } = look(self).await?;
        if !due.is_empty() || ahead {
            spawn_detached(self.home())?;
        }
        Ok(due.len())
    }
}

/// What there is to do.
struct Work {
    /// Threads that somebody should advance and nobody does: accepted ones, ones whose owner died, answered ones that nobody attends,
    /// ones whose question has expired, whose timer is over, which were sent a signal.
    due: Vec<Thread>,
    /// Whether a question can expire, or a timer go off, later.
    ahead: bool,
}

async fn look(app: &App) -> Result<Work, Failure> {
    let statuses =
        vec![ThreadStatus::Pending, ThreadStatus::Running, ThreadStatus::Interrupted, ThreadStatus::Sleeping];
    let filter = ThreadFilter { statuses, ..ThreadFilter::default() };
    let down = app.home().is_down();
    let now = Utc::now();
    let open = app.store().interrupts(None, true).await.map_err(|e| e.failure())?;
    let mut work = Work { due: Vec::new(), ahead: false };
    for thread in app.store().threads(&filter).await.map_err(|e| e.failure())? {
        let alive = |owner: &Option<Owner>| owner.as_ref().is_some_and(|o| ProcLiveness.alive(o));
        // A record from elsewhere is advanced there.
        if thread.imported.is_some() || down && needs_host(&thread) {
            continue;
        }
        if alive(&thread.owner) || alive(&thread.attendant) {
            // Whoever waits with it may be killed while it sleeps.
            work.ahead |= thread.status == ThreadStatus::Sleeping && thread.wake.is_some();
            continue;
        }
        let due = match thread.status {
            ThreadStatus::Interrupted => {
                let asked = || open.iter().filter(|i| i.thread == thread.id);
                work.ahead |= asked().any(|i| i.expires_at.is_some_and(|at| at > now));
                let inbox = app.store().inbox(&thread.id).await.map_err(|e| e.failure())?;
                let approved = thread.labels.contains_key(APPROVED_BY) && asked().next().is_some();
                // Whoever is named died before the run that it took the thread for had begun.
                let died_early = thread.owner.is_some();
                work.ahead |= thread.wake.is_some();
                let woken = app.is_due(&thread).await?;
                inbox.answered || approved || died_early || woken || asked().any(|i| i.is_over(now))
            }
            ThreadStatus::Sleeping => {
                work.ahead |= thread.wake.is_some();
                app.is_due(&thread).await?
            }
            _ => true,
        };
        if due {
            work.due.push(thread);
        }
    }
    Ok(work)
}
