//! Configuration → adapters → engine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::crash::with_crash_points;
use super::graphs::Graphs;
use super::text_file::read_text;
use super::{Home, RunWebhookSettings, Settings, WebhookSettings, workflows};
use crate::adapters::bentoml::BentomlPackager;
use crate::adapters::command::LocalCommands;
use crate::adapters::http::{HttpCalls, HttpServices};
use crate::adapters::local::LocalHost;
use crate::adapters::local_registry::LocalRegistry;
use crate::adapters::machine::ThisMachine;
use crate::adapters::oidc::OidcProvider;
use crate::adapters::uv::UvEnvs;
use crate::graph::{
    Clock, CompiledGraph, Engine, EventSink, Failure, FailureDetails, NewThread, NoSink, Owner, Store, Thread, ThreadId,
};
use crate::host::HostError;
use crate::nodes::effects::HttpWorld;
use crate::nodes::{
    AbTest, ApprovalGate, Canary, DeploymentExecutor, DeploymentPlanner, Finalise, MakeRoom, PackagerNode,
    PolicySource, Retire, Rollback, Rolling, Shadow, Tools, TrafficShift, Validation, Watch, WorkGate, World, effects,
};
use crate::release::{Policy, ReleaseLedger};
use crate::store::{MachineClock, SqliteStore, this_process};
use crate::workflow::{Cel, NodeTypes, ResolvedWorkflow, Source, accept_input, build, load};

/// The operator's rules as `config.yaml` says them whenever they are needed: a server that runs for months plans by today's.
struct SettingsFile(PathBuf);

impl PolicySource for SettingsFile {
    fn policy(&self) -> Result<Policy, Failure> {
        Ok(Settings::read(&self.0)?.policy)
    }
}

/// One home, wired and ready. Opening it reads and migrates the database; it starts no process.
pub struct App {
    pub(super) home: Home,
    pub(super) store: Arc<dyn Store>,
    pub(super) sqlite: Arc<SqliteStore>,
    pub(super) world: Arc<World>,
    pub(super) tools: Tools,
    pub(super) host: LocalHost,
    pub(super) types: NodeTypes,
    /// Of documents that threads keep, which are not looked at as strictly as those that are accepted.
    pub(super) kept: Graphs,
    pub(super) accepted: Graphs,
    pub(super) owner: Owner,
    pub(super) sink: Arc<dyn EventSink>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) oidc: Option<OidcProvider>,
    pub(super) webhooks: Vec<WebhookSettings>,
    pub(super) run_webhooks: RunWebhookSettings,
    pub(super) public_url: Option<String>,
}

impl App {
    /// Opens a home. `label` says what this process is, for people who meet its lease: `deploy`, `runner`. `public_addr` wins over the
    /// settings file.
    pub async fn open(home: Home, label: &str, public_addr: Option<SocketAddr>) -> Result<Self, Failure> {
        let settings = Settings::read(&home.settings())?;
        let sqlite = Arc::new(SqliteStore::open(home.database()).map_err(|e| e.failure())?);
        let store = with_crash_points(sqlite.clone());
        let host = LocalHost::new(settings.host(&home, public_addr)?);
        let http = HttpWorld { caller: Arc::new(HttpCalls::default()), expressions: Arc::new(Cel) };
        let tools = Tools { commands: Arc::new(LocalCommands::new(home.dir())), http: Arc::new(http) };
        let oidc = settings.oidc.map(|settings| OidcProvider::new(settings, tools.http.caller.clone()));
        let world = Arc::new(World {
            envs: Arc::new(UvEnvs::new(home.dir())),
            packager: Arc::new(BentomlPackager::new(home.dir())),
            target: Arc::new(host.clone()),
            router: Arc::new(host.clone()),
            registry: Arc::new(LocalRegistry::new(home.dir())),
            ledger: sqlite.clone(),
            services: Arc::new(HttpServices::new()),
            secrets: Arc::new(host.clone()),
            commands: tools.commands.clone(),
            calls: tools.http.caller.clone(),
            expressions: tools.http.expressions.clone(),
            machine: Arc::new(ThisMachine),
            policy: Arc::new(SettingsFile(home.settings())),
            slots_dir: home.slots(),
        });
        let types = node_types(&world).with_tools(tools.http.caller.clone());
        Ok(Self {
            home,
            store,
            sqlite,
            world,
            tools,
            host,
            types,
            kept: Graphs::default(),
            accepted: Graphs::default(),
            owner: this_process(label),
            sink: Arc::new(NoSink),
            clock: Arc::new(MachineClock),
            oidc,
            webhooks: settings.webhooks,
            run_webhooks: settings.run_webhooks,
            public_url: settings.public_url,
        })
    }

    /// Shows what happens to `sink`.
    #[must_use]
    pub fn with_sink(mut self, sink: Arc<dyn EventSink>) -> Self {
        self.sink = sink;
        self
    }

    /// The home.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The store of threads.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The database, for checks of its own.
    pub fn database(&self) -> &Arc<SqliteStore> {
        &self.sqlite
    }

    /// The table of releases.
    pub fn ledger(&self) -> &Arc<dyn ReleaseLedger> {
        &self.world.ledger
    }

