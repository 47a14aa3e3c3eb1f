//! Starting the host daemon on demand.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::api::HostStatus;
use super::client::HostClient;
use super::config::{HostConfig, HostPaths};
use super::daemon::lock_within;
use super::{HostError, slot, sys};
use crate::ports::PortError;

/// From nothing to an answering daemon takes some 50 ms, on a laden machine a second.
pub(super) const START_WITHIN: Duration = Duration::from_secs(20);
/// A `down` gives slots their time to end.
const DOWN_WITHIN: Duration = Duration::from_secs(90);
/// A daemon that vanishes while it is asked is looked for again, so often.
pub(super) const TRIES: u32 = 3;
/// One question, while waiting.
const ASK_WITHIN: Duration = Duration::from_secs(2);
pub(super) const ASK_EVERY: Duration = Duration::from_millis(15);

/// Returns a client of the home's daemon, which is started first if it does not run. Of several callers at once, one starts it.
pub async fn ensure_started(config: &HostConfig) -> Result<HostClient, HostError> {
    let paths = config.paths()?;
    let client = HostClient::new(paths.clone());
    if is_there(&client, config).await? {
        return Ok(client);
    }
    let _lock = lock_within(&paths.start_lock(), START_WITHIN).await?.ok_or_else(|| timeout(&paths, START_WITHIN))?;
    if !is_there(&client, config).await? {
        start(config, &client).await?;
    }
    Ok(client)
}

/// Starts the daemon where it does not run, and what ran before `down`. Comes after a `down` that is under way.
pub async fn start_everything(config: &HostConfig) -> Result<HostStatus, HostError> {
    let paths = config.paths()?;
    let client = HostClient::new(paths.clone());
    // To the end: a `down` that has found no daemon holds it while one ends the slots for it, and asks for nothing before it has it.
    let _lock = lock_within(&paths.start_lock(), DOWN_WITHIN).await?.ok_or_else(|| timeout(&paths, DOWN_WITHIN))?;
    let mut tries = 0;
    loop {
        tries += 1;
        if !is_there(&client, config).await? {
            start(config, &client).await?;
        }
        match client.up().await {
            Err(error) if error.is_gone() && tries < TRIES => {}
            up => return up,
        }
    }
}

fn timeout(paths: &HostPaths, waited: Duration) -> HostError {
    let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    HostError::StartTimeout { home: paths.home.clone(), waited_ms, log: paths.log() }
}

/// Starts the keeper and waits until its daemon answers. Only for who holds the start lock.
pub(super) async fn start(config: &HostConfig, client: &HostClient) -> Result<(), HostError> {
    let paths = client.paths();
    let mut keeper = spawn_keeper(config, paths)?;
    let until = Instant::now() + START_WITHIN;
    while Instant::now() < until {
        if is_there(client, config).await? {
            reap_later(keeper);
            return Ok(());
        }
        if keeper.try_wait().is_ok_and(|status| status.is_some()) {
            if let Some(error) = start_error(paths) {
                return Err(HostError::Remote(error));
            }
            // Another one was there: its daemon will answer, unless it was about to end.
            keeper = spawn_keeper(config, paths)?;
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    reap_later(keeper);
    Err(timeout(paths, START_WITHIN))
}

/// Whether the daemon answers, and at the address that is wanted.
pub(super) async fn is_there(client: &HostClient, config: &HostConfig) -> Result<bool, HostError> {
    let Ok(status) = client.status_now(ASK_WITHIN).await else { return Ok(false) };
    if status.home != client.paths().home {
        // This home is a copy of another one, and with it came the other one's note of where its socket is.
        return Ok(false);
    }
    match (config.public_addr, status.public_addr) {
        (Some(wanted), Some(current))
            if wanted.ip() != current.ip() || (wanted.port() != 0 && wanted.port() != current.port()) =>
        {
            Err(HostError::PublicAddrDiffers { current: current.to_string(), wanted: wanted.to_string() })
        }
        _ => Ok(true),
    }
}

/// Starts the keeper, detached: nothing of our terminal, our folder, our session or our open files stays with it.
fn spawn_keeper(config: &HostConfig, paths: &HostPaths) -> Result<Child, HostError> {
    let doing = "starting the host keeper";
    match std::fs::remove_file(paths.start_error()) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(HostError::io(doing)(e)),
        _ => {}
    }
    let log: File = slot::log::open(&paths.log()).map_err(HostError::io(doing))?;
    let log_too = log.try_clone().map_err(HostError::io(doing))?;
    // Absolute, because we leave this folder.
    let exe = config.exe.canonicalize().map_err(HostError::io(format!("finding {}", config.exe.display())))?;
    let mut command = Command::new(&exe);
    command.arg("host-keeper").arg("--home").arg(&paths.home).current_dir("/");
    if let Some(addr) = config.public_addr {
        command.arg("--public-addr").arg(addr.to_string());
    }
    command.stdin(Stdio::null()).stdout(log).stderr(log_too);
    sys::detach(&mut command);
    command.spawn().map_err(HostError::io(format!("{doing} {}", config.exe.display())))
}

/// The keeper outlives us, or ends while we go on; then nobody else would reap it.
fn reap_later(mut keeper: Child) {
    std::thread::spawn(move || keeper.wait());
}

/// Why the keeper gave up; nothing if it only found another one in its place.
fn start_error(paths: &HostPaths) -> Option<PortError> {
    let error: PortError = serde_json::from_slice(&std::fs::read(paths.start_error()).ok()?).ok()?;
    (error.code != "host_already_running").then_some(error)
}
