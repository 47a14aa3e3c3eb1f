//! Which node types a workflow file may use.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::graph::{Channel, Context, DynNode, Entry, Failure, Node, NodeError, NodeInfo, Produced, Typed, View};

use crate::ports::HttpCaller;

use super::{ask, command, expr, http, sleep, wait};

/// The node type that is built in: it has no constructor.
pub(super) const SUBGRAPH: &str = "subgraph";

/// Where a node is made.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// The graph's name.
    pub graph: &'a str,
    /// The node's name.
    pub node: &'a str,
    /// The graph's channels.
    pub channels: &'a BTreeMap<String, Channel>,
}

impl Site<'_> {
    /// Reads a node's parameters; nothing at all is read as an empty object.
    pub fn parameters<P: DeserializeOwned>(&self, with: Value) -> Result<P, Failure> {
        let with = if with.is_null() { Value::Object(Map::new()) } else { with };
        serde_json::from_value(with).map_err(|error| {
            Failure::new("bad_parameters", format!("the parameters of node `{}` do not fit its type", self.node))
                .because(error.to_string())
        })
    }
}

type Make = Arc<dyn Fn(Value, &Site<'_>) -> Result<Arc<dyn DynNode>, Failure> + Send + Sync>;

#[derive(Clone)]
struct NodeType {
    make: Make,
    /// JSON Schema of its parameters, where it told one.
    parameters: Option<Value>,
}

/// The registry of node types by the word after `type:`. `subgraph` is always there.
#[derive(Clone, Default)]
pub struct NodeTypes {
    types: BTreeMap<String, NodeType>,
}

impl NodeTypes {
    /// The types that know nothing of any domain: `expr`, `ask`, `sleep` and `wait`.
    pub fn generic() -> Self {
        Self::default()
            .with_erased::<expr::ExprSpec>(expr::KIND, |spec, _| Ok(Arc::new(expr::Expr::new(spec)?)))
            .with_erased::<ask::AskSpec>(ask::KIND, |spec, _| Ok(Arc::new(ask::Ask::new(spec)?)))
            .with_erased::<sleep::SleepSpec>(sleep::KIND, |spec, _| Ok(Arc::new(sleep::Sleep::new(&spec)?)))
            .with_erased::<wait::WaitSpec>(wait::KIND, |spec, _| Ok(Arc::new(wait::Wait::new(&spec)?)))
    }

    /// Adds `command` and `http`, which need a world: the effects of [`crate::nodes::Tools`].
    #[must_use]
    pub fn with_tools(self, caller: Arc<dyn HttpCaller>) -> Self {
        self.with_erased::<command::CommandSpec>(command::KIND, |spec, _| {
            Ok(Arc::new(command::CommandNode::new(spec)?))
        })
        .with_erased::<http::HttpSpec>(http::KIND, move |spec, _| {
            Ok(Arc::new(http::HttpNode::new(spec, caller.clone())?))
        })
    }

    /// Adds a typed node under its [`Node::KIND`], made from the raw `with`.
    #[must_use]
    pub fn with<N: Node>(self, make: impl Fn(Value, &Site<'_>) -> Result<N, Failure> + Send + Sync + 'static) -> Self {
        self.add(N::KIND, None, move |with, site| {
            let node: Arc<dyn DynNode> = Arc::new(Typed::new(make(with.clone(), site)?));
            Ok(Arc::new(Parameterised { node, with }))
        })
    }

    /// Adds a typed node whose parameters are a struct `P` (which should deny unknown fields).
    #[must_use]
    pub fn with_parameters<N: Node, P: DeserializeOwned + JsonSchema>(
        self,
        make: impl Fn(P, &Site<'_>) -> Result<N, Failure> + Send + Sync + 'static,
    ) -> Self {
        self.add(N::KIND, Some(schemars::schema_for!(P).to_value()), move |with, site| {
            let node: Arc<dyn DynNode> = Arc::new(Typed::new(make(site.parameters(with.clone())?, site)?));
            Ok(Arc::new(Parameterised { node, with }))
        })
    }

    /// Adds an erased node. Its `NodeInfo.parameters` must tell everything that decides what it does.
    #[must_use]
    pub fn with_erased<P: DeserializeOwned + JsonSchema>(
        self,
        kind: &str,
        make: impl Fn(P, &Site<'_>) -> Result<Arc<dyn DynNode>, Failure> + Send + Sync + 'static,
    ) -> Self {
        let parameters = schemars::schema_for!(P).to_value();
        self.add(kind, Some(parameters), move |with, site| make(site.parameters(with)?, site))
    }

    fn add(
        mut self,
        kind: &str,
        parameters: Option<Value>,
        make: impl Fn(Value, &Site<'_>) -> Result<Arc<dyn DynNode>, Failure> + Send + Sync + 'static,
    ) -> Self {
        self.types.insert(kind.to_owned(), NodeType { make: Arc::new(make), parameters });
        self
    }

    /// The known types, `subgraph` among them.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.types.keys().map(String::as_str).chain([SUBGRAPH]).collect();
        names.sort_unstable();
        names
    }

    /// The JSON Schema of a type's parameters, where it told one.
    pub fn parameters(&self, kind: &str) -> Option<&Value> {
        self.types.get(kind)?.parameters.as_ref()
    }

    pub(super) fn make(&self, kind: &str, with: Value, site: &Site<'_>) -> Result<Arc<dyn DynNode>, Failure> {
        let Some(known) = self.types.get(kind) else {
            return Err(Failure::new(
                "unknown_node_type",
                format!("node `{}` has the unknown type `{kind}`", site.node),
            )
            .hint(format!("use one of: {}", self.names().join(", "))));
        };
        (known.make)(with, site)
    }
}

/// A node with the parameters it was made from, so that they belong to the graph's fingerprint.
struct Parameterised {
    node: Arc<dyn DynNode>,
    with: Value,
}

#[async_trait]
impl DynNode for Parameterised {
    fn info(&self) -> NodeInfo {
        let info = self.node.info();
        let parameters =
            if info.parameters.is_null() { self.with.clone() } else { json!([info.parameters, self.with]) };
        NodeInfo { parameters, ..info }
    }

    fn migrate(&self, from: u32, entry: Entry) -> Result<Entry, Failure> {
        self.node.migrate(from, entry)
    }

    fn admits(&self, answer: &Value) -> Result<(), Failure> {
        self.node.admits(answer)
    }

    async fn run(&self, cx: &Context, view: &View) -> Result<Produced, NodeError> {
        self.node.run(cx, view).await
    }
}

/// Stands for a node whose type is not known yet, so that the rest of its graph can be checked.
pub(super) struct Unknown(pub String);

#[async_trait]
impl DynNode for Unknown {
    fn info(&self) -> NodeInfo {
        NodeInfo { kind: self.0.clone(), any_goto: true, ..NodeInfo::default() }
    }

    async fn run(&self, _: &Context, _: &View) -> Result<Produced, NodeError> {
        Err(Failure::new("unknown_node_type", format!("`{}` is not a type of node that can be run", self.0)).into())
    }
}
