//! The one place where adapters start processes: a command is data, one runner executes it, in bounded time, with bounded captured
//! output, in a process group of its own that ends with us.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::ports::Progress;

/// Lines of output kept for error messages: enough for a long Python traceback with its chain.
const TAIL_LINES: usize = 400;
/// A longer line is cut: nobody reads it, and a progress bar without newlines must not fill the memory.
const LINE_BYTES: usize = 4096;
/// Lines on their way to the progress sink. A slow terminal slows the child's output down, it does not fill the memory.
const QUEUE_LINES: usize = 256;
/// How often a running child is looked at for a timeout or a cancelled caller.
const TICK_MS: u16 = 50;

/// A command, ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// Variables set on top of the caller's environment.
    pub env: BTreeMap<String, String>,
    /// Variables of the caller's environment that the child must not see.
    pub env_remove: Vec<&'static str>,
    /// After this long the group is killed.
    pub timeout: Duration,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finished {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// Whether the runner killed it because its time was up.
    pub timed_out: bool,
    /// The last lines of standard output and error, in the order they came.
    pub tail: Vec<String>,
}

impl Finished {
    /// Ended by itself with code 0.
    pub(crate) fn ok(&self) -> bool {
        self.code == Some(0) && !self.timed_out
    }

    /// The last `count` lines that are not empty, as one text.
    pub(crate) fn last_lines(&self, count: usize) -> String {
        let lines: Vec<&str> = self.tail.iter().map(|line| line.trim_end()).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// How it ended, in words.
    pub(crate) fn words(&self) -> String {
        match (self.timed_out, self.code, self.signal) {
            (true, ..) => "out of time".to_owned(),
            (_, Some(code), _) => format!("exit code {code}"),
            (_, _, Some(signal)) => format!("signal {signal}"),
            (_, None, None) => "unknown".to_owned(),
        }
    }
}

/// Called with the child's process id as soon as it runs, before any of its output is read.
pub(crate) type OnSpawn = Box<dyn FnOnce(u32) -> io::Result<()> + Send>;

/// Extras of one run.
#[derive(Default)]
pub(crate) struct Extras {
    /// Where the output is also written.
    pub log: Option<File>,
    /// What to do with the process id; an error kills the child.
    pub on_spawn: Option<OnSpawn>,
}

/// Runs `command` to its end. Dropping the future kills the child's group.
pub(crate) async fn run(command: CommandLine, extras: Extras, progress: &dyn Progress) -> io::Result<Finished> {
    let (lines, mut incoming) = mpsc::channel(QUEUE_LINES);
    let (done, result) = tokio::sync::oneshot::channel();
    let cancelled = Arc::new(AtomicBool::new(false));
    let _cancel_on_drop = CancelOnDrop(cancelled.clone());
    // A thread of its own for the child's whole life: PR_SET_PDEATHSIG fires when the *thread* that forked ends, and tokio's
    // blocking threads end when they are idle.
    std::thread::Builder::new().name("child".to_owned()).spawn(move || {
        let _ = done.send(supervise(&command, extras, &lines, &cancelled));
    })?;
    while let Some(line) = incoming.recv().await {
        progress.line(&line);
    }
    result.await.unwrap_or_else(|_| Err(io::Error::other("the thread that watched the child ended")))
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The child's thread: starts it, copies its output, ends it when its time is up or nobody waits any more.
fn supervise(
    command: &CommandLine,
    mut extras: Extras,
    lines: &mpsc::Sender<String>,
    cancelled: &AtomicBool,
) -> io::Result<Finished> {
    let (reader, mut child) = spawn(command)?;
    let group = Pid::from_raw(child.id() as i32);
    if let Some(on_spawn) = extras.on_spawn.take()
        && let Err(error) = on_spawn(child.id())
    {
        let _ = killpg(group, Signal::SIGKILL);
        child.wait()?;
        return Err(error);
    }
    let mut output = Output { partial: Vec::new(), tail: VecDeque::new(), log: extras.log, lines };
    let outcome = copy_until_end(reader, &mut child, command.timeout, cancelled, &mut output);
    // Whatever is left of the group (a grandchild that kept the pipe open) must not outlive the command.
    let _ = killpg(group, Signal::SIGKILL);
    let status = child.wait()?;
    let timed_out = outcome?;
    output.finish();
    Ok(finished(status, timed_out, output.tail.into()))
}

fn finished(status: ExitStatus, timed_out: bool, tail: Vec<String>) -> Finished {
    Finished { code: status.code(), signal: status.signal(), timed_out, tail }
}

/// Starts the child with both outputs in one pipe.
fn spawn(command: &CommandLine) -> io::Result<(PipeReader, Child)> {
    let (program, arguments) = command.argv.split_first().ok_or_else(|| io::Error::other("an empty command"))?;
    let (reader, writer) = io::pipe()?;
    let mut builder = Command::new(program);
    builder.args(arguments).current_dir(&command.cwd).envs(&command.env);
    for name in &command.env_remove {
        builder.env_remove(name);
    }
    builder.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    die_with_us(&mut builder);
    Ok((reader, builder.spawn()?))
}

/// Asks the kernel to kill the child when we are killed: a build must not go on unseen.
#[cfg(target_os = "linux")]
fn die_with_us(builder: &mut Command) {
    let us = std::process::id();
    let set = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // We may have been killed between the fork and the line above: then nobody would be told.
        if nix::unistd::getppid().as_raw() as u32 == us { Ok(()) } else { Err(io::Error::from_raw_os_error(3)) }
    };
    // SAFETY: between fork and exec only prctl and getppid are called, both are async-signal-safe, and nothing is allocated.
    #[allow(unsafe_code)]
    unsafe {
        builder.pre_exec(set);
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_us(_builder: &mut Command) {}

/// Copies output until the pipe closes or the child is gone; kills the group when it must not go on. Whether time was up.
fn copy_until_end(
    mut reader: PipeReader,
    child: &mut Child,
    timeout: Duration,
    cancelled: &AtomicBool,
    output: &mut Output<'_>,
) -> io::Result<bool> {
    let deadline = Instant::now() + timeout;
    let mut buffer = [0; 16 * 1024];
    loop {
        if cancelled.load(Ordering::Relaxed) {
            return Ok(false);
        }
        if Instant::now() >= deadline {
            return Ok(true);
        }
        let mut ready = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(TICK_MS)).unwrap_or(0) > 0 {
            let count = reader.read(&mut buffer)?;
            if count > 0 {
                output.take(&buffer[..count])?;
                continue;
            }
        }
        // Silence, or the pipe is closed: over once the child itself has ended (a daemon it left may keep the pipe open).
        if child.try_wait()?.is_some() {
            return Ok(false);
        }
        if ready_closed(&reader) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Whether every writer has closed the pipe, so that `poll` no longer waits.
fn ready_closed(reader: &PipeReader) -> bool {
    let mut ready = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut ready, PollTimeout::ZERO), Ok(1))
        && ready[0].revents().is_some_and(|seen| seen == PollFlags::POLLHUP)
}

/// Cuts bytes into lines and hands them on.
struct Output<'a> {
    partial: Vec<u8>,
    tail: VecDeque<String>,
    log: Option<File>,
    lines: &'a mpsc::Sender<String>,
}

impl Output<'_> {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(log) = &mut self.log {
            log.write_all(bytes)?;
        }
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                _ if self.partial.len() < LINE_BYTES => self.partial.push(byte),
                _ => {}
            }
        }
        Ok(())
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.partial).trim_end_matches('\r').to_owned();
        self.partial.clear();
        // Nobody listens any more: the caller is gone and the next tick ends the child.
        let _ = self.lines.blocking_send(line.clone());
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    fn finish(&mut self) {
        if !self.partial.is_empty() {
            self.end_line();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Quiet;

    fn sh(script: &str, timeout_ms: u64) -> CommandLine {
        CommandLine {
            argv: vec!["sh".into(), "-c".into(), script.into()],
            cwd: std::env::temp_dir(),
            env: BTreeMap::from([("A".into(), "1".into())]),
            env_remove: vec![],
            timeout: Duration::from_millis(timeout_ms),
        }
    }

    #[tokio::test]
    async fn output_and_code_come_back() {
        let ended =
            run(sh("echo $A; echo two >&2; printf three; exit 3", 5000), Extras::default(), &Quiet).await.unwrap();
        assert_eq!((ended.code, ended.tail.as_slice()), (Some(3), &["1".into(), "two".into(), "three".into()][..]));
        assert_eq!((ended.last_lines(2), ended.words()), ("two\nthree".into(), "exit code 3".into()));
    }

    #[tokio::test]
    async fn time_is_bounded_and_the_group_goes_with_it() {
        let ended = run(sh("sleep 60 & echo $!; wait", 200), Extras::default(), &Quiet).await.unwrap();
        assert!(ended.timed_out && !ended.ok());
        assert_gone(ended.tail[0].parse().unwrap());
    }

    #[tokio::test]
    async fn a_daemon_that_keeps_the_pipe_does_not_hold_us() {
        let began = Instant::now();
        let ended = run(sh("sleep 60 & echo $!", 30_000), Extras::default(), &Quiet).await.unwrap();
        assert!(ended.ok() && began.elapsed() < Duration::from_secs(5));
        assert_gone(ended.tail[0].parse().unwrap());
    }

    #[tokio::test]
    async fn dropping_the_future_ends_the_group() {
        let (send, receive) = std::sync::mpsc::channel();
        let extras =
            Extras { log: None, on_spawn: Some(Box::new(move |pid| send.send(pid).map_err(io::Error::other))) };
        let running = run(sh("sleep 60", 60_000), extras, &Quiet);
        assert!(tokio::time::timeout(Duration::from_millis(200), running).await.is_err());
        assert_gone(receive.recv().unwrap());
    }

    fn assert_gone(pid: u32) {
        let gone = |_| {
            std::thread::sleep(Duration::from_millis(20));
            !std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
        };
        assert!((0..100).any(gone), "process {pid} is still there");
    }
}
