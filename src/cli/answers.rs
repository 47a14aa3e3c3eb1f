//! Which question gets which answer: `run resume --value` and `--answers`.

use serde_json::Value;

use super::run_args::ResumeArgs;
use super::runs::{object, parse};
use super::{Failed, plain};
use crate::app::OpenQuestion;
use crate::graph::{Answer, Failure, Interrupt, StoreError, claim};

/// Most questions that an error lists.
const MOST_LISTED: usize = 20;

/// The answers that a command line gives, each with its question, of all that the thread ever `asked`, oldest first.
///
/// A question that is over is refused as the store would refuse it: with who answered it and when, or why nobody can any more.
pub(super) fn given(args: &ResumeArgs, asked: &[Interrupt]) -> Result<Vec<(Interrupt, Value)>, Failed> {
    let mut given: Vec<(Interrupt, Value)> = Vec::new();
    if let Some(text) = &args.value {
        let value = parse(text, "--value")?;
        given.push((only(asked).map_err(plain)?.clone(), value));
    } else if args.answers.is_none() && !args.digest.is_empty() {
        let failure = Failure::new("usage", "`--digest` says what an answer is for, and none is given");
        return Err(plain(failure.hint("add --value or --answers; an approval is decided with `tidegate approve`")));
    } else if let Some(text) = &args.answers {
        for (key, value) in object(parse(text, "--answers")?, "--answers")? {
            let question = named(&key, asked).map_err(plain)?;
            if given.iter().any(|(other, _)| other.id == question.id) {
                return Err(plain(twice(question)));
            }
            given.push((question.clone(), value));
        }
    }
    for (question, _) in &given {
        no_approval(question).and_then(|()| shown(&args.digest, question)).map_err(plain)?;
    }
    Ok(given)
}

/// Where a question was asked: its node, behind the namespace of its subgraph.
pub(super) fn place(asked: &Interrupt) -> String {
    let (ns, node) = (&asked.key.ns, &asked.key.node);
    if ns.is_empty() { node.to_string() } else { format!("{ns}|{node}") }
}

fn is_open(asked: &&Interrupt) -> bool {
    asked.answer.is_none() && !asked.withdrawn
}

/// The one open question.
fn only(asked: &[Interrupt]) -> Result<&Interrupt, Failure> {
    match asked.iter().filter(is_open).collect::<Vec<_>>().as_slice() {
        [one] => Ok(one),
        [] => match asked.last() {
            Some(last) => Err(over(last)),
            None => Err(Failure::new("no_interrupt", "nothing is asked, so there is nothing to answer")
                .hint("`tidegate run resume T` without a value goes on")),
        },
        more => Err(ambiguous(format!("{} questions are open", more.len()), more)),
    }
}

/// The question of that id; or the open one of that node, or the last one that it asked.
fn named<'a>(key: &str, asked: &'a [Interrupt]) -> Result<&'a Interrupt, Failure> {
    if let Some(question) = asked.iter().find(|i| i.id.as_str() == key) {
        return if is_open(&question) { Ok(question) } else { Err(over(question)) };
    }
    let of_node: Vec<&Interrupt> = asked.iter().filter(|i| i.key.node == key).collect();
    match of_node.iter().copied().filter(is_open).collect::<Vec<_>>().as_slice() {
        [one] => Ok(one),
        [] => Err(match of_node.last() {
            Some(last) => over(last),
            None => Failure::new("no_interrupt", format!("no question is called `{key}`"))
                .hint("`tidegate run state T` lists the open ones"),
        }),
        more => Err(ambiguous(format!("{} open questions are called `{key}`", more.len()), more)),
    }
}

/// Why a question takes no answer any more.
fn over(question: &Interrupt) -> Failure {
    let (by, via) = (String::new(), String::new());
    let late = Answer { value: Value::Null, by, via, at: chrono::Utc::now() };
    let refused = claim(question, &late, None).err();
    refused.unwrap_or_else(|| StoreError::Withdrawn(question.id.clone())).failure()
}

fn ambiguous(what: String, open: &[&Interrupt]) -> Failure {
    let mut lines: Vec<String> = open.iter().take(MOST_LISTED).map(|i| format!("{}: {}", place(i), i.id)).collect();
    if open.len() > MOST_LISTED {
        lines.push(format!("and {} more", open.len() - MOST_LISTED));
    }
    Failure::new("question_ambiguous", what).because(lines.join("\n")).hint(
        "nothing was recorded: answer by id, --answers '{\"ID\": …}'; `tidegate run state T` shows what each asks",
    )
}

fn twice(question: &Interrupt) -> Failure {
    let (id, node) = (&question.id, &question.key.node);
    Failure::new(
        "question_ambiguous",
        format!("question {id} is given two answers: by its id and by its node `{node}`"),
    )
    .hint("nothing was recorded: leave out one of them")
}

/// An approval is decided: it binds to its evidence, and the ledger knows of it.
fn no_approval(question: &Interrupt) -> Result<(), Failure> {
    if OpenQuestion::from(question.clone()).approval.is_none() {
        return Ok(());
    }
    let id = &question.id;
    Err(Failure::new("is_an_approval", format!("question {id} is an approval, which is decided, not answered"))
        .hint(format!("`tidegate approve {id}` or `tidegate reject {id} --reason …`")))
}

/// What was looked at must be what is asked.
fn shown(digests: &[String], question: &Interrupt) -> Result<(), Failure> {
    if digests.is_empty() || digests.contains(&question.digest) {
        return Ok(());
    }
    let (id, current) = (question.id.clone(), question.digest.clone());
    Err(StoreError::Changed { id, current }.failure())
}
