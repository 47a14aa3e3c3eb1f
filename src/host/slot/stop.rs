//! Ending a slot's processes, and nobody else's.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::process::Running;
use crate::host::identity::{self, Mark, ProcessId};

/// SIGKILL takes effect at once unless the process hangs in the kernel; then we go on without it.
const KILLED_WITHIN: Duration = Duration::from_secs(5);
/// How often leftovers are looked for while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn as_pid(pid: u32) -> Option<Pid> {
    // 0 and 1 would mean our own group and everybody.
    i32::try_from(pid).ok().filter(|pid| *pid > 1).map(Pid::from_raw)
}

/// Whether the pid of a slot's leader, and with it its group and its session, is certainly still that slot's.
fn is_certain(running: &Running, mark: &Mark) -> bool {
    running.is_unreaped_child() || running.id.is_slot(mark)
}

/// Signals the whole group of a slot's leader.
fn signal_group(running: &Running, mark: &Mark, signal: Signal) {
    if is_certain(running, mark)
        && let Some(group) = as_pid(running.id.pid)
        && let Err(error) = killpg(group, signal)
    {
        tracing::debug!(%group, %error, "the group is gone already");
    }
}

/// Who belongs to a slot by its leader's session and by descent. Some workers show no mark, and in a session of their own they can be
/// found only as long as the leader is there; without it nobody is.
pub(crate) async fn family(running: &Running, mark: &Mark) -> Vec<ProcessId> {
    if !is_certain(running, mark) {
        return Vec::new();
    }
    let leader = running.id.pid;
    let family = tokio::task::spawn_blocking(move || identity::family(leader)).await.unwrap_or_default();
    if is_certain(running, mark) { family } else { Vec::new() }
}

/// SIGTERM to the group, SIGKILL to what is left after `grace`. Says how the leader ended.
pub(crate) async fn end(running: &mut Running, mark: &Mark, grace: Duration) -> Option<String> {
    let until = Instant::now() + grace;
    let mut known = family(running, mark).await;
    signal_group(running, mark, Signal::SIGTERM);
    let mut exit = tokio::time::timeout(grace, running.ended()).await.ok();
    while exit.is_some() && Instant::now() < until && !left(mark, &known).await.is_empty() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    if exit.is_none() {
        // Those that came since.
        known.extend(family(running, mark).await);
        signal_group(running, mark, Signal::SIGKILL);
        exit = tokio::time::timeout(KILLED_WITHIN, running.ended()).await.ok();
    }
    kill_leftovers(mark, &known).await;
    exit
}

/// The living among the known, and whoever carries the mark.
async fn left(mark: &Mark, known: &[ProcessId]) -> Vec<ProcessId> {
    let (mark, known) = (mark.clone(), known.to_vec());
    // Reads /proc of every process of this machine: too slow for the threads that carry traffic.
    let look = move || {
        let mut left = identity::marked(&mark);
        left.extend(known.into_iter().filter(ProcessId::lives));
        left
    };
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}

/// Kills whatever still carries the slot's mark, or is `known` to be its own: a worker whose arbiter was killed goes on serving and keeps
/// the port.
pub(crate) async fn kill_leftovers(mark: &Mark, known: &[ProcessId]) {
    let until = Instant::now() + KILLED_WITHIN;
    loop {
        let left = left(mark, known).await;
        if left.is_empty() {
            return;
        }
        if Instant::now() > until {
            tracing::error!(?left, "processes of a slot cannot be killed");
            return;
        }
        let certain = |process: &&ProcessId| process.is_slot(mark) || (known.contains(process) && process.lives());
        for process in left.iter().filter(certain) {
            if let Some(pid) = as_pid(process.pid) {
                // Gone meanwhile is as good.
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
