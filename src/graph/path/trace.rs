//! A path drawn over its graph: how often each node ran, how long, and which arrows were followed.

use std::collections::{BTreeMap, BTreeSet};

use super::super::draw::{Glow, Traced, TracedNode};
use super::super::{Body, CompiledGraph, END, Name, START, Source};
use super::{Step, Visit, VisitState};

impl Traced {
    /// Of a path.
    pub fn of(graph: &CompiledGraph, path: &[Step]) -> Self {
        let mut traced = Self::default();
        traced.add(graph, path);
        traced
    }

    fn add(&mut self, graph: &CompiledGraph, path: &[Step]) {
        for visit in path.iter().flat_map(|step| &step.nodes) {
            let node = self.nodes.entry(visit.node.clone()).or_default();
            note(node, visit);
            if let Some(Body::Subgraph(inner)) = graph.nodes().get(&visit.node).map(|entry| &entry.body) {
                let inside = self.inner.entry(visit.node.clone()).or_default();
                visit.inner.iter().for_each(|line| inside.add(inner, line));
            }
        }
        // What was passed over was never there; a node that is only that is drawn as one that did nothing.
        self.nodes.retain(|_, node| node.count > 0 || node.glow == Glow::Here);
        Follow { graph, arrows: &mut self.arrows, since: BTreeMap::new() }.path(path);
    }
}

fn note(node: &mut TracedNode, visit: &Visit) {
    node.total_ms += visit.took_ms;
    node.glow = match visit.state {
        VisitState::Due | VisitState::Running | VisitState::Asks | VisitState::Sleeps => Glow::Here,
        VisitState::Failed | VisitState::Stopped | VisitState::Handled => Glow::Failed,
        VisitState::Done | VisitState::Cached => Glow::Ran,
        VisitState::Passed => return,
    };
    node.count += if node.glow == Glow::Here { 0 } else { visit.tasks };
}

/// Finds the arrows that a path went along.
struct Follow<'f> {
    graph: &'f CompiledGraph,
    arrows: &'f mut BTreeMap<(Name, Name), u64>,
    /// For nodes that wait for others, who has ended since they last ran.
    since: BTreeMap<Name, BTreeSet<Name>>,
}

impl Follow<'_> {
    fn path(mut self, path: &[Step]) {
        let start = Name::from(START);
        let mut before: Option<&Step> = None;
        for step in path {
            match (step.source, before) {
                (Source::Input, _) | (Source::Loop, None) => {
                    step.nodes.iter().for_each(|visit| self.follow(&start, &visit.node, visit.tasks));
                }
                (Source::Loop, Some(before)) => {
                    self.between(before, step);
                    if step.nodes.is_empty() {
                        self.ended(before);
                    }
                }
                // Somebody from outside said what is due.
                (Source::Update | Source::Fork, _) => {}
            }
            before = Some(step);
        }
    }

    fn between(&mut self, before: &Step, step: &Step) {
        for visit in before.nodes.iter().filter(|visit| ended_well(visit)) {
            let leaving = self.graph.leaving(&visit.node).into_iter();
            let barriers = leaving.flat_map(|l| &l.barriers).filter_map(|id| self.graph.barriers().get(id));
            let plain = self.graph.leaving(&visit.node).into_iter().flat_map(|l| &l.to);
            let deferred = plain.filter(|to| self.graph.nodes().get(*to).is_some_and(|entry| entry.policy.defer));
            for waits in barriers.map(|b| &b.to).chain(deferred) {
                self.since.entry(waits.clone()).or_default().insert(visit.node.clone());
            }
        }
        for due in &step.nodes {
            let mut from: BTreeSet<Name> = self.since.remove(&due.node).unwrap_or_default();
            let direct = before.nodes.iter().filter(|visit| leads(self.graph, visit, &due.node));
            from.extend(direct.map(|visit| visit.node.clone()));
            from.iter().for_each(|from| self.follow(from, &due.node, due.tasks));
        }
    }

    fn ended(&mut self, last: &Step) {
        let end = Name::from(END);
        for visit in &last.nodes {
            if leads(self.graph, visit, END) {
                self.follow(&visit.node, &end, 1);
            }
        }
    }

    fn follow(&mut self, from: &Name, to: &Name, times: u64) {
        *self.arrows.entry((from.clone(), to.clone())).or_default() += times;
    }
}

fn ended_well(visit: &Visit) -> bool {
    matches!(visit.state, VisitState::Done | VisitState::Cached)
}

/// Whether an arrow leads from what a visit came to.
fn leads(graph: &CompiledGraph, visit: &Visit, to: &str) -> bool {
    if visit.state == VisitState::Handled {
        return visit.handler.as_ref().is_some_and(|handler| *handler == *to);
    }
    let leaving = graph.leaving(&visit.node).is_some_and(|l| {
        l.to.iter().any(|plain| *plain == *to) || l.routers.iter().flat_map(|r| r.destinations()).any(|d| d.to == *to)
    });
    let goes = graph.nodes().get(&visit.node).is_some_and(|entry| entry.info.gotos.iter().any(|goto| *goto == *to));
    ended_well(visit) && (leaving || goes)
}
