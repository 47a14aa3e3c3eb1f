//! A wrong command line: clap's own words, with `--json` as the error document.

use std::process::ExitCode;

use clap::error::ErrorKind;

use super::Exit;
use super::out::{Out, printed};
use crate::graph::Failure;

/// Tells it. Help and version come this way too; they are what was asked for.
pub fn told(error: &clap::Error) -> ExitCode {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !asked_for && std::env::args_os().any(|arg| arg == "--json") {
        return Out::new(true).failed_as(&failure(&error.to_string()), None, Exit::Usage).into();
    }
    match printed(error.print()) {
        _ if !asked_for => Exit::Usage.into(),
        Ok(()) => Exit::Done.into(),
        Err(failure) => Out::new(false).failed(&failure, None).into(),
    }
}

/// clap's text in three parts: its first line, which argument and what was possible, how the command is used.
fn failure(text: &str) -> Failure {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let message = lines.next().unwrap_or_default().trim_start_matches("error: ").trim_end_matches(':');
    let (mut cause, mut hint) = (Vec::new(), "`tidegate help` shows the commands".to_owned());
    for line in lines {
        match line.strip_prefix("Usage: ") {
            Some(usage) => hint = format!("`{usage}`; `--help` says more"),
            None if line.starts_with("For more information") => {}
            None => cause.push(line.trim_start_matches('[').trim_end_matches(']')),
        }
    }
    let failure = Failure::new("usage", message).hint(hint);
    if cause.is_empty() { failure } else { failure.because(cause.join("\n")) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Cli;
    use super::*;

    fn of(args: &[&str]) -> (String, Option<String>, Option<String>) {
        let error = Cli::try_parse_from([&["tidegate"], args].concat()).expect_err("it is wrong");
        let failure = failure(&error.to_string()).into_details();
        (failure.message, failure.cause, failure.hint)
    }

    #[test]
    fn which_argument_and_what_is_possible_is_the_cause() {
        let usage = |usage: &str| Some(format!("`{usage}`; `--help` says more"));
        let (message, cause, hint) = of(&["reject", "iris"]);
        assert_eq!(message, "the following required arguments were not provided");
        assert_eq!(cause.as_deref(), Some("--reason <REASON>"));
        assert_eq!(hint, usage("tidegate reject --reason <REASON> <ID>"));

        let (message, cause, _) = of(&["graph", "rollback", "--format", "png"]);
        assert_eq!(message, "invalid value 'png' for '--format <FORMAT>'");
        assert_eq!(cause.as_deref(), Some("possible values: mermaid, dot, svg"));

        let (message, cause, hint) = of(&["deplo", "x"]);
        assert_eq!(message, "unrecognized subcommand 'deplo'");
        assert_eq!(cause.as_deref(), Some("tip: a similar subcommand exists: 'deploy'"));
        assert_eq!(hint, usage("tidegate [OPTIONS] <COMMAND>"));

        let (message, cause, _) = of(&["deploy", ".", "--detachd"]);
        assert_eq!(message, "unexpected argument '--detachd' found");
        assert_eq!(cause.as_deref(), Some("tip: a similar argument exists: '--detach'"));

        let (message, cause, _) = of(&["--json"]);
        assert_eq!(message, "'tidegate' requires a subcommand but one was not provided");
        assert!(cause.is_some_and(|cause| cause.starts_with("subcommands: deploy, plan")));
    }
}
