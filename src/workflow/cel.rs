//! CEL expressions over a node's view: compiled once, evaluated on the channels they name and no others.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::{Context, Env, ExecutionError, ParseErrors, Program, Value as Cel};
use serde_json::Value;

use crate::graph::{Failure, State};

use super::convert::{to_cel, to_json, word};
use super::deep;
use super::names::{CEL_TYPES, Names, STATE};

/// The standard library, built once: building it anew would cost more than most expressions.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// Longest expression, in bytes: the parser's memory is some hundred times the source.
const MAX_SOURCE: usize = 16 * 1024;

/// Most brackets inside each other; bounds the parser's recursion before it begins.
const MAX_BRACKETS: usize = 64;

/// Deepest syntax tree; `a + b + c` is one level deeper for each operator.
const MAX_DEPTH: usize = 200;

/// Trees up to this depth are evaluated on the caller's stack (about 50 KB a level, unoptimised); deeper ones get room of their own.
const SHALLOW: usize = 12;

/// A compiled CEL expression.
pub struct Expression {
    source: String,
    program: Program,
    names: Names,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expression({})", self.source)
    }
}

impl Expression {
    /// Compiles it; an error shows the place in the expression.
    pub fn compile(source: &str) -> Result<Self, Failure> {
        bounded("bytes", source.len(), MAX_SOURCE)?;
        bounded("brackets inside each other", brackets(source), MAX_BRACKETS)?;
        deep::run(|| {
            let program = ENV.compile(source).map_err(|errors| syntax(source, &errors))?;
            let names = Names::of(program.expression());
            bounded("levels", names.depth, MAX_DEPTH)?;
            Ok(Self { source: source.to_owned(), program, names })
        })?
    }

    /// Its text.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// Refuses names beside these.
    pub(super) fn only_names(&self, known: &[&str]) -> Result<(), Failure> {
        let mut bare = self.names.bare.iter().filter(|name| !CEL_TYPES.contains(&name.as_str()));
        match bare.find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(Failure::new("unknown_name", format!("`{}`: there is no `{name}`", self.source))
                .hint(format!("there is {}", known.join(", ")))),
        }
    }

    /// Its value over `state`, whose fields are bare names and fields of `state`.
    pub fn value(&self, state: &State) -> Result<Value, Failure> {
        let value = self.execute(state)?;
        to_json(&value).map_err(|why| {
            Failure::new("expression_type", format!("`{}` gives no JSON value", self.source)).because(why)
        })
    }

    /// Its value as a condition.
    pub fn holds(&self, state: &State) -> Result<bool, Failure> {
        match self.execute(state)? {
            Cel::Bool(holds) => Ok(holds),
            other => Err(Failure::new("expression_type", format!("`{}` is no condition", self.source))
                .because(format!("it gives {}, not true or false", word(&other)))
                .hint("compare it with something")),
        }
    }

    fn execute(&self, state: &State) -> Result<Cel, Failure> {
        if self.names.depth <= SHALLOW { self.execute_here(state) } else { deep::run(|| self.execute_here(state))? }
    }

    fn execute_here(&self, state: &State) -> Result<Cel, Failure> {
        let mut context = Context::with_env(ENV.clone());
        for name in &self.names.bare {
            if let Some(value) = state.get(name) {
                context.add_variable_from_value(name.as_str(), to_cel(value));
            }
        }
        if self.names.whole || !self.names.fields.is_empty() {
            let wanted = |name: &str| self.names.whole || self.names.fields.contains(name);
            let fields: HashMap<String, Cel> =
                state.iter().filter(|(k, _)| wanted(k)).map(|(k, v)| (k.to_string(), to_cel(v))).collect();
            context.add_variable_from_value(STATE, fields);
        }
        self.program.execute(&context).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &ExecutionError) -> Failure {
        let failure = Failure::new("expression_failed", format!("`{}` cannot be evaluated", self.source));
        match error {
            ExecutionError::UndeclaredReference(name) if self.names.bare.contains(name.as_str()) => failure
                .because(format!("`{name}` has no value here"))
                .hint(format!("write it before, or ask first: has({STATE}.{name})")),
            ExecutionError::NoSuchKey(name) => {
                failure.because(error.to_string()).hint(format!("ask first whether it is there: has(….{name})"))
            }
            other => failure.because(other.to_string()),
        }
    }
}

