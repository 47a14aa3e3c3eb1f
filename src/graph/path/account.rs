//! From events to the path.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::super::{
    Checkpoint, CheckpointId, Event, EventRow, Interrupt, InterruptId, Name, Source, Thread, ThreadStatus,
};
use super::{Step, Visit, VisitState};

/// What is known after some events.
pub(super) struct Account {
    /// Steps of each namespace; the root's are those of the branch that is followed.
    lines: BTreeMap<Name, Vec<Step>>,
    /// The root's steps of each branch that was left.
    branches: BTreeMap<u32, Vec<Step>>,
    fork: u32,
    /// Where checkpoints of the root stand: branch and step.
    stands: BTreeMap<CheckpointId, (u32, i64)>,
    /// Visits of what was due at checkpoints of the root, by branch and step: a branch may begin with what was due where it left.
    due: BTreeMap<(u32, i64), Vec<(Name, u64)>>,
    /// Where questions were asked.
    asked: BTreeMap<InterruptId, (Name, DateTime<Utc>)>,
    /// Questions that are open, with their nodes.
    open: BTreeMap<InterruptId, (Name, Name, DateTime<Utc>)>,
}

impl Account {
    pub fn new(roots: &[Checkpoint], asked: &[Interrupt]) -> Self {
        Self {
            lines: BTreeMap::new(),
            branches: BTreeMap::new(),
            fork: 0,
            stands: roots.iter().map(|c| (c.id.clone(), (c.fork, c.step))).collect(),
            due: roots.iter().map(|c| ((c.fork, c.step), visits(c))).collect(),
            asked: asked.iter().map(|i| (i.id.clone(), (i.key.ns.clone(), i.asked_at))).collect(),
            open: BTreeMap::new(),
        }
    }

    pub fn take(&mut self, row: &EventRow) {
        let at = row.at;
        match &row.event {
            Event::Checkpointed { ns, step, source, next } => self.checkpointed(at, ns, *step, *source, next),
            Event::Forked { from, fork } => self.forked(from, *fork),
            Event::NodeStarted { ns, node, .. } => {
                let visit = self.visit(ns, node, at);
                if visit.state == VisitState::Due {
                    visit.state = VisitState::Running;
                }
            }
            Event::NodeFinished { ns, node, duration_ms } => {
                let waited = self.settle(ns, node, at);
                let visit = self.visit(ns, node, at);
                visit.took_ms += duration_ms;
                visit.waited_ms += waited;
                visit.state = VisitState::Done;
            }
            Event::Cached { ns, node } => self.visit(ns, node, at).state = VisitState::Cached,
            event @ Event::NodeFailed { .. } => self.failed(at, event),
            Event::Interrupted { id, node } => {
                let ns = self.asked.get(id).map(|(ns, _)| ns.clone()).unwrap_or_default();
                self.visit(&ns, node, at).state = VisitState::Asks;
                self.open.insert(id.clone(), (ns, node.clone(), at));
            }
            Event::Answered { id, .. } => {
                if let Some((ns, node, asked_at)) = self.open.remove(id) {
                    let visit = self.visit(&ns, &node, at);
                    visit.waited_ms += between(asked_at, at);
                    visit.state = VisitState::Running;
                }
            }
            Event::Woke { place, .. } => {
                if let Some((ns, node, _)) = placed(place) {
                    let due = self.lines.get(&ns).and_then(|line| line.last()).map_or(at, |step| step.at);
                    let visit = self.visit(&ns, &node, at);
                    visit.waited_ms = visit.waited_ms.max(between(due, at).saturating_sub(visit.took_ms));
                    visit.state = VisitState::Running;
                }
            }
            Event::EffectUndone { place, effect } => self.undone(place, effect),
            Event::Accepted { .. }
            | Event::Advancing { .. }
            | Event::EffectIntended { .. }
            | Event::EffectDone { .. }
            | Event::EffectFailed { .. }
            | Event::UndoStarted { .. }
            | Event::UndoFailed { .. }
            | Event::UndoAccepted { .. }
            | Event::Signalled { .. }
            | Event::StopAsked { .. }
            | Event::Migrated { .. }
            | Event::CommitPoint { .. }
            | Event::Imported { .. }
            | Event::StatusChanged { .. }
            | Event::Voted { .. }
            | Event::Custom { .. }
            | Event::Wrote { .. }
            | Event::Unknown => {}
        }
    }

