//! The one place that says who may do what. Every route names its action and goes through here (`routes`), and so does what a body asks for
//! beyond its route: an answer, a change of the state.

use axum::http::StatusCode;

use super::error::ApiError;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// The one person of this machine, by the name of their account: the server listens on loopback only and has no keys.
    Local(String),
}

impl Caller {
    /// The name that records get.
    pub fn name(&self) -> &str {
        match self {
            Self::Local(name) => name,
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// That the server is there.
    Greet,
    /// Looking at assistants, threads, runs.
    Look,
    /// Making and changing assistants and threads.
    Keep,
    /// Starting and stopping runs.
    Run,
    /// Answering a question, changing a state, going past a gate.
    Decide,
}

/// What it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// The server as a whole.
    Server,
    /// A thread, by its id.
    Thread(String),
    /// An assistant, by its id or its graph's name.
    Assistant(String),
}

/// Whether `caller` may do `action` to `subject`.
pub(super) fn authorise(caller: &Caller, action: Action, subject: &Subject) -> Result<(), ApiError> {
    let may = match (caller, action, subject) {
        // Only this machine can reach the server, and only its one user has the home.
        (Caller::Local(name), _, _) => !name.is_empty(),
    };
    if may { Ok(()) } else { Err(ApiError::new(StatusCode::FORBIDDEN, format!("{action:?} is not yours to do"))) }
}
