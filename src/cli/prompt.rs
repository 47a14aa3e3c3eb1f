//! Asking a human at this terminal.

use std::io::{BufRead, Write};

use tokio::sync::oneshot;

use super::out::visible;
use crate::app::OpenQuestion;
use crate::nodes::ApprovalQuestion;
use crate::release::Verdict;

/// The name of whoever runs this process, for the record.
pub fn user() -> String {
    let uid = nix::unistd::getuid();
    let known = nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name);
    known.unwrap_or_else(|| format!("uid {uid}"))
}

/// Shows what is to be decided.
pub fn show(approval: &ApprovalQuestion, question: &OpenQuestion) {
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(
        stderr,
        "\nRelease {} version {} is ready; nothing that users see has changed.\n",
        visible(&approval.model),
        visible(&approval.version)
    );
    for line in approval.evidence.lines() {
        let _ = writeln!(stderr, "  {}", visible(&line));
    }
    let id = &question.interrupt.id;
    let _ = writeln!(stderr, "\n(from elsewhere: `tidegate approve {id}` or `tidegate reject {id} --reason …`)");
}

/// Reads yes or no, and for a no the reason, on a thread of its own: reading a terminal cannot be cancelled. `None`: the input ended.
pub fn verdict() -> oneshot::Receiver<Option<(Verdict, Option<String>)>> {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = tell.send(read_verdict());
    });
    told
}

fn read_verdict() -> Option<(Verdict, Option<String>)> {
    loop {
        let answer = ask("Release it? [yes/no] ")?;
        match answer.to_lowercase().as_str() {
            "y" | "yes" => return Some((Verdict::Approve, None)),
            "n" | "no" => break,
            _ => say("please write yes or no"),
        }
    }
    loop {
        let reason = ask("Why not? ")?;
        if !reason.is_empty() {
            return Some((Verdict::Reject, Some(reason)));
        }
        say("a rejection says why");
    }
}

fn ask(question: &str) -> Option<String> {
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "{question}");
    let _ = stderr.flush();
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(read) if read > 0 => Some(line.trim().to_owned()),
        _ => None,
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
