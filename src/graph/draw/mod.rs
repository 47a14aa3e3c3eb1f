//! Pictures of a graph: mermaid, Graphviz's dot, and SVG. Subgraphs are drawn inside. What a run did can be drawn over it.

mod dot;
mod layout;
mod measure;
mod mermaid;
mod svg;

use std::collections::BTreeMap;

use super::{Body, CompiledGraph, Destination, END, Name, NodeEntry, START};

/// A mermaid flowchart. Dashed arrows are conditional.
pub fn mermaid(graph: &CompiledGraph) -> String {
    Picture::of(graph, None).mermaid()
}

/// A Graphviz digraph. Dashed arrows are conditional.
pub fn dot(graph: &CompiledGraph) -> String {
    Picture::of(graph, None).dot()
}

/// An SVG, laid out here. Dashed arrows are conditional.
pub fn svg(graph: &CompiledGraph) -> String {
    Picture::of(graph, None).svg()
}

/// What a run did with a graph, to be drawn over it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Traced {
    /// Nodes that were due, by name.
    pub nodes: BTreeMap<Name, TracedNode>,
    /// How often each arrow was followed.
    pub arrows: BTreeMap<(Name, Name), u64>,
    /// Inside subgraphs, by their node's name.
    pub inner: BTreeMap<Name, Traced>,
}

/// What a run did with a node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TracedNode {
    /// How often it was run.
    pub count: u64,
    /// How long it worked in all, in milliseconds.
    pub total_ms: u64,
    /// How it fared last.
    pub glow: Glow,
}

/// How a node that was due is drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Glow {
    /// It ran.
    #[default]
    Ran,
    /// It failed.
    Failed,
    /// The run stands here: it is due, at work, or waits.
    Here,
}

impl Glow {
    /// Its word in all three languages.
    fn word(self) -> &'static str {
        match self {
            Self::Ran => "ran",
            Self::Failed => "failed",
            Self::Here => "here",
        }
    }
}

/// A graph as it is drawn.
#[derive(Debug, Clone)]
pub struct Picture {
    name: String,
    shapes: Vec<Shape>,
    arrows: Vec<Arrow>,
    /// A run is drawn over it.
    traced: bool,
}

/// A node, or one of the graph's ends.
#[derive(Debug, Clone)]
struct Shape {
    name: String,
    /// Below the name.
    kind: String,
    /// What is special about it, and the class that it is drawn with.
    marks: Vec<(&'static str, String)>,
    role: Role,
    trace: Option<TracedNode>,
}

#[derive(Debug, Clone)]
enum Role {
    Start,
    End,
    Leaf,
    Frame(Box<Picture>),
}

#[derive(Debug, Clone)]
struct Arrow {
    from: usize,
    to: usize,
    label: Option<String>,
    style: Style,
    taken: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Conditional,
    OnError,
}

impl Picture {
    /// Of a graph, with what a run did.
    pub fn of(graph: &CompiledGraph, run: Option<&Traced>) -> Self {
        let mut shapes = vec![end(START, Role::Start)];
        shapes.extend(graph.nodes().iter().map(|(name, entry)| shape(graph, name, entry, run)));
        shapes.push(end(END, Role::End));
        let at: BTreeMap<String, usize> = shapes.iter().enumerate().map(|(i, s)| (s.name.clone(), i)).collect();
        let mut arrows: Vec<Arrow> = Vec::new();
        for (from, to, label, style) in connections(graph) {
            // compile() knows every end of an arrow.
            let (Some(&from_at), Some(&to_at)) = (at.get(from.as_str()), at.get(to.as_str())) else { continue };
            let same = |a: &&mut Arrow| (a.from, a.to, a.style) == (from_at, to_at, style);
            match arrows.iter_mut().find(same) {
                Some(arrow) => arrow.label = joined(arrow.label.take(), label),
                None => {
                    let taken = run.and_then(|run| run.arrows.get(&(from, to))).copied().unwrap_or(0);
                    arrows.push(Arrow { from: from_at, to: to_at, label, style, taken });
                }
            }
        }
        let mut picture = Self { name: graph.name().to_owned(), shapes, arrows, traced: run.is_some() };
        picture.without_unused_end();
        picture
    }

