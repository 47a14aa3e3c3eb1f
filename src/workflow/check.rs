//! What can be wrong with a file beyond its shape, each fault with its path. The graph's own rules are `compile()`'s matter.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::graph::{Channel, END, FITS, Failure, START};

use super::fault::{Faults, Path, under};
use super::names::{CEL_TYPES, Names, STATE};
use super::registry::SUBGRAPH;
use super::{Case, Expression, NodeSpec, TextDuration, WorkflowFile, ask, commands, expr, sleep, tools, wait};

/// Checks that need no node types.
pub(super) fn check(file: &WorkflowFile, channels: &BTreeMap<String, Channel>, path: &Path, faults: &mut Faults) {
    if let Some(version) = file.version.filter(|v| *v != 1) {
        let failure = Failure::new("unsupported_version", format!("this file has the format's version {version}"));
        faults.push(under(path, ["version"]), failure.hint("this binary reads version 1"));
    }
    for (name, channel) in channels {
        check_channel(name, channel, &under(path, ["channels", name]), faults);
    }
    for (name, node) in &file.nodes {
        check_node(name, node, &under(path, ["nodes", name]), faults);
    }
    check_retention(file, path, faults);
    names_of_nodes(file, path, faults);
    commands::check(file, channels, path, faults);
    expressions(file, channels, path, faults);
}

fn check_channel(name: &str, channel: &Channel, path: &Path, faults: &mut Faults) {
    let identifier =
        name.chars().enumerate().all(|(i, c)| c == '_' || c.is_ascii_alphabetic() || (i > 0 && c.is_ascii_digit()));
    if name.is_empty() || !identifier || name == STATE {
        let failure = Failure::new("reserved_name", format!("a channel cannot be called `{name}`"));
        let hint = "use letters, digits and `_`; `state` means all channels";
        faults.push(path.clone(), failure.hint(hint));
    }
    if let Some(why) = channel.misfit() {
        let failure = Failure::new("bad_reducer", format!("channel `{name}` {why}"));
        faults.push(path.clone(), failure.hint(FITS));
    }
}

fn check_node(name: &str, node: &NodeSpec, path: &Path, faults: &mut Faults) {
    let kind = node.kind.as_str();
    let own = [
        ("set", node.set.is_some(), [expr::KIND, ask::KIND].contains(&kind)),
        ("goto", node.goto.is_some(), kind == expr::KIND),
        ("prompt", node.prompt.is_some(), kind == ask::KIND),
        ("into", node.into.is_some(), kind == ask::KIND),
        ("answer", node.answer.is_some(), kind == ask::KIND),
        ("expired", node.expired.is_some(), kind == ask::KIND && node.ttl.is_some()),
        ("graph", node.graph.is_some(), kind == SUBGRAPH),
        ("file", node.file.is_some(), kind == SUBGRAPH),
        ("persistence", node.persistence.is_some(), kind == SUBGRAPH),
        ("with", node.with.is_some(), ![expr::KIND, ask::KIND, SUBGRAPH].contains(&kind)),
        ("ttl", node.ttl.is_some(), ![expr::KIND, SUBGRAPH].contains(&kind)),
        // Neither a person's answer nor the time that has passed is anybody else's.
        ("cache", node.cache.is_some(), ![ask::KIND, sleep::KIND, wait::KIND].contains(&kind)),
    ];
    for (key, _, _) in own.into_iter().filter(|(_, given, fits)| *given && !fits) {
        let failure = Failure::new("misplaced_key", format!("`{key}` has no meaning for a node of type `{kind}`"));
        faults.push(under(path, [key]), failure.hint("remove it, or mend the type"));
    }
    if kind == SUBGRAPH && node.graph.is_some() == node.file.is_some() {
        let failure = Failure::new("bad_subgraph", format!("subgraph `{name}` needs one of `graph` and `file`"));
        faults.push(path.clone(), failure);
    }
    if kind == ask::KIND {
        let kept = node.into.is_some() || node.set.as_ref().is_some_and(|set| !set.is_empty());
        let needed = [("prompt", node.prompt.is_some()), ("into", kept)];
        for (key, _) in needed.into_iter().filter(|(_, given)| !given) {
            faults.push(path.clone(), Failure::new("missing_key", format!("`{name}` asks, but has no `{key}`")));
        }
    }
    tools::check(node, path, faults);
    if let Some(retry) = &node.retry {
        retry.check(&under(path, ["retry"]), faults);
    }
    check_cases(node.goto.as_deref().unwrap_or_default(), &under(path, ["goto"]), faults);
}

