//! The path of a run, for people: a line for each superstep, nodes side by side; what repeats is one line.

use crate::graph::{Step, Visit, VisitState, length};

/// Most nodes that are named in a line.
const MOST_BESIDE: usize = 6;
/// Longest cycle that is looked for, in supersteps, and how often it must repeat to be one line.
const LONGEST_CYCLE: usize = 12;
const LEAST_TIMES: usize = 3;
/// Most lines; in the middle of a longer path some are left out.
const MOST_LINES: usize = 120;

/// A path as lines.
pub fn path_text(path: &[Step]) -> String {
    let mut lines = Vec::new();
    add(path, 1, &mut lines);
    if lines.len() > MOST_LINES {
        let (head, tail) = (MOST_LINES / 3, MOST_LINES - MOST_LINES / 3);
        let left_out = lines.len() - head - tail;
        let gap = format!("    …  {left_out} lines left out; `--json` has all");
        lines.splice(head..head + left_out, [gap]);
    }
    lines.join("\n")
}

fn add(path: &[Step], depth: usize, lines: &mut Vec<String>) {
    let pad = "    ".repeat(depth - 1);
    let steps: Vec<&Step> = path.iter().filter(|step| !step.nodes.is_empty()).collect();
    let shapes: Vec<String> = steps.iter().map(|step| shape(step)).collect();
    let mut at = 0;
    while at < steps.len() {
        if let Some((long, times)) = cycle(&shapes[at..]) {
            lines.push(format!("{pad}{}", repeated(&steps[at..at + long * times], long, times)));
            at += long * times;
            continue;
        }
        let step = steps[at];
        let nodes = step.nodes.iter().take(MOST_BESIDE).map(visit_text);
        let mut text: Vec<String> = nodes.collect();
        if step.nodes.len() > MOST_BESIDE {
            text.push(format!("{} more", step.nodes.len() - MOST_BESIDE));
        }
        let marks = match step.source {
            crate::graph::Source::Update => "  (after a change from outside)",
            crate::graph::Source::Fork => "  (branched off)",
            crate::graph::Source::Input if step.step > 0 => "  (new input)",
            crate::graph::Source::Input | crate::graph::Source::Loop => "",
        };
        lines.push(format!("{pad}{:>5}  {}{marks}", step.step + 1, text.join("  ‖  ")));
        for inner in step.nodes.iter().flat_map(|visit| &visit.inner) {
            add(inner, depth + 1, lines);
        }
        at += 1;
    }
}

/// What makes two supersteps the same; nothing unusual is the same as anything.
fn shape(step: &Step) -> String {
    let usual = |visit: &Visit| {
        matches!(visit.state, VisitState::Done | VisitState::Cached) && visit.failures == 0 && visit.undone.is_empty()
    };
    if step.nodes.iter().all(usual) && step.source == crate::graph::Source::Loop {
        step.nodes.iter().map(|visit| format!("{}×{} {}|", visit.node, visit.tasks, visit.state.word())).collect()
    } else {
        format!("superstep {}", step.step)
    }
}

/// The cycle with which a path begins that covers most of it: its length, and how often it is gone through.
fn cycle(shapes: &[String]) -> Option<(usize, usize)> {
    let times = |long: usize| {
        let first = &shapes[..long];
        shapes.chunks_exact(long).take_while(|chunk| *chunk == first).count()
    };
    let found = (1..=LONGEST_CYCLE.min(shapes.len() / LEAST_TIMES)).map(|long| (long, times(long)));
    // Of two that cover the same the shorter one says more.
    found.filter(|(_, times)| *times >= LEAST_TIMES).max_by_key(|(long, times)| (long * times, *times))
}

fn repeated(steps: &[&Step], long: usize, times: usize) -> String {
    let names = |step: &&Step| {
        let names: Vec<String> = step.nodes.iter().take(MOST_BESIDE).map(|v| name(v, false)).collect();
        names.join(" ‖ ")
    };
    let one: Vec<String> = steps[..long].iter().map(names).collect();
    let took: u64 = steps.iter().flat_map(|step| &step.nodes).map(|visit| visit.took_ms).sum();
    let (from, to) = (steps[0].step + 1, steps[steps.len() - 1].step + 1);
    format!("{:>5}  ↻ {times} × ({})  {}   up to superstep {to}", from, one.join(" → "), length(took))
}

fn name(visit: &Visit, counted: bool) -> String {
    let again = if counted && visit.visit > 1 { format!(" #{}", visit.visit) } else { String::new() };
    let items = if visit.tasks > 1 { format!(" ×{}", visit.tasks) } else { String::new() };
    format!("{}{again}{items}", visit.node)
}

