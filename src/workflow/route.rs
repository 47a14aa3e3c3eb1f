//! What a file's `route`, `goto` and `send` become.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::graph::{Destination, Failure, Field, Goto, Name, Router, State};

use super::{Case, Expression, names};

/// Cases of a `route` or a `goto`; the first that holds counts.
#[derive(Debug)]
pub(super) struct Cases(Vec<(Option<Expression>, Vec<Name>)>);

impl Cases {
    pub fn compile(cases: &[Case]) -> Result<Self, Failure> {
        let one = |case: &Case| {
            let when = case.when.as_deref().map(Expression::compile).transpose()?;
            Ok((when, case.to.names().iter().map(Name::from).collect()))
        };
        Ok(Self(cases.iter().map(one).collect::<Result<_, Failure>>()?))
    }

    /// Where the first case that holds leads.
    pub fn choose(&self, state: &State) -> Result<Option<&[Name]>, Failure> {
        for (when, to) in &self.0 {
            let holds = when.as_ref().map_or(Ok(true), |when| when.holds(state))?;
            if holds {
                return Ok(Some(to));
            }
        }
        Ok(None)
    }

    /// Everywhere it may lead, with what is written at the arrow.
    pub fn destinations(&self) -> impl Iterator<Item = (&Name, Option<&str>)> {
        self.0.iter().flat_map(|(when, to)| to.iter().map(move |to| (to, when.as_ref().map(Expression::source))))
    }

    pub fn conditions(&self) -> impl Iterator<Item = &Expression> {
        self.0.iter().filter_map(|(when, _)| when.as_ref())
    }

    /// Whether one of the cases always holds.
    pub fn is_closed(&self) -> bool {
        self.0.iter().any(|(when, to)| when.is_none() && !to.is_empty())
    }

    fn describe(&self) -> Value {
        let case = |(when, to): &(Option<Expression>, Vec<Name>)| json!({"when": when.as_ref().map(Expression::source), "to": to});
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
        Ok(chosen.unwrap_or_default().iter().cloned().map(Goto::Node).collect())
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
