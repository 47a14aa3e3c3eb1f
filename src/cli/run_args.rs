//! The command line of `run …`.

use clap::{Args, Subcommand, ValueEnum};

use super::stream::Mode;
use crate::workflow::TextDuration;

/// What to do with a run.
#[derive(Debug, Subcommand)]
pub enum RunCommand {
    /// Start any workflow file, or a built-in one
    #[command(
        after_help = "Examples:\n  tidegate run start my.yaml --input '{\"x\": 1}'\n  tidegate run start my.yaml --input @input.json"
    )]
    Start(StartArgs),
    /// How it stands: state, checks, the path it took, timeline
    #[command(after_help = "Example:\n  tidegate run show iris")]
    Show(ThreadArg),
    /// Everything that happened, in order
    #[command(after_help = "Example:\n  tidegate run events iris --json")]
    Events(ThreadArg),
    /// Go on with it; answers its question when a value is given
    #[command(after_help = "Examples:\n  tidegate run resume iris\n  tidegate run resume 01a1fd52 --value '\"yes\"'")]
    Resume(ResumeArgs),
    /// Go on with it as it stands
    #[command(after_help = "Example:\n  tidegate run continue 01a1fd52")]
    Continue(ContinueArgs),
    /// The same, shown as it runs: lines of JSON
    #[command(after_help = "Example:\n  tidegate run stream 01a1fd52 --mode values,updates")]
    Stream(StreamArgs),
    /// Its values, what is due next, what it asks
    #[command(
        after_help = "Examples:\n  tidegate run state 01a1fd52\n  tidegate run state 01a1fd52 --checkpoint 01a1fd53"
    )]
    State(StateArgs),
    /// Its checkpoints, newest first
    #[command(
        after_help = "Examples:\n  tidegate run history 01a1fd52 --json\n  tidegate run history 01a1fd52 --source update --limit 5"
    )]
    History(HistoryArgs),
    /// Change its state as if one of its nodes had written it
    #[command(
        after_help = "Examples:\n  tidegate run update 01a1fd52 --values '{\"x\": 1}' --as-node plan\n  tidegate run update 01a1fd52 --bulk '[[{\"values\": {\"x\": 1}, \"as_node\": \"plan\"}]]'"
    )]
    Update(UpdateArgs),
    /// Go back to a checkpoint and branch off it
    #[command(
        after_help = "Example:\n  tidegate run fork 01a1fd52 --checkpoint 01a1fd53 --values '{\"x\": 1}'\n  tidegate run continue 01a1fd52"
    )]
    Fork(ForkArgs),
    /// Send it a signal
    #[command(after_help = "Example:\n  tidegate run signal 01a1fd52 go --value '{\"share\": 0.5}'")]
    Signal(SignalArgs),
    /// Drop old checkpoints and ended runs; the audit stays
    #[command(
        after_help = "Examples:\n  tidegate run prune --ended 30d --keep 100\n  tidegate run prune 01a1fd52 --keep 10 --dry-run"
    )]
    Prune(PruneArgs),
    /// Go on with an undo that is stuck
    Undo {
        /// How
        #[command(subcommand)]
        command: UndoCommand,
    },
    /// Stop it and undo what it did since its commit point
    #[command(
        after_help = "Examples:\n  tidegate run cancel iris --reason 'wrong data'\n  tidegate run cancel iris --no-undo"
    )]
    Cancel(CancelArgs),
    /// Its whole record as JSON
    #[command(after_help = "Example:\n  tidegate run export iris > run.json")]
    Export(ThreadArg),
    /// Run its record again without touching the world
    #[command(
        after_help = "Examples:\n  tidegate run replay run.json\n  tidegate run replay iris --workflow model_deployer.yaml"
    )]
    Replay(ReplayArgs),
    /// Keep a record that was exported elsewhere: to look at, to replay, to export; nobody advances it here
    #[command(after_help = "Example:\n  tidegate run import run.json")]
    Import(ImportArgs),
}

/// Which thread.
#[derive(Debug, Args)]
pub struct ThreadArg {
    /// A thread's id, the beginning of one, or a model for its newest
    pub thread: String,
}

