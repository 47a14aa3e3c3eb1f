//! `expr`: writes channels from CEL expressions, all of them evaluated on what the node sees.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::graph::{
    ChannelType, Command, Context, DynNode, Failure, Field, Goto, NodeError, NodeInfo, Produced, State, View, Write,
};

use super::route::Cases;
use super::{Case, Expression, deep, names};

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
    work: Arc<Work>,
    parameters: Value,
}

/// What is evaluated.
struct Work {
    set: Vec<(String, Expression)>,
    goto: Cases,
}

impl Work {
    fn may_take_long(&self) -> bool {
        self.set.iter().map(|(_, e)| e).chain(self.goto.conditions()).any(|expression| expression.names().nested)
    }

    fn evaluate(&self, state: &State) -> Result<Produced, Failure> {
        let write = |(channel, expression): &(String, Expression)| -> Result<Write, Failure> {
            Ok(Write::new(channel.clone(), expression.value(state)?))
        };
        let writes = self.set.iter().map(write).collect::<Result<_, _>>()?;
        // As in LangGraph a Command is made inside the node: it knows what the node saw, not what it writes.
        let Some(chosen) = self.goto.choose(state)? else { return Ok(Produced { writes, goto: Vec::new() }) };
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

impl Expr {
    pub fn new(spec: ExprSpec) -> Result<Self, Failure> {
        let parameters = json!(spec);
        let compiled = |(channel, source): (String, String)| Ok((channel, Expression::compile(&source)?));
        let set = spec.set.into_iter().map(compiled).collect::<Result<_, Failure>>()?;
        Ok(Self { work: Arc::new(Work { set, goto: Cases::compile(&spec.goto)? }), parameters })
    }

    fn reads(&self) -> Option<BTreeMap<String, Field>> {
        let set = self.work.set.iter().map(|(_, e)| e).map(Expression::names);
        // The first condition is always looked at, the others when it does not hold.
        let mut conditions = self.work.goto.conditions().map(Expression::names);
        let first = conditions.next();
        names::reads(set.chain(first), conditions)
    }
}

#[async_trait]
impl DynNode for Expr {
    fn info(&self) -> NodeInfo {
        let any = Field { kind: ChannelType::Any, required: false };
        let set: Vec<String> = self.work.set.iter().map(|(channel, _)| channel.clone()).collect();
        let commands = self.work.goto.commands(&set);
        let own = if self.work.goto.may_stay() { set } else { Vec::new() };
        NodeInfo {
            kind: KIND.to_owned(),
            version: 1,
            reads: self.reads(),
            writes: Some(own.iter().map(|channel| (channel.clone(), any)).collect()),
            always_writes: if commands.is_empty() { own } else { Vec::new() },
            commands,
            answers_into: None,
            always_goes: self.work.goto.is_closed(),
            gotos: self.work.goto.destinations().map(|(to, _)| to.to_string()).collect(),
            parameters: self.parameters.clone(),
            ..NodeInfo::default()
        }
    }

    async fn run(&self, _: &Context, view: &View) -> Result<Produced, NodeError> {
        if !self.work.may_take_long() {
            return Ok(self.work.evaluate(&view.0)?);
        }
        let (work, state) = (self.work.clone(), view.0.clone());
        Ok(deep::apart(move || work.evaluate(&state)).await??)
    }
}
