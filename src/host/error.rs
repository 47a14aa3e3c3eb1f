//! What can go wrong in the host daemon and on the way to it, each with a stable code and what to do next.

use std::path::PathBuf;

use crate::ports::PortError;

/// Every failure of this room. `Display` says what happened; [`HostError::to_port`] adds cause, hint and retryability.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message names its fields")]
pub enum HostError {
    /// The daemon answered with an error of its own.
    #[error("{0}")]
    Remote(PortError),
    /// Nothing answers on the admin socket.
    #[error("the host daemon of {} does not answer", home.display())]
    Unreachable { home: PathBuf, cause: String },
    /// It was started and did not come up in time.
    #[error("the host daemon of {} did not start within {waited_ms} ms", home.display())]
    StartTimeout { home: PathBuf, waited_ms: u64, log: PathBuf },
    /// The public address belongs to somebody else.
    #[error("the public address {addr} is taken{}", owner.as_deref().map(|o| format!(" by {o}")).unwrap_or_default())]
    PublicPortTaken { addr: String, owner: Option<String> },
    /// The daemon already serves elsewhere than asked for.
    #[error("the host daemon serves at {current}, not at {wanted}")]
    PublicAddrDiffers { current: String, wanted: String },
    /// The folder for the admin socket is not ours alone.
    #[error("the folder {} for the admin socket is not safe: {why}", dir.display())]
    UnsafeSocketDir { dir: PathBuf, why: String },
    /// Another keeper or daemon already holds this home.
    #[error("another {what} already serves the home {}", home.display())]
    AlreadyRunning { what: &'static str, home: PathBuf },
    /// The state file cannot be understood.
    #[error("the host's state file {} cannot be read", path.display())]
    StateCorrupt { path: PathBuf, cause: String },
    /// The state file cannot be written; nothing was changed.
    #[error("the host's state cannot be written to {}; nothing was changed", path.display())]
    StateUnwritable { path: PathBuf, cause: String },
    /// A request that can never work.
    #[error("{message}")]
    Invalid { message: String, hint: &'static str },
    /// No slot has this token.
    #[error("there is no slot {token}")]
    NoSuchSlot { token: String },
    /// The token belongs to a slot that was asked for differently.
    #[error("the slot {token} exists with another request")]
    TokenConflict { token: String },
    /// The slot serves, or stands by for, a model.
    #[error("the slot {token} is {role} of model {model}")]
    SlotRouted { token: String, model: String, role: &'static str },
    /// The slot does not run.
    #[error("the slot {token} does not run: {why}")]
    SlotNotRunning { token: String, why: String },
    /// The slot's program could not be started.
    #[error("the slot {token} cannot be started")]
    SpawnFailed { token: String, cause: String },
    /// The file of variables is not readable or not in the form KEY=value; never shows a value.
    #[error("the environment file {}: {why}", path.display())]
    EnvFile { path: PathBuf, why: String },
    /// Somebody else changed the route.
    #[error("the route of {model} is at generation {actual}, not at {expected}")]
    GenerationConflict { model: String, expected: u64, actual: u64 },
    /// A stale owner of a thread asked for a change.
    #[error("epoch {epoch} of thread {thread} is stale: epoch {seen} was seen")]
    StaleFence { thread: String, epoch: u64, seen: u64 },
    /// `down` was asked for; `up` was not.
    #[error("this home is down")]
    Down,
    /// The daemon is about to end; the next one carries it out.
    #[error("the host daemon is about to end")]
    Ending,
    /// An operating system call failed.
    #[error("{doing}")]
    Io { doing: String, source: std::io::Error },
}

impl HostError {
    /// Wraps an I/O error with what was being done.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// A request that can never work, and what to do instead.
    pub fn invalid(message: impl Into<String>, hint: &'static str) -> Self {
        Self::Invalid { message: message.into(), hint }
    }

    /// The stable code, documented in `docs/errors/`.
    pub fn code(&self) -> &str {
        match self {
            Self::Remote(error) => &error.code,
            Self::Unreachable { .. } => "host_unreachable",
            Self::StartTimeout { .. } => "host_start_timeout",
            Self::PublicPortTaken { .. } => "public_port_taken",
            Self::PublicAddrDiffers { .. } => "public_addr_differs",
            Self::UnsafeSocketDir { .. } => "unsafe_socket_dir",
            Self::AlreadyRunning { .. } => "host_already_running",
            Self::StateCorrupt { .. } => "host_state_corrupt",
            Self::StateUnwritable { .. } => "host_state_unwritable",
            Self::Invalid { .. } => "invalid_host_request",
            Self::NoSuchSlot { .. } => "no_such_slot",
            Self::TokenConflict { .. } => "slot_token_conflict",
            Self::SlotRouted { .. } => "slot_is_routed",
            Self::SlotNotRunning { .. } => "slot_not_running",
            Self::SpawnFailed { .. } => "slot_spawn_failed",
            Self::EnvFile { .. } => "env_file_malformed",
            Self::GenerationConflict { .. } => "route_generation_conflict",
            Self::StaleFence { .. } => "stale_fence",
            Self::Down => "host_is_down",
            Self::Ending => "host_ending",
            Self::Io { .. } => "host_io",
        }
    }

    /// HTTP status of the admin API's answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::NoSuchSlot { .. } => 404,
            Self::Invalid { .. } | Self::EnvFile { .. } => 400,
            Self::TokenConflict { .. }
            | Self::SlotRouted { .. }
            | Self::SlotNotRunning { .. }
            | Self::GenerationConflict { .. }
            | Self::StaleFence { .. }
            | Self::PublicPortTaken { .. }
            | Self::PublicAddrDiffers { .. }
            | Self::AlreadyRunning { .. }
            | Self::Down
            | Self::Ending => 409,
            Self::StateUnwritable { .. } => 507,
            Self::Remote(_)
            | Self::Unreachable { .. }
            | Self::StartTimeout { .. }
            | Self::UnsafeSocketDir { .. }
            | Self::StateCorrupt { .. }
            | Self::SpawnFailed { .. }
            | Self::Io { .. } => 500,
        }
    }

    fn cause(&self) -> Option<String> {
        match self {
            Self::Unreachable { cause, .. }
            | Self::StateCorrupt { cause, .. }
            | Self::StateUnwritable { cause, .. }
            | Self::SpawnFailed { cause, .. } => Some(cause.clone()),
            Self::Io { source, .. } => Some(source.to_string()),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Remote(_) | Self::Io { .. } => return None,
            Self::Unreachable { .. } => "start it with `tidegate up`".to_owned(),
            Self::StartTimeout { log, .. } => format!("its log says why: {}", log.display()),
            Self::PublicPortTaken { .. } => {
                "free that port, or choose another address (TIDEGATE_PUBLIC_ADDR)".to_owned()
            }
            Self::PublicAddrDiffers { .. } => {
                "leave the address out; a home keeps its address for life, so use another home for another address"
                    .to_owned()
            }
            Self::UnsafeSocketDir { dir, .. } => format!("remove {} or set XDG_RUNTIME_DIR", dir.display()),
            Self::AlreadyRunning { .. } => "use that one: `tidegate host status`".to_owned(),
            Self::StateCorrupt { path, .. } => {
                format!("repair it, or move it away and start slots and routes again: {}", path.display())
            }
            Self::StateUnwritable { .. } => "make room on that disk, then repeat".to_owned(),
            Self::Invalid { hint, .. } => (*hint).to_owned(),
            Self::NoSuchSlot { .. } => "`tidegate host status` lists the slots".to_owned(),
            Self::TokenConflict { .. } => "remove that slot first, or use another token".to_owned(),
            Self::SlotRouted { .. } => "switch the traffic away from it first".to_owned(),
            Self::SlotNotRunning { .. } => "start the slot again, or choose another".to_owned(),
            Self::SpawnFailed { .. } => "check the program and its working directory".to_owned(),
            Self::EnvFile { .. } => "each line is KEY=value, empty, or a # comment".to_owned(),
            Self::GenerationConflict { .. } => "read the route again and decide anew".to_owned(),
            Self::StaleFence { .. } => "another runner owns this thread now; leave the change to it".to_owned(),
            Self::Down => "run `tidegate up` first".to_owned(),
            Self::Ending => "repeat it; the next one is started where it is needed".to_owned(),
        };
        Some(text)
    }

    fn retryable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::StartTimeout { .. } | Self::StateUnwritable { .. } | Self::Ending
        )
    }

    /// Whether the one who was asked is gone, or is about to go: somebody else may be asked instead.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Unreachable { .. }) || self.code() == Self::Ending.code()
    }

    /// As data, for the wire, the journal and people.
    pub fn to_port(&self) -> PortError {
        if let Self::Remote(error) = self {
            return error.clone();
        }
        PortError {
            code: self.code().to_owned(),
            message: self.to_string(),
            cause: self.cause(),
            hint: self.hint(),
            retryable: self.retryable(),
        }
    }
}

impl From<HostError> for PortError {
    fn from(error: HostError) -> Self {
        error.to_port()
    }
}
