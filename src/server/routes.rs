//! All routes, each with what its caller must be allowed to do.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::handler::Handler;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use axum::{Json, RequestPartsExt, Router};
use serde_json::json;

use super::authorise::{Action, Caller, Subject, authorise};
use super::error::{Answer, ApiError};
use super::identity::{Peer, too_many};
use super::openapi::{Document, Said};
use super::{Server, origin, page};

/// Longest time until an answer begins; what waits for a run begins to answer at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Routes, each with its action and what it says of itself.
struct Table {
    router: Router<Arc<Server>>,
    document: Document,
}

impl Table {
    fn on<H: Handler<T, Arc<Server>>, T: 'static>(
        mut self,
        (method, path): (&str, &str),
        action: Action,
        said: (&'static str, &'static str, &'static str),
        handler: H,
    ) -> Self {
        let (summary, takes, gives) = said;
        self.document.add(method, path, Said { summary, takes, gives });
        self.page((method, path), action, handler)
    }

    /// The same for people: the API's document says nothing of it.
    fn page<H: Handler<T, Arc<Server>>, T: 'static>(
        mut self,
        (method, path): (&str, &str),
        action: Action,
        handler: H,
    ) -> Self {
        let filter = match method {
            "get" => MethodFilter::GET,
            "patch" => MethodFilter::PATCH,
            "delete" => MethodFilter::DELETE,
            _ => MethodFilter::POST,
        };
        let asks = from_fn(move |request: Request, next: Next| allowed(action, request, next));
        self.router = self.router.route(path, on(filter, handler).layer(asks));
        self
    }
}