    fn checkpointed(&mut self, at: DateTime<Utc>, ns: &Name, step: i64, source: Source, next: &[Name]) {
        let fork = self.fork;
        // Whoever asked there has ended, or the question was withdrawn.
        self.open.retain(|_, (of, _, _)| of != ns);
        let line = self.lines.entry(ns.clone()).or_default();
        // What ran without a checkpoint of its own was counted by guessing.
        line.iter_mut().rev().take_while(|before| before.step >= step).for_each(|before| before.step = step - 1);
        if let Some(before) = line.last_mut() {
            before.until = Some(at);
            let left = |visit: &&mut Visit| !visit.state.is_over();
            before.nodes.iter_mut().filter(left).for_each(|visit| visit.state = VisitState::Passed);
        }
        let mut nodes: Vec<Visit> = Vec::new();
        for node in next {
            match nodes.iter_mut().find(|visit| visit.node == *node) {
                Some(visit) => visit.tasks += 1,
                None => nodes.push(fresh(line, node)),
            }
        }
        for (node, number) in self.due.get(&(fork, step)).filter(|_| ns.is_empty()).into_iter().flatten() {
            if let Some(visit) = nodes.iter_mut().find(|visit| visit.node == *node) {
                visit.visit = *number;
            }
        }
        line.push(Step { step, source, fork, at, until: None, nodes });
    }

    fn forked(&mut self, from: &CheckpointId, fork: u32) {
        let root = Name::default();
        let current = self.lines.remove(&root).unwrap_or_default();
        self.branches.insert(self.fork, current.clone());
        let line = match self.stands.get(from) {
            Some((branch, step)) => {
                let line = self.branches.get(branch).cloned().unwrap_or_default();
                line.into_iter().filter(|before| before.step <= *step).collect()
            }
            None => current,
        };
        let mut line: Vec<Step> = line;
        // What was due there is due again, or nothing of it: in this branch it has not run.
        for visit in line.last_mut().into_iter().flat_map(|step| &mut step.nodes) {
            let Visit { node, visit: number, tasks, .. } = visit.clone();
            *visit = Visit { visit: number, tasks, state: VisitState::Passed, ..fresh(&[], &node) };
        }
        self.lines.insert(root, line);
        self.open.clear();
        self.fork = fork;
    }

    fn failed(&mut self, at: DateTime<Utc>, event: &Event) {
        let Event::NodeFailed { ns, node, failure, retry_in_ms, duration_ms, handler } = event else { return };
        let waited = self.settle(ns, node, at);
        let visit = self.visit(ns, node, at);
        visit.waited_ms += waited;
        visit.failures += 1;
        visit.took_ms += duration_ms.unwrap_or(0);
        visit.failure = Some(failure.code.clone());
        visit.handler.clone_from(handler);
        visit.state = match (retry_in_ms, handler) {
            (Some(_), _) => VisitState::Running,
            (None, Some(_)) => VisitState::Handled,
            (None, None) => VisitState::Failed,
        };
    }

    /// A visit is over, and with it a question of its own that nobody answered in time: how long that was open.
    fn settle(&mut self, ns: &Name, node: &Name, at: DateTime<Utc>) -> u64 {
        let asked = self.open.iter().filter(|(_, (of, by, _))| of == ns && by == node);
        let asked: Vec<(InterruptId, DateTime<Utc>)> = asked.map(|(id, (_, _, since))| (id.clone(), *since)).collect();
        match asked.as_slice() {
            [(id, since)] => {
                self.open.remove(id);
                between(*since, at)
            }
            // Those of other items that the same node was sent may still be open.
            _ => 0,
        }
    }

    fn undone(&mut self, place: &str, effect: &str) {
        let Some((ns, node, number)) = placed(place) else { return };
        let steps = self.lines.get_mut(&ns).into_iter().flatten();
        let visits = steps.flat_map(|step| &mut step.nodes);
        let found = visits.rev().find(|visit| visit.node == node && number.is_none_or(|n| n == visit.visit));
        if let Some(visit) = found {
            visit.undone.push(effect.to_owned());
        }
    }

    /// The newest visit of a node. What is not due as far as anybody knows ran without a checkpoint of its own.
    fn visit(&mut self, ns: &Name, node: &Name, at: DateTime<Utc>) -> &mut Visit {
        let fork = self.fork;
        let line = self.lines.entry(ns.clone()).or_default();
        let known = line.last().is_some_and(|step| step.nodes.iter().any(|visit| visit.node == *node));
        if !known {
            let step = line.last().map_or(0, |step| step.step + 1);
            if let Some(before) = line.last_mut() {
                before.until = Some(at);
            }
            let nodes = vec![fresh(line, node)];
            line.push(Step { step, source: Source::Loop, fork, at, until: None, nodes });
        }
        let last = line.len() - 1;
        let nodes = &mut line[last].nodes;
        let index = nodes.iter().position(|visit| visit.node == *node).unwrap_or(0);
        &mut nodes[index]
    }

