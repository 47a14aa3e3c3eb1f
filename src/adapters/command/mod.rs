//! Programs that workflows run. Each has a process group with a guard ([`group`]), a thread of ours for its whole life ([`job`]), and a
//! record of how it ended ([`record`]).

mod failure;
mod group;
mod job;
mod lines;
mod record;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::job::{Ended, Failed, Job, MAX_STDOUT};
use self::lines::cut;
use self::record::Record;
use super::files::{self, io_error};
use super::secret_value;
use crate::ports::{
    CommandRunner, LastRun, PortError, Program, ProgramCall, ProgramEnd, Progress, Purpose, Secrets, Stdout,
};

/// Programs at once: a fan-out over a long list must not fill the machine. Each has a guard, a thread and five descriptors.
const MOST_AT_ONCE: usize = 64;
/// Lines on their way to the progress sink; more are not shown.
const QUEUE_LINES: usize = 256;
/// So much of an output that cannot be read is shown.
const EXCERPT_BYTES: usize = 400;

/// Runs programs on this machine.
#[derive(Debug, Clone)]
pub struct LocalCommands {
    /// Folder of the records, absolute.
    records: PathBuf,
    turns: Arc<Semaphore>,
}

impl LocalCommands {
    /// Runs programs for the home at `home`.
    pub fn new(home: &Path) -> Self {
        Self { records: home.join("commands"), turns: Arc::new(Semaphore::new(MOST_AT_ONCE)) }
    }

    fn record(&self, call: &ProgramCall) -> PathBuf {
        record::path(&self.records, &call.thread, &call.token, call.purpose)
    }
}

#[async_trait]
impl CommandRunner for LocalCommands {
    async fn run(&self, call: &ProgramCall, progress: &dyn Progress) -> Result<ProgramEnd, PortError> {
        // Closed by nobody.
        let _turn = self.turns.acquire().await;
        let path = self.record(call);
        end_left_over(&path, &call.token).await?;
        let (job, secrets) = prepare(call)?;
        let shown = failure::shown(&call.program, &secrets);
        let done = supervised(job, &call.token, &path, progress).await;
        let end = done.map_err(|failed| failure::not_run(failed, &shown, &call.program)).and_then(|ended| {
            match failure::of_end(&ended, &shown, &call.program, &secrets) {
                None => Ok(output(&ended, call.program.stdout, &secrets)),
                Some(error) => Err(error),
            }
        });
        let record = match &end {
            Ok(end) => Record::Done { end: end.clone() },
            Err(error) if crate::ports::CUT_OFF.contains(&error.code.as_str()) => {
                Record::CutOff { why: error.message.clone() }
            }
            Err(_) => Record::Failed,
        };
        let written = blocking(move || record.write(&path).map_err(|e| io_error("write", &path, &e))).await;
        match end {
            // The engine's receipt is the record that counts; ours only helps who comes in between.
            Ok(end) => Ok(end),
            Err(error) => written.and(Err(error)),
        }
    }

    async fn last(&self, thread: &str, token: &str, purpose: Purpose) -> Result<LastRun, PortError> {
        let path = record::path(&self.records, thread, token, purpose);
        Ok(match end_left_over(&path, token).await? {
            None => LastRun::Never,
            Some(Record::Done { end }) => LastRun::Done(end),
            Some(Record::Failed) => LastRun::Failed,
            Some(Record::CutOff { why }) => LastRun::CutOff(why),
            Some(Record::Running { .. }) => LastRun::CutOff("its program was begun, and nobody saw its end".to_owned()),
        })
    }

    async fn forget(&self, thread: &str) -> Result<(), PortError> {
        let folder = record::folder(&self.records, thread);
        // Most threads have started none: asking that is nothing to hand over to another thread.
        if matches!(std::fs::symlink_metadata(&folder), Err(e) if e.kind() == std::io::ErrorKind::NotFound) {
            return Ok(());
        }
        blocking(move || files::remove_all(&folder).map_err(|e| io_error("remove", &folder, &e))).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PortError> + Send + 'static,
) -> Result<T, PortError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| {
        Err(PortError::new("internal", "a thread that watches programs ended").because(e.to_string()))
    })
}

