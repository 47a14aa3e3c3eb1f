//! A slot's process: started in a session of its own, or adopted; watched until it ends.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use process_wrap::tokio::{ChildWrapper, CommandWrap, ProcessSession};

use super::{env, log, log_path, scratch};
use crate::host::core::Core;
use crate::host::identity::ProcessId;
use crate::host::state::{HostState, SlotRecord};
use crate::host::{HostError, sys};

/// How often an adopted process is looked at where the kernel has no pidfd (before 5.3).
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Tries to find a port that no other slot was promised; the kernel picks at random among some 28,000.
const PORT_TRIES: usize = 64;

/// The process of a slot.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) id: ProcessId,
    /// Our child, unless it was adopted.
    child: Option<Box<dyn ChildWrapper>>,
}

impl Running {
    /// A process that an earlier daemon has started.
    pub(crate) fn adopted(id: ProcessId) -> Self {
        Self { id, child: None }
    }

    /// Whether it is our child and was not waited for: then its pid, and its group's, cannot have been given to anybody else.
    pub(crate) fn is_unreaped_child(&self) -> bool {
        self.child.as_ref().is_some_and(|child| child.id().is_some())
    }

    /// Waits until it has ended; says how, in words.
    pub(crate) async fn ended(&mut self) -> String {
        match &mut self.child {
            // The inner child: the wrapper would wait for the whole group.
            Some(child) => match child.inner_mut().wait().await {
                Ok(status) => in_words(status),
                Err(error) => format!("ended, and waiting for it failed: {error}"),
            },
            None => {
                self.gone().await;
                "ended (how is not known: an earlier daemon had started it)".to_owned()
            }
        }
    }

    /// Waits until it has ended, and does not take its pid from it: a child is a zombie afterwards, until [`Running::ended`].
    pub(crate) async fn gone(&self) {
        if let Ok(watch) = sys::pidfd_open(self.id.pid).and_then(sys::watch) {
            // Opened first, identified second: what is watched is the process that was meant, or it is gone already.
            if self.id.lives() {
                // An error means that it cannot be watched; the loop below decides.
                let _ = watch.readable().await;
            }
        }
        while self.id.lives() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Starts the slot's program at `record.port`. The intent is on record already, so a crash from here on ends in adoption.
pub(crate) async fn spawn(core: &Core, record: &SlotRecord) -> Result<Running, HostError> {
    let request = &record.request;
    let failed = |cause: String| HostError::SpawnFailed { token: request.token.clone(), cause };
    let file = match &request.env_file {
        Some(path) => Some(env::read(path).await?),
        None => None,
    };
    if let Some(file) = &file {
        core.secrets.note(request, file);
    }
    if !request.cwd.is_dir() {
        return Err(failed(format!("the working directory {} does not exist", request.cwd.display())));
    }
    let path = log_path(request);
    let anew = path.exists();
    let log = log::open(&path).map_err(|e| failed(format!("{}: {e}", path.display())))?;
    if anew && let Err(error) = log::begin_anew(&log) {
        // A full disk must not keep a service from coming back.
        tracing::warn!(token = request.token, %error, "cannot note the start in the slot's log");
    }
    let log_too = log.try_clone().map_err(|e| failed(e.to_string()))?;
    let scratch = scratch::make(scratch::folder(&core.paths.home, &request.token)).await;
    let env = env::build(request, file, record.port, &core.paths.home, scratch);
    let argv: Vec<String> = request.argv.iter().map(|arg| env::with_port(arg, record.port)).collect();
    let (program, args) = argv.split_first().ok_or_else(|| failed("argv is empty".to_owned()))?;
    let mut command = CommandWrap::with_new(program, |command| {
        command.args(args).current_dir(&request.cwd).env_clear().envs(&env);
        command.stdin(Stdio::null()).stdout(Stdio::from(log)).stderr(Stdio::from(log_too));
    });
    let child = command.wrap(ProcessSession).spawn().map_err(|e| failed(format!("{program}: {e}")))?;
    let pid = child.id().ok_or_else(|| failed("it ended before it could be seen".to_owned()))?;
    Ok(Running { id: ProcessId::of_child(pid), child: Some(child) })
}

/// A port that is free now and promised to no slot.
pub(crate) fn free_port(state: &HostState) -> Result<u16, HostError> {
    let doing = "finding a free port";
    for _ in 0..PORT_TRIES {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(HostError::io(doing))?;
        let port = listener.local_addr().map_err(HostError::io(doing))?.port();
        if state.slots.values().all(|slot| slot.port != port) {
            return Ok(port);
        }
    }
    Err(HostError::io(doing)(std::io::Error::other("every port offered belongs to a slot")))
}

/// Whether a program could listen there now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
