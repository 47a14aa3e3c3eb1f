//! What a node inside a subgraph does in a graph around it: LangGraph's `Command(graph=…)`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Failure, Goto, Name, TaskResult, Write};

/// Which of the graphs around a node is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Above {
    /// The graph in which the node's own graph is a subgraph (LangGraph's `Command.PARENT`).
    Parent,
    /// The graph in which the closest subgraph node of this name stands; everything below it is left.
    Of(Name),
}

impl Above {
    /// Whether it means the graph in which `node` stands, seen from inside that node's subgraph. `direct`: from the subgraph itself, not
    /// from one inside it.
    pub fn is_around(&self, node: &str, direct: bool) -> bool {
        match self {
            Self::Parent => direct,
            Self::Of(name) => *name == *node,
        }
    }
}

/// Ends the subgraph of the node that gives it. The node of that subgraph then ends as if it had written `update` and gone to `goto`; what
/// the subgraph wrote is not handed back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// The graph that is meant.
    pub graph: Above,
    /// What is written there.
    pub update: Vec<Write>,
    /// Where it goes there, beside the edges of the subgraph's node.
    pub goto: Vec<Goto>,
}

impl Command {
    /// A command to the parent graph.
    pub fn to_parent() -> Self {
        Self { graph: Above::Parent, update: Vec::new(), goto: Vec::new() }
    }

    /// A command to the graph in which the subgraph node `node` stands, from anywhere inside it.
    pub fn leaving(node: impl Into<Name>) -> Self {
        Self { graph: Above::Of(node.into()), ..Self::to_parent() }
    }

    /// Writes a channel there.
    #[must_use]
    pub fn update(mut self, channel: impl Into<Name>, value: impl Into<Value>) -> Self {
        self.update.push(Write::new(channel, value.into()));
        self
    }

    /// Goes to a node there.
    #[must_use]
    pub fn goto(mut self, node: impl Into<Name>) -> Self {
        self.goto.push(Goto::Node(node.into()));
        self
    }
}

impl From<Command> for Goto {
    fn from(command: Command) -> Self {
        Self::Command(Box::new(command))
    }
}

/// What `compile()` needs to know of the commands that a node may give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commands {
    /// The graph that they mean.
    pub graph: Above,
    /// Where they may go there.
    pub gotos: Vec<String>,
    /// Channels that they may write there.
    pub writes: Vec<String>,
}

/// The command among a node's gotos, where there is one.
pub(super) fn command_of(
    node: &str,
    is_root: bool,
    writes: &[Write],
    gotos: &mut Vec<Goto>,
) -> Result<Option<Command>, Failure> {
    let Some(at) = gotos.iter().position(|goto| matches!(goto, Goto::Command(_))) else { return Ok(None) };
    let Goto::Command(command) = gotos.swap_remove(at) else { return Ok(None) };
    if is_root {
        let (message, cause) = match &command.graph {
            Above::Parent => (format!("`{node}` gives a command to the parent graph"), "its graph has none".to_owned()),
            Above::Of(name) => {
                let message = format!("`{node}` gives a command to the graph around subgraph `{name}`");
                (message, format!("it is inside no subgraph of the name `{name}`"))
            }
        };
        let failure = Failure::new("no_parent_graph", message).because(cause);
        return Err(failure.hint("run its graph as a subgraph, or let it go to a node of its own graph"));
    }
    let nested = command.goto.iter().any(|goto| matches!(goto, Goto::Command(_)));
    if nested || !writes.is_empty() || !gotos.is_empty() {
        return Err(Failure::new("bad_command", format!("`{node}` gives a command to a graph around it, and more"))
            .because("its own graph ends with the command: what else it writes or goes to would be lost")
            .hint("put everything into the command, or give none"));
    }
    Ok(Some(*command))
}

/// The first command, in order of path, that the tasks of a superstep gave.
pub(super) fn given(results: &[TaskResult]) -> Option<Command> {
    let first = results.iter().filter(|result| result.command.is_some()).min_by(|a, b| a.path.cmp(&b.path))?;
    first.command.as_deref().cloned()
}
