//! Building a graph in Rust. Nothing is checked here; `compile()` checks everything at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{
    Barrier, Body, Channel, CompileErrors, CompiledGraph, Destination, DynNode, Failure, Goto, Leaving, Name, Node,
    NodePolicy, Router, State, Typed,
};

/// A graph under construction.
///
/// ```
/// use tidegate::graph::{Channel, ChannelType, END, START, StateGraph};
/// let errors = StateGraph::new("empty").channel("x", Channel::last(ChannelType::Integer)).compile().err().unwrap();
/// assert!(errors.to_string().contains("no entry"));
/// # let _ = (START, END);
/// ```
pub struct StateGraph {
    pub(super) name: String,
    pub(super) channels: BTreeMap<Name, Channel>,
    pub(super) input_channels: Option<BTreeSet<Name>>,
    pub(super) nodes: BTreeMap<Name, (Body, NodePolicy)>,
    pub(super) leaving: BTreeMap<Name, Leaving>,
    pub(super) barriers: BTreeMap<Name, Barrier>,
    pub(super) interrupt_before: BTreeSet<Name>,
    pub(super) interrupt_after: BTreeSet<Name>,
    pub(super) step_timeout: Option<Duration>,
    pub(super) duplicates: Vec<String>,
    pub(super) policies_of_nobody: Vec<String>,
}

impl StateGraph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            channels: BTreeMap::new(),
            input_channels: None,
            nodes: BTreeMap::new(),
            leaving: BTreeMap::new(),
            barriers: BTreeMap::new(),
            interrupt_before: BTreeSet::new(),
            interrupt_after: BTreeSet::new(),
            step_timeout: None,
            duplicates: Vec::new(),
            policies_of_nobody: Vec::new(),
        }
    }

    /// Declares a channel.
    #[must_use]
    pub fn channel(mut self, name: impl Into<Name>, channel: Channel) -> Self {
        let name = name.into();
        if self.channels.insert(name.clone(), channel).is_some() {
            self.duplicates.push(format!("channel `{name}`"));
        }
        self
    }

    /// Says which channels an input may write; without this it may write all.
    #[must_use]
    pub fn input<N: Into<Name>>(mut self, channels: impl IntoIterator<Item = N>) -> Self {
        self.input_channels = Some(channels.into_iter().map(Into::into).collect());
        self
    }

    /// Adds a typed node.
    #[must_use]
    pub fn node<N: Node>(self, name: impl Into<Name>, node: N) -> Self {
        self.dyn_node(name, Arc::new(Typed::new(node)))
    }

    /// Adds an erased node.
    #[must_use]
    pub fn dyn_node(self, name: impl Into<Name>, node: Arc<dyn DynNode>) -> Self {
        self.body(name.into(), Body::Leaf(node))
    }

    /// Adds a graph as a node: channels of the same name are shared.
    #[must_use]
    pub fn subgraph(self, name: impl Into<Name>, graph: Arc<CompiledGraph>) -> Self {
        self.body(name.into(), Body::Subgraph(graph))
    }

    fn body(mut self, name: Name, body: Body) -> Self {
        if self.nodes.insert(name.clone(), (body, NodePolicy::default())).is_some() {
            self.duplicates.push(format!("node `{name}`"));
        }
        self
    }

    /// Says how a node (added before) is run.
    #[must_use]
    pub fn policy(mut self, node: &str, policy: NodePolicy) -> Self {
        match self.nodes.get_mut(node) {
            Some(entry) => entry.1 = policy,
            None => self.policies_of_nobody.push(node.to_owned()),
        }
        self
    }

    /// A plain edge.
    #[must_use]
    pub fn edge(mut self, from: impl Into<Name>, to: impl Into<Name>) -> Self {
        self.leaving.entry(from.into()).or_default().to.push(to.into());
        self
    }

    /// A barrier: `to` waits for all of `from`.
    #[must_use]
    pub fn barrier<N: Into<Name>>(mut self, from: impl IntoIterator<Item = N>, to: impl Into<Name>) -> Self {
        let from: BTreeSet<Name> = from.into_iter().map(Into::into).collect();
        let to = to.into();
        let id = Name::from(format!("{}->{to}", from.iter().map(Name::as_str).collect::<Vec<_>>().join("+")));
        for source in &from {
            self.leaving.entry(source.clone()).or_default().barriers.push(id.clone());
        }
        self.barriers.insert(id.clone(), Barrier { id, from, to });
        self
    }

    /// A conditional edge.
    #[must_use]
    pub fn router(mut self, from: impl Into<Name>, router: Arc<dyn Router>) -> Self {
        self.leaving.entry(from.into()).or_default().routers.push(router);
        self
    }

    /// A conditional edge by a function that returns the name of one of `destinations`.
    #[must_use]
    pub fn route<N, F>(self, from: impl Into<Name>, destinations: impl IntoIterator<Item = N>, choose: F) -> Self
    where
        N: Into<Name>,
        F: Fn(&State) -> Result<String, Failure> + Send + Sync + 'static,
    {
        let to = destinations.into_iter().map(|d| Destination::node(d)).collect();
        self.router(from, Arc::new(ByFunction { to, choose }))
    }

    /// Stops before these nodes.
    #[must_use]
    pub fn interrupt_before<N: Into<Name>>(mut self, nodes: impl IntoIterator<Item = N>) -> Self {
        self.interrupt_before.extend(nodes.into_iter().map(Into::into));
        self
    }

    /// Stops behind these nodes.
    #[must_use]
    pub fn interrupt_after<N: Into<Name>>(mut self, nodes: impl IntoIterator<Item = N>) -> Self {
        self.interrupt_after.extend(nodes.into_iter().map(Into::into));
        self
    }

    /// Longest time of one superstep (LangGraph's `step_timeout`). A run that exceeds it fails with `step_timeout`: nothing is undone, what
    /// has ended of the superstep is kept, and the thread can be continued.
    #[must_use]
    pub fn step_timeout(mut self, limit: Duration) -> Self {
        self.step_timeout = Some(limit);
        self
    }

    /// Checks everything and returns the graph, or every error with its mend.
    pub fn compile(self) -> Result<CompiledGraph, CompileErrors> {
        super::compile::compile(self, false)
    }

    /// The same for a graph that somebody has begun with: it is refused only for what cannot be run, as it was then. What is wrong in any
    /// other way is a warning.
    pub fn compile_kept(self) -> Result<CompiledGraph, CompileErrors> {
        super::compile::compile(self, true)
    }
}

struct ByFunction<F> {
    to: Vec<Destination>,
    choose: F,
}

impl<F> Router for ByFunction<F>
where
    F: Fn(&State) -> Result<String, Failure> + Send + Sync + 'static,
{
    fn destinations(&self) -> Vec<Destination> {
        self.to.clone()
    }

    fn may_stop(&self) -> bool {
        false
    }

    fn route(&self, state: &State) -> Result<Vec<Goto>, Failure> {
        let to = (self.choose)(state)?;
        let Some(chosen) = self.to.iter().find(|d| d.to == to) else {
            let declared: Vec<&str> = self.to.iter().map(|d| d.to.as_str()).collect();
            return Err(Failure::new("undeclared_destination", format!("a router chose `{to}`"))
                .because(format!("declared are: {}", declared.join(", ")))
                .hint("add it to the router's destinations"));
        };
        Ok(vec![Goto::Node(chosen.to.clone())])
    }
}