/// Shortest time that an ended run stays: who started it must be able to look at it.
const SHORTEST_RETENTION: Duration = Duration::from_secs(60);

fn check_retention(file: &WorkflowFile, path: &Path, faults: &mut Faults) {
    let Some(retention) = file.retention else { return };
    let at = under(path, ["retention"]);
    if !path.is_empty() {
        let failure = Failure::new("misplaced_key", "`retention` has no meaning in a subgraph");
        return faults.push(at, failure.hint("say it at the top of the workflow: it counts for the subgraphs too"));
    }
    let mut wrong = |at: Path, message: &str| {
        faults.push(
            at,
            Failure::new("bad_retention", message).hint("as in `retention: { checkpoints: 50, ended: 30d }`"),
        );
    };
    if retention.checkpoints.is_none() && retention.ended.is_none() {
        wrong(at.clone(), "`retention` says nothing: it needs `checkpoints`, `ended` or both");
    }
    if retention.checkpoints == Some(0) {
        wrong(under(&at, ["checkpoints"]), "a run keeps its newest checkpoint: at least 1 must stay");
    }
    if retention.ended.is_some_and(|TextDuration(ended)| ended < SHORTEST_RETENTION) {
        wrong(under(&at, ["ended"]), "an ended run stays for a minute at least");
    }
}

/// Cases behind one that always holds can never be reached.
pub(super) fn check_cases(cases: &[Case], path: &Path, faults: &mut Faults) {
    for (index, case) in cases.iter().enumerate() {
        let at = under(path, [&index.to_string()]);
        if case.when.is_none() && index + 1 < cases.len() {
            let failure =
                Failure::new("unreachable_case", "a case without `when` always holds: what follows is never reached");
            faults.push(at.clone(), failure.hint("move it to the end"));
        }
        if case.to.names().is_empty() {
            faults
                .push(under(&at, ["to"]), Failure::new("bad_edge", "a case leads nowhere").hint("name a node, or END"));
        }
        if let Some(Err(failure)) = case.when.as_deref().map(Expression::compile) {
            faults.push(under(&at, ["when"]), failure);
        }
    }
}

/// Every name that should be a node's.
fn names_of_nodes(file: &WorkflowFile, path: &Path, faults: &mut Faults) {
    let mut named: Vec<(Path, &String)> = Vec::new();
    let cases = |named: &mut Vec<_>, cases: &'_ [Case], at: &Path| {
        // Where it goes in another graph is checked there.
        for (index, case) in cases.iter().enumerate().filter(|(_, case)| case.graph.is_none()) {
            named.extend(case.to.names().iter().map(|to| (under(at, [&index.to_string(), "to"]), to.clone())));
        }
    };
    let mut routed: Vec<(Path, String)> = Vec::new();
    for (index, edge) in file.edges.iter().enumerate() {
        let at = under(path, ["edges", &index.to_string()]);
        named.extend(edge.from.names().iter().filter(|from| *from != START).map(|from| (under(&at, ["from"]), from)));
        named.extend(edge.to.iter().flat_map(|to| to.names()).map(|to| (under(&at, ["to"]), to)));
        named.extend(edge.send.iter().map(|send| (under(&at, ["send", "to"]), &send.to)));
        cases(&mut routed, edge.route.as_deref().unwrap_or_default(), &under(&at, ["route"]));
    }
    for (name, node) in &file.nodes {
        cases(&mut routed, node.goto.as_deref().unwrap_or_default(), &under(path, ["nodes", name, "goto"]));
    }
    for (key, names) in [("interrupt_before", &file.interrupt_before), ("interrupt_after", &file.interrupt_after)] {
        named.extend(names.iter().enumerate().map(|(i, name)| (under(path, [key, &i.to_string()]), name)));
    }
    let known: Vec<&str> = file.nodes.keys().map(String::as_str).collect();
    for (at, name) in named.into_iter().map(|(at, name)| (at, name.clone())).chain(routed) {
        if name != END && !file.nodes.contains_key(&name) {
            let failure = Failure::new("unknown_node", format!("there is no node `{name}`"));
            faults.push(at, failure.hint(format!("add it, or use one of: {}", known.join(", "))));
        }
    }
}

