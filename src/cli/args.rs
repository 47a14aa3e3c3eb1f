//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::audit::AuditCommand;
use super::keys::KeysCommand;
use super::links::ApprovalsCommand;
use super::run_args::RunCommand;
use crate::release::{CanarySteps, Strategy};

/// Releases machine-learning models: planned, validated, approved, watched, reversible.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 110, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed (and undone), 2 wrong usage, 3 waits for a decision, 4 refused, 5 could not write and can \
be resumed, 6 stuck, 130 stopped by ctrl-C and can be resumed.\n\nExample:\n  tidegate deploy examples/iris"
)]
pub struct Cli {
    /// Folder where all state lives [default: ~/tidegate-home]
    #[arg(long, global = true, env = "TIDEGATE_HOME", value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Where the public endpoint listens; kept for the home's life [default: 127.0.0.1:7311, or the next free port]
    #[arg(long, global = true, env = "TIDEGATE_PUBLIC_ADDR", value_name = "ADDR")]
    pub public_addr: Option<SocketAddr>,
    /// Print only JSON, for machines
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Release a model: build, start beside the live version, validate, ask, switch, watch
    #[command(
        after_help = "Examples:\n  tidegate deploy examples/iris\n  tidegate deploy request.json --yes --json\n  tidegate deploy . --environment prod --yes --detach"
    )]
    Deploy(DeployArgs),
    /// Show what a deploy would do, and why; changes nothing
    #[command(after_help = "Example:\n  tidegate plan examples/iris")]
    Plan(PlanArgs),
    /// What is live where, and how it fares
    #[command(after_help = "Example:\n  tidegate status iris")]
    Status(MaybeModel),
    /// How a model's traffic is divided, and how each version fares; every second, on a terminal
    #[command(after_help = "Example:\n  tidegate traffic iris --over 60")]
    Traffic(TrafficArgs),
    /// All releases, newest first
    #[command(after_help = "Example:\n  tidegate list --json")]
    List,
    /// One model's releases, newest first
    #[command(after_help = "Example:\n  tidegate history iris")]
    History(Model),
    /// One release: its contract, plan and checks, its alerts, its dashboard
    #[command(
        after_help = "Examples:\n  tidegate release show iris\n  tidegate release rules iris > /etc/prometheus/rules/iris.yml\n  tidegate release dashboard iris > iris.json"
    )]
    Release {
        /// What of it
        #[command(subcommand)]
        command: ReleaseCommand,
    },
    /// Counts of active, completed and failed releases
    #[command(after_help = "Example:\n  tidegate summary")]
    Summary,
    /// Send the traffic back to the version before, or to a named one; no build
    #[command(
        after_help = "Examples:\n  tidegate rollback iris\n  tidegate rollback iris --to uy3ujyxfbgk5qax4 --reason 'wrong labels'"
    )]
    Rollback(RollbackArgs),
    /// Take a version on trial to its next step, or to all of the traffic
    #[command(after_help = "Example:\n  tidegate promote iris --full")]
    Promote(PromoteArgs),
    /// Keep a version on trial at its share of the traffic; the judge goes on looking
    #[command(after_help = "Example:\n  tidegate pause iris")]
    Pause(Model),
    /// Let a paused trial go on with its steps
    #[command(after_help = "Example:\n  tidegate resume iris")]
    Resume(Model),
    /// Stop a release: all traffic back at once, and everything undone
    #[command(after_help = "Example:\n  tidegate abort iris --reason 'p99 doubled'")]
    Abort(AbortArgs),
    /// Open questions that wait for a human; links with which people decide them without a login
    #[command(after_help = "Examples:\n  tidegate approvals\n  tidegate approvals link iris --for ann")]
    Approvals {
        /// What to do; without it, the questions
        #[command(subcommand)]
        command: Option<ApprovalsCommand>,
    },
    /// Say yes to a release
    #[command(after_help = "Example:\n  tidegate approve iris")]
    Approve(ApproveArgs),
    /// Say no to a release
    #[command(after_help = "Example:\n  tidegate reject iris --reason 'evaluation is from last month'")]
    Reject(RejectArgs),
    /// All runs (threads), newest first
    #[command(after_help = "Example:\n  tidegate runs")]
    Runs,
    /// Look at, continue, stop, export or replay one run
    #[command(
        after_help = "Examples:\n  tidegate run show iris\n  tidegate run export iris > run.json\n  tidegate run replay run.json"
    )]
    Run {
        /// What to do with it
        #[command(subcommand)]
        command: RunCommand,
    },
    /// Check and draw a workflow, or what a run did with it
    #[command(
        after_help = "Examples:\n  tidegate graph model_deployer\n  tidegate graph my.yaml --format svg > my.svg\n  tidegate graph --run iris --format svg > iris.svg"
    )]
    Graph(GraphArgs),
    /// Print the JSON Schema of a file or document
    #[command(after_help = "Example:\n  tidegate schema release-file")]
    Schema(SchemaArgs),
    /// The host daemon, which supervises slots and carries traffic
    #[command(after_help = "Examples:\n  tidegate host status\n  tidegate host install")]
    Host {
        /// What to do with it
        #[command(subcommand)]
        command: HostCommand,
    },
    /// Restore everything that served
    #[command(after_help = "Example:\n  tidegate up")]
    Up,
    /// Stop everything that serves; `up` brings it back
    #[command(after_help = "Example:\n  tidegate down")]
    Down,
    /// What is missing on this machine, and how to get it
    #[command(after_help = "Example:\n  tidegate doctor --db")]
    Doctor(DoctorArgs),
    /// Prove that nobody has changed what happened
    #[command(
        after_help = "Examples:\n  tidegate audit verify\n  tidegate audit export > audit.json\n  tidegate audit verify audit.json"
    )]
    Audit {
        /// What to do with it
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// A verdict on recorded traffic of two versions, with its reason
    #[command(after_help = "Example:\n  tidegate judge --baseline v1.jsonl --candidate v2.jsonl")]
    Judge(JudgeArgs),
    /// How fast the engine and its store are on this machine
    #[command(after_help = "Example:\n  tidegate bench --json")]
    Bench,
    /// Offer every workflow to agent orchestrators: the LangGraph Server API, with the home's runner
    #[command(after_help = "Example:\n  tidegate serve --workflows ./workflows")]
    Serve(ServeArgs),
    /// Who may ask the server: keys, with what each may do
    #[command(after_help = "Example:\n  tidegate keys create release-agent --role deployer")]
    Keys {
        /// What to do with them
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Offer releases to one agent over standard input and output: MCP
    #[command(after_help = "Example, in a client's settings:\n  {\"command\": \"tidegate\", \"args\": [\"mcp\"]}")]
    Mcp,
    /// Advance what nobody advances (started by tidegate itself)
    #[command(hide = true)]
    Runner,
}

impl Command {
    /// What people who meet this process's lease are told.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Deploy(_) => "tidegate deploy",
            Self::Rollback(_) => "tidegate rollback",
            Self::Approve(_) => "tidegate approve",
            Self::Reject(_) => "tidegate reject",
            Self::Abort(_) => "tidegate abort",
            Self::Run { .. } => "tidegate run",
            Self::Runner => "tidegate runner",
            Self::Serve(_) => "tidegate serve",
            Self::Mcp => "tidegate mcp",
            Self::Plan(_)
            | Self::Status(_)
            | Self::List
            | Self::History(_)
            | Self::Summary
            | Self::Release { .. }
            | Self::Approvals { .. }
            | Self::Runs
            | Self::Graph(_)
            | Self::Schema(_)
            | Self::Host { .. }
            | Self::Up
            | Self::Down
            | Self::Doctor(_)
            | Self::Audit { .. }
            | Self::Promote(_)
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Judge(_)
            | Self::Traffic(_)
            | Self::Keys { .. }
            | Self::Bench => "tidegate",
        }
    }
}

