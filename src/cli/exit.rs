//! Exit codes, documented in `docs/exit-codes.md`.

use std::process::ExitCode;

use crate::graph::{Failure, ThreadStatus};

/// Codes of what is wrong with the command line, or with what it names.
const USAGE: [&str; 57] = [
    "link_unknown",
    "link_invalid",
    "key_invalid",
    "key_unknown",
    "listen_not_local",
    "listen_refused",
    "recording_invalid",
    "rule_invalid",
    "usage",
    "path_not_found",
    "release_file_missing",
    "release_file_invalid",
    "request_invalid",
    "request_value",
    "request_incomplete",
    "no_thread",
    "no_interrupt",
    "no_checkpoint",
    "checkpoint_ambiguous",
    "bad_thread_id",
    "bad_schema",
    "bad_parameters",
    "workflow_name",
    "workflow_unknown",
    "workflow_unreadable",
    "unknown_input",
    "bad_json",
    "bad_updates",
    "file_unreadable",
    "environment_unknown",
    "requirements_missing",
    "env_file_missing",
    "decision_unexplained",
    "bad_answer",
    "settings_invalid",
    "bad_input",
    "path_escapes_project",
    "question_ambiguous",
    "thread_ambiguous",
    "not_an_approval",
    "export_damaged",
    "export_format",
    "export_unsealed",
    "export_unknown",
    "model_unknown",
    "release_unknown",
    "unknown_key",
    "bad_workflow",
    "path_escapes",
    "subgraph_circle",
    "bad_expression",
    "path_not_utf8",
    "is_an_approval",
    "no_files",
    "undeclared_channel",
    "unknown_node",
    "channel_type",
];

/// Codes of what is wrong with a workflow file; a run that meets one of them later is a failed run.
const WORKFLOW: [&str; 34] = [
    "missing_key",
    "unsupported_version",
    "misplaced_key",
    "bad_subgraph",
    "unknown_node_type",
    "bad_retry",
    "unreachable_case",
    "bad_edge",
    "route_open",
    "unknown_name",
    "reserved_name",
    "bad_reducer",
    "too_deep",
    "workflow_too_large",
    "bad_input_schema",
    "bad_outcome",
    "duplicate",
    "no_entry",
    "endless_cycle",
    "barrier_unfillable",
    "never_due",
    "never_written",
    "never_read",
    "unreachable_node",
    "invalid_concurrent_update",
    "send_unreadable",
    "send_conflict",
    "zero_duration",
    "handler_circle",
    "defer_ignored",
    "bad_retention",
    "bad_step_timeout",
    "bad_persistence",
    "untracked_shared",
];

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: it failed; what it had done is undone.
    Failed,
    /// 2: the command line or a file it names is wrong; nothing was begun.
    Usage,
    /// 3: waits for a human's decision.
    Waiting,
    /// 4: refused: somebody else holds it, decided it, or it changed.
    Refused,
    /// 5: it could not go on and can be resumed: nothing could be written.
    Resumable,
    /// 6: a person must look: an undo failed, or nobody can tell whether an effect happened.
    Stuck,
    /// 130: stopped by ctrl-C, can be resumed.
    Stopped,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Waiting => 3,
            Self::Refused => 4,
            Self::Resumable => 5,
            Self::Stuck => 6,
            Self::Stopped => 130,
        }
    }

    /// The code that fits a failure.
    pub fn of(failure: &Failure) -> Self {
        match failure.code.as_str() {
            "lease_held"
            | "lease_lost"
            | "already_decided"
            | "own_request"
            | "not_an_approver"
            | "frozen"
            | "withdrawn"
            | "expired"
            | "changed"
            | "release_in_progress"
            | "decision_outdated"
            | "thread_over"
            | "thread_exists"
            | "thread_imported"
            | "workflow_changed"
            | "not_stuck"
            | "inbox_full"
            | "release_thread"
            | "release_over"
            | "release_unfinished"
            | "route_generation_conflict"
            | "host_is_down"
            | "server_running" => Self::Refused,
            "store_cannot_write" | "disk_full" => Self::Resumable,
            "effect_unknown" | "undo_failed" => Self::Stuck,
            code if USAGE.contains(&code) || WORKFLOW.contains(&code) => Self::Usage,
            _ => Self::Failed,
        }
    }
}

impl Exit {
    /// The code that fits how a run ended.
    pub fn of_end(status: ThreadStatus, failure: &Failure) -> Self {
        match (status, Self::of(failure)) {
            (ThreadStatus::Stuck, _) => Self::Stuck,
            // A release that met a full disk, and could be undone and recorded as failed, is over: nobody can resume it.
            (ThreadStatus::Failed | ThreadStatus::Cancelled, Self::Resumable) => Self::Failed,
            // What was begun is no mistake of the command line's any more.
            (ThreadStatus::Failed | ThreadStatus::Cancelled, Self::Usage) => Self::Failed,
            // Nobody decided in time: the release failed, while an answer that comes too late is refused.
            (ThreadStatus::Failed, _) if failure.code == "expired" => Self::Failed,
            (_, exit) => exit,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_resumable_only_while_the_run_is() {
        let full = Failure::new("disk_full", "`bentoml build` found the disk full");
        assert_eq!(Exit::of(&full), Exit::Resumable);
        assert_eq!(Exit::of_end(ThreadStatus::Failed, &full), Exit::Failed);
        let refused = Failure::new("release_in_progress", "another release is under way");
        assert_eq!(Exit::of_end(ThreadStatus::Failed, &refused), Exit::Refused);
        assert_eq!(Exit::of_end(ThreadStatus::Stuck, &full), Exit::Stuck);
    }
}