/// Compiles every expression for its faults, and holds its names against the channels it can see.
fn expressions(file: &WorkflowFile, channels: &BTreeMap<String, Channel>, path: &Path, faults: &mut Faults) {
    let declared: BTreeSet<&str> = channels.keys().map(String::as_str).collect();
    let own = |kind: &str| [expr::KIND, ask::KIND, SUBGRAPH].contains(&kind) || tools::is_tool(kind);
    let foreign = file.nodes.values().any(|node| !own(&node.kind));
    for (name, node) in &file.nodes {
        let at = under(path, ["nodes", name]);
        let sent = file.edges.iter().filter_map(|edge| edge.send.as_ref()).filter(|send| send.to == *name);
        let mut seen: BTreeSet<&str> = declared.clone();
        seen.extend(sent.map(|send| send.name.as_str()));
        let answered = (node.kind == ask::KIND).then_some(ask::ANSWER);
        let mut sources: Vec<(Path, &str, Option<&str>)> = Vec::new();
        let set = node.set.iter().flatten();
        sources.extend(set.map(|(channel, source)| (under(&at, ["set", channel]), source.as_str(), answered)));
        sources.extend(node.prompt.iter().map(|source| (under(&at, ["prompt"]), source.as_str(), None)));
        for (source_at, source, more) in sources {
            match Expression::compile(source) {
                // A node of a type that is not known here may send anything.
                Ok(compiled) if !foreign => {
                    let seen: BTreeSet<&str> = seen.iter().copied().chain(more).collect();
                    check_names(compiled.names(), &seen, &source_at, faults);
                }
                Ok(_) => {}
                Err(failure) => faults.push(source_at, failure),
            }
        }
        tools::each_source(node, &at, |source_at, source, more| match Expression::compile(source) {
            Ok(compiled) if !foreign => {
                let seen: BTreeSet<&str> = seen.iter().chain(more).copied().collect();
                check_names(compiled.names(), &seen, &source_at, faults);
            }
            Ok(_) => {}
            Err(failure) => faults.push(source_at, failure),
        });
        if !foreign {
            case_names(node.goto.as_deref().unwrap_or_default(), &seen, &under(&at, ["goto"]), faults);
        }
    }
    for (index, edge) in file.edges.iter().enumerate() {
        let at = under(path, ["edges", &index.to_string()]);
        case_names(edge.route.as_deref().unwrap_or_default(), &declared, &under(&at, ["route"]), faults);
        if let Some(Ok(each)) = edge.send.as_ref().map(|send| Expression::compile(&send.each)) {
            check_names(each.names(), &declared, &under(&at, ["send", "each"]), faults);
        }
    }
}

fn case_names(cases: &[Case], seen: &BTreeSet<&str>, path: &Path, faults: &mut Faults) {
    for (index, case) in cases.iter().enumerate() {
        if let Some(Ok(when)) = case.when.as_deref().map(Expression::compile) {
            check_names(when.names(), seen, &under(path, [&index.to_string(), "when"]), faults);
        }
    }
}

fn check_names(names: &Names, seen: &BTreeSet<&str>, path: &Path, faults: &mut Faults) {
    let bare = names.bare.iter().filter(|name| !CEL_TYPES.contains(&name.as_str()));
    for name in bare.chain(&names.fields).filter(|name| !seen.contains(name.as_str())) {
        let known: Vec<&str> = seen.iter().copied().collect();
        let failure = Failure::new("unknown_name", format!("there is no channel `{name}`"));
        faults.push(path.clone(), failure.hint(format!("declare it, or use one of: {}", known.join(", "))));
    }
}
