//! What an error of hyper's client says about whether the slot has seen the request.

use std::io::ErrorKind;

use hyper_util::client::legacy::Error;

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

/// Reads an error together with what is left of the request.
pub(super) fn read(error: &Error, job: &Job) -> Failure {
    let unsent = error.is_connect() || any_source(error, hyper::Error::is_canceled);
    if unsent && job.body.is_whole() {
        return if has_io_error(error, ErrorKind::ConnectionRefused) {
            Failure::Refused(innermost(error))
        } else {
            Failure::Unsent
        };
    }
    if job.is_safe() && has_io_error(error, ErrorKind::ConnectionReset) {
        // Reset, not closed: the kernel says that it threw away bytes which the process had not read. It died with
        // our request still in its socket's queue, so nobody saw the request; a safe one may be sent again.
        return Failure::Unsent;
    }
    if job.body.is_too_large() {
        return Failure::TooLarge;
    }
    if any_source(error, hyper::Error::is_user) {
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

/// Whether one of hyper's errors behind this one says so.
fn any_source(error: &Error, says: impl Fn(&hyper::Error) -> bool) -> bool {
    sources(error).filter_map(|source| source.downcast_ref::<hyper::Error>()).any(says)
}

fn has_io_error(error: &Error, kind: ErrorKind) -> bool {
    let mut io = sources(error).filter_map(|source| source.downcast_ref::<std::io::Error>());
    io.any(|error| error.kind() == kind)
}

/// The cause of all causes.
pub(super) fn innermost(error: &Error) -> String {
    sources(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}
