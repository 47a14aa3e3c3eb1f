//! `sleep`: a durable timer.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::graph::{Context, DynNode, Failure, Field, NodeError, NodeInfo, Produced, Until, View};

use super::{Expression, TextDuration, names};

pub(super) const KIND: &str = "sleep";

/// What a file says of a `sleep` node: one of the two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SleepSpec {
    /// How long, from when the node is first due.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub length: Option<TextDuration>,
    /// Until when: CEL expression of a time as text, such as 2026-12-24T18:00:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// The end of a wait, as files say it.
pub(super) enum End {
    Never,
    After(TextDuration),
    At(Box<Expression>),
}

impl End {
    pub fn new(length: Option<TextDuration>, until: Option<&str>) -> Result<Self, Failure> {
        match (length, until) {
            (None, None) => Ok(Self::Never),
            (Some(length), None) => Ok(Self::After(length)),
            (None, Some(until)) => Ok(Self::At(Box::new(Expression::compile(until)?))),
            (Some(_), Some(_)) => {
                Err(Failure::new("bad_parameters", "`for` and `until` exclude each other").hint("keep one of them"))
            }
        }
    }

    /// Channels that it reads; `None`: any.
    pub fn reads(&self) -> Option<BTreeMap<String, Field>> {
        match self {
            Self::Never | Self::After(_) => Some(BTreeMap::new()),
            Self::At(until) => names::reads([until.names()], []),
        }
    }

    pub fn until(&self, view: &View) -> Result<Until, Failure> {
        match self {
            Self::Never => Ok(Until::Never),
            Self::After(TextDuration(length)) => Ok(Until::After(*length)),
            Self::At(until) => {
                let value = until.value(&view.0)?;
                let at = value.as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
                let wrong = || {
                    Failure::new("bad_time", format!("`until` gives {value}, which is no time"))
                        .hint("write it with its zone, as in 2026-12-24T18:00:00Z")
                };
                Ok(Until::At(at.ok_or_else(wrong)?.with_timezone(&Utc)))
            }
        }
    }
}

pub(super) struct Sleep {
    end: End,
    parameters: Value,
}

impl Sleep {
    pub fn new(spec: &SleepSpec) -> Result<Self, Failure> {
        let end = End::new(spec.length, spec.until.as_deref())?;
        if matches!(end, End::Never) {
            let failure = Failure::new("bad_parameters", "a `sleep` needs `for` or `until`");
            return Err(failure.hint("as in `with: {for: 10m}`"));
        }
        Ok(Self { end, parameters: json!(spec) })
    }
}

#[async_trait]
impl DynNode for Sleep {
    fn info(&self) -> NodeInfo {
        NodeInfo {
            kind: KIND.to_owned(),
            version: 1,
            reads: self.end.reads(),
            writes: Some(BTreeMap::new()),
            parameters: self.parameters.clone(),
            ..NodeInfo::default()
        }
    }

    async fn run(&self, cx: &Context, view: &View) -> Result<Produced, NodeError> {
        // What is read of the state is what it was when the node became due, however often it runs again.
        cx.wait(&[], self.end.until(view)?).await?;
        Ok(Produced::default())
    }
}
