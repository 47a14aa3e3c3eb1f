//! The detached runner: advances threads that nobody else does. One per home; started on demand, ends when nothing is due.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{App, Home};
use crate::graph::{Advance, Failure, Liveness, Stop, Thread, ThreadFilter, ThreadId, ThreadStatus};
use crate::store::ProcLiveness;

/// Pause between two looks for due threads.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Looks without anything due or running before it ends.
const IDLE_LOOKS: u32 = 10;
/// Threads advanced at once: releases mostly wait, so this is about memory, not processors.
const MOST_AT_ONCE: usize = 16;

/// Starts a runner in a session of its own; a second one ends by itself at once.
pub fn spawn_detached(home: &Home) -> Result<(), Failure> {
    let fail = |what: &str, e: std::io::Error| {
        Failure::new("runner_not_started", format!("the detached runner could not be started: {what}"))
            .because(e.to_string())
    };
    let exe = std::env::current_exe().map_err(|e| fail("this program's file is unknown", e))?;
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

/// The runner's body: advances what is due until nothing has been for a while.
pub async fn run_detached(app: Arc<App>, stop: watch::Receiver<Stop>) -> Result<(), Failure> {
    let (lock, _) = app.home().runner();
    let open = std::fs::File::options().create(true).append(true).open(&lock);
    let lock =
        open.map_err(|e| Failure::new("runner_lock", "the runner's lock cannot be opened").because(e.to_string()))?;
    if lock.try_lock().is_err() {
        return Ok(());
    }
    let mut running = tokio::task::JoinSet::new();
    let mut active: std::collections::BTreeSet<ThreadId> = std::collections::BTreeSet::new();
    let mut idle = 0;
    while idle < IDLE_LOOKS && *stop.borrow() == Stop::No {
        while let Some(done) = running.try_join_next() {
            if let Ok(id) = done {
                active.remove(&id);
            }
        }
        for thread in due(&app).await? {
            if active.len() >= MOST_AT_ONCE || !active.insert(thread.id.clone()) {
                continue;
            }
            let (app, stop) = (app.clone(), stop.clone());
            running.spawn(async move {
                let how = Advance { stop, ..Advance::default() };
                match app.advance(&thread.id, how).await {
                    Ok(end) => tracing::info!(thread = %thread.id, status = end.status.word(), "advanced"),
                    Err(failure) => tracing::warn!(thread = %thread.id, code = failure.code, "{failure}"),
                }
                thread.id
            });
        }
        idle = if active.is_empty() { idle + 1 } else { 0 };
        tokio::time::sleep(LOOK_EVERY).await;
    }
    while running.join_next().await.is_some() {}
    Ok(())
}

impl App {
    /// Starts a runner when there are threads that somebody should advance and nobody does: what a crash left behind goes on with the
    /// next command that advances anything.
    pub async fn pick_up_orphans(&self) -> Result<usize, Failure> {
        let due = due(self).await?.len();
        if due > 0 {
            spawn_detached(self.home())?;
        }
        Ok(due)
    }
}

/// Threads that somebody should advance and nobody does: accepted ones, ones whose owner died, answered ones that nobody attends.
async fn due(app: &App) -> Result<Vec<Thread>, Failure> {
    let statuses = vec![ThreadStatus::Pending, ThreadStatus::Running, ThreadStatus::Interrupted];
    let filter = ThreadFilter { statuses, ..ThreadFilter::default() };
    let mut due = Vec::new();
    for thread in app.store().threads(&filter).await.map_err(|e| e.failure())? {
        let alive = |owner: &Option<crate::graph::Owner>| owner.as_ref().is_some_and(|o| ProcLiveness.alive(o));
        if alive(&thread.owner) || alive(&thread.attendant) {
            continue;
        }
        let answered = match thread.status {
            ThreadStatus::Interrupted => has_news(app, &thread).await?,
            _ => true,
        };
        if answered {
            due.push(thread);
        }
    }
    Ok(due)
}

/// Whether an interrupted thread has an answer that it has not used: no question is open, or one was answered after it stopped.
async fn has_news(app: &App, thread: &Thread) -> Result<bool, Failure> {
    let all = app.store().interrupts(Some(&thread.id), false).await.map_err(|e| e.failure())?;
    let fresh = |at: chrono::DateTime<chrono::Utc>| at >= thread.updated_at;
    Ok(all.iter().any(|i| i.answer.as_ref().is_some_and(|a| fresh(a.at))))
}
