//! What is refused in new files only. A thread that began with it goes on by its own copy, and meets it where it is used.

use crate::graph::{Failure, State};

use super::fault::{Faults, Path, under};
use super::names::FUNCTIONS;
use super::{Case, Expression, NodeSpec, WorkflowFile, ask, input, tools};

/// Checks a file that no thread has begun with yet.
pub(super) fn check(file: &WorkflowFile, path: &Path, faults: &mut Faults) {
    for (name, property) in file.input.iter().flat_map(|input| &input.properties) {
        if let Some(failure) = input::bad_schema(name, property) {
            faults.push(under(path, ["input", "properties", name]), failure);
        }
    }
    for (name, node) in &file.nodes {
        let at = under(path, ["nodes", name]);
        if node.kind == ask::KIND {
            outcome(node, &at, faults);
        }
        functions_of(node, &at, faults);
    }
    for (index, edge) in file.edges.iter().enumerate() {
        let at = under(path, ["edges", &index.to_string()]);
        cases(edge.route.as_deref(), &under(&at, ["route"]), faults);
        if let Some(send) = &edge.send {
            functions(&under(&at, ["send", "each"]), &send.each, faults);
        }
    }
}

/// The schema of an answer, and what is written when nobody answers, where that is known before.
fn outcome(node: &NodeSpec, at: &Path, faults: &mut Faults) {
    let schema = match node.answer.as_ref().map(ask::validator).transpose() {
        Ok(schema) => schema,
        Err(failure) => return faults.push(under(at, ["answer"]), failure),
    };
    let Some(source) = &node.expired else { return };
    let found = Expression::compile(source).and_then(|expired| {
        let names = expired.names();
        if names.whole || names.all().next().is_some() {
            return Ok(());
        }
        ask::fits(schema.as_ref(), &expired.value(&State::new())?)
    });
    if let Err(failure) = found {
        faults.push(under(at, ["expired"]), failure);
    }
}

fn functions_of(node: &NodeSpec, at: &Path, faults: &mut Faults) {
    for (channel, source) in node.set.iter().flatten() {
        functions(&under(at, ["set", channel]), source, faults);
    }
    for (key, source) in [("prompt", &node.prompt), ("expired", &node.expired)] {
        source.iter().for_each(|source| functions(&under(at, [key]), source, faults));
    }
    tools::each_source(node, at, |at, source, _| functions(&at, source, faults));
    cases(node.goto.as_deref(), &under(at, ["goto"]), faults);
}

fn cases(cases: Option<&[Case]>, path: &Path, faults: &mut Faults) {
    for (index, case) in cases.unwrap_or_default().iter().enumerate() {
        let at = under(path, [&index.to_string(), "when"]);
        case.when.iter().for_each(|when| functions(&at, when, faults));
    }
}

/// Functions that there are not. What is no expression at all was told before.
fn functions(at: &Path, source: &str, faults: &mut Faults) {
    let Ok(compiled) = Expression::compile(source) else { return };
    for name in compiled.names().functions.iter().filter(|name| !FUNCTIONS.contains(&name.as_str())) {
        let failure = Failure::new("unknown_name", format!("there is no function `{name}`"));
        faults.push(at.clone(), failure.hint(format!("use one of: {}", FUNCTIONS.join(", "))));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{NodeTypes, build, load, no_files};
    use super::*;
    use crate::graph::digest;

    const ASKS: &str = "\
name: asks
input:
  properties:
    n: { type: integer, minimum: 1, default: 3 }
channels: { answer: { type: string } }
nodes:
  ask:
    type: ask
    prompt: \"'go?' + string(n)\"
    into: answer
    answer: { type: string, enum: ['yes', 'no'] }
    ttl: 1h
    expired: \"'no'\"
edges:
  - { from: START, to: ask }
";

    fn told(from: &str, to: &str) -> String {
        assert!(ASKS.contains(from), "{from}");
        match load(&ASKS.replacen(from, to, 1), "w.yaml", &no_files) {
            Ok(_) => "accepted".to_owned(),
            Err(failure) => format!("{}: {}", failure.code, failure.message),
        }
    }

    #[test]
    fn what_does_not_hold_is_told_at_its_place() {
        for (from, to, expected) in [
            ("name: asks", "name: asks", "accepted"),
            ("\"'no'\"", "\"'perhaps'\"", "bad_outcome: w.yaml:13:"),
            ("\"'no'\"", "n", "accepted"),
            ("enum: ['yes', 'no']", "enum: 5", "bad_schema: w.yaml:11:"),
            ("minimum: 1", "minimum: 4", "bad_input_schema: w.yaml:4:"),
            ("minimum: 1", "minimum: low", "bad_input_schema: w.yaml:4:"),
            ("minimum: 1", "$ref: 'http://localhost:1/n.json'", "bad_input_schema: w.yaml:4:"),
            ("string(n)", "strung(n)", "unknown_name: w.yaml:9:"),
            ("string(n)", "timestamp('2026-01-01T00:00:00Z')", "unknown_name: w.yaml:9:"),
            ("\"'no'\"", "\"[n].map(x, x.shout())[0]\"", "unknown_name: w.yaml:13:"),
            ("name: asks", "name: ''", "missing_key: w.yaml"),
        ] {
            let told = told(from, to);
            assert!(told.starts_with(expected), "{to}: {told}");
        }
    }

    #[test]
    fn every_function_that_is_named_is_there() {
        for source in [
            "bool('true') && size(bytes('a')) == 1 && double(1) == 1.0 && dyn(1) == 1 && int('1') == 1",
            "'abc'.contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c') && 'abc'.matches('^a')",
            "type(1) == int && uint(1) == 1u && string(1) == '1' && [1].size() == 1",
            "[1, 2].exists_one(x, x == 1) && [1].all(x, x > 0) && [1].exists(x, x in [1]) && !has({}.a) && -1 < 0",
            "[1].filter(x, x > 0).map(x, x * 2 - 1 % 2 / 1) == [2] ? true : {'a': 1}['a'] >= 1",
        ] {
            let compiled = Expression::compile(source).unwrap();
            assert_eq!(compiled.value(&State::new()).unwrap(), true, "{source}");
            let mut faults = Faults::default();
            functions(&Path::new(), source, &mut faults);
            assert_eq!(faults.0, [], "{source}");
        }
    }

    #[test]
    fn a_thread_that_began_with_it_goes_on() {
        let kept = load(ASKS, "w.yaml", &no_files).unwrap();
        let mut document = kept.document.clone();
        document["nodes"]["ask"]["expired"] = "'perhaps' + shout(n)".into();
        document["input"]["properties"]["n"]["minimum"] = 4.into();
        assert_ne!(digest(&document), digest(&kept.document));
        assert!(build(&document, &NodeTypes::generic()).is_ok());
    }
}