/// Which workflow, with what.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// The workflow's file, or a built-in name
    pub workflow: String,
    /// Its input: JSON, or @FILE of at most 1 MiB
    #[arg(long, default_value = "{}", value_name = "JSON|@FILE")]
    pub input: String,
    /// Its id [default: a fresh one]; a run that has this id gets the input and begins anew on its state
    #[arg(long, value_name = "ID")]
    pub thread: Option<String>,
    /// Refuse a workflow that has warnings
    #[arg(long)]
    pub strict: bool,
    /// How to take it on
    #[command(flatten)]
    pub how: HowArgs,
}

/// How to take a run on.
#[derive(Debug, Args)]
pub struct HowArgs {
    /// Most supersteps in this run
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub recursion_limit: u32,
    /// When its checkpoints become durable; what it does to the world is, before it is done, in all three
    #[arg(long, value_enum, default_value_t = DurabilityMode::Sync)]
    pub durability: DurabilityMode,
    /// Return at once; a detached runner goes on
    #[arg(long, conflicts_with = "stream")]
    pub detach: bool,
    /// Print what it does as lines of JSON while it does it, instead of its end
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MODES")]
    pub stream: Vec<Mode>,
}

/// When checkpoints become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DurabilityMode {
    /// Before the next superstep
    Sync,
    /// While the next superstep runs
    Async,
    /// When the run ends or waits
    Exit,
}

impl From<DurabilityMode> for crate::graph::Durability {
    fn from(mode: DurabilityMode) -> Self {
        match mode {
            DurabilityMode::Sync => Self::Sync,
            DurabilityMode::Async => Self::Async,
            DurabilityMode::Exit => Self::Exit,
        }
    }
}

/// Which thread to go on with.
#[derive(Debug, Args)]
pub struct ContinueArgs {
    /// A thread's id, the beginning of one, or a model for its newest
    pub thread: String,
    /// How to take it on
    #[command(flatten)]
    pub how: HowArgs,
}

/// Which thread to go on with, and what to show of it.
#[derive(Debug, Args)]
pub struct StreamArgs {
    /// A thread's id, the beginning of one, or a model for its newest
    pub thread: String,
    /// What to show
    #[arg(long, value_enum, value_delimiter = ',', default_value = "values", value_name = "MODES")]
    pub mode: Vec<Mode>,
    /// Most supersteps in this run
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub recursion_limit: u32,
    /// When its checkpoints become durable
    #[arg(long, value_enum, default_value_t = DurabilityMode::Sync)]
    pub durability: DurabilityMode,
}

/// Which thread, and when.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// A thread's id, the beginning of one, or a model for its newest
    pub thread: String,
    /// As it was at this checkpoint: its id, or the beginning of it
    #[arg(long, value_name = "ID")]
    pub checkpoint: Option<String>,
}

/// What to change.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// A thread's id, the beginning of one
    pub thread: String,
    /// What is written: channels with their values, as a JSON object or @FILE
    #[arg(long, value_name = "JSON|@FILE", required_unless_present = "bulk")]
    pub values: Option<String>,
    /// The node as which it is written: its edges say what is due next. START: the first nodes are; END: nothing is
    #[arg(long, value_name = "NODE", required_unless_present = "bulk")]
    pub as_node: Option<String>,
    /// Several at once, all or none: a list of supersteps, each a list of {values, as_node}, as JSON or @FILE
    #[arg(long, value_name = "JSON|@FILE", conflicts_with_all = ["values", "as_node"])]
    pub bulk: Option<String>,
}

/// Which checkpoints of which thread.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// A thread's id, the beginning of one, or a model for its newest
    pub thread: String,
    /// At most so many, the newest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// Only those older than this checkpoint: its id, or the beginning of it
    #[arg(long, value_name = "ID")]
    pub before: Option<String>,
    /// Only those that came to be in this way
    #[arg(long, value_enum)]
    pub source: Option<CameBy>,
}

/// How a checkpoint came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CameBy {
    /// A superstep ended
    Loop,
    /// Somebody changed the state from outside
    Update,
    /// Branched off another checkpoint
    Fork,
    /// New input to a run that has a past
    Input,
}

impl From<CameBy> for crate::graph::Source {
    fn from(by: CameBy) -> Self {
        match by {
            CameBy::Loop => Self::Loop,
            CameBy::Update => Self::Update,
            CameBy::Fork => Self::Fork,
            CameBy::Input => Self::Input,
        }
    }
}

