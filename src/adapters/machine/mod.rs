//! What this machine has, from `/proc`.

mod ask;

use async_trait::async_trait;

use crate::ports::{MachineFacts, PortError};
use crate::release::Machine;

pub use ask::ends_well;

/// This machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThisMachine;

#[async_trait]
impl MachineFacts for ThisMachine {
    async fn facts(&self) -> Result<Machine, PortError> {
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let cpus = std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok());
        Ok(Machine { memory_free_mb: available_mb(&memory), memory_needed_mb: None, cpu_count: cpus })
    }
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

    #[test]
    fn reads_meminfo() {
        assert_eq!(available_mb("MemTotal: 1 kB\nMemAvailable:    2048000 kB\n"), Some(2000));
        assert_eq!(available_mb(""), None);
    }
}
