//! Programs that a workflow runs: JSON in on standard input, JSON out on standard output.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{PortError, Progress, SecretSource};

/// Codes of errors after which nobody can say how far the program came.
pub const CUT_OFF: [&str; 2] = ["command_killed", "command_output_too_large"];

/// How standard output is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stdout {
    /// As one JSON value; nothing at all is null.
    #[default]
    Json,
    /// As text, without the line breaks at its end.
    Text,
    /// As lines of progress; nothing is kept.
    Ignore,
}

/// A program with everything that decides what it does. It is kept in the journal, so it holds no secret, only where secrets stand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Program and arguments; no shell reads them.
    pub argv: Vec<String>,
    /// Working directory; `None`: that of the process that runs it.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Variables beside those of the process that runs it.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Variables with secrets.
    #[serde(default)]
    pub env_from: BTreeMap<String, SecretSource>,
    /// What it reads, as JSON.
    pub stdin: Value,
    /// How its output is read.
    #[serde(default)]
    pub stdout: Stdout,
    /// Exit codes with which it has done its work.
    pub ok_codes: Vec<i32>,
}

/// What a program is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The work itself.
    Run,
    /// To find out whether the work was done.
    Probe,
    /// To take it back.
    Undo,
}

impl Purpose {
    /// Its word in file names and in the program's environment.
    pub fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Probe => "probe",
            Self::Undo => "undo",
        }
    }
}

/// One use of a program.
#[derive(Debug, Clone, PartialEq)]
pub struct ProgramCall {
    /// The program.
    pub program: Program,
    /// The thread it works for.
    pub thread: String,
    /// The node.
    pub node: String,
    /// Idempotency key: the same for every repetition.
    pub token: String,
    /// What for.
    pub purpose: Purpose,
}

/// A program that did its work, or one of which it is only known that it began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramEnd {
    /// Its exit code; `None`: it was cut off, and is told to its undo only.
    pub code: Option<i32>,
    /// Its output, as it was to be read.
    #[serde(default)]
    pub output: Value,
    /// Why the output could not be read, with the beginning of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

impl ProgramEnd {
    /// The end that nobody saw.
    pub fn cut_off() -> Self {
        Self { code: None, output: Value::Null, unreadable: None }
    }
}

/// What is known of the last use under a token.
#[derive(Debug, Clone, PartialEq)]
pub enum LastRun {
    /// It was never started.
    Never,
    /// It did its work.
    Done(ProgramEnd),
    /// It ended by itself and said that it failed, or could not be started.
    Failed,
    /// It began, and nobody knows how far it came.
    CutOff(String),
}

/// Runs programs.
#[async_trait]
pub trait CommandRunner: Send + Sync {
    /// Runs a program to its end and remembers under the token how it ended. What still runs under that token is ended first; dropping
    /// the future ends the program with everything in its process group.
    async fn run(&self, call: &ProgramCall, progress: &dyn Progress) -> Result<ProgramEnd, PortError>;
    /// What is known of the last use; what is left of it is ended first.
    async fn last(&self, thread: &str, token: &str, purpose: Purpose) -> Result<LastRun, PortError>;
    /// Forgets a thread that has ended.
    async fn forget(&self, thread: &str) -> Result<(), PortError>;
}
