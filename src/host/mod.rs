//! The host daemon: the long-lived process of a home that supervises its slots and carries its traffic.
//!
//! Two processes per home. The **keeper** holds the listening sockets and starts the **daemon** again when it dies; the daemon does
//! everything else and starts the keeper again when that dies. Both may be killed at any moment: slots go on by themselves and are
//! adopted by the next daemon.
//!
//! Inside the daemon everything that must not be forgotten is one value, `HostState`; it is changed in one place (`Core`), written
//! first and applied second, and the gateway's routing table is rebuilt from it as a whole. Nothing here knows of workflows,
//! releases or databases. Of the other rooms only `ports` is used: its data types are also the words of the admin API.

mod admin;
pub mod api;
mod client;
mod config;
mod control;
mod core;
mod daemon;
mod down;
mod error;
mod format;
mod gateway;
mod identity;
pub mod install;
mod keeper;
mod lease;
mod link;
mod plan;
mod public;
mod routes;
mod slot;
mod socket;
mod standby;
mod start;
mod state;
mod store;
mod sys;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

pub use client::HostClient;
pub use config::{HostConfig, HostPaths, Settings, TlsFiles};
pub use daemon::run_daemon;
pub use down::stop_everything;
pub use error::HostError;
pub use keeper::run_keeper;
pub(crate) use slot::secrets;
pub use start::{ensure_started, start_everything};
pub use store::is_down;

/// Whoever lived this long was well: its successor is started at once.
const WELL_AFTER: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long to wait before keeper or daemon is started again: not at all the first time, longer each time it dies young.
#[derive(Debug, Default)]
struct Restarts {
    next: Duration,
}

impl Restarts {
    fn pause(&mut self, lived: Duration) -> Duration {
        let pause = if lived >= WELL_AFTER { Duration::ZERO } else { self.next };
        self.next = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        pause
    }
}

/// Processes without a terminal log to their standard error: keeper and daemon (the home's `host.log`), the runner (`runner.log`).
pub(crate) fn init_log() {
    // What MCP clients say of themselves is nobody's news.
    let usual = || "info,rmcp=warn".into();
    let filter = tracing_subscriber::EnvFilter::try_from_env("TIDEGATE_LOG").unwrap_or_else(|_| usual());
    // Already set only when somebody calls us inside another program; then that one's is as good.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr);
    // On a full disk the log misses lines. Complaints about that would go to the same log, and panic.
    let _ = log.log_internal_errors(false).try_init();
}

/// Runs `host-keeper` or `host-daemon`, the binary's two hidden commands, if `args` (without the program's name) ask for one of them.
///
/// Their arguments are no interface for people: `--home DIR`, `--public-addr ADDR` (keeper only), `--linked` (its standard input is the
/// link to the other one).
pub fn dispatch(args: &[String]) -> Option<ExitCode> {
    let (command, rest) = args.split_first()?;
    if !matches!(command.as_str(), "host-keeper" | "host-daemon") {
        return None;
    }
    let result = parse(rest).and_then(|(config, linked)| match (command.as_str(), linked) {
        ("host-keeper", linked) => run_keeper(&config, linked),
        (_, true) => run_daemon(&config),
        (_, false) => Err(HostError::invalid("host-daemon is started by the keeper only", "use `tidegate up`")),
    });
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, cause = error.to_port().cause, "gave up");
            ExitCode::FAILURE
        }
    })
}

fn parse(args: &[String]) -> Result<(HostConfig, bool), HostError> {
    const HINT: &str = "this command is for tidegate itself; use `tidegate up`";
    let mut home = None;
    let mut public_addr = None;
    let mut linked = false;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| HostError::invalid(format!("{arg} needs a value"), HINT));
        match arg.as_str() {
            "--home" => home = Some(PathBuf::from(value()?)),
            "--public-addr" => {
                let text = value()?;
                let parsed = text.parse().map_err(|_| HostError::invalid(format!("{text} is no address"), HINT))?;
                public_addr = Some(parsed);
            }
            "--linked" => linked = true,
            _ => return Err(HostError::invalid(format!("unknown argument {arg}"), HINT)),
        }
    }
    let home = home.ok_or_else(|| HostError::invalid("--home is missing", HINT))?;
    Ok((HostConfig { public_addr, ..HostConfig::new(home)? }, linked))
}