/// Where to branch off.
#[derive(Debug, Args)]
pub struct ForkArgs {
    /// A thread's id, or the beginning of one
    pub thread: String,
    /// The checkpoint: its id, or the beginning of it
    #[arg(long, value_name = "ID")]
    pub checkpoint: String,
    /// What is written first: channels with their values, as a JSON object or @FILE
    #[arg(long, value_name = "JSON|@FILE")]
    pub values: Option<String>,
    /// The node as which it is written: its edges say what is due then [default: what was due at the checkpoint]
    #[arg(long, value_name = "NODE")]
    pub as_node: Option<String>,
}

/// Which signal.
#[derive(Debug, Args)]
pub struct SignalArgs {
    /// A thread's id, the beginning of one, or a model for its newest
    pub thread: String,
    /// The signal's name: up to 200 characters
    #[arg(value_parser = signal_name)]
    pub name: String,
    /// What comes with it, as JSON or @FILE
    #[arg(long, value_name = "JSON|@FILE")]
    pub value: Option<String>,
}

/// Most characters of a signal's name: whoever waits writes it in a workflow file.
const MAX_SIGNAL_NAME: usize = 200;

fn signal_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().count() > MAX_SIGNAL_NAME || text.chars().any(char::is_control) {
        return Err(format!("a signal's name has 1 to {MAX_SIGNAL_NAME} characters and no control characters"));
    }
    Ok(text.to_owned())
}

/// Which thread, with what answer.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// A thread's id, the beginning of one, or a model for its newest
    pub thread: String,
    /// The answer to its one open question, as JSON or @FILE
    #[arg(long, value_name = "JSON")]
    pub value: Option<String>,
    /// Answers by node or question id, as a JSON object or @FILE
    #[arg(long, value_name = "JSON", conflicts_with = "value")]
    pub answers: Option<String>,
    /// Digest of what was looked at, as `run state` shows it; a question that asks something else now is refused. Several: one for
    /// each answer
    #[arg(long, value_name = "SHA256", value_delimiter = ',')]
    pub digest: Vec<String>,
    /// Approve without asking, if it waits for an approval; recorded as such
    #[arg(long)]
    pub yes: bool,
    /// How to take it on
    #[command(flatten)]
    pub how: HowArgs,
}

/// What may go.
#[derive(Debug, Args)]
#[group(id = "what", required = true, multiple = true, args = ["keep", "ended"])]
pub struct PruneArgs {
    /// Only this run [default: all but those of releases]
    pub thread: Option<String>,
    /// Checkpoints but so many of the newest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep: Option<u32>,
    /// Whole runs that ended longer ago than this: 12h, 30d
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub ended: Option<std::time::Duration>,
    /// Give the room back to the disk; blocks all other commands while it works
    #[arg(long)]
    pub vacuum: bool,
    /// Only say what would go
    #[arg(long, conflicts_with = "vacuum")]
    pub dry_run: bool,
}

fn age(text: &str) -> Result<std::time::Duration, String> {
    let TextDuration(length) = serde_json::from_value(text.into()).map_err(|e: serde_json::Error| e.to_string())?;
    Ok(length)
}

/// How to go on with an undo that is stuck.
#[derive(Debug, Subcommand)]
pub enum UndoCommand {
    /// Try again: what stood in the way is mended
    #[command(after_help = "Example:\n  tidegate run undo retry iris")]
    Retry(ThreadArg),
    /// Leave as it is what cannot be undone, and undo the rest
    #[command(after_help = "Example:\n  tidegate run undo accept iris")]
    Accept(ThreadArg),
}

/// Which thread to stop.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// A thread's id, the beginning of one, or a model for its newest
    pub thread: String,
    /// Leave what it did as it is
    #[arg(long)]
    pub no_undo: bool,
    /// Why; recorded
    #[arg(long)]
    pub reason: Option<String>,
}

/// What to replay.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// An export's file of at most 256 MiB, a thread's id, or a model for its newest
    pub thread: String,
    /// Replay it by another workflow: a file, or a built-in name as it is today [default: the one in the record]
    #[arg(long, value_name = "WORKFLOW")]
    pub workflow: Option<String>,
}

/// What to import.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// An export's file of at most 256 MiB
    pub file: String,
}
