//! What a file's `route`, `goto` and `send` become.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::graph::{Above, Commands, Destination, END, Failure, Field, Goto, Name, Router, State};

use super::{Case, Expression, names};

/// The word of a `goto` for the graph around its own.
const PARENT: &str = "parent";

/// Cases of a `route` or a `goto`; the first that holds counts.
#[derive(Debug)]
pub(super) struct Cases(Vec<Compiled>);

#[derive(Debug)]
pub(super) struct Compiled {
    when: Option<Expression>,
    pub to: Vec<Name>,
    /// The graph that is meant, if it is not the node's own.
    pub graph: Option<Above>,
}

/// What a case's `graph` means.
pub(super) fn above(graph: &str) -> Above {
    if graph == PARENT { Above::Parent } else { Above::Of(graph.into()) }
}

impl Cases {
    pub fn compile(cases: &[Case]) -> Result<Self, Failure> {
        let one = |case: &Case| {
            let when = case.when.as_deref().map(Expression::compile).transpose()?;
            let to = case.to.names().iter().map(Name::from).collect();
            Ok(Compiled { when, to, graph: case.graph.as_deref().map(above) })
        };
        Ok(Self(cases.iter().map(one).collect::<Result<_, Failure>>()?))
    }

    /// The first case that holds.
    pub fn choose(&self, state: &State) -> Result<Option<&Compiled>, Failure> {
        for case in &self.0 {
            let holds = case.when.as_ref().map_or(Ok(true), |when| when.holds(state))?;
            if holds {
                return Ok(Some(case));
            }
        }
        Ok(None)
    }

    /// Everywhere it may lead in its own graph, with what is written at the arrow.
    pub fn destinations(&self) -> impl Iterator<Item = (&Name, Option<&str>)> {
        let own = self.0.iter().filter(|case| case.graph.is_none());
        own.flat_map(|case| case.to.iter().map(move |to| (to, case.when.as_ref().map(Expression::source))))
    }

    /// The commands to graphs around its own, each of which may write `writes`.
    pub fn commands(&self, writes: &[String]) -> Vec<Commands> {
        let command = |case: &Compiled| {
            let gotos = case.to.iter().filter(|to| *to != END).map(Name::to_string).collect();
            Some(Commands { graph: case.graph.clone()?, gotos, writes: writes.to_vec() })
        };
        self.0.iter().filter_map(command).collect()
    }

    /// Whether some case, or none, leaves the run in its own graph.
    pub fn may_stay(&self) -> bool {
        self.0.iter().any(|case| case.graph.is_none()) || self.0.last().is_none_or(|last| last.when.is_some())
    }

    pub fn conditions(&self) -> impl Iterator<Item = &Expression> {
        self.0.iter().filter_map(|case| case.when.as_ref())
    }

    /// Whether something in its own graph is always due.
    pub fn is_closed(&self) -> bool {
        let own = self.0.iter().all(|case| case.graph.is_none());
        own && self.0.iter().any(|case| case.when.is_none() && !case.to.is_empty())
    }

    fn describe(&self) -> Value {
        let case = |case: &Compiled| json!({"when": case.when.as_ref().map(Expression::source), "to": case.to});
        self.0.iter().map(case).collect()
    }
}

/// A `route` edge.
pub(super) struct Route {
    pub from: String,
    pub cases: Cases,
}

impl Router for Route {
    fn destinations(&self) -> Vec<Destination> {
        let destination = |(to, when): (&Name, Option<&str>)| Destination {
            to: to.clone(),
            label: Some(when.unwrap_or("else").to_owned()),
            send: false,
            keys: None,
        };
        self.cases.destinations().map(destination).collect()
    }

    fn route(&self, state: &State) -> Result<Vec<Goto>, Failure> {
        let chosen = self.cases.choose(state).map_err(|failure| leaving(failure, &self.from))?;
        Ok(chosen.map(|case| case.to.iter().cloned().map(Goto::Node).collect()).unwrap_or_default())
    }

    fn parameters(&self) -> Value {
        self.cases.describe()
    }

    fn reads(&self) -> Option<BTreeMap<String, Field>> {
        let mut conditions = self.cases.conditions().map(Expression::names);
        let first = conditions.next();
        names::reads(first, conditions)
    }

    fn may_stop(&self) -> bool {
        !self.cases.is_closed()
    }
}

/// A `send` edge.
pub(super) struct SendEach {
    pub from: String,
    pub to: Name,
    pub each: Expression,
    pub name: String,
}

impl Router for SendEach {
    fn destinations(&self) -> Vec<Destination> {
        let label = format!("each {} as {}", self.each.source(), self.name);
        vec![Destination {
            to: self.to.clone(),
            label: Some(label),
            send: true,
            keys: Some(vec![self.name.as_str().into()]),
        }]
    }

    fn route(&self, state: &State) -> Result<Vec<Goto>, Failure> {
        let items = match self.each.value(state).map_err(|failure| leaving(failure, &self.from))? {
            Value::Array(items) => items,
            other => {
                let message = format!("`{}` on the edge from `{}` is no list", self.each.source(), self.from);
                let failure = Failure::new("expression_type", message);
                return Err(failure.because(format!("it gives {}", crate::graph::kind(&other))));
            }
        };
        let send = |item| Goto::Send {
            to: self.to.clone(),
            input: Value::Object(Map::from_iter([(self.name.clone(), item)])),
        };
        Ok(items.into_iter().map(send).collect())
    }

    fn parameters(&self) -> Value {
        json!({"each": self.each.source(), "as": self.name})
    }

    fn reads(&self) -> Option<BTreeMap<String, Field>> {
        names::reads([self.each.names()], [])
    }
}

fn leaving(mut failure: Failure, from: &str) -> Failure {
    failure.message = format!("on the edge from `{from}`: {}", failure.message);
    failure
}
