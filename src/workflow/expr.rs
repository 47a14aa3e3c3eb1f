//! `expr`: writes channels from CEL expressions, all of them evaluated on what the node sees.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::graph::{
    ChannelType, Command, Context, DynNode, Failure, Field, Goto, NodeError, NodeInfo, Produced, View, Write,
};

use super::route::Cases;
use super::{Case, Expression, names};

pub(super) const KIND: &str = "expr";

/// What a file says of an `expr` node; stands beside `type`, not under `with`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExprSpec {
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    #[serde(default)]
    pub goto: Vec<Case>,
}

pub(super) struct Expr {
    set: Vec<(String, Expression)>,
    goto: Cases,
    parameters: Value,
}

impl Expr {
    pub fn new(spec: ExprSpec) -> Result<Self, Failure> {
        let parameters = json!(spec);
        let compiled = |(channel, source): (String, String)| Ok((channel, Expression::compile(&source)?));
        let set = spec.set.into_iter().map(compiled).collect::<Result<_, Failure>>()?;
        Ok(Self { set, goto: Cases::compile(&spec.goto)?, parameters })
    }

    fn reads(&self) -> Option<BTreeMap<String, Field>> {
        let set = self.set.iter().map(|(_, e)| e).map(Expression::names);
        // The first condition is always looked at, the others when it does not hold.
        let mut conditions = self.goto.conditions().map(Expression::names);
        let first = conditions.next();
        names::reads(set.chain(first), conditions)
    }
}

#[async_trait]
impl DynNode for Expr {
    fn info(&self) -> NodeInfo {
        let any = Field { kind: ChannelType::Any, required: false };
        let set: Vec<String> = self.set.iter().map(|(channel, _)| channel.clone()).collect();
        let commands = self.goto.commands(&set);
        let own = if self.goto.may_stay() { set } else { Vec::new() };
        NodeInfo {
            kind: KIND.to_owned(),
            version: 1,
            reads: self.reads(),
            writes: Some(own.iter().map(|channel| (channel.clone(), any)).collect()),
            always_writes: if commands.is_empty() { own } else { Vec::new() },
            commands,
            answers_into: None,
            always_goes: self.goto.is_closed(),
            gotos: self.goto.destinations().map(|(to, _)| to.to_string()).collect(),
            parameters: self.parameters.clone(),
            ..NodeInfo::default()
        }
    }

    async fn run(&self, _: &Context, view: &View) -> Result<Produced, NodeError> {
        let write = |(channel, expression): &(String, Expression)| -> Result<Write, Failure> {
            Ok(Write::new(channel.clone(), expression.value(&view.0)?))
        };
        let writes = self.set.iter().map(write).collect::<Result<_, _>>()?;
        // As in LangGraph a Command is made inside the node: it knows what the node saw, not what it writes.
        let Some(chosen) = self.goto.choose(&view.0)? else { return Ok(Produced { writes, goto: Vec::new() }) };
        let goto = chosen.to.iter().cloned().map(Goto::Node).collect();
        Ok(match chosen.graph.clone() {
            None => Produced { writes, goto },
            Some(graph) => {
                let command = Command { graph, update: writes, goto };
                Produced { writes: Vec::new(), goto: vec![command.into()] }
            }
        })
    }
}
