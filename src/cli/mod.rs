//! The terminal: one file per group of commands. Data goes to stdout, everything else to stderr.

mod answers;
mod args;
mod audit;
mod bench;
mod canary;
mod decide;
mod deploy;
mod doctor;
mod drive;
mod exit;
mod hosts;
mod json;
mod judge;
mod keys;
mod links;
mod mcp;
mod out;
mod path;
mod pictures;
mod progress;
mod prompt;
mod releases;
mod rollback;
mod run_args;
mod runs;
mod serve;
mod show;
mod stream;
mod timeline;
mod traffic;
mod travel;
mod usage;
mod verdicts;

use std::process::ExitCode;

use clap::Parser;

pub use args::{Cli, Command};
pub use exit::Exit;

use crate::app::{App, Home, flush_traces};
use crate::graph::Failure;
use out::Out;

/// How long a command that has ended waits for its traces to be sent.
const TRACES_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

/// Parses, runs, and turns the end into an exit code. Not async: the program would compile all of the commands' futures a second time.
pub fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime cannot be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run_command());
    // A thread that still reads the terminal must not hold the process.
    runtime.shutdown_background();
    code
}

async fn run_command() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::told(&error),
    };
    let out = Out::new(cli.json);
    let code = match run(cli, &out).await {
        Ok(exit) => exit.into(),
        Err((failure, thread)) => out.failed(&failure, thread.as_ref()).into(),
    };
    match flush_traces(TRACES_WITHIN).await {
        0 => {}
        lost => out.note(&format!("warning: {lost} spans did not get to the collector of traces")),
    }
    code
}

/// A failure and the thread it belongs to, if one was begun.
pub(super) type Failed = (Failure, Option<crate::graph::ThreadId>);

/// A failure that belongs to no thread.
pub(super) fn plain(failure: Failure) -> Failed {
    (failure, None)
}

async fn run(cli: Cli, out: &Out) -> Result<Exit, Failed> {
    let home = || Home::open(cli.home.as_deref());
    let label = cli.command.label();
    let open = async || App::open(home().map_err(plain)?, label, cli.public_addr).await.map_err(plain);
    match cli.command {
        Command::Deploy(args) => deploy::run(open().await?, args, out).await,
        Command::Plan(args) => deploy::plan(open().await?, args, out).await,
        Command::Status(args) => releases::status(open().await?, args, out).await,
        Command::Traffic(args) => traffic::run(&home().map_err(plain)?, &args, out).await,
        Command::List => releases::list(open().await?, out).await,
        Command::History(args) => releases::history(open().await?, args, out).await,
        Command::Release { command } => releases::one(open().await?, command, out).await,
        Command::Summary => releases::summary(open().await?, out).await,
        Command::Rollback(args) => rollback::run(open().await?, args, out).await,
        Command::Promote(args) => canary::promote(open().await?, args, out).await,
        Command::Pause(args) => canary::pause(open().await?, args, out).await,
        Command::Resume(args) => canary::resume(open().await?, args, out).await,
        Command::Abort(args) => canary::abort(open().await?, args, out).await,
        Command::Approvals { command: None } => decide::list(open().await?, out).await,
        Command::Approvals { command: Some(command) } => links::run(open().await?, command, out).await,
        Command::Approve(args) => decide::approve(open().await?, args, out).await,
        Command::Reject(args) => decide::reject(open().await?, args, out).await,
        Command::Runs => runs::list(open().await?, out).await,
        Command::Run { command } => runs::run(open().await?, command, out).await,
        Command::Graph(args) => pictures::graph(&open().await?, &args, out).await,
        Command::Schema(args) => pictures::schema(&args, out),
        Command::Host { command } => hosts::run(&home().map_err(plain)?, cli.public_addr, command, out).await,
        Command::Up => hosts::up(home().map_err(plain)?, cli.public_addr, out).await,
        Command::Down => hosts::down(home().map_err(plain)?, cli.public_addr, out).await,
        Command::Doctor(args) => doctor::run(home().map_err(plain)?, args, out).await,
        Command::Audit { command } => match audit::is_offline(&command) {
            Some((file, head)) => audit::verify_export(file, head, out),
            None => audit::run(open().await?, command, out).await,
        },
        Command::Judge(args) => judge::run(&args, out),
        Command::Bench => bench::run(home().map_err(plain)?, out).await,
        Command::Serve(args) => serve::run(home().map_err(plain)?, cli.public_addr, args, out).await,
        Command::Keys { command } => keys::run(open().await?, command, out).await,
        Command::Mcp => mcp::run(open().await?).await,
        Command::Runner => deploy::runner(open().await?).await,
    }
}
