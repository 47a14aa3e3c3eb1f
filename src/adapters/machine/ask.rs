//! Asking a program whether it works.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A program that works answers at once.
const WITHIN: Duration = Duration::from_secs(5);

/// Whether a program ends well; `None`: not within a few seconds, or it cannot be started.
pub fn ends_well(program: &Path, args: &[&str]) -> Option<bool> {
    let quiet = || Stdio::null();
    let mut child = Command::new(program).args(args).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn().ok()?;
    let until = Instant::now() + WITHIN;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().ok()? {
            return Some(status.success());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // It may have ended in this very moment.
    let _ = child.kill();
    let _ = child.wait();
    None
}
