//! `host-daemon`: supervisor and gateway in one process, started by the keeper.

use std::fs::{File, TryLockError};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::config::{HostConfig, HostPaths};
use super::control::Host;
use super::core::Core;
use super::link::{Link, spawn_other};
use super::slot::log;
use super::{HostError, admin, gateway, lease, socket, standby};

/// The daemon before us has been killed; its lock goes with it, within moments.
const LOCK_WITHIN: Duration = Duration::from_secs(10);
/// Its own log is rotated beyond this size.
const LOG_MAX_BYTES: u64 = 5 * 1024 * 1024;
/// How often small things are looked after.
const TICK: Duration = Duration::from_secs(2);

/// Body of the hidden command `host-daemon --home DIR --linked`: runs until it is told to end.
pub fn run_daemon(config: &HostConfig) -> Result<(), HostError> {
    super::init_log();
    let paths = config.paths()?;
    let runtime = tokio::runtime::Runtime::new().map_err(HostError::io("starting the runtime"))?;
    let result = runtime.block_on(run(paths));
    // Streams and websockets that are still open end with us.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

async fn run(paths: HostPaths) -> Result<(), HostError> {
    let link = Link::from_stdin()?;
    let sockets = link.receive_sockets().await;
    let unlinked = || HostError::invalid("the keeper left before it had handed over", "`tidegate up` starts both");
    let sockets = sockets.ok_or_else(unlinked)?;
    let lock = lock_within(&paths.daemon_lock(), LOCK_WITHIN)
        .await?
        .ok_or_else(|| HostError::AlreadyRunning { what: "daemon", home: paths.home.clone() })?;
    hold_until_exit(lock);
    raise_descriptor_limit();
    let admin = sockets.admin.as_ref().ok_or_else(unlinked)?;
    let admin = admin.try_clone().map_err(HostError::io("copying the admin socket"))?;
    let core = Core::open(paths)?;
    let keeper_pid = nix::unistd::getppid().as_raw().unsigned_abs();
    let host = Host::new(core, sockets, (link.clone(), keeper_pid));
    tokio::spawn(keep_keeper(Arc::clone(&host), link, None));
    tokio::spawn(housekeeping(Arc::clone(&host)));
    tokio::spawn(lease::watch(Arc::clone(&host.core)));
    tokio::spawn(standby::watch(Arc::clone(&host)));
    gateway::mirror(Arc::clone(&host.core), host.quit.clone())?;
    host.begin().await?;
    tracing::info!(pid = std::process::id(), home = %host.core.paths.home.display(), "serving");
    let serving = tokio::spawn(admin::serve(Arc::clone(&host), admin.into()));
    wait_for_end(&host).await?;
    host.end().await;
    // The answer to the one who asked for the end may still be on its way.
    let _ = tokio::time::timeout(Duration::from_secs(1), serving).await;
    socket::remove(&host.core.paths);
    tracing::info!("ended");
    Ok(())
}

async fn wait_for_end(host: &Host) -> Result<(), HostError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(HostError::io("listening for SIGTERM"))?;
    tokio::select! {
        () = host.quit.cancelled() => {}
        _ = terminate.recv() => host.quit.cancel(),
    }
    Ok(())
}

/// Waits for a lock whose holder is about to vanish; `None` when it does not.
pub(crate) async fn lock_within(path: &Path, within: Duration) -> Result<Option<File>, HostError> {
    let doing = format!("locking {}", path.display());
    let file = File::options().create(true).append(true).open(path).map_err(HostError::io(&doing))?;
    let until = Instant::now() + within;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => return Ok(None),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(TryLockError::Error(error)) => return Err(HostError::io(&doing)(error)),
        }
    }
}

/// Who sees this lock free sees no process of ours either: the system lets go of files after memory.
pub(super) fn hold_until_exit(lock: File) {
    std::mem::forget(lock);
}

/// When the keeper dies, starts another one and hands it the sockets.
async fn keep_keeper(host: Arc<Host>, mut link: Link, mut child: Option<Child>) {
    let mut restarts = super::Restarts::default();
    loop {
        let began = Instant::now();
        // The keeper never has anything to say; only its end is news.
        while link.recv().await.is_some() {}
        if let Some(mut child) = child.take() {
            // Reaped, so that no zombie stays.
            let _ = tokio::task::spawn_blocking(move || child.wait()).await;
        }
        if host.quit.is_cancelled() {
            return;
        }
        *host.keeper.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let pause = restarts.pause(began.elapsed());
        tracing::warn!(?pause, "the keeper is gone; starting another");
        tokio::time::sleep(pause).await;
        let mut keeper = host.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let sockets = host.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        match spawn_other("host-keeper", &host.core.paths, &sockets) {
            Ok((ours, new)) => {
                *keeper = Some((ours.clone(), new.id()));
                (link, child) = (ours, Some(new));
            }
            // The old link still reads as ended: the loop comes straight back here, after a longer pause.
            Err(error) => tracing::error!(%error, "cannot start a keeper"),
        }
    }
}

/// Writes what could not be written, rotates our own log, keeps the admin socket findable.
async fn housekeeping(host: Arc<Host>) {
    loop {
        tokio::time::sleep(TICK).await;
        host.core.flush().await;
        host.supervisor.keep_scratch().await;
        if let Err(error) = renew_admin_socket(&host) {
            tracing::warn!(%error, "cannot put the admin socket back");
        }
        if let Err(error) = log::rotate(&host.core.paths.log(), LOG_MAX_BYTES) {
            tracing::warn!(%error, "cannot rotate the host's log");
        }
    }
}

/// Binds the admin socket anew when its file is gone: a runtime folder goes when its user logs out, /tmp is cleaned.
fn renew_admin_socket(host: &Arc<Host>) -> Result<(), HostError> {
    if host.quit.is_cancelled() || socket::find(&host.core.paths).exists() {
        return Ok(());
    }
    tracing::warn!("the admin socket's file is gone; putting it back");
    let listener = socket::bind(&host.core.paths)?;
    let doing = "copying the admin socket";
    host.replace_admin(OwnedFd::from(listener.try_clone().map_err(HostError::io(doing))?))?;
    tokio::spawn(admin::serve(Arc::clone(host), listener));
    Ok(())
}

/// Each client costs two descriptors; the usual soft limit of 1024 would be a limit of 500 clients. Enough for the gateway's
/// connections, most of which are idle, and not more, because slots inherit it, and some programs walk through all descriptors there could be.
fn raise_descriptor_limit() {
    const WANTED: u64 = 20_000;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < WANTED
    {
        // Not allowed: then the lower limit holds, and further connections wait in the backlog.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(WANTED), hard);
    }
}