    /// The path, as the thread stands.
    pub fn ends(mut self, thread: &Thread, now: DateTime<Utc>) -> Vec<Step> {
        for (ns, node, asked_at) in std::mem::take(&mut self.open).into_values() {
            let last = self.lines.get_mut(&ns).and_then(|line| line.last_mut());
            if let Some(visit) = last.and_then(|step| step.nodes.iter_mut().find(|visit| visit.node == node)) {
                visit.waited_ms += between(asked_at, now);
            }
        }
        let over = thread.status.is_terminal();
        let sleeps = thread.status == ThreadStatus::Sleeping;
        for step in self.lines.values_mut().filter_map(|line| line.last_mut()) {
            let at = step.at;
            for visit in step.nodes.iter_mut().filter(|visit| !visit.state.is_over()) {
                visit.state = match visit.state {
                    VisitState::Due if over => VisitState::Passed,
                    _ if over => VisitState::Stopped,
                    // Nothing that is at work sleeps by another's leave.
                    VisitState::Due | VisitState::Running if sleeps => VisitState::Sleeps,
                    // Its beginning is committed with what it does first.
                    VisitState::Due if thread.status == ThreadStatus::Running && thread.owner.is_some() => {
                        VisitState::Running
                    }
                    state => state,
                };
                if visit.state == VisitState::Sleeps {
                    visit.waited_ms = between(at, now);
                }
            }
        }
        let mut root = self.lines.remove(&Name::default()).unwrap_or_default();
        self.fill(&mut root, "");
        root
    }

    /// Puts what ran inside subgraphs where it belongs.
    fn fill(&mut self, line: &mut [Step], ns: &str) {
        for step in line {
            for visit in &mut step.nodes {
                let own = format!("{}:{}", visit.node, visit.visit);
                let branch = if ns.is_empty() && step.fork > 0 { format!("~{}", step.fork) } else { String::new() };
                let inside = if ns.is_empty() { own } else { format!("{ns}|{own}") };
                let is_here = |name: &Name| {
                    let rest = name.strip_prefix(&inside).and_then(|rest| rest.strip_suffix(&*branch));
                    rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix(':').is_some_and(is_number))
                };
                let names: Vec<Name> = self.lines.keys().filter(|name| is_here(name)).cloned().collect();
                for name in names {
                    let mut inner = self.lines.remove(&name).unwrap_or_default();
                    self.fill(&mut inner, &name);
                    // While it asks or sleeps inside it does nothing else.
                    if let Some(waits) = waiting(&inner).filter(|_| !visit.state.is_over()) {
                        visit.state = waits;
                    }
                    visit.inner.push(inner);
                }
            }
        }
    }
}

fn visits(checkpoint: &Checkpoint) -> Vec<(Name, u64)> {
    checkpoint.frontier.iter().map(|task| (task.node.clone(), task.visit)).collect()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn waiting(line: &[Step]) -> Option<VisitState> {
    let mut states = line.last()?.nodes.iter().map(|visit| visit.state);
    states.rfind(|state| matches!(state, VisitState::Asks | VisitState::Sleeps))
}

fn fresh(line: &[Step], node: &Name) -> Visit {
    let before = line.iter().rev().flat_map(|step| &step.nodes).find(|visit| visit.node == *node);
    Visit {
        node: node.clone(),
        visit: before.map_or(1, |visit| visit.visit + 1),
        tasks: 1,
        state: VisitState::Due,
        failures: 0,
        took_ms: 0,
        waited_ms: 0,
        failure: None,
        handler: None,
        undone: Vec::new(),
        inner: Vec::new(),
    }
}

fn between(from: DateTime<Utc>, to: DateTime<Utc>) -> u64 {
    u64::try_from((to - from).num_milliseconds()).unwrap_or(0)
}

/// Namespace, node and visit of a place in the journal: `fork 1: outer:1|node#2[0]/name#0`.
fn placed(place: &str) -> Option<(Name, Name, Option<u64>)> {
    let place = match place.strip_prefix("fork ") {
        Some(rest) => rest.split_once(": ")?.1,
        None => place,
    };
    let (ns, rest) = place.rsplit_once('|').unwrap_or(("", place));
    let (node, rest) = rest.split_once('#')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((ns.into(), node.into(), rest[..digits].parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_the_journal_are_read() {
        assert_eq!(placed("watch#2/look#0"), Some((Name::default(), "watch".into(), Some(2))));
        assert_eq!(placed("fork 3: a:1|b:2:0|c d#7[4]/x#1"), Some(("a:1|b:2:0".into(), "c d".into(), Some(7))));
        assert_eq!(placed("nothing"), None);
    }
}