fn visit_text(visit: &Visit) -> String {
    let mark = match visit.state {
        VisitState::Failed => "✗ ",
        VisitState::Handled => "↷ ",
        VisitState::Due | VisitState::Running | VisitState::Asks | VisitState::Sleeps => "▸ ",
        VisitState::Done | VisitState::Cached | VisitState::Stopped | VisitState::Passed => "",
    };
    let mut text = format!("{mark}{}", name(visit, true));
    let worked =
        matches!(visit.state, VisitState::Done | VisitState::Failed | VisitState::Handled) || visit.took_ms > 0;
    if worked {
        text.push_str(&format!(" {}", length(visit.took_ms)));
    }
    let mut notes: Vec<String> = Vec::new();
    match (visit.state, &visit.failure, &visit.handler) {
        (VisitState::Done, _, _) if visit.failures == 0 => {}
        (VisitState::Done, Some(code), _) => {
            let times = if visit.failures > 1 { format!("{} times ", visit.failures) } else { String::new() };
            notes.push(format!("after it failed {times}with {code}"));
        }
        (VisitState::Handled, Some(code), Some(handler)) => notes.push(format!("{code}, handled by {handler}")),
        (VisitState::Failed, Some(code), _) => notes.push(code.clone()),
        (state, _, _) => notes.push(state.word().to_owned()),
    }
    if visit.waited_ms > 0 {
        let word = if visit.state.is_over() { "waited" } else { "for" };
        notes.push(format!("{word} {}", length(visit.waited_ms)));
    }
    if !visit.undone.is_empty() {
        notes.push(format!("undone: {}", visit.undone.join(", ")));
    }
    if !notes.is_empty() {
        text.push_str(&format!(" ({})", notes.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::graph::Source;

    fn visit(node: &str, visit: u64) -> Visit {
        Visit {
            node: node.into(),
            visit,
            tasks: 1,
            state: VisitState::Done,
            failures: 0,
            took_ms: 10,
            waited_ms: 0,
            failure: None,
            handler: None,
            undone: Vec::new(),
            inner: Vec::new(),
        }
    }

    fn step(step: i64, nodes: Vec<Visit>) -> Step {
        Step { step, source: Source::Loop, fork: 0, at: DateTime::UNIX_EPOCH, until: None, nodes }
    }

    #[test]
    fn a_thousand_supersteps_are_a_few_lines() {
        let mut path = vec![step(0, vec![visit("begin", 1)])];
        for round in 0..333_u64 {
            let at = i64::try_from(round).unwrap() * 3;
            path.push(step(at + 1, vec![visit("ada", round + 1), visit("bob", round + 1)]));
            path.push(step(at + 2, vec![visit("cyn", round + 1)]));
            path.push(step(at + 3, vec![visit("dan", round + 1)]));
        }
        let stuck = Visit { state: VisitState::Failed, failure: Some("boom".into()), ..visit("ada", 334) };
        path.push(step(1000, vec![stuck]));
        let lines = [
            "    1  begin 0.01 s",
            "    2  ↻ 333 × (ada ‖ bob → cyn → dan)  13.32 s   up to superstep 1000",
            " 1001  ✗ ada #334 0.01 s (boom)",
        ];
        assert_eq!(path_text(&path).lines().collect::<Vec<_>>(), lines);
        let irregular: Vec<Step> = (0..1_000).map(|n| step(n, vec![visit(&format!("n{}", n * n % 97), 1)])).collect();
        assert!(path_text(&irregular).lines().count() <= MOST_LINES + 1);
    }

    #[test]
    fn what_is_unusual_is_said() {
        let inner = vec![step(0, vec![visit("deep", 1)]), step(1, Vec::new())];
        let path = [
            step(0, vec![Visit { inner: vec![inner], ..visit("sub", 1) }, Visit { tasks: 3, ..visit("square", 1) }]),
            step(1, vec![Visit { failures: 2, failure: Some("flaky".into()), ..visit("fetch", 1) }]),
            step(2, vec![Visit { state: VisitState::Cached, took_ms: 0, ..visit("fetch", 2) }]),
            step(
                3,
                vec![Visit {
                    state: VisitState::Handled,
                    failure: Some("boom".into()),
                    handler: Some("help".into()),
                    undone: vec!["slot".into()],
                    ..visit("act", 1)
                }],
            ),
            step(
                4,
                vec![
                    Visit { state: VisitState::Asks, took_ms: 0, waited_ms: 65_000, ..visit("gate", 1) },
                    Visit { waited_ms: 2_000, ..visit("nap", 1) },
                ],
            ),
        ];
        let lines = [
            "    1  sub 0.01 s  ‖  square ×3 0.01 s",
            "        1  deep 0.01 s",
            "    2  fetch 0.01 s (after it failed 2 times with flaky)",
            "    3  fetch #2 (cached)",
            "    4  ↷ act 0.01 s (boom, handled by help, undone: slot)",
            "    5  ▸ gate (asks, for 1 min 5 s)  ‖  nap 0.01 s (waited 2.00 s)",
        ];
        assert_eq!(path_text(&path).lines().collect::<Vec<_>>(), lines);
    }
}
