//! `host-keeper`: holds the listening sockets and starts the daemon again whenever it dies, so that a connection is never refused.
//!
//! It does nothing else, so that there is nothing in it that can fail. Connections that come while there is no daemon wait in the
//! sockets' backlogs.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

use super::config::{HostConfig, HostPaths, Settings};
use super::daemon::{hold_until_exit, lock_within};
use super::link::{Link, Message, Sockets, spawn_other};
use super::store::Store;
use super::{HostError, public, socket};

/// The keeper before us has been killed; its lock goes with it, within moments.
const LOCK_WITHIN: Duration = Duration::from_secs(5);
/// A daemon that has let go of its keeper is gone within moments. Less than [`LOCK_WITHIN`]: another keeper, which a daemon started that
/// goes on, waits for ours.
const DAEMON_ENDS_WITHIN: Duration = Duration::from_secs(1);

/// Body of the hidden command `host-keeper --home DIR [--public-addr ADDR] [--linked]`: runs until the daemon ends on purpose.
///
/// `linked`: a daemon has started it, to replace a keeper that died; the sockets come over the link. Otherwise it binds them.
pub fn run_keeper(config: &HostConfig, linked: bool) -> Result<(), HostError> {
    super::init_log();
    let paths = config.paths()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(HostError::io("starting the runtime"))?;
    let result = runtime.block_on(run(config, &paths, linked));
    if let Err(error) = &result {
        report_start_error(&paths, error);
    }
    result
}

/// Leaves the reason where whoever started us looks for it.
fn report_start_error(paths: &HostPaths, error: &HostError) {
    let text = serde_json::to_vec(&error.to_port()).unwrap_or_default();
    if let Err(error) = std::fs::write(paths.start_error(), text) {
        tracing::error!(%error, "cannot write down why the keeper did not start");
    }
}

async fn run(config: &HostConfig, paths: &HostPaths, linked: bool) -> Result<(), HostError> {
    // Slots of a daemon that died become our children rather than init's: in a container nobody else would reap them.
    let _ = nix::sys::prctl::set_child_subreaper(true);
    let already = || HostError::AlreadyRunning { what: "keeper", home: paths.home.clone() };
    let link = if linked { Some(Link::from_stdin()?) } else { None };
    hold_until_exit(lock_within(&paths.keeper_lock(), LOCK_WITHIN).await?.ok_or_else(already)?);
    let mut keeper = match link {
        Some(link) => {
            let Some(sockets) = link.receive_sockets().await else { return Ok(()) };
            let daemon = nix::unistd::getppid().as_raw().unsigned_abs();
            Keeper { paths: paths.clone(), sockets, link, daemon }
        }
        None => {
            // A daemon without a keeper is about to start one itself; one that ends on purpose is the last to go.
            lock_within(&paths.daemon_lock(), DAEMON_ENDS_WITHIN).await?.ok_or_else(already)?;
            let sockets = bind(config, paths)?;
            let (link, daemon) = spawn_other("host-daemon", paths, &sockets)?;
            Keeper { paths: paths.clone(), sockets, link, daemon: daemon.id() }
        }
    };
    keeper.keep().await
}

/// Binds both sockets; the public one not while the home is down.
fn bind(config: &HostConfig, paths: &HostPaths) -> Result<Sockets, HostError> {
    // The daemon reads it later; here its errors still reach the one who starts us.
    // What the daemon could not serve with is told to whoever starts us.
    super::gateway::tls(&Settings::load(&paths.settings())?)?;
    let store = Store::open(paths.state())?;
    let state = store.get();
    let public = match state.down {
        true => None,
        false => Some(OwnedFd::from(public::bind(config.public_addr, state.public_addr)?)),
    };
    Ok(Sockets { public, admin: Some(OwnedFd::from(socket::bind(paths)?)) })
}

struct Keeper {
    paths: HostPaths,
    sockets: Sockets,
    link: Link,
    daemon: u32,
}

impl Keeper {
    async fn keep(&mut self) -> Result<(), HostError> {
        let doing = "listening for signals";
        let mut terminate = signal(SignalKind::terminate()).map_err(HostError::io(doing))?;
        let mut children = signal(SignalKind::child()).map_err(HostError::io(doing))?;
        let mut restarts = super::Restarts::default();
        loop {
            let began = Instant::now();
            if self.follow_daemon(&mut terminate, &mut children).await {
                reap();
                return Ok(());
            }
            reap();
            let pause = restarts.pause(began.elapsed());
            tracing::warn!(daemon = self.daemon, ?pause, "the daemon is gone; starting another");
            tokio::time::sleep(pause).await;
            match spawn_other("host-daemon", &self.paths, &self.sockets) {
                Ok((link, daemon)) => (self.link, self.daemon) = (link, daemon.id()),
                // The old link still reads as ended: the loop comes straight back here, after a longer pause.
                Err(error) => tracing::error!(%error, "cannot start a daemon"),
            }
        }
    }

    /// Listens to the daemon until it is gone. Whether it left on purpose.
    async fn follow_daemon(&mut self, terminate: &mut SignalStream, children: &mut SignalStream) -> bool {
        let mut quits = false;
        loop {
            tokio::select! {
                message = self.link.recv() => match message {
                    Some(Message::Quit) => quits = true,
                    Some(message) => self.sockets.note(message),
                    None => return quits,
                },
                _ = terminate.recv() => self.pass_on_sigterm(),
                _ = children.recv() => reap(),
            }
        }
    }

    /// Asked to end: the daemon ends the whole, in order. Its link is open, so its pid is still its own.
    fn pass_on_sigterm(&self) {
        if let Ok(pid) = i32::try_from(self.daemon) {
            // It may end in this very moment; then so do we.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

/// Reaps every child that has ended: daemons, and slots of daemons that died.
fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}