fn bounded(what: &str, found: usize, most: usize) -> Result<(), Failure> {
    if found <= most {
        return Ok(());
    }
    Err(Failure::new("bad_expression", format!("an expression has {found} {what}"))
        .hint(format!("at most {most} are allowed: let one node prepare what the next one uses")))
}

/// How many brackets stand open at once. Those inside texts count too: a bound need not be exact.
fn brackets(source: &str) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

fn syntax(source: &str, errors: &ParseErrors) -> Failure {
    let mut shown = String::new();
    for error in &errors.errors {
        let (line, column) =
            (usize::try_from(error.pos.0).unwrap_or(1).max(1), usize::try_from(error.pos.1).unwrap_or(1));
        let text = source.lines().nth(line - 1).unwrap_or_default();
        let marker = format!("{}^", " ".repeat(column.saturating_sub(1)));
        let message = error.msg.lines().next().unwrap_or_default();
        shown.push_str(&format!("{text}\n{marker} {message} (line {line}, column {column})\n"));
    }
    Failure::new("bad_expression", format!("`{source}` is no CEL expression"))
        .because(shown.trim_end())
        .hint("texts stand in quotes inside the expression: \"'text'\"; see https://cel.dev for the language")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(source: &str) -> Result<Value, Failure> {
        let Value::Object(state) = json!({"x": 2, "big": u64::MAX, "d": 0.5, "log": [1, 2], "item": {"a": null}})
        else {
            unreachable!()
        };
        Expression::compile(source)?.value(&state.into_iter().collect())
    }

    #[test]
    fn evaluates_over_channels_and_state() {
        for (source, expected) in [
            ("x + 1", json!(3)),
            ("x * 3 / 4", json!(1)),
            ("d * 4.0", json!(2.0)),
            ("big", json!(u64::MAX)),
            ("{'q': 'go?', 'x': x, 'n': null}", json!({"q": "go?", "x": 2, "n": null})),
            ("log.map(x, x * 10)", json!([10, 20])),
            ("state.x == x && has(state.log) && !has(state.answer)", json!(true)),
            ("state['x']", json!(2)),
            ("size(state)", json!(5)),
            ("has(state.answer) ? state.answer : 'none'", json!("none")),
            ("item.a == null", json!(true)),
            ("'abc'.matches('^a.c$')", json!(true)),
        ] {
            assert_eq!(value(source).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn names_are_only_those_from_outside() {
        let names = |source: &str| Expression::compile(source).unwrap().names;
        let of = names("log.exists(i, i > x) && state.a.b == 1 && has(state.c)");
        assert_eq!(of.bare, ["log", "x"].map(String::from).into());
        assert_eq!(of.fields, ["a", "c"].map(String::from).into());
        assert!(!of.whole && names("size(state)").whole);
    }

    #[test]
    fn errors_say_where_and_what_to_do() {
        let syntax = value("x + ").unwrap_err();
        assert_eq!(syntax.code, "bad_expression");
        assert!(syntax.cause.clone().unwrap().contains("line 1, column"));
        let missing = value("answer == 1").unwrap_err();
        assert_eq!(missing.code, "expression_failed");
        assert!(missing.hint.clone().unwrap().contains("has(state.answer)"));
        assert_eq!(value("x / 0").unwrap_err().code, "expression_failed");
        assert_eq!(value("{1: 2}").unwrap_err().code, "expression_type");
        assert_eq!(value("1.0 / 0.0").unwrap_err().code, "expression_type");
        let state = State::new();
        assert_eq!(Expression::compile("1").unwrap().holds(&state).unwrap_err().code, "expression_type");
    }

    #[test]
    fn depth_is_bounded_and_has_room() {
        let nested = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
        for deep in [nested("[", "]", 60), nested("[1].map(x, ", ")", 30), vec!["1"; 150].join("+")] {
            assert!(value(&deep).is_ok(), "{deep}");
        }
        for too_deep in ["(".repeat(5_000), nested("[", "]", 100), vec!["1"; 5_000].join("+"), "x".repeat(20_000)] {
            assert_eq!(value(&too_deep).unwrap_err().code, "bad_expression", "{too_deep:.60}");
        }
    }
}
