//! What this machine has, from `/proc`.

mod ask;

use async_trait::async_trait;

use crate::ports::{MachineFacts, PortError};
use crate::release::Machine;

pub use ask::ends_well;

/// What a process takes is told in steps of so many MB: the next plan is not to differ by what it allocated meanwhile.
const STEP_MB: u64 = 16;

/// This machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThisMachine;

#[async_trait]
impl MachineFacts for ThisMachine {
    async fn facts(&self) -> Result<Machine, PortError> {
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let cpus = std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok());
        Ok(Machine { memory_free_mb: available_mb(&memory), memory_needed_mb: None, workers: None, cpu_count: cpus })
    }

    async fn memory_of(&self, pid: u32) -> Result<Option<u64>, PortError> {
        let kib: u64 = family(pid, &parents()).into_iter().filter_map(memory_kib).sum();
        Ok((kib > 0).then(|| (kib / 1024).div_ceil(STEP_MB) * STEP_MB))
    }
}

/// Every process with its parent.
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| Some((pid, parent(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?)))
        .collect()
}

/// The parent in `/proc/<pid>/stat`, whose second field is a name that may hold anything.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// A process and all below it.
fn family(first: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut all = vec![first];
    let mut next = 0;
    while let Some(pid) = all.get(next).copied() {
        let children = parents.iter().filter(|(child, parent)| *parent == pid && !all.contains(child));
        all.extend(children.map(|(child, _)| *child).collect::<Vec<_>>());
        next += 1;
    }
    all
}

/// What a process has for itself and its part of what it shares (PSS), in KiB: the sum over workers that were forked is right.
fn memory_kib(pid: u32) -> Option<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?.split_whitespace().next()?.parse().ok()
}

/// `MemAvailable` of `/proc/meminfo`, in MB; `None` where the kernel does not say.
fn available_mb(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_takes_memory_with_what_it_has_started() {
        let me = std::process::id();
        let mine = ThisMachine.memory_of(me).await.expect("read").expect("this process takes memory");
        assert!(mine >= STEP_MB && mine.is_multiple_of(STEP_MB), "{mine}");
        assert!(parents().iter().any(|(pid, parent)| *pid == me && *parent == std::os::unix::process::parent_id()));
        assert_eq!(parent("7 (a) b) c) S 42 7 7"), Some(42));
        assert_eq!(family(1, &[(2, 1), (3, 2), (4, 9), (1, 3)]), [1, 2, 3]);
        assert_eq!(ThisMachine.memory_of(u32::MAX).await.expect("read"), None);
    }

    #[test]
    fn reads_meminfo() {
        assert_eq!(available_mb("MemTotal: 1 kB\nMemAvailable:    2048000 kB\n"), Some(2000));
        assert_eq!(available_mb(""), None);
    }
}