/// Where to serve, and what.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The address; one that other machines reach needs keys, or an identity provider
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7310")]
    pub listen: SocketAddr,
    /// A folder of workflow files: NAME.yaml is offered as the graph NAME
    #[arg(long, value_name = "DIR")]
    pub workflows: Option<PathBuf>,
    /// Most requests a second of each caller with a key, on average; 0: no limit
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub rate_limit: u32,
    /// The origin of a page elsewhere that may ask, such as https://inbox.example.org; may be given several times
    #[arg(long, value_name = "ORIGIN")]
    pub allow_origin: Vec<String>,
}

/// What to release.
#[derive(Debug, Args)]
pub struct DeployArgs {
    /// A project's folder (with tidegate.yaml), that file, or a request as .json
    pub path: PathBuf,
    /// The target environment of the release file
    #[arg(long, value_name = "NAME")]
    pub environment: Option<String>,
    #[command(flatten)]
    pub traffic: StrategyArgs,
    /// Approve without asking; recorded as such, and kept with the run, whoever goes on with it
    #[arg(long)]
    pub yes: bool,
    /// Return the thread's id at once; a detached runner goes on
    #[arg(long)]
    pub detach: bool,
}

/// How a release gets its traffic, where the command says it.
#[derive(Debug, Args)]
pub struct StrategyArgs {
    /// How the new version gets its traffic: blue-green, canary, ab-test, shadow, rolling, recreate [default: as the release file says]
    #[arg(long, value_name = "NAME", value_parser = strategy)]
    pub strategy: Option<Strategy>,
    /// Steps of a canary: shares, times and `pause`, e.g. 5%,10m,25%,pause,50%,10m
    #[arg(long, value_name = "STEPS", value_parser = CanarySteps::parse)]
    pub steps: Option<CanarySteps>,
}

