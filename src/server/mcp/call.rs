//! One call of a tool: who asks, with what, and how it is answered.

use rmcp::model::{CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData};
use rmcp::service::{RequestContext, RoleServer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::authorise::{Action, Caller, Subject, authorise};
use super::{Mcp, arguments, changes, looks};
use crate::app::error_document;
use crate::graph::{Failure, ThreadId};

/// Why a tool did not do what it was asked for, and the thread that it is about.
pub struct Refused {
    failure: Failure,
    thread: Option<ThreadId>,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self { failure, thread: None }
    }
}

impl Refused {
    /// A refusal that names a thread.
    pub fn of(thread: &ThreadId) -> impl FnOnce(Failure) -> Self + use<> {
        let thread = Some(thread.clone());
        move |failure| Self { failure, thread }
    }

    /// As a tool tells it: a model can read it and mend its call. Without structured content, which would have to fit the tool's schema.
    fn told(&self) -> CallToolResult {
        let document = error_document(&self.failure, self.thread.as_ref());
        CallToolResult::error(vec![ContentBlock::text(document.to_string())])
    }
}

/// What a tool gives.
pub type Answered = Result<CallToolResponse, Refused>;

/// A call under way.
pub struct Call<'m> {
    /// The tools.
    pub mcp: &'m Mcp,
    /// Who asks.
    pub caller: Caller,
    /// What is asked for.
    pub request: CallToolRequestParams,
    /// How the client can be reached meanwhile.
    pub context: RequestContext<RoleServer>,
}

impl Call<'_> {
    /// The arguments, all of them known ones.
    pub fn arguments<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let given = Value::Object(self.request.arguments.clone().unwrap_or_default());
        serde_json::from_value(given).map_err(|e| {
            arguments::wrong(format!("the arguments of `{}` cannot be read", self.request.name)).because(e.to_string())
        })
    }

    /// Whether the caller may do it.
    pub fn may(&self, action: Action, subject: &Subject) -> Result<(), Failure> {
        authorise(&self.caller, action, subject).map_err(|refused| Failure::new("not_allowed", refused.detail))
    }
}

/// Under which address a client has reached the server, where it has.
pub fn base(context: &RequestContext<RoleServer>) -> Option<String> {
    let parts = context.extensions.get::<axum::http::request::Parts>()?;
    let host = parts.headers.get(axum::http::header::HOST)?.to_str().ok()?;
    Some(format!("http://{host}"))
}

/// A failure in one line.
pub fn words(failure: &Failure) -> String {
    let why = failure.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
    let hint = failure.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{}{why}{hint} [{}]", failure.message, failure.code)
}

/// A tool's result, as data and as text.
pub fn done<T: Serialize>(value: &T) -> Answered {
    let value = serde_json::to_value(value)
        .map_err(|e| Failure::new("not_json", "a result cannot be written as JSON").because(e.to_string()))?;
    Ok(CallToolResult::structured(value).into())
}

/// Calls a tool.
pub async fn tool(
    mcp: &Mcp,
    request: CallToolRequestParams,
    context: RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let caller = mcp.caller(&context)?;
    let name = request.name.clone();
    let call = Call { mcp, caller, request, context };
    let answered = match &*name {
        "deploy_plan" => looks::plan(&call).await,
        "deploy_start" => changes::start(&call).await,
        "deploy_status" => looks::status(&call).await,
        "deploy_cancel" => changes::cancel(&call).await,
        "rollback" => changes::rollback(&call).await,
        "list_releases" => looks::list(&call).await,
        "explain_run" => looks::explain(&call).await,
        other => return Err(ErrorData::invalid_params(format!("there is no tool `{other}`"), None)),
    };
    Ok(answered.unwrap_or_else(|refused| refused.told().into()))
}
