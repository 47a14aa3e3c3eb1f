//! The daemon as a whole: what `status`, `down`, `up` and `shutdown` mean.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::api::HostStatus;
use super::core::Core;
use super::link::{Link, Message, Sockets};
use super::slot::Supervisor;
use super::{HostError, gateway, public, routes};
use crate::ports::Route;

/// Draining is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A drain that waits longer is a mistake.
const MAX_DRAIN: Duration = Duration::from_secs(3600);

/// The whole daemon.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) core: Arc<Core>,
    pub(crate) supervisor: Supervisor,
    pub(crate) quit: CancellationToken,
    started_at: DateTime<Utc>,
    /// Copies of the listening sockets, for the next keeper.
    pub(crate) sockets: Mutex<Sockets>,
    pub(crate) keeper: Mutex<Option<(Link, u32)>>,
    gateway: tokio::sync::Mutex<Option<Gateway>>,
    /// One `up`, `down` or end at a time. Who has it and finds [`Host::quit`] asked for leaves the work to the next daemon.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct Gateway {
    stop: CancellationToken,
    done: JoinHandle<Result<(), HostError>>,
}

impl Host {
    pub(crate) fn new(core: Arc<Core>, sockets: Sockets, keeper: (Link, u32)) -> Arc<Self> {
        Arc::new(Self {
            supervisor: Supervisor::new(Arc::clone(&core)),
            core,
            quit: CancellationToken::new(),
            started_at: Utc::now(),
            sockets: Mutex::new(sockets),
            keeper: Mutex::new(Some(keeper)),
            gateway: tokio::sync::Mutex::default(),
            turn: Arc::default(),
        })
    }

    fn grace(&self) -> Duration {
        Duration::from_millis(self.core.settings.stop_grace_ms)
    }

    /// Puts the world as the state says: slots found or started, public endpoint open; or all of it closed.
    ///
    /// A `down` that was interrupted is finished beside it: slots get their time to end, and whoever has started us waits for an answer.
    /// It has its turn from the first moment, so that an `up` comes after it.
    pub(crate) async fn begin(self: &Arc<Self>) -> Result<(), HostError> {
        self.supervisor.recall_secrets();
        if self.core.state().down {
            self.close_public().await;
            let (host, turn) = (Arc::clone(self), Arc::clone(&self.turn).lock_owned().await);
            tokio::spawn(async move {
                let _turn = turn;
                if let Err(error) = host.supervisor.finish_down(host.core.settings.stop_grace_ms).await {
                    tracing::error!(%error, "cannot finish the interrupted down");
                }
            });
            return Ok(());
        }
        self.supervisor.recover().await?;
        self.open_public().await
    }

