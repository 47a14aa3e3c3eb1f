//! `command`: runs a program with JSON in and out.

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::graph::{ChannelType, Context, DynNode, Failure, Field, NodeError, NodeInfo, Produced, View, Write};
use crate::nodes::effects::RunCommand;
use crate::ports::{Program, ProgramEnd, SecretSource, Stdout};

use super::tools::{Source, ToolSpec, secret_faults, settle_secrets, settled};
use super::{Expression, names};

pub(super) const KIND: &str = "command";

/// Variables that begin so are ours.
const OUR_VARIABLES: &str = "TIDEGATE_";

/// What a file says of a `command` node, under `with`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CommandSpec {
    /// Program and arguments, as they are: no shell reads them.
    pub run: Vec<String>,
    /// CEL expression of a list of further arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<String>,
    /// CEL expression of what the program reads as JSON [default: everything that the node sees, as an object].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Variables beside those of the process that runs it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Variables with secrets: where each stands.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env_from: BTreeMap<String, SecretSource>,
    /// Working directory [default: the workflow file's folder]; a relative one counts from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// How standard output is read [default: json].
    #[serde(default, skip_serializing_if = "is_default")]
    pub stdout: Stdout,
    /// The channel that gets the output. Without it the output is an object whose keys are channels, or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// Exit codes with which it has done its work [default: 0].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok_codes: Option<Vec<i32>>,
    /// It may be run again when nobody knows whether it ran [default: false].
    #[serde(default, skip_serializing_if = "is_default")]
    pub repeat: bool,
    /// The program that knows whether it ran: reads {input, token}; exit code 0 and the output: yes; 3: no; else: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Vec<String>>,
    /// The program that takes it back: reads {input, output, token}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Vec<String>>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl ToolSpec for CommandSpec {
    fn sources(&self) -> Vec<Source<'_>> {
        let source = |key: &str, text| Source { place: vec![key.to_owned()], text, more: &[] };
        let args = self.args.iter().map(|text| source("args", text));
        args.chain(self.stdin.iter().map(|text| source("stdin", text))).collect()
    }

    fn faults(&self) -> Vec<(Vec<String>, String)> {
        let mut faults = secret_faults("env_from", &self.env_from);
        let mut wrong = |key: &str, why: &str| faults.push((vec![key.to_owned()], why.to_owned()));
        let programs = [("run", Some(&self.run)), ("probe", self.probe.as_ref()), ("undo", self.undo.as_ref())];
        for (key, argv) in programs.into_iter().filter_map(|(key, argv)| Some((key, argv?))) {
            if argv.first().is_none_or(String::is_empty) {
                wrong(key, "the first item is the program: it cannot be empty");
            }
        }
        for (key, name) in self.env.keys().map(|n| ("env", n)).chain(self.env_from.keys().map(|n| ("env_from", n))) {
            if name.is_empty() || name.contains(['=', '\0']) || name.starts_with(OUR_VARIABLES) {
                wrong(key, &format!("a variable cannot be called `{name}`"));
            }
        }
        if let Some(twice) = self.env.keys().find(|name| self.env_from.contains_key(*name)) {
            wrong("env_from", &format!("`{twice}` is also under `env`"));
        }
        if self.ok_codes.as_ref().is_some_and(|codes| codes.is_empty() || codes.iter().any(|c| !(0..256).contains(c))) {
            wrong("ok_codes", "exit codes are numbers from 0 to 255, and there must be one");
        }
        match (self.stdout, &self.into) {
            (Stdout::Text, None) => wrong("stdout", "text needs a channel: name one with `into`"),
            (Stdout::Ignore, Some(_)) => wrong("into", "an output that is ignored goes nowhere: remove `into`"),
            _ => {}
        }
        if self.repeat && self.probe.is_some() {
            wrong("probe", "what may be repeated needs no probe: remove `probe` or `repeat`");
        }
        faults
    }

    fn settle(&mut self, folder: &Path) {
        self.cwd = Some(settled(self.cwd.as_deref().unwrap_or("."), folder));
        settle_secrets(&mut self.env_from, folder);
    }
}

pub(super) struct CommandNode {
    spec: CommandSpec,
    args: Option<Expression>,
    stdin: Option<Expression>,
    parameters: Value,
}