    /// The ports.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// The host daemon's client, not yet connected.
    pub fn host(&self) -> &LocalHost {
        &self.host
    }

    /// This process as an owner of threads.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Whose tokens count beside keys, if anybody's.
    pub fn identity_provider(&self) -> Option<&OidcProvider> {
        self.oidc.as_ref()
    }

    /// Under which address people reach the server's pages: what the settings say, else where it listens.
    pub fn base_url(&self, listens_at: &str) -> String {
        self.public_url.as_deref().unwrap_or(listens_at).trim_end_matches('/').to_owned()
    }

    /// The engine over this home.
    pub fn engine(&self) -> Engine {
        let effects = self.tools.effects(effects::effects(&self.world));
        let engine = Engine::new(self.store.clone(), effects, self.owner.clone());
        engine.with_sink(self.sink.clone()).with_clock(self.clock.clone())
    }

    /// The graph that a thread began with, from its own copy of the document.
    pub fn graph_of(&self, thread: &Thread) -> Result<Arc<CompiledGraph>, Failure> {
        self.kept.of(&thread.document, || build(&thread.document, &self.types))
    }

    /// A workflow by its built-in name or by a file's path.
    pub fn workflow(&self, name: &str) -> Result<ResolvedWorkflow, Failure> {
        let path = Path::new(name);
        if path.extension().is_none() && !name.contains('/') {
            let overrides = self.home.workflows();
            let text = workflows::text(&overrides, &format!("{name}.yaml"))?;
            let read = |_: &str, wanted: &str| {
                Ok(Source { name: wanted.to_owned(), text: workflows::text(&overrides, wanted)? })
            };
            return load(&text, &format!("{name}.yaml"), &read);
        }
        let folder = std::path::absolute(path).map_err(|e| unreadable(path, &e))?;
        load(&read_file(path)?, name, &read_beside)?.in_folder(folder.parent().unwrap_or(Path::new("/")))
    }

    /// The graph of a resolved workflow.
    pub fn build(&self, workflow: &ResolvedWorkflow) -> Result<Arc<CompiledGraph>, Failure> {
        workflow.build(&self.types)
    }

    /// Accepts a thread, with a fresh id where none is given: when this returns it is durable. The caller advances it, or hands it over;
    /// while this process lives, nobody else takes it.
    pub async fn accept(
        &self,
        id: Option<ThreadId>,
        workflow: &ResolvedWorkflow,
        input: Map<String, Value>,
        labels: BTreeMap<String, String>,
    ) -> Result<ThreadId, Failure> {
        let (graph, new) = self.acceptable(id, workflow, input, labels)?;
        self.engine().create(&graph, new).await.map_err(|e| e.failure())
    }

    /// A thread as it is accepted, held against its workflow.
    pub(super) fn acceptable(
        &self,
        id: Option<ThreadId>,
        workflow: &ResolvedWorkflow,
        input: Map<String, Value>,
        mut labels: BTreeMap<String, String>,
    ) -> Result<(Arc<CompiledGraph>, NewThread), Failure> {
        labels.extend(super::retention::label(workflow));
        let graph = self.accepted.of(&workflow.document, || self.build(workflow))?;
        let input = accept_input(&workflow.document, input)?;
        let attendant = Some(self.owner.clone());
        Ok((graph, NewThread { id, document: workflow.document.clone(), input, labels, attendant }))
    }
}

/// A host error for people.
pub fn host_failure(error: &HostError) -> Failure {
    let crate::ports::PortError { code, message, cause, hint, retryable } = error.to_port();
    FailureDetails { code, message, cause, hint, retryable, node: None }.into()
}

/// Every node type of this binary.
fn node_types(world: &Arc<World>) -> NodeTypes {
    macro_rules! with {
        ($types:expr, $($node:ident),+) => {
            $types$(.with({ let world = world.clone(); move |_, _| Ok($node(world.clone())) }))+
        };
    }
    with!(
        NodeTypes::generic(),
        DeploymentPlanner,
        WorkGate,
        PackagerNode,
        DeploymentExecutor,
        Validation,
        ApprovalGate,
        AbTest,
        Canary,
        Shadow,
        Rolling,
        MakeRoom,
        TrafficShift,
        Watch,
        Finalise,
        Retire,
        Rollback
    )
}

fn read_file(path: &Path) -> Result<String, Failure> {
    read_text(path, crate::workflow::MAX_BYTES as u64).map_err(|e| unreadable(path, &e))
}

fn unreadable(path: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::new("workflow_unreadable", format!("{} cannot be read", path.display()))
        .because(why.to_string())
        .hint("name a workflow file, or a built-in workflow: model_deployer, rollback")
}

/// A subgraph's file, which stands beside the file that names it, or below.
fn read_beside(from: &str, wanted: &str) -> Result<Source, Failure> {
    let escapes = Path::new(wanted)
        .components()
        .any(|part| !matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir));
    if escapes {
        return Err(Failure::new("path_escapes", format!("`{wanted}` leaves the folder of {from}"))
            .hint("keep subgraph files beside the workflow or below it"));
    }
    let path = Path::new(from).parent().unwrap_or(Path::new("")).join(wanted);
    Ok(Source { name: path.display().to_string(), text: read_file(&path)? })
}