/// What the record says; a program that still runs by it is ended first.
async fn end_left_over(path: &Path, token: &str) -> Result<Option<Record>, PortError> {
    let (path, token) = (path.to_owned(), token.to_owned());
    blocking(move || {
        let found = Record::read(&path).map_err(|e| io_error("read", &path, &e))?;
        if let Some(Record::Running { group, boot_id }) = &found
            && *boot_id == record::boot_id()
        {
            group::end_left(*group, &token).map_err(|error| {
                PortError::new("command_start_failed", "a program that was left over could not be ended")
                    .because(error.to_string())
                    .retryable()
            })?;
        }
        Ok(found)
    })
    .await
}

fn prepare(call: &ProgramCall) -> Result<(Job, Secrets), PortError> {
    let Program { argv, cwd, env, env_from, stdin, stdout, .. } = &call.program;
    let (values, secrets) = secret_value::read_all(env_from)?;
    let mut variables = env.clone();
    variables.extend(values);
    let about = [
        ("TIDEGATE_THREAD", call.thread.as_str()),
        ("TIDEGATE_NODE", &call.node),
        ("TIDEGATE_TOKEN", &call.token),
        ("TIDEGATE_PURPOSE", call.purpose.word()),
    ];
    variables.extend(about.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let mut stdin = stdin.to_string().into_bytes();
    stdin.push(b'\n');
    let job = Job {
        argv: argv.clone(),
        cwd: cwd.as_ref().map(PathBuf::from),
        env: variables,
        stdin,
        stdout: *stdout,
        secrets: secrets.clone(),
    };
    Ok((job, secrets))
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a job on a thread of its own and passes on what it says. Dropping the future ends the job.
async fn supervised(job: Job, token: &str, path: &Path, progress: &dyn Progress) -> Result<Ended, Failed> {
    let (lines, mut incoming) = mpsc::channel(QUEUE_LINES);
    let (done, result) = oneshot::channel();
    let cancelled = Arc::new(AtomicBool::new(false));
    let _cancel_on_drop = CancelOnDrop(cancelled.clone());
    let (token, path) = (token.to_owned(), path.to_owned());
    // A thread of its own: it polls the program's pipes for the program's whole life.
    let thread = std::thread::Builder::new().name("command".to_owned());
    let body = move || {
        let on_group = Box::new(move |group| Record::running(group).write(&path));
        let _ = done.send(job::run(job, &token, on_group, lines, &cancelled));
    };
    thread.spawn(body).map_err(Failed::Start)?;
    while let Some(line) = incoming.recv().await {
        progress.line(&line);
    }
    result.await.unwrap_or_else(|_| Err(Failed::Lost(std::io::Error::other("the thread that watched it ended"))))
}

/// A program's output as it was to be read, without its secrets.
fn output(ended: &Ended, how: Stdout, secrets: &Secrets) -> ProgramEnd {
    let code = ended.code;
    let unreadable = |why: String, bytes: &[u8]| {
        let mut excerpt = String::from_utf8_lossy(bytes).into_owned();
        secrets.clean(&mut excerpt);
        cut(&mut excerpt, EXCERPT_BYTES);
        ProgramEnd { code, output: Value::Null, unreadable: Some(format!("{why}\n{excerpt}").trim_end().to_owned()) }
    };
    if ended.written > MAX_STDOUT {
        return unreadable(format!("it has {} bytes, more than {MAX_STDOUT}", ended.written), &ended.stdout);
    }
    let read = match how {
        Stdout::Ignore => Ok(Value::Null),
        Stdout::Text => std::str::from_utf8(&ended.stdout)
            .map(|text| Value::String(text.trim_end_matches(['\r', '\n']).to_owned()))
            .map_err(|error| error.to_string()),
        Stdout::Json if ended.stdout.iter().all(u8::is_ascii_whitespace) => Ok(Value::Null),
        Stdout::Json => serde_json::from_slice(&ended.stdout).map_err(|error| error.to_string()),
    };
    match read {
        Ok(mut output) => {
            secrets.clean_json(&mut output);
            ProgramEnd { code, output, unreadable: None }
        }
        Err(why) => unreadable(why, &ended.stdout),
    }
}

#[cfg(test)]
mod tests;