impl CommandNode {
    pub fn new(spec: CommandSpec) -> Result<Self, Failure> {
        if let Some((place, why)) = spec.faults().into_iter().next() {
            return Err(Failure::new("bad_parameters", format!("`{}`: {why}", place.join("."))));
        }
        let parameters = json!(spec);
        let compiled = |source: &Option<String>| source.as_deref().map(Expression::compile).transpose();
        Ok(Self { args: compiled(&spec.args)?, stdin: compiled(&spec.stdin)?, spec, parameters })
    }

    fn effect(&self, node: &str, view: &View) -> Result<RunCommand, Failure> {
        let mut argv = self.spec.run.clone();
        if let Some(args) = &self.args {
            argv.extend(arguments(args.source(), args.value(&view.0)?)?);
        }
        let stdin = match &self.stdin {
            Some(stdin) => stdin.value(&view.0)?,
            None => view.0.iter().map(|(name, value)| (name.to_string(), value.clone())).collect::<Map<_, _>>().into(),
        };
        let spec = &self.spec;
        let program = Program {
            argv,
            cwd: spec.cwd.clone(),
            env: spec.env.clone(),
            env_from: spec.env_from.clone(),
            stdin,
            stdout: spec.stdout,
            ok_codes: spec.ok_codes.clone().unwrap_or_else(|| vec![0]),
        };
        let (probe, undo) = (spec.probe.clone(), spec.undo.clone());
        Ok(RunCommand { node: node.to_owned(), program, repeat: spec.repeat, probe, undo })
    }

    fn writes(&self, end: ProgramEnd) -> Result<Vec<Write>, Failure> {
        let shown = self.spec.run.join(" ");
        let bad = |why: String| {
            Failure::new("command_output_invalid", format!("what `{shown}` wrote cannot be used")).because(why)
        };
        if let Some(why) = end.unreadable {
            let hint = "write one JSON value to standard output and everything else to standard error, or say `stdout: text` \
                        or `stdout: ignore`";
            return Err(bad(why).hint(hint));
        }
        match (&self.spec.into, end.output) {
            (Some(_), Value::Null) if self.spec.stdout == Stdout::Json => {
                Err(bad("there is nothing, or null".to_owned()).hint("remove `into` where nothing is to be kept"))
            }
            (Some(channel), output) => Ok(vec![Write::new(channel.clone(), output)]),
            (None, Value::Null) => Ok(Vec::new()),
            (None, Value::Object(output)) => {
                Ok(output.into_iter().map(|(channel, value)| Write::new(channel, value)).collect())
            }
            (None, other) => {
                Err(bad(format!("it is {}, not an object whose keys are channels", crate::graph::kind(&other)))
                    .hint("name the channel that gets it with `into`"))
            }
        }
    }
}

/// A value as arguments: texts as they are, numbers and booleans as JSON writes them.
fn arguments(source: &str, value: Value) -> Result<Vec<String>, Failure> {
    let wrong = |why: String| {
        let failure = Failure::new("expression_type", format!("`{source}` gives no list of arguments")).because(why);
        Err(failure.hint("texts, numbers and booleans can be arguments; give the rest on standard input"))
    };
    let Value::Array(items) = value else { return wrong(value.to_string()) };
    let mut arguments = Vec::new();
    for item in items {
        match item {
            Value::String(text) => arguments.push(text),
            Value::Number(_) | Value::Bool(_) => arguments.push(item.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => return wrong(item.to_string()),
        }
    }
    Ok(arguments)
}

#[async_trait]
impl DynNode for CommandNode {
    fn info(&self) -> NodeInfo {
        let any = Field { kind: ChannelType::Any, required: false };
        let reads = names::reads(self.args.iter().chain(&self.stdin).map(Expression::names), []);
        let writes: Option<Vec<String>> = match (&self.spec.into, self.spec.stdout) {
            (Some(channel), _) => Some(vec![channel.clone()]),
            (None, Stdout::Ignore) => Some(Vec::new()),
            (None, Stdout::Json | Stdout::Text) => None,
        };
        NodeInfo {
            kind: KIND.to_owned(),
            version: 1,
            // Without `stdin` the program reads everything that the node sees.
            reads: reads.filter(|_| self.stdin.is_some()),
            always_writes: self.spec.into.iter().cloned().collect(),
            writes: writes.map(|channels| channels.into_iter().map(|channel| (channel, any)).collect()),
            parameters: self.parameters.clone(),
            ..NodeInfo::default()
        }
    }

    async fn run(&self, cx: &Context, view: &View) -> Result<Produced, NodeError> {
        let end = cx.effect(KIND, self.effect(cx.node(), view)?).await?;
        Ok(Produced { writes: self.writes(end)?, goto: Vec::new() })
    }
}
