//! What the node types `command` and `http` share: parameters with places, secrets by reference, the folder that paths count from.

use std::collections::BTreeMap;
use std::path::Path as FilePath;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::graph::{Failure, FailureDetails, State};
use crate::ports::{Expressions, PortError, SecretSource};

use super::fault::{Faults, Path, under};
use super::{Expression, NodeSpec, command, http};

/// Whether a type is one whose parameters this room knows, under `with`.
pub(super) fn is_tool(kind: &str) -> bool {
    kind == command::KIND || kind == http::KIND
}

/// The JSON Schema of a generic node type's parameters, by the type's name.
pub fn parameter_schema(kind: &str) -> Option<Value> {
    match kind {
        command::KIND => Some(schemars::schema_for!(command::CommandSpec).to_value()),
        http::KIND => Some(schemars::schema_for!(http::HttpSpec).to_value()),
        _ => None,
    }
}

/// The schemas of the same parameters as parts of a larger one.
pub(super) fn subschemas(generator: &mut SchemaGenerator) -> [(&'static str, Schema); 2] {
    let command = generator.subschema_for::<command::CommandSpec>();
    [(command::KIND, command), (http::KIND, generator.subschema_for::<http::HttpSpec>())]
}

/// An expression among a node's parameters.
pub(super) struct Source<'s> {
    /// Its place under `with`.
    pub place: Vec<String>,
    pub text: &'s str,
    /// Names that it may use beside the channels.
    pub more: &'static [&'static str],
}

/// What the parameters of a node type are to the checks of a file.
pub(super) trait ToolSpec: Serialize + DeserializeOwned + JsonSchema {
    /// Its expressions.
    fn sources(&self) -> Vec<Source<'_>>;
    /// What is wrong beyond the shape, each with its place under `with`.
    fn faults(&self) -> Vec<(Vec<String>, String)>;
    /// Makes relative paths count from a folder.
    fn settle(&mut self, folder: &FilePath);
}

/// Faults of a node's parameters with their places; what remains is what [`sources`] can tell of.
pub(super) fn check(node: &NodeSpec, path: &Path, faults: &mut Faults) {
    let at = under(path, ["with"]);
    match node.kind.as_str() {
        command::KIND => check_spec::<command::CommandSpec>(node, &at, faults),
        http::KIND => check_spec::<http::HttpSpec>(node, &at, faults),
        _ => {}
    }
}

fn check_spec<S: ToolSpec>(node: &NodeSpec, at: &Path, faults: &mut Faults) {
    match read::<S>(node) {
        Ok(spec) => {
            for (place, why) in spec.faults() {
                faults.push(at.iter().cloned().chain(place).collect(), bad(&why));
            }
        }
        Err(why) => {
            let with = node.with.clone().unwrap_or(Value::Null);
            let place = culprit::<S>(&with, &why).map_or_else(|| at.clone(), |key| under(at, [&key]));
            let hint = format!("`tidegate schema {}` shows what it takes", node.kind);
            faults.push(place, bad(&why).hint(hint));
        }
    }
}

fn bad(why: &str) -> Failure {
    Failure::new("bad_parameters", why)
}

fn read<S: ToolSpec>(node: &NodeSpec) -> Result<S, String> {
    let with = node.with.clone().unwrap_or_else(|| Value::Object(Map::new()));
    serde_json::from_value(with).map_err(|error| error.to_string())
}

/// The key without which the complaint would be another one. serde tells no places.
fn culprit<S: ToolSpec>(with: &Value, complaint: &str) -> Option<String> {
    let keys = with.as_object()?;
    let without = |key: &str| {
        let mut rest = keys.clone();
        rest.remove(key);
        serde_json::from_value::<S>(Value::Object(rest)).err().map(|error| error.to_string())
    };
    keys.keys().find(|key| without(key).as_deref() != Some(complaint)).cloned()
}

/// Calls `each` with every expression of a node's parameters, its place, and the names it may use beside the channels.
pub(super) fn each_source(node: &NodeSpec, path: &Path, mut each: impl FnMut(Path, &str, &'static [&'static str])) {
    let at = under(path, ["with"]);
    let mut tell = |sources: Vec<Source<'_>>| {
        for source in sources {
            each(at.iter().cloned().chain(source.place).collect(), source.text, source.more);
        }
    };
    match node.kind.as_str() {
        command::KIND => read::<command::CommandSpec>(node).iter().for_each(|spec| tell(spec.sources())),
        http::KIND => read::<http::HttpSpec>(node).iter().for_each(|spec| tell(spec.sources())),
        _ => {}
    }
}

/// Makes the relative paths of a node count from a folder.
pub(super) fn settle(node: &mut NodeSpec, folder: &FilePath) {
    match node.kind.as_str() {
        command::KIND => settle_spec::<command::CommandSpec>(node, folder),
        http::KIND => settle_spec::<http::HttpSpec>(node, folder),
        _ => {}
    }
}

fn settle_spec<S: ToolSpec>(node: &mut NodeSpec, folder: &FilePath) {
    // What cannot be read is told by the check.
    let Ok(mut spec) = read::<S>(node) else { return };
    spec.settle(folder);
    node.with = serde_json::to_value(spec).ok();
}

/// A path that counts from a folder.
pub(super) fn settled(path: &str, folder: &FilePath) -> String {
    let joined = if path == "." { folder.to_owned() } else { folder.join(path) };
    joined.to_string_lossy().into_owned()
}

/// The same for the files of secrets.
pub(super) fn settle_secrets(sources: &mut BTreeMap<String, SecretSource>, folder: &FilePath) {
    for source in sources.values_mut() {
        source.file = source.file.take().map(|file| settled(&file, folder));
    }
}

/// Faults of named secrets.
pub(super) fn secret_faults(key: &str, sources: &BTreeMap<String, SecretSource>) -> Vec<(Vec<String>, String)> {
    let fault = |(name, source): (&String, &SecretSource)| {
        Some((vec![key.to_owned(), name.clone()], source.fault()?.to_owned()))
    };
    sources.iter().filter_map(fault).collect()
}

/// CEL for those who know expressions as texts.
pub struct Cel;

impl Expressions for Cel {
    fn check(&self, source: &str, names: &[&str]) -> Result<(), PortError> {
        Expression::compile(source).and_then(|expression| expression.only_names(names)).map_err(port_error)
    }

    fn value(&self, source: &str, names: &Map<String, Value>) -> Result<Value, PortError> {
        let state: State = names.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Expression::compile(source).and_then(|expression| expression.value(&state)).map_err(port_error)
    }
}

fn port_error(failure: Failure) -> PortError {
    let FailureDetails { code, message, cause, hint, retryable, .. } = failure.into_details();
    PortError { code, message, cause, hint, retryable }
}