/// The server's routes.
pub(super) fn router(server: Arc<Server>) -> Router {
    let table = Table { router: Router::new(), document: Document::default() };
    let table = table.on(("get", "/ok"), Action::Greet, ("That it is there", "", ""), ok).on(
        ("get", "/info"),
        Action::Greet,
        ("Which server it is", "", ""),
        info,
    );
    let Table { router, document } = pages(mcp(releases(approvals(runs(one_thread(threads(assistants(table))))))));
    let document = Arc::new(document.told());
    let shown = document.clone();
    let docs = move || async move { page::docs::docs(&shown) };
    let told = move || async move { Json((*document).clone()) };
    let asks = from_fn(|request: Request, next: Next| allowed(Action::Greet, request, next));
    router
        .route("/openapi.json", on(MethodFilter::GET, told).layer(asks.clone()))
        .route("/docs", on(MethodFilter::GET, docs).layer(asks))
        .fallback(|| async { ApiError::not_found("Not Found") })
        .method_not_allowed_fallback(|| async { ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") })
        .layer(from_fn_with_state(server.clone(), identify))
        .layer(from_fn(in_time))
        .layer(from_fn_with_state(server.clone(), origin::guard))
        .layer(from_fn(page::dress))
        .with_state(server)
}

fn assistants(table: Table) -> Table {
    use super::assistants as of;
    const ONE: &str = "/assistants/{assistant}";
    table
        .on(("post", "/assistants"), Action::Keep, ("Makes an assistant", "AssistantText", "Assistant"), of::create)
        .on(("post", "/assistants/search"), Action::Look, ("Assistants", "AssistantSearch", "[Assistant]"), of::search)
        .on(("post", "/assistants/count"), Action::Look, ("How many there are", "AssistantSearch", ""), of::count)
        .on(("get", ONE), Action::Look, ("An assistant", "", "Assistant"), of::get)
        .on(("patch", ONE), Action::Keep, ("Adds a version", "AssistantText", "Assistant"), of::patch)
        .on(("delete", ONE), Action::Keep, ("Removes it", "", "none"), of::delete)
        .on(("get", "/assistants/{assistant}/graph"), Action::Look, ("Its graph, drawn", "", ""), of::graph)
        .on(("get", "/assistants/{assistant}/schemas"), Action::Look, ("What it takes", "", ""), of::schemas)
        .on(("get", "/assistants/{assistant}/subgraphs"), Action::Look, ("Graphs inside", "", ""), of::subgraphs)
        .on(
            ("get", "/assistants/{assistant}/subgraphs/{namespace}"),
            Action::Look,
            ("A graph inside", "", ""),
            of::subgraph,
        )
        .on(("post", "/assistants/{assistant}/versions"), Action::Look, ("Its versions", "Page", ""), of::versions)
        .on(
            ("post", "/assistants/{assistant}/latest"),
            Action::Keep,
            ("Lets a version count", "Version", "Assistant"),
            of::set_latest,
        )
}

fn threads(table: Table) -> Table {
    use super::threads as of;
    const ONE: &str = "/threads/{thread}";
    table
        .on(("post", "/threads"), Action::Keep, ("Makes a thread", "ThreadCreate", "Thread"), of::create)
        .on(("post", "/threads/search"), Action::Look, ("Threads", "ThreadSearch", "[Thread]"), of::search)
        .on(("post", "/threads/count"), Action::Look, ("How many there are", "ThreadSearch", ""), of::count)
        .on(("get", ONE), Action::Look, ("A thread", "", "Thread"), of::get)
        .on(("patch", ONE), Action::Keep, ("Adds to its metadata", "ThreadPatch", "Thread"), of::patch)
        .on(("delete", ONE), Action::Keep, ("Removes it with its runs", "", "none"), of::delete)
}

fn one_thread(table: Table) -> Table {
    use super::state as of;
    const STATE: &str = "/threads/{thread}/state";
    const HISTORY: &str = "/threads/{thread}/history";
    table
        .on(("get", STATE), Action::Look, ("Its state", "", "ThreadState"), of::get)
        .on(("post", STATE), Action::Decide, ("Changes its state", "StateUpdate", "StateUpdated"), of::update)
        .on(
            ("post", "/threads/{thread}/state/checkpoint"),
            Action::Look,
            ("Its state at a checkpoint", "StateWanted", "ThreadState"),
            of::at_checkpoint,
        )
        .on(
            ("get", "/threads/{thread}/state/{checkpoint}"),
            Action::Look,
            ("Its state at a checkpoint", "", "ThreadState"),
            of::at,
        )
        .on(
            ("get", "/threads/{thread}/export"),
            Action::Look,
            ("Its whole record, sealed; can be replayed", "", "RunExport"),
            super::export::get,
        )
        .on(("get", HISTORY), Action::Look, ("Its states, newest first", "", "[ThreadState]"), of::history_by_query)
        .on(("post", HISTORY), Action::Look, ("Its states, newest first", "History", "[ThreadState]"), of::history)
}

fn runs(table: Table) -> Table {
    use super::runs as of;
    const ALL: &str = "/threads/{thread}/runs";
    const ONE: &str = "/threads/{thread}/runs/{run}";
    const STREAM: &str = "/threads/{thread}/runs/stream";
    const WAIT: &str = "/threads/{thread}/runs/wait";
    table
        .on(("get", ALL), Action::Look, ("Its runs, newest first", "", "[Run]"), of::list)
        .on(("post", ALL), Action::Run, ("Starts a run", "RunCreate", "Run"), of::create)
        .on(("post", STREAM), Action::Run, ("Starts a run and follows it", "RunCreate", "stream"), of::stream)
        .on(("post", WAIT), Action::Run, ("Starts a run and waits for its values", "RunCreate", ""), of::wait)
        .on(("get", ONE), Action::Look, ("A run", "", "Run"), of::get)
        .on(("delete", ONE), Action::Run, ("Stops and removes it", "", "none"), of::delete)
        .on(("get", "/threads/{thread}/runs/{run}/join"), Action::Look, ("Waits for its values", "", ""), of::join)
        .on(("get", "/threads/{thread}/runs/{run}/stream"), Action::Look, ("Follows it", "", "stream"), of::rejoin)
        .on(("post", "/threads/{thread}/runs/{run}/cancel"), Action::Run, ("Stops it", "", ""), of::cancel)
        .on(
            ("post", "/runs"),
            Action::Run,
            ("Starts a run of its own thread", "RunCreate", "Run"),
            of::create_stateless,
        )
        .on(("post", "/runs/batch"), Action::Run, ("Starts several", "[RunCreate]", "[Run]"), of::batch)
        .on(("post", "/runs/stream"), Action::Run, ("Starts and follows", "RunCreate", "stream"), of::stream_stateless)
        .on(("post", "/runs/wait"), Action::Run, ("Starts and waits", "RunCreate", ""), of::wait_stateless)
}

fn approvals(table: Table) -> Table {
    use super::approvals as of;
    const ONE: &str = "/approvals/{question}";
    table
        .on(("get", "/approvals"), Action::Look, ("What waits for a person", "", "[Approval]"), of::list)
        .on(("get", ONE), Action::Look, ("A question", "", "Approval"), of::get)
        .on(("post", ONE), Action::Decide, ("Decides", "Decision", "Decided"), of::decide)
        .on(
            ("post", "/approvals/{question}/links"),
            Action::Decide,
            ("Makes a link that decides once, as one person", "LinkWanted", "Link"),
            of::link,
        )
        .on(
            ("delete", "/approvals/{question}/links/{link}"),
            Action::Decide,
            ("Lets a link count no more", "", "none"),
            of::unlink,
        )
}

fn releases(table: Table) -> Table {
    use super::releases as of;
    const ONE: &str = "/releases/{release}";
    const RULES: &str = "/releases/{release}/prometheus-rules";
    const DASHBOARD: &str = "/releases/{release}/grafana-dashboard";
    table
        .on(("get", "/releases"), Action::Look, ("Releases, newest first", "", "[Release]"), of::list)
        .on(("get", ONE), Action::Look, ("Everything that is known of a release", "", "ReleaseTold"), of::get)
        .on(("get", RULES), Action::Look, ("Its alerts, for Prometheus", "", "yaml"), of::rules)
        .on(("get", DASHBOARD), Action::Look, ("A dashboard, for Grafana", "", ""), of::dashboard)
}

/// MCP; each tool asks by itself whether its caller may do what it does.
fn mcp(table: Table) -> Table {
    use super::mcp::answer;
    table
        .on(("post", "/mcp"), Action::Run, ("A message of an MCP client", "", "stream"), answer)
        .on(("get", "/mcp"), Action::Run, ("What the server says in a session of MCP", "", "stream"), answer)
        .on(("delete", "/mcp"), Action::Run, ("Ends a session of MCP", "", ""), answer)
}

fn pages(table: Table) -> Table {
    use super::page as of;
    const LINK: &str = "/l/{token}";
    const QUESTION: &str = "/ui/approvals/{question}";
    const ROLLBACK: &str = "/ui/models/{model}/rollback";
    table
        .page(("get", "/"), Action::Greet, of::home)
        .page(("get", "/ui"), Action::Greet, of::home)
        .page(("get", "/ui/assets/{file}"), Action::Greet, of::assets::get)
        .page(("get", "/ui/login"), Action::Greet, of::login::show)
        .page(("post", "/ui/login"), Action::Greet, of::login::take)
        .page(("post", "/ui/logout"), Action::Greet, of::login::leave)
        .page(("get", LINK), Action::Greet, of::link::show)
        .page(("post", LINK), Action::Greet, of::link::decide)
        .page(("get", "/ui/"), Action::Look, of::models::show)
        .page(("get", "/ui/models/{model}"), Action::Look, of::model::show)
        .page(("get", ROLLBACK), Action::Run, of::rollback::ask)
        .page(("post", ROLLBACK), Action::Run, of::rollback::begin)
        .page(("get", "/ui/runs"), Action::Look, of::runs::list)
        .page(("get", "/ui/runs/{thread}"), Action::Look, of::run::show)
        .page(("get", "/ui/runs/{thread}/live"), Action::Look, of::live::stream)
        .page(("get", "/ui/approvals"), Action::Look, of::approvals::list)
        .page(("get", QUESTION), Action::Look, of::approval::show)
        .page(("post", QUESTION), Action::Decide, of::approval::decide)
}

/// Says who asks, and that nobody asks too often.
async fn identify(State(server): State<Arc<Server>>, mut request: Request, next: Next) -> Answer {
    let peer = request.extensions().get::<Peer>().copied();
    // A browser's login counts for the pages alone: nothing else has forms that only they can send.
    let login = request.uri().path().starts_with("/ui/").then(|| server.session.shown(request.headers())).flatten();
    if let Some(caller) = server.identities.caller(request.headers(), login.as_deref(), peer).await? {
        if let Some(buckets) = server.buckets.as_ref().filter(|_| !caller.person().local) {
            let asked = buckets.take(&caller.name().to_owned());
            asked.map_err(|wait| too_many("you ask too often", wait))?;
        }
        request.extensions_mut().insert(caller);
    }
    Ok(next.run(request).await)
}

/// Asks whether the caller may do what the route is for.
async fn allowed(action: Action, request: Request, next: Next) -> Answer {
    let (mut parts, body) = request.into_parts();
    let subject = match parts.extract::<RawPathParams>().await {
        Ok(params) => subject(&params),
        Err(RawPathParamsRejection::InvalidUtf8InPathParam(_)) => {
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "the path is not UTF-8"));
        }
        Err(_) => Subject::Server,
    };
    match parts.extensions.get::<Caller>() {
        Some(caller) => authorise(caller, action, &subject)?,
        // Whoever looks after the server asks whether it is there.
        None if action == Action::Greet => {}
        None => {
            let what = "a key is required: send it as `x-api-key`, or as a bearer token";
            return Err(ApiError::new(StatusCode::UNAUTHORIZED, what));
        }
    }
    Ok(next.run(Request::from_parts(parts, body)).await)
}