    /// The same with subgraphs that the run never came to as single boxes: what was not done takes no more room than its name.
    #[must_use]
    pub fn folded(mut self) -> Self {
        for shape in &mut self.shapes {
            let role = std::mem::replace(&mut shape.role, Role::Leaf);
            shape.role = match role {
                Role::Frame(inner) if inner.is_traced_anywhere() => Role::Frame(Box::new(inner.folded())),
                Role::Frame(_) | Role::Leaf => Role::Leaf,
                end @ (Role::Start | Role::End) => end,
            };
        }
        self
    }

    fn is_traced_anywhere(&self) -> bool {
        let inside = |shape: &Shape| matches!(&shape.role, Role::Frame(inner) if inner.is_traced_anywhere());
        self.shapes.iter().any(|shape| shape.trace.is_some() || inside(shape))
    }

    /// A graph whose runs end where nothing is due has no arrow to its end.
    fn without_unused_end(&mut self) {
        let last = self.shapes.len() - 1;
        if self.arrows.iter().all(|arrow| arrow.to != last) {
            self.shapes.pop();
        }
    }
}

fn joined(one: Option<String>, other: Option<String>) -> Option<String> {
    match (one, other) {
        (Some(one), Some(other)) if one != other => Some(format!("{one}\n{other}")),
        (one, other) => one.or(other),
    }
}

fn end(name: &str, role: Role) -> Shape {
    Shape { name: name.to_owned(), kind: String::new(), marks: Vec::new(), role, trace: None }
}

fn shape(graph: &CompiledGraph, name: &Name, entry: &NodeEntry, run: Option<&Traced>) -> Shape {
    let (role, kind) = match &entry.body {
        Body::Leaf(_) => (Role::Leaf, entry.info.kind.clone()),
        Body::Subgraph(inner) => {
            // A run that never came here is drawn as one that did nothing.
            let nothing = Traced::default();
            let inside = run.map(|run| run.inner.get(name).unwrap_or(&nothing));
            (Role::Frame(Box::new(Picture::of(inner, inside))), "subgraph".to_owned())
        }
    };
    let mut marks = Vec::new();
    if graph.interrupt_before().contains(name) {
        marks.push(("stop", "stops before".to_owned()));
    }
    if graph.interrupt_after().contains(name) {
        marks.push(("stop", "stops behind".to_owned()));
    }
    let policy = &entry.policy;
    if policy.commit_point {
        marks.push(("commit", "commit point".to_owned()));
    }
    if policy.defer {
        marks.push(("defer", "deferred".to_owned()));
    }
    if policy.cache.is_some() {
        marks.push(("defer", "cached".to_owned()));
    }
    let trace = run.and_then(|run| run.nodes.get(name)).cloned();
    if let Some(trace) = trace.as_ref().filter(|trace| trace.count > 0) {
        marks.push(("trace", format!("{}{}", times(trace.count), length(trace.total_ms))));
    }
    Shape { name: name.to_string(), kind, marks, role, trace }
}

fn times(count: u64) -> String {
    if count == 1 { String::new() } else { format!("×{count} · ") }
}

/// A length of time for people: `0.25 s`, `3 min 20 s`.
pub fn length(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{}.{:02} s", seconds, ms % 1000 / 10),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Everything that leads somewhere: from, to, what is written at it, how it is drawn.
fn connections(graph: &CompiledGraph) -> Vec<(Name, Name, Option<String>, Style)> {
    let mut all = Vec::new();
    let start = Name::from(START);
    for from in std::iter::once(&start).chain(graph.nodes().keys()) {
        let mut add = |to: &Name, label: Option<String>, style| all.push((from.clone(), to.clone(), label, style));
        if let Some(leaving) = graph.leaving(from) {
            leaving.to.iter().for_each(|to| add(to, None, Style::Plain));
            for Destination { to, label, .. } in leaving.routers.iter().flat_map(|r| r.destinations()) {
                add(&to, label, Style::Conditional);
            }
            let barriers = leaving.barriers.iter().filter_map(|id| graph.barriers().get(id));
            barriers.for_each(|b| add(&b.to, Some("all".to_owned()), Style::Plain));
        }
        if let Some(entry) = graph.nodes().get(from) {
            let gotos = entry.info.gotos.iter().map(Name::from);
            gotos.for_each(|to| add(&to, Some("goto".to_owned()), Style::Conditional));
            let handler = entry.policy.on_error.iter();
            handler.for_each(|by| add(&by.to, Some("on error".to_owned()), Style::OnError));
        }
    }
    all
}
