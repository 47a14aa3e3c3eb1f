//! A program's bad ends as errors for people.

use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::job::{Ended, Failed, MAX_STDOUT};
use super::lines::cut;
use crate::ports::{PortError, Program, Secrets};

/// Longest command line in a message.
const SHOWN_BYTES: usize = 80;
/// Longest cause.
const CAUSE_BYTES: usize = 8 * 1024;

/// A program and its arguments, for messages.
pub(super) fn shown(program: &Program, secrets: &Secrets) -> String {
    let mut line = program.argv.join(" ");
    secrets.clean(&mut line);
    cut(&mut line, SHOWN_BYTES);
    line
}

/// Why an ended program has not done its work, if it has not.
pub(super) fn of_end(ended: &Ended, shown: &str, program: &Program, secrets: &Secrets) -> Option<PortError> {
    if ended.flood {
        let error = PortError::new("command_output_too_large", format!("`{shown}` wrote without end and was ended"));
        let hint = format!("write at most {MAX_STDOUT} bytes to standard output; large things belong into files");
        return Some(error.because(format!("{} bytes of output", ended.written)).hint(hint));
    }
    let error = match (ended.code, ended.signal) {
        (Some(code), _) if program.ok_codes.contains(&code) => return None,
        (Some(code), _) => PortError::new("command_failed", format!("`{shown}` ended with exit code {code}")),
        (None, signal) => PortError::new("command_killed", format!("`{shown}` was ended by {}", word(signal))),
    };
    let said = said(ended, secrets);
    let error = if said.is_empty() { error } else { error.because(said) };
    Some(error.hint("`tidegate run export` has the input it was given: run it by hand with that").retryable())
}

/// The end of what it said: on standard error, or, where it said nothing there, on standard output.
fn said(ended: &Ended, secrets: &Secrets) -> String {
    let mut said = ended.tail.clone();
    if said.is_empty() {
        said = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
        secrets.clean(&mut said);
    }
    if said.len() > CAUSE_BYTES {
        // The end of a traceback matters most.
        let from = (said.len() - CAUSE_BYTES..said.len()).find(|at| said.is_char_boundary(*at)).unwrap_or(0);
        said = format!("…{}", &said[from..]);
    }
    said
}

fn word(signal: Option<i32>) -> String {
    let Some(number) = signal else { return "an unknown signal".to_owned() };
    let name = Signal::try_from(number).map(|signal| format!(" ({})", signal.as_str())).unwrap_or_default();
    format!("signal {number}{name}")
}

/// Why a program did not run, or got out of hand.
pub(super) fn not_run(failed: Failed, shown: &str, program: &Program) -> PortError {
    let error = match failed {
        Failed::Start(error) => error,
        // Nobody waits for it any more, or the system failed us: nothing is known of its end.
        Failed::Lost(error) => {
            return PortError::new("command_killed", format!("`{shown}` was lost hold of and ended"))
                .because(error.to_string())
                .retryable();
        }
    };
    if let Some(cwd) = program.cwd.as_deref().filter(|cwd| !Path::new(cwd).is_dir()) {
        return PortError::new("command_no_folder", format!("`{shown}` cannot be run in {cwd}"))
            .because("there is no such folder")
            .hint("make it, or mend `cwd`; a relative one counts from the workflow file's folder");
    }
    let name = program.argv.first().map(String::as_str).unwrap_or_default();
    let code = error.raw_os_error().map(Errno::from_raw);
    let failed = |code: &str, what: &str| PortError::new(code, format!("`{name}` {what}")).because(error.to_string());
    match (code, error.kind()) {
        (_, io::ErrorKind::NotFound) => not_found(name, program),
        (Some(Errno::EACCES | Errno::ENOEXEC), _) => failed("command_not_executable", "cannot be executed")
            .hint("make it executable (`chmod +x`) with a first line like `#!/bin/sh`, or name its interpreter first in `run`"),
        (_, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            failed("disk_full", "cannot be run: its record cannot be written").hint("free some space, then resume the run").retryable()
        }
        (Some(Errno::E2BIG), _) => failed("command_start_failed", "has too many or too long arguments")
            .hint("give large things on standard input"),
        _ => failed("command_start_failed", "cannot be started").retryable(),
    }
}

fn not_found(name: &str, program: &Program) -> PortError {
    let error = PortError::new("command_not_found", format!("there is no program `{name}`"));
    if !name.contains('/') {
        return error
            .because("it is in no folder of PATH")
            .hint("install it, or name its file: `./name` counts from the working directory (`cwd`)");
    }
    let file = program.cwd.as_deref().map_or_else(|| Path::new(name).to_owned(), |cwd| Path::new(cwd).join(name));
    if file.exists() {
        return error
            .because("the file is there, but the interpreter in its first line is not")
            .hint("mend its first line");
    }
    error
        .because(format!("there is no file {}", file.display()))
        .hint("mend `run`; it counts from the working directory (`cwd`)")
}
