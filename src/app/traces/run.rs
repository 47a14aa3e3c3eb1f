//! One run as spans: run, superstep, node, effect. Made of the engine's events, without a clock and without I/O.

use std::collections::{HashMap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::adapters::otlp::{Span, Word};
use crate::graph::{Event, Failure, Name, RunEnd, Thread, ThreadId, ThreadStatus};
use crate::release::sha256_json;

/// More open spans than this a run does not have: what comes beyond is not traced.
const MOST_OPEN: usize = 10_000;

type Attributes = Vec<(&'static str, Word)>;

/// A span that has not ended.
struct Open {
    id: u64,
    parent: u64,
    start: DateTime<Utc>,
    attempt: u32,
}

/// A run that goes on.
pub(super) struct Run {
    trace: u128,
    own: Open,
    name: String,
    attributes: Attributes,
    /// By namespace.
    steps: HashMap<Name, Open>,
    /// By namespace and node; sends of one node are told apart by their order alone.
    nodes: HashMap<(Name, Name), VecDeque<Open>>,
    /// By place.
    effects: HashMap<String, (Open, String)>,
    open: usize,
}

fn text(value: impl Into<String>) -> Word {
    Word::Text(value.into())
}

/// The trace of a thread: every run of it, by whatever process, is in the same one. A UUID is its own.
pub(super) fn trace_of(thread: &ThreadId) -> u128 {
    let id = thread.as_str();
    Uuid::parse_str(id).map(|uuid| uuid.as_u128()).ok().filter(|trace| *trace != 0).unwrap_or_else(|| {
        let digest = sha256_json(&serde_json::json!(id));
        let hex = digest.trim_start_matches("sha256:").get(..32).unwrap_or_default();
        u128::from_str_radix(hex, 16).unwrap_or_default().max(1)
    })
}

fn fresh() -> u64 {
    // Each half has some fixed bits; both together have none that matter.
    let (high, low) = Uuid::new_v4().as_u64_pair();
    (high ^ low).max(1)
}

fn earlier(at: DateTime<Utc>, ms: u64) -> DateTime<Utc> {
    let length = i64::try_from(ms).ok().and_then(TimeDelta::try_milliseconds);
    length.and_then(|length| at.checked_sub_signed(length)).unwrap_or(at)
}

fn reason(failure: &Failure) -> String {
    format!("{}: {}", failure.code, failure.message)
}

/// Namespace and node of an effect's place: `fork N: ns|node#visit[send]/name#ordinal`.
fn node_of(place: &str) -> (Name, Name) {
    let place = place.strip_prefix("fork ").and_then(|rest| Some(rest.split_once(": ")?.1)).unwrap_or(place);
    let task = place.split_once('/').map_or(place, |(task, _)| task);
    let (ns, node) = task.rsplit_once('|').unwrap_or(("", task));
    (Name::from(ns), Name::from(node.split('#').next().unwrap_or_default()))
}

impl Run {
    /// A run of `thread` begins.
    pub fn new(thread: &Thread, at: DateTime<Utc>) -> Self {
        let mut attributes =
            vec![("tidegate.thread.id", text(thread.id.as_str())), ("tidegate.workflow", text(&thread.workflow))];
        attributes.extend(thread.labels.get("model").map(|model| ("tidegate.model", text(model))));
        attributes.extend(thread.labels.get("kind").map(|kind| ("tidegate.kind", text(kind))));
        Self {
            trace: trace_of(&thread.id),
            own: Open { id: fresh(), parent: 0, start: at, attempt: 0 },
            name: format!("run {}", thread.workflow),
            attributes,
            steps: HashMap::new(),
            nodes: HashMap::new(),
            effects: HashMap::new(),
            open: 0,
        }
    }

    /// Something happened; the span that ended by it, if one did.
    pub fn event(&mut self, at: DateTime<Utc>, event: &Event) -> Option<Span> {
        match event {
            Event::Advancing { owner, epoch } => {
                self.attributes.push(("tidegate.owner", text(owner)));
                self.attributes.push(("tidegate.epoch", Word::Number(i64::try_from(*epoch).unwrap_or(i64::MAX))));
                None
            }
            Event::NodeStarted { ns, node, attempt } => {
                self.begin_node(at, ns, node, *attempt);
                None
            }
            Event::NodeFinished { ns, node, duration_ms } => {
                self.node_ended(ns, node, (earlier(at, *duration_ms), at), Vec::new(), None)
            }
            Event::NodeFailed { ns, node, failure, duration_ms, retry_in_ms, .. } => {
                let start = duration_ms.map_or(at, |ms| earlier(at, ms));
                let retried = vec![("tidegate.retried", Word::Flag(retry_in_ms.is_some()))];
                self.node_ended(ns, node, (start, at), retried, Some(reason(failure)))
            }
            Event::Cached { ns, node } => {
                self.node_ended(ns, node, (at, at), vec![("tidegate.cached", Word::Flag(true))], None)
            }
            Event::Checkpointed { ns, step, .. } => {
                let open = self.steps.remove(ns)?;
                self.open -= 1;
                let attributes = vec![("tidegate.step", Word::Number(*step)), ("tidegate.ns", text(ns.as_str()))];
                Some(self.ended(&open, format!("superstep {step}"), (open.start, at), attributes, None))
            }
            Event::EffectIntended { place, effect } => {
                let parent = self.node(node_of(place));
                if self.has_room() {
                    let open = Open { id: fresh(), parent, start: at, attempt: 0 };
                    self.effects.insert(place.clone(), (open, effect.clone()));
                }
                None
            }
            Event::EffectDone { place, effect, duration_ms, probed } => {
                let probed = vec![("tidegate.probed", Word::Flag(*probed))];
                Some(self.effect_ended(place, effect, (earlier(at, *duration_ms), at), probed, None))
            }
            Event::EffectFailed { place, effect, failure } => {
                Some(self.effect_ended(place, effect, (at, at), Vec::new(), Some(reason(failure))))
            }
            Event::EffectUndone { place, effect } => Some(self.undo(place, effect, at, None)),
            Event::UndoFailed { place, effect, failure } => Some(self.undo(place, effect, at, Some(reason(failure)))),
            Event::Accepted { .. }
            | Event::UndoStarted { .. }
            | Event::UndoAccepted { .. }
            | Event::Interrupted { .. }
            | Event::Answered { .. }
            | Event::Voted { .. }
            | Event::Signalled { .. }
            | Event::Woke { .. }
            | Event::StopAsked { .. }
            | Event::Forked { .. }
            | Event::Migrated { .. }
            | Event::CommitPoint { .. }
            | Event::StatusChanged { .. }
            | Event::Custom { .. }
            | Event::Wrote { .. }
            | Event::Imported { .. }
            | Event::Unknown => None,
        }
    }

    /// It has ended: what was open ends with it.
    pub fn end(mut self, end: Result<&RunEnd, &Failure>, version: Option<String>, at: DateTime<Utc>) -> Vec<Span> {
        let left = || vec![("tidegate.left_open", Word::Flag(true))];
        let mut spans = Vec::new();
        for (place, (open, effect)) in std::mem::take(&mut self.effects) {
            let mut attributes = left();
            attributes.push(("tidegate.place", text(place)));
            spans.push(self.ended(&open, format!("effect {effect}"), (open.start, at), attributes, None));
        }
        for ((ns, node), all) in std::mem::take(&mut self.nodes) {
            for open in all {
                let mut attributes = left();
                attributes.push(("tidegate.ns", text(ns.as_str())));
                attributes.push(("tidegate.node", text(node.as_str())));
                spans.push(self.ended(&open, format!("node {node}"), (open.start, at), attributes, None));
            }
        }
        for (ns, open) in std::mem::take(&mut self.steps) {
            let mut attributes = left();
            attributes.push(("tidegate.ns", text(ns.as_str())));
            spans.push(self.ended(&open, "superstep".to_owned(), (open.start, at), attributes, None));
        }
        let mut attributes = std::mem::take(&mut self.attributes);
        attributes.extend(version.map(|version| ("tidegate.version", Word::Text(version))));
        let (status, error) = match end {
            Ok(end) => {
                let bad = matches!(end.status, ThreadStatus::Failed | ThreadStatus::Stuck);
                (end.status.word(), end.failure.as_ref().filter(|_| bad).map(reason))
            }
            Err(failure) => ("unknown", Some(reason(failure))),
        };
        attributes.push(("tidegate.status", text(status)));
        let name = std::mem::take(&mut self.name);
        spans.push(self.ended(&self.own, name, (self.own.start, at), attributes, error));
        spans
    }

    fn has_room(&mut self) -> bool {
        let room = self.open < MOST_OPEN;
        self.open += usize::from(room);
        room
    }

    /// The span that a namespace's superstep is in: its own, or that of the run.
    fn step(&mut self, ns: &Name, at: DateTime<Utc>) -> u64 {
        if let Some(open) = self.steps.get(ns) {
            return open.id;
        }
        // A graph inside runs in a node of the one around it: `outer|node:visit`.
        let parent = match ns.rsplit_once('|').map_or(("", ns.as_str()), |(outer, own)| (outer, own)) {
            (_, "") => self.own.id,
            (outer, own) => {
                let node = own.split([':', '~', '#']).next().unwrap_or_default();
                self.node((Name::from(outer), Name::from(node)))
            }
        };
        if !self.has_room() {
            return parent;
        }
        let open = Open { id: fresh(), parent, start: at, attempt: 0 };
        let id = open.id;
        self.steps.insert(ns.clone(), open);
        id
    }

    /// The span of a node that runs, or that of the run.
    fn node(&self, of: (Name, Name)) -> u64 {
        self.nodes.get(&of).and_then(VecDeque::front).map_or(self.own.id, |open| open.id)
    }

    fn begin_node(&mut self, at: DateTime<Utc>, ns: &Name, node: &Name, attempt: u32) {
        let parent = self.step(ns, at);
        if self.has_room() {
            let open = Open { id: fresh(), parent, start: at, attempt };
            self.nodes.entry((ns.clone(), node.clone())).or_default().push_back(open);
        }
    }

    fn node_ended(
        &mut self,
        ns: &Name,
        node: &Name,
        (start, end): (DateTime<Utc>, DateTime<Utc>),
        mut attributes: Attributes,
        error: Option<String>,
    ) -> Option<Span> {
        let parent = self.step(ns, start);
        let key = (ns.clone(), node.clone());
        let open = self.nodes.get_mut(&key).and_then(VecDeque::pop_front);
        if self.nodes.get(&key).is_some_and(VecDeque::is_empty) {
            self.nodes.remove(&key);
        }
        self.open -= usize::from(open.is_some());
        let open = open.unwrap_or_else(|| Open { id: fresh(), parent, start, attempt: 1 });
        attributes.push(("tidegate.ns", text(ns.as_str())));
        attributes.push(("tidegate.node", text(node.as_str())));
        attributes.push(("tidegate.attempt", Word::Number(i64::from(open.attempt))));
        let start = start.min(open.start);
        Some(self.ended(&open, format!("node {node}"), (start, end), attributes, error))
    }

    fn effect_ended(
        &mut self,
        place: &str,
        effect: &str,
        (start, end): (DateTime<Utc>, DateTime<Utc>),
        mut attributes: Attributes,
        error: Option<String>,
    ) -> Span {
        let known = self.effects.remove(place).map(|(open, _)| open);
        self.open -= usize::from(known.is_some());
        let parent = self.node(node_of(place));
        let open = known.unwrap_or_else(|| Open { id: fresh(), parent, start, attempt: 0 });
        attributes.push(("tidegate.place", text(place)));
        self.ended(&open, format!("effect {effect}"), (start.min(open.start), end), attributes, error)
    }

    fn undo(&self, place: &str, effect: &str, at: DateTime<Utc>, error: Option<String>) -> Span {
        let open = Open { id: fresh(), parent: self.own.id, start: at, attempt: 0 };
        self.ended(&open, format!("undo {effect}"), (at, at), vec![("tidegate.place", text(place))], error)
    }

    fn ended(
        &self,
        open: &Open,
        name: String,
        (start, end): (DateTime<Utc>, DateTime<Utc>),
        attributes: Attributes,
        error: Option<String>,
    ) -> Span {
        let (trace, id, parent) = (self.trace, open.id, open.parent);
        Span { trace, id, parent, name, start, end: end.max(start), attributes, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_a_trace_whoever_runs_it() {
        let uuid = ThreadId::from("0190a1b2-0000-7000-8000-00000000abcd");
        assert_eq!(format!("{:032x}", trace_of(&uuid)), uuid.as_str().replace('-', ""));
        let named = ThreadId::from("order-7");
        assert_eq!(trace_of(&named), trace_of(&named));
        assert_ne!(trace_of(&named), trace_of(&ThreadId::from("order-8")));
        assert_ne!(trace_of(&ThreadId::from("00000000-0000-0000-0000-000000000000")), 0, "0 is no trace");
    }

    #[test]
    fn a_place_names_its_node() {
        let of = |place| {
            let (ns, node) = node_of(place);
            (ns.to_string(), node.to_string())
        };
        let pair = |ns: &str, node: &str| (ns.to_owned(), node.to_owned());
        assert_eq!(of("packager#1/build#0"), pair("", "packager"));
        assert_eq!(of("blue_green:1|watch#2[3]/probe#0"), pair("blue_green:1", "watch"));
        assert_eq!(of("fork 2: a:1|b:1|c#1/x/y#0"), pair("a:1|b:1", "c"));
    }
}
