//! One program's life on a thread of its own: started in its group, fed, listened to, ended when nobody waits for it any more.

use std::collections::BTreeMap;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;

use super::group::Group;
use super::lines::Lines;
use crate::ports::{Secrets, Stdout};

/// Most of standard output that is kept: it goes into the journal and the state.
pub(super) const MAX_STDOUT: usize = 1024 * 1024;
/// A program that writes this much is ended; up to here it may come to its own end, so that it is known how it ended.
const FLOOD: usize = 64 * MAX_STDOUT;
/// How often a running program is looked at for its end and for a caller that has gone.
const TICK_MS: u16 = 50;
/// What a pipe that is ready surely takes (POSIX's PIPE_BUF is less, Linux's 4096).
const PIPE_BYTES: usize = 512;
/// Most that is read after a program's end: more than a pipe holds. Something that it left behind may write for ever.
const LAST_READS: usize = 64;

/// What is to be run.
pub(super) struct Job {
    pub argv: Vec<String>,
    pub cwd: Option<PathBuf>,
    pub env: BTreeMap<String, String>,
    pub stdin: Vec<u8>,
    pub stdout: Stdout,
    pub secrets: Secrets,
}

/// How it ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal.
    pub signal: Option<i32>,
    /// Standard output, up to [`MAX_STDOUT`].
    pub stdout: Vec<u8>,
    /// How much there was in all.
    pub written: usize,
    /// Whether it was ended for writing without end.
    pub flood: bool,
    /// The last lines of standard error (and of output that is read as lines).
    pub tail: String,
}

/// Why there is no end to tell.
#[derive(Debug)]
pub(super) enum Failed {
    /// It could not be started.
    Start(io::Error),
    /// It ran, and we lost hold of it or gave it up.
    Lost(io::Error),
}

/// Called with the group's number before the program exists.
pub(super) type OnGroup = Box<dyn FnOnce(i32) -> io::Result<()> + Send>;

/// Runs a job to its end. Blocks; `cancelled` ends it.
pub(super) fn run(
    job: Job,
    token: &str,
    on_group: OnGroup,
    lines: mpsc::Sender<String>,
    cancelled: &AtomicBool,
) -> Result<Ended, Failed> {
    let pipes = Pipes::open().map_err(Failed::Start)?;
    let group = pipes.held().and_then(|held| Group::begin(token, held)).map_err(Failed::Start)?;
    let started = on_group(group.id()).and_then(|()| Running::start(job, &group, pipes, lines));
    let mut running = match started {
        Ok(running) => running,
        Err(error) => {
            let _ = group.end(&mut || ());
            return Err(Failed::Start(error));
        }
    };
    let watched = running.watch(&group, cancelled);
    // What it left in its group must not outlive it. Its pipes are emptied meanwhile: it may have something to say when it is asked to
    // end, and must not wait for us.
    let ended = group.end(&mut || {
        running.pump(0);
    });
    let status = running.child.wait().map_err(Failed::Lost)?;
    watched.and(ended).map_err(Failed::Lost)?;
    Ok(Ended { code: status.code(), signal: status.signal(), tail: running.lines.tail(), ..running.seen })
}

/// Each with the end that is read and the end that is written.
struct Pipes {
    stdin: (PipeReader, PipeWriter),
    stdout: (PipeReader, PipeWriter),
    stderr: (PipeReader, PipeWriter),
}

impl Pipes {
    fn open() -> io::Result<Self> {
        Ok(Self { stdin: io::pipe()?, stdout: io::pipe()?, stderr: io::pipe()? })
    }

    fn held(&self) -> io::Result<[Stdio; 2]> {
        Ok([self.stdout.0.try_clone()?.into(), self.stderr.0.try_clone()?.into()])
    }
}

struct Running {
    child: Child,
    stdin: Option<PipeWriter>,
    /// What it has not read yet.
    input: Vec<u8>,
    fed: usize,
    stdout: Option<PipeReader>,
    stderr: Option<PipeReader>,
    how: Stdout,
    lines: Lines,
    /// Standard output and how much of it there was.
    seen: Ended,
}

