//! `tidegate serve`: the LangGraph Server API over a home, its web page, and the home's runner. One process; whatever it has accepted goes on after any
//! crash.
//!
//! Handlers keep nothing: a run is a row that `execute` takes from its thread's queue, a stream is read from the thread's record
//! (`project`), at the reader's pace.

mod activity;
mod apply;
mod approvals;
mod assistants;
mod authorise;
mod begins;
mod bell;
mod body;
mod clearing;
mod connections;
mod drawing;
mod error;
mod execute;
mod export;
mod identity;
mod ids;
mod limits;
mod lookout;
mod mcp;
mod names;
mod openapi;
mod origin;
mod page;
mod project;
mod record;
mod releases;
mod resume;
mod routes;
mod run_body;
mod run_webhook;
mod runs;
mod shapes;
mod state;
mod stops;
mod stream;
mod threads;
mod wait;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::app::{App, AssistantText, Catalogue, Home, keep_running, keep_telling};
use crate::graph::{Failure, Stop};
use bell::Bell;
use execute::Executor;
use identity::Identities;
use limits::Buckets;

pub use mcp::serve_stdio;

/// How long runs get to come to the end of their superstep when the server ends.
const DRAIN_WITHIN: Duration = Duration::from_secs(20);

/// What a caller who has been quiet may ask at once, in seconds of what they may ask on average.
const BURST_SECONDS: f64 = 2.0;

/// Where the server listens, and what it offers.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address.
    pub listen: SocketAddr,
    /// A folder with workflow files.
    pub workflows: Option<PathBuf>,
    /// Where the host's public endpoint listens, if somebody says so.
    pub public_addr: Option<SocketAddr>,
    /// Most requests a second of each caller with a key; 0: no limit.
    pub rate_limit: u32,
    /// Origins of pages elsewhere that may ask.
    pub origins: Vec<String>,
}

/// What handlers share.
struct Server {
    app: Arc<App>,
    graphs: Arc<Catalogue>,
    bell: Arc<Bell>,
    executor: Arc<Executor>,
    /// Knows who asks.
    identities: Identities,
    /// How often somebody may ask, by name.
    buckets: Option<Buckets<String>>,
    /// Origins of pages elsewhere that may ask.
    origins: Vec<String>,
    mcp: mcp::Http,
    /// What the page's forms are known by.
    session: page::Session,
    /// Where people reach it, for links.
    base: String,
    /// What its pages have read of runs.
    seen: page::Seen,
    /// Ends streams when the server ends.
    stop: watch::Receiver<Stop>,
}

/// Serves until it is asked to stop, then waits until its runs have come to the end of their superstep. `ready` is told the address.
pub async fn serve(
    home: Home,
    options: Options,
    stop: watch::Receiver<Stop>,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), Failure> {
    let alone = home.hold_for_server()?;
    let bell = Arc::new(Bell::default());
    // Two owners of threads: what the runner advances, the runs of clients must not take at the same time.
    let runner =
        Arc::new(App::open(home.clone(), "tidegate serve", options.public_addr).await?.with_sink(bell.clone()));
    let app = Arc::new(App::open(home, "tidegate serve", options.public_addr).await?.with_sink(bell.clone()));
    let is_open = app.identity_provider().is_none() && !app.has_keys().await?;
    if is_open && !options.listen.ip().is_loopback() {
        return Err(Failure::new("listen_not_local", format!("the server does not listen on {}", options.listen))
            .because("there are no keys: whoever reaches that address could release and roll back")
            .hint("make a key first: `tidegate keys create NAME --role admin`; or listen on 127.0.0.1"));
    }
    let graphs = Arc::new(Catalogue::of(&app, options.workflows.as_deref())?);
    offer(&app, &graphs).await?;
    let listener = TcpListener::bind(options.listen).await.map_err(|e| {
        Failure::new("listen_refused", format!("the server cannot listen on {}", options.listen))
            .because(e.to_string())
            .hint("end whoever listens there, or choose another port: --listen 127.0.0.1:PORT")
    })?;
    let address = listener.local_addr().unwrap_or(options.listen);
    alone.serves_at(&format!("http://{address}"));
    let base = app.base_url(&format!("http://{address}"));
    let executor = Executor::new(app.clone(), graphs.clone(), bell.clone());
    executor.recover().await?;
    let session = page::Session::new()?;
    let (watched, rung) = (app.clone(), bell.clone());
    let (told, mcp) = (app.clone(), mcp::Http::new(app.clone(), stop.clone()));
    let identities = Identities::new(app.clone(), executor.user().to_owned());
    let rate = f64::from(options.rate_limit);
    let buckets = (options.rate_limit > 0).then(|| Buckets::new(rate, rate * BURST_SECONDS));
    let (origins, stopping, links_at) = (options.origins, stop.clone(), base.clone());
    let server = Arc::new(Server {
        app,
        graphs,
        bell,
        executor: executor.clone(),
        identities,
        buckets,
        origins,
        mcp,
        session,
        base,
        seen: page::Seen::default(),
        stop: stopping,
    });
    let runner = tokio::spawn(keep_running(runner, stop.clone()));
    let telling = tokio::spawn(keep_telling(told, links_at, stop.clone()));
    tokio::spawn(lookout::keep_looking(watched, rung, stop.clone()));
    ready(address);
    connections::accept(listener, routes::router(server), connections::Bounds::default(), stop).await;
    executor.drain(DRAIN_WITHIN).await;
    // It lets go of its threads at the same word; whoever does not within the time is found by the next server.
    let _ = tokio::time::timeout(DRAIN_WITHIN, runner).await;
    // What was not told is told by the next one.
    telling.abort();
    Ok(())
}

/// Each graph has an assistant of its own from the beginning.
async fn offer(app: &App, graphs: &Catalogue) -> Result<(), Failure> {
    // The newest come first in lists: those of the folder.
    let (own, folder): (Vec<&str>, Vec<&str>) = graphs.names().partition(|name| graphs.is_built_in(name));
    for name in own.into_iter().chain(folder) {
        let metadata = serde_json::Map::from_iter([("created_by".to_owned(), "system".into())]);
        let text = AssistantText { name: name.to_owned(), metadata, ..AssistantText::default() };
        let id = ids::assistant(name).to_string();
        app.database().add_assistant(&id, name, text, Utc::now()).await.map_err(|e| e.failure())?;
    }
    Ok(())
}