    /// Opens the public endpoint, with the keeper's socket where there is one.
    async fn open_public(&self) -> Result<(), HostError> {
        let mut gateway = self.gateway.lock().await;
        if gateway.is_some() {
            return Ok(());
        }
        let tls = gateway::tls(&self.core.settings)?;
        let held = self.sockets.lock().unwrap_or_else(PoisonError::into_inner).public.take();
        let fd = match held {
            Some(fd) => fd,
            None => OwnedFd::from(public::bind(None, self.core.state().public_addr)?),
        };
        let doing = "copying the public socket";
        let listener = std::net::TcpListener::from(fd.try_clone().map_err(HostError::io(doing))?);
        let addr = listener.local_addr().map_err(HostError::io(doing))?;
        self.tell_keeper(&Message::Public(fd.try_clone().map_err(HostError::io(doing))?));
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).public = Some(fd);
        let noted = self.core.update_anyway(move |state| state.public_addr = Some(addr));
        noted.await?;
        let stop = CancellationToken::new();
        let serve = gateway::serve(Arc::clone(&self.core), listener.into(), tls, stop.clone(), self.grace());
        *gateway = Some(Gateway { stop, done: tokio::spawn(serve) });
        Ok(())
    }

    /// Closes it: nobody holds the socket afterwards, so connections are refused. Waits for requests under way, bounded.
    async fn close_public(&self) {
        let gateway = self.gateway.lock().await.take();
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).public = None;
        self.tell_keeper(&Message::PublicClosed);
        if let Some(gateway) = gateway {
            gateway.stop.cancel();
            if let Ok(Err(error)) = gateway.done.await {
                tracing::warn!(%error, "the gateway ended badly");
            }
        }
    }

    /// Keeps another admin socket from now on, here and at the keeper.
    pub(crate) fn replace_admin(&self, fd: OwnedFd) -> Result<(), HostError> {
        self.tell_keeper(&Message::Admin(fd.try_clone().map_err(HostError::io("copying the admin socket"))?));
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).admin = Some(fd);
        Ok(())
    }

    fn tell_keeper(&self, message: &Message) {
        if let Some((link, _)) = &*self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
            && let Err(error) = link.send(message)
        {
            // It has just died; the next one is told everything when it is started.
            tracing::debug!(%error, "the keeper does not listen");
        }
    }

    /// How all of it fares.
    pub(crate) fn status(&self) -> HostStatus {
        let state = self.core.state();
        HostStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            home: self.core.paths.home.clone(),
            pid: std::process::id(),
            keeper_pid: self.keeper.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(_, pid)| *pid),
            started_at: self.started_at,
            down: state.down,
            public_addr: state.public_addr,
            in_flight: self.core.board.in_flight(),
            slots: self.supervisor.slots(),
            routes: self.routes(),
            settings: self.core.settings.clone(),
            recovered: self.core.recovered(),
        }
    }

    /// All routes.
    pub(crate) fn routes(&self) -> Vec<Route> {
        let state = self.core.state();
        state.routes.keys().filter_map(|model| routes::shown(&state, model)).collect()
    }

    /// Waits until no request is under way at a slot; returns how many still are. Websockets end when their grace is over, if the slot
    /// gets nothing new.
    pub(crate) async fn drain(&self, token: &str, timeout: Duration) -> Result<u64, HostError> {
        let upstream = self.core.board.upstream(token);
        let upstream = upstream.ok_or_else(|| HostError::NoSuchSlot { token: token.to_owned() })?;
        let (until, grace) = (Instant::now() + timeout.min(MAX_DRAIN), self.core.settings.websocket_grace_ms);
        let grace_over = Instant::now() + Duration::from_millis(grace);
        loop {
            let in_flight = upstream.meter.in_flight();
            if in_flight > 0 && Instant::now() >= grace_over && !routes::carries(&self.core.state(), token) {
                upstream.tunnels.notify_waiters();
            }
            if in_flight == 0 || Instant::now() >= until {
                return Ok(in_flight);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits for its turn; refused when the daemon is about to end.
    async fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, HostError> {
        let turn = self.turn.lock().await;
        if self.quit.is_cancelled() { Err(HostError::Ending) } else { Ok(turn) }
    }

    /// Closes the public endpoint and stops all slots; what served stays on record. `end`: the daemon ends too, in the same turn, so that
    /// an `up` comes before all of it or finds nobody and starts a daemon anew.
    pub(crate) async fn down(&self, end: bool) -> Result<HostStatus, HostError> {
        let _turn = self.turn().await?;
        let asked = self.core.update(|state| {
            state.down = true;
            Ok(())
        });
        asked.await?;
        self.close_public().await;
        self.supervisor.stop_all(self.core.settings.stop_grace_ms).await;
        if end {
            self.quit.cancel();
        }
        Ok(self.status())
    }

    /// Opens the public endpoint where it was and starts what ran before `down`. Returns when the processes run; requests that come
    /// before they are ready are held.
    pub(crate) async fn up(&self) -> Result<HostStatus, HostError> {
        let _turn = self.turn().await?;
        if !self.core.state().down {
            return Ok(self.status());
        }
        self.open_public().await?;
        if let Err(error) = self.supervisor.revive().await {
            self.close_public().await;
            return Err(error);
        }
        self.supervisor.recover().await?;
        Ok(self.status())
    }

    /// Ends daemon and keeper, after the requests under way; slots go on and are found again by the next start.
    pub(crate) async fn end(&self) {
        // What was begun is carried out: its caller is told so.
        let _turn = self.turn.lock().await;
        self.tell_keeper(&Message::Quit);
        self.close_public().await;
        self.core.flush().await;
    }
}