impl Running {
    fn start(job: Job, group: &Group, pipes: Pipes, lines: mpsc::Sender<String>) -> io::Result<Self> {
        let (program, arguments) = job.argv.split_first().ok_or_else(|| io::Error::other("an empty command"))?;
        let Pipes { stdin: (its_stdin, stdin), stdout: (stdout, its_stdout), stderr: (stderr, its_stderr) } = pipes;
        let mut command = Command::new(program);
        command.args(arguments).envs(&job.env).process_group(group.id());
        command.stdin(its_stdin).stdout(its_stdout).stderr(its_stderr);
        if let Some(cwd) = &job.cwd {
            command.current_dir(cwd);
        }
        let child = command.spawn()?;
        let lines = Lines::new(lines, job.secrets);
        Ok(Self {
            child,
            stdin: Some(stdin),
            input: job.stdin,
            fed: 0,
            stdout: Some(stdout),
            stderr: Some(stderr),
            how: job.stdout,
            lines,
            seen: Ended::default(),
        })
    }

    /// Until it has ended, writes without end, or nobody waits for it.
    fn watch(&mut self, group: &Group, cancelled: &AtomicBool) -> io::Result<()> {
        let mut looked = Instant::now();
        loop {
            if looked.elapsed() >= Duration::from_millis(TICK_MS.into()) {
                looked = Instant::now();
                if !group.is_guarded() {
                    // Were we to die now, nobody would end it.
                    return Err(io::Error::other("the guard of its process group was killed"));
                }
            }
            if cancelled.load(Ordering::Relaxed) {
                return Err(io::Error::other("nobody waits for it any more"));
            }
            if self.seen.written > FLOOD {
                self.seen.flood = true;
                return Ok(());
            }
            self.pump(TICK_MS);
            if self.child.try_wait()?.is_some() {
                break;
            }
            if self.stdout.is_none() && self.stderr.is_none() && self.stdin.is_none() {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        for _ in 0..LAST_READS {
            if !self.pump(0) {
                break;
            }
        }
        Ok(())
    }

    /// Moves what can be moved, waiting up to so long for something. Whether there was output.
    fn pump(&mut self, wait_ms: u16) -> bool {
        let [out, err, feed] = self.ready(wait_ms);
        if feed {
            self.feed();
        }
        let read = out && self.read_stdout();
        let said = err && self.read_stderr();
        read || said
    }

    /// Whether there is something on standard output, on standard error, and room on standard input (or they are closed).
    fn ready(&self, wait_ms: u16) -> [bool; 3] {
        let pipes = [
            (self.stdout.as_ref().map(AsFd::as_fd), PollFlags::POLLIN),
            (self.stderr.as_ref().map(AsFd::as_fd), PollFlags::POLLIN),
            (self.stdin.as_ref().map(AsFd::as_fd), PollFlags::POLLOUT),
        ];
        let open = pipes.iter().enumerate().filter_map(|(index, (fd, flags))| Some((index, (*fd)?, *flags)));
        let (places, mut fds): (Vec<usize>, Vec<PollFd<'_>>) =
            open.map(|(index, fd, flags)| (index, PollFd::new(fd, flags))).unzip();
        let mut ready = [false; 3];
        if !fds.is_empty() && poll(&mut fds, PollTimeout::from(wait_ms)).unwrap_or(0) > 0 {
            for (place, fd) in places.into_iter().zip(&fds) {
                ready[place] = fd.revents().is_some_and(|seen| !seen.is_empty());
            }
        }
        ready
    }

    fn feed(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        let rest = &self.input[self.fed..];
        match stdin.write(&rest[..rest.len().min(PIPE_BYTES)]) {
            Ok(count) if count < rest.len() => self.fed += count,
            // All of it; or it has closed its end: a program need not read what it is given.
            _ => self.stdin = None,
        }
    }

    fn read_stdout(&mut self) -> bool {
        let Some(bytes) = read(&mut self.stdout) else { return false };
        if self.how == Stdout::Ignore {
            self.lines.take(&bytes);
            return true;
        }
        let room = MAX_STDOUT.saturating_sub(self.seen.stdout.len());
        self.seen.stdout.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.seen.written += bytes.len();
        true
    }

    fn read_stderr(&mut self) -> bool {
        let Some(bytes) = read(&mut self.stderr) else { return false };
        self.lines.take(&bytes);
        true
    }
}

/// One read of a pipe that is ready; closes it at its end.
fn read(pipe: &mut Option<PipeReader>) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 64 * 1024];
    match pipe.as_mut()?.read(&mut buffer) {
        Ok(count) if count > 0 => {
            buffer.truncate(count);
            Some(buffer)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
        _ => {
            *pipe = None;
            None
        }
    }
}
