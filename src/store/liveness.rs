//! Whether the process that holds a lease still lives. Linux: `/proc` tells.

use std::fs;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};

use crate::graph::{Clock, Liveness, Owner, Uptime};

/// Looks the owner up under `/proc`: alive are the processes with its pid, its start time, in its boot, that are no zombies.
///
/// A process in another PID namespace cannot be seen: a home is used from one namespace only, as SQLite's own locks want it.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcLiveness;

impl Liveness for ProcLiveness {
    fn alive(&self, owner: &Owner) -> bool {
        if boot_id().is_some_and(|ours| ours != owner.boot_id) {
            return false;
        }
        match fs::read(format!("/proc/{}/stat", owner.pid)) {
            // What cannot be read as we know it is no proof of death.
            Ok(stat) => parse(&stat).is_none_or(|seen| !seen.dead && seen.start_ticks == owner.start_ticks),
            Err(error) => {
                let gone = error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH);
                !gone
            }
        }
    }
}

/// This process as an owner; every call gives another one (by its nonce).
pub fn this_process(label: &str) -> Owner {
    static NONCE: AtomicU64 = AtomicU64::new(1);
    let start_ticks = fs::read("/proc/self/stat").ok().and_then(|stat| parse(&stat)).map_or(0, |seen| seen.start_ticks);
    Owner {
        pid: std::process::id(),
        start_ticks,
        boot_id: boot_id().unwrap_or_default().to_owned(),
        nonce: NONCE.fetch_add(1, Ordering::Relaxed),
        label: label.to_owned(),
    }
}

/// The machine's clock, with its uptime: what durable timers go by.
#[derive(Debug, Clone, Copy, Default)]
pub struct MachineClock;

impl Clock for MachineClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn uptime(&self) -> Option<Uptime> {
        // Seconds since the boot with two decimals, sleep included.
        let text = fs::read_to_string("/proc/uptime").ok()?;
        let (seconds, hundredths) = text.split_ascii_whitespace().next()?.split_once('.')?;
        let (seconds, hundredths): (u64, u64) = (seconds.parse().ok()?, hundredths.parse().ok()?);
        Some(Uptime { boot_id: boot_id()?.to_owned(), ms: seconds * 1_000 + hundredths * 10 })
    }
}

/// The boot's id: it does not change while we run.
fn boot_id() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let read = || fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned());
    BOOT.get_or_init(read).as_deref()
}

struct Seen {
    start_ticks: u64,
    dead: bool,
}

/// The line is `pid (comm) state ppid …`; comm may hold blanks and parentheses, so fields are counted behind the last `)`.
fn parse(stat: &[u8]) -> Option<Seen> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    // State is field 3, the start time is field 22.
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some(Seen { start_ticks, dead: matches!(state, "Z" | "X" | "x") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_its_like_does_not() {
        let owner = this_process("test");
        assert!(owner.start_ticks > 0 && !owner.boot_id.is_empty());
        assert_ne!(owner.nonce, this_process("test").nonce);
        assert!(ProcLiveness.alive(&owner));
        assert!(!ProcLiveness.alive(&Owner { start_ticks: owner.start_ticks + 1, ..owner.clone() }));
        assert!(!ProcLiveness.alive(&Owner { boot_id: "another".into(), ..owner.clone() }));
        assert!(!ProcLiveness.alive(&Owner { pid: u32::MAX, ..owner }));
    }

    #[test]
    fn a_zombie_is_dead() -> std::io::Result<()> {
        let mut child = std::process::Command::new("true").spawn()?;
        let pid = child.id();
        let stat = || fs::read(format!("/proc/{pid}/stat"));
        let mut seen = parse(&stat()?);
        for _ in 0..500 {
            if seen.as_ref().is_some_and(|s| s.dead) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
            seen = parse(&stat()?);
        }
        let start_ticks = seen.map_or(0, |s| s.start_ticks);
        let owner = Owner { pid, start_ticks, ..this_process("child") };
        assert!(!ProcLiveness.alive(&owner));
        child.wait().map(drop)
    }

    #[test]
    fn a_name_may_hold_parentheses() {
        let line = b"7 (a) S 1) b) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        let seen = parse(line);
        assert!(seen.is_some_and(|s| s.start_ticks == 4242 && !s.dead));
    }
}