fn subject(params: &RawPathParams) -> Subject {
    match params.iter().next() {
        // A release is a thread; their ids are the same.
        Some(("thread" | "release", id)) => Subject::Thread(id.to_owned()),
        Some(("assistant", id)) => Subject::Assistant(id.to_owned()),
        _ => Subject::Server,
    }
}

async fn in_time(request: Request, next: Next) -> Response {
    // What changes something is done to its end, also when the client hangs up in the middle.
    let answer = async move {
        if request.method() == axum::http::Method::GET {
            return Ok(next.run(request).await);
        }
        tokio::spawn(next.run(request)).await
    };
    match tokio::time::timeout(ANSWER_WITHIN, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            tracing::error!(%error, "a request's handler ended badly");
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed at this request").into_response()
        }
        Err(_) => ApiError::new(StatusCode::GATEWAY_TIMEOUT, "the server did not answer in time").into_response(),
    }
}

async fn ok() -> Response {
    Json(json!({"ok": true})).into_response()
}

async fn info() -> Response {
    let flags = json!({"assistants": true, "crons": false, "langsmith": false});
    let host = json!({
        "kind": "self-hosted", "project_id": null, "host_revision_id": null, "revision_id": null, "tenant_id": null,
    });
    Json(json!({"version": env!("CARGO_PKG_VERSION"), "flags": flags, "host": host})).into_response()
}
