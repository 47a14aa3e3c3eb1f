//! What an attempt that brought no answer says about whether the slot has seen the request.

use std::io::ErrorKind;

use super::job::Job;

/// Why an attempt brought no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody listens at the slot's port, so nothing was sent: try again, there or elsewhere.
    Refused(String),
    /// Nothing was sent, for a reason that says nothing of the slot (no descriptors left, its backlog full): try again.
    Unsent,
    /// The client's own body broke off.
    Client,
    /// The client's body is larger than allowed.
    TooLarge,
    /// The slot may have seen it.
    Lost,
    /// The slot has seen it, and took too long.
    TooLong,
}

/// What happened to an attempt.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// There is none to be had.
    #[error("no connection to the slot")]
    NoConnection(#[source] std::io::Error),
    /// The connection ended before anything was sent.
    #[error("the connection was closed before the request")]
    NotSent,
    /// The connection ended, or what came was no answer.
    #[error("no answer")]
    Broke(#[source] hyper::Error),
    /// The connection ended without a word.
    #[error("the connection ended without an answer")]
    Gone,
    /// The client's body ended before its end.
    #[error("the client broke off")]
    ByClient,
}

/// Reads an error together with what is left of the request.
pub(super) fn read(error: &Unanswered, job: &Job) -> Failure {
    match error {
        Unanswered::NoConnection(io) if io.kind() == ErrorKind::ConnectionRefused => Failure::Refused(io.to_string()),
        Unanswered::NoConnection(_) | Unanswered::NotSent => Failure::Unsent,
        Unanswered::ByClient => Failure::Client,
        Unanswered::Gone => Failure::Lost,
        Unanswered::Broke(error) => read_broken(error, job),
    }
}

fn read_broken(error: &hyper::Error, job: &Job) -> Failure {
    if job.is_safe() && has_io_error(error, ErrorKind::ConnectionReset) {
        // Reset, not closed: the kernel says that it threw away bytes which the process had not read. It died with
        // our request still in its socket's queue, so nobody saw the request; a safe one may be sent again.
        return Failure::Unsent;
    }
    if job.body.is_too_large() {
        return Failure::TooLarge;
    }
    if error.is_user() {
        return Failure::Client;
    }
    tracing::debug!(model = job.model, error = innermost(error), "no answer");
    Failure::Lost
}

/// Everything that an error says it was caused by.
fn sources<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |error| error.source())
}

fn has_io_error(error: &hyper::Error, kind: ErrorKind) -> bool {
    let mut io = sources(error).filter_map(|source| source.downcast_ref::<std::io::Error>());
    io.any(|error| error.kind() == kind)
}

/// The cause of all causes.
fn innermost(error: &hyper::Error) -> String {
    sources(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}
