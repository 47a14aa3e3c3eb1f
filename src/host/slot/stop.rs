//! Ending a slot's processes, and nobody else's.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::process::Running;
use crate::host::identity::{self, Mark};

/// SIGKILL takes effect at once unless the process hangs in the kernel; then we go on without it.
const KILLED_WITHIN: Duration = Duration::from_secs(5);
/// How often leftovers are looked for while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn as_pid(pid: u32) -> Option<Pid> {
    // 0 and 1 would mean our own group and everybody.
    i32::try_from(pid).ok().filter(|pid| *pid > 1).map(Pid::from_raw)
}

/// Signals the whole group of a slot's leader, if it is certain that it is still that slot's.
fn signal_group(running: &Running, mark: &Mark, signal: Signal) {
    if (running.is_unreaped_child() || running.id.is_slot(mark))
        && let Some(group) = as_pid(running.id.pid)
        && let Err(error) = killpg(group, signal)
    {
        tracing::debug!(%group, %error, "the group is gone already");
    }
}

/// SIGTERM to the group, SIGKILL to what is left after `grace`. Says how the leader ended.
pub(crate) async fn end(running: &mut Running, mark: &Mark, grace: Duration) -> Option<String> {
    let until = Instant::now() + grace;
    signal_group(running, mark, Signal::SIGTERM);
    let mut exit = tokio::time::timeout(grace, running.ended()).await.ok();
    while exit.is_some() && Instant::now() < until && any_left(mark).await {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    if exit.is_none() {
        signal_group(running, mark, Signal::SIGKILL);
        exit = tokio::time::timeout(KILLED_WITHIN, running.ended()).await.ok();
    }
    kill_leftovers(mark).await;
    exit
}

async fn left(mark: &Mark) -> Vec<identity::ProcessId> {
    let mark = mark.clone();
    // Reads /proc of every process of this machine: too slow for the threads that carry traffic.
    tokio::task::spawn_blocking(move || identity::marked(&mark)).await.unwrap_or_default()
}

async fn any_left(mark: &Mark) -> bool {
    !left(mark).await.is_empty()
}

/// Kills whatever still carries the slot's mark: a worker whose arbiter was killed goes on serving and keeps the port.
pub(crate) async fn kill_leftovers(mark: &Mark) {
    let until = Instant::now() + KILLED_WITHIN;
    loop {
        let left = left(mark).await;
        if left.is_empty() {
            return;
        }
        if Instant::now() > until {
            tracing::error!(?left, "processes of a slot cannot be killed");
            return;
        }
        for process in left.iter().filter(|process| process.is_slot(mark)) {
            if let Some(pid) = as_pid(process.pid) {
                // Gone meanwhile is as good.
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