fn strategy(text: &str) -> Result<Strategy, String> {
    Strategy::parse(text).ok_or_else(|| {
        let known: Vec<&str> = Strategy::ALL.iter().map(|strategy| strategy.as_str()).collect();
        format!("the strategies are {}", known.join(", "))
    })
}

/// Which version on trial, and how far.
#[derive(Debug, Args)]
pub struct PromoteArgs {
    /// The model
    pub model: String,
    /// All of the traffic now, whatever the judge says
    #[arg(long)]
    pub full: bool,
}

/// Which release to stop.
#[derive(Debug, Args)]
pub struct AbortArgs {
    /// The model
    pub model: String,
    /// Why; recorded
    #[arg(long)]
    pub reason: Option<String>,
}

/// What to plan.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// A project's folder (with tidegate.yaml), that file, or a request as .json
    pub path: PathBuf,
    /// The target environment of the release file
    #[arg(long, value_name = "NAME")]
    pub environment: Option<String>,
    #[command(flatten)]
    pub traffic: StrategyArgs,
}

/// Perhaps a model.
#[derive(Debug, Args)]
pub struct MaybeModel {
    /// The model
    pub model: Option<String>,
}

/// A model.
#[derive(Debug, Args)]
pub struct Model {
    /// The model
    pub model: String,
}

/// What of a release.
#[derive(Debug, Subcommand)]
pub enum ReleaseCommand {
    /// Everything that is known of it
    #[command(after_help = "Example:\n  tidegate release show iris --json")]
    Show(OneRelease),
    /// Its alerts as a Prometheus rule file, made of its plan's limits
    #[command(after_help = "Example:\n  tidegate release rules iris > /etc/prometheus/rules/iris.yml")]
    Rules(OneRelease),
    /// A Grafana dashboard of its model
    #[command(after_help = "Example:\n  tidegate release dashboard iris > iris.json")]
    Dashboard(OneRelease),
}

/// Which release.
#[derive(Debug, Args)]
pub struct OneRelease {
    /// Its id, or a model for the one that serves, else its newest
    pub release: String,
}

