//! MCP, for agents: the same tools, resources and tasks over stdio (`tidegate mcp`) and streamable HTTP (`/mcp` of the server).
//!
//! A tool is a call of the same functions that the terminal's commands call. What it begins is a thread like any other: durable when the
//! tool answers, advanced by the home's runner, whatever becomes of the client. Nothing here decides an approval: who asks for a release
//! does not approve it.

mod arguments;
mod call;
mod changes;
mod confirm;
mod explain;
mod follow;
mod http;
mod looks;
mod portable;
mod resources;
mod stdio;
mod table;
mod tasks;
mod told;

use std::sync::Arc;

use rmcp::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CancelTaskParams, ErrorData, GetTaskParams, GetTaskResult, Implementation,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig, Tool, UpdateTaskParams,
};
use rmcp::service::{RequestContext, RoleServer};
use tokio_util::task::TaskTracker;

use super::authorise::Caller;
use crate::app::{App, spawn_detached};
use crate::graph::{Failure, ThreadId};

pub(super) use http::{Http, answer};
pub use stdio::serve_stdio;

/// What a client is told first.
const INSTRUCTIONS: &str = "Tidegate releases machine-learning models: it plans, packages, checks, asks a person where policy says so, moves \
the traffic, and goes back by itself when the evidence says so. `deploy_plan` shows what would happen; `deploy_start` begins it and \
returns its thread_id at once; `deploy_status` tells how it stands. A release that waits for approval is decided by a person, with the \
command or at the address that its status names: no tool approves. `rollback` sends the traffic back without a build. `explain_run` tells \
why a run went as it did.";

/// How clients reach it.
#[derive(Debug)]
enum Reached {
    /// By standard input and output of a process of its own, started by one person. Nobody else advances what it begins, and it ends with its
    /// client.
    Stdio(Caller),
    /// By HTTP, in the server, which is the home's runner too. Every request says who asks.
    Http,
}

#[derive(Debug)]
struct Shared {
    reached: Reached,
    /// What must come to its end although nobody waits for it any more.
    work: TaskTracker,
}

/// The tools over a home.
#[derive(Clone)]
pub(super) struct Mcp {
    app: Arc<App>,
    shared: Arc<Shared>,
}

impl Mcp {
    fn new(app: Arc<App>, reached: Reached) -> Self {
        Self { app, shared: Arc::new(Shared { reached, work: TaskTracker::new() }) }
    }

    /// Who asks. Over HTTP the routes have put them there; a request without is nobody's.
    fn caller(&self, context: &RequestContext<RoleServer>) -> Result<Caller, ErrorData> {
        match &self.shared.reached {
            Reached::Stdio(caller) => Ok(caller.clone()),
            Reached::Http => {
                let parts = context.extensions.get::<axum::http::request::Parts>();
                let caller = parts.and_then(|parts| parts.extensions.get::<Caller>());
                caller.cloned().ok_or_else(|| ErrorData::internal_error("nobody is known to ask", None))
            }
        }
    }

    /// Does something to its end, also when whoever asked for it goes away in the middle.
    async fn through<T: Send + 'static>(
        &self,
        what: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let done = self.shared.work.spawn(what).await;
        done.unwrap_or_else(|e| Err(Failure::new("engine_panicked", "the engine panicked").because(e.to_string())))
    }

    /// Leaves a thread to those who advance threads: the server's runner, or a detached one.
    async fn hand_over(&self, id: &ThreadId) -> Result<(), Failure> {
        self.app.leave(id).await?;
        match self.shared.reached {
            Reached::Stdio(_) => spawn_detached(self.app.home()),
            Reached::Http => Ok(()),
        }
    }
}

impl ServerHandler for Mcp {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_resources().enable_tasks().build();
        let server = Implementation::new("tidegate", env!("CARGO_PKG_VERSION")).with_title("Tidegate");
        ServerConfig::new(capabilities).with_server_info(server).with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(table::tools().to_vec()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        table::tools().iter().find(|tool| tool.name == name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        call::tool(self, request, context).await
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        resources::list(self, &context).await
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(resources::templates()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        resources::read(self, &request.uri, &context).await.map(ReadResourceResponse::from)
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        tasks::get(self, &request.task_id, &context).await
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        tasks::update(self, &request.task_id, &context).await
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        tasks::cancel(self, &request.task_id, &context).await
    }
}