/// Where to go back to.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The model
    pub model: String,
    /// The version to go back to [default: the one before]
    #[arg(long, value_name = "VERSION")]
    pub to: Option<String>,
    /// Why; recorded
    #[arg(long)]
    pub reason: Option<String>,
}

/// Which question.
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// The question's id, its thread's, or the model
    pub id: String,
    /// Why; recorded
    #[arg(long)]
    pub reason: Option<String>,
    /// Digest of the evidence that was looked at; another one refuses
    #[arg(long, value_name = "SHA256")]
    pub digest: Option<String>,
    /// Although nothing is released at this time (a freeze): needs the right, and a reason
    #[arg(long = "override")]
    pub overrides: bool,
}

/// Which question, and why not.
#[derive(Debug, Args)]
pub struct RejectArgs {
    /// The question's id, its thread's, or the model
    pub id: String,
    /// Why; recorded and shown to whoever released it
    #[arg(long)]
    pub reason: String,
}

/// What to draw.
#[derive(Debug, Args)]
pub struct GraphArgs {
    /// The workflow's file, or a built-in name: model_deployer, rollback, or a strategy's: blue_green, canary, ab_test, shadow, rolling, recreate
    #[arg(required_unless_present = "run")]
    pub workflow: Option<String>,
    /// Draw what a run did with its own graph instead: its id, the beginning of it, or a model for its newest
    #[arg(long, value_name = "THREAD", conflicts_with_all = ["workflow", "strict"])]
    pub run: Option<String>,
    /// How
    #[arg(long, value_enum, default_value_t = PictureFormat::Mermaid)]
    pub format: PictureFormat,
    /// Take warnings as errors
    #[arg(long)]
    pub strict: bool,
}

/// Languages of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PictureFormat {
    /// A mermaid flowchart
    Mermaid,
    /// A Graphviz digraph
    Dot,
    /// An SVG, which needs no other program
    Svg,
}

/// Which schema.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Its name; without one, the names
    pub name: Option<String>,
}

/// What to do with the host daemon.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Whether it runs, its slots and routes
    #[command(after_help = "Example:\n  tidegate host status --json")]
    Status,
    /// The end of its log
    #[command(
        after_help = "Examples:\n  tidegate host logs -n 20\n  tidegate host logs --slot 0d5894a03c3041bf034c6541"
    )]
    Logs {
        /// How many lines
        #[arg(long, short = 'n', default_value_t = 100)]
        lines: usize,
        /// A slot's log instead: its token
        #[arg(long)]
        slot: Option<String>,
    },
    /// Start it at boot
    #[command(after_help = "Example:\n  tidegate host install --dry-run")]
    Install {
        /// Only show what would be written
        #[arg(long)]
        dry_run: bool,
    },
}

/// Whose traffic is shown.
#[derive(Debug, Args)]
pub struct TrafficArgs {
    /// The model's name
    pub model: String,
    /// Count so many of the last seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=900))]
    pub over: u64,
    /// Show it once, also on a terminal
    #[arg(long)]
    pub once: bool,
}

/// What is judged, and how strictly.
#[derive(Debug, Args)]
pub struct JudgeArgs {
    /// What the version that serves did: a JSON object per request or interval, one per line
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// What the version that is judged did
    #[arg(long, value_name = "FILE")]
    pub candidate: PathBuf,
    /// Checks and limits; without it the error rate and the p99 may not be higher than the baseline's
    #[arg(long, value_name = "JSON|@FILE")]
    pub rule: Option<String>,
    /// Lay the beginnings of both side by side, where they were recorded at different times
    #[arg(long, requires = "baseline")]
    pub align: bool,
}

/// What to look at.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Check the database: its integrity, what is missing in it, the audit's chain
    #[arg(long)]
    pub db: bool,
    /// Mend what can be mended without inventing anything; a copy is made first
    #[arg(long, requires = "db")]
    pub repair: bool,
    /// Take what can be read into this new file; the old one is not touched
    #[arg(long, value_name = "FILE", requires = "db", conflicts_with = "repair")]
    pub salvage: Option<PathBuf>,
}
