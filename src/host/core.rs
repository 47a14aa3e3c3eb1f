//! The state together with the routing table that follows it: the one place through which anything changes.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::config::{HostPaths, Settings};
use super::gateway::Board;
use super::lease::Leases;
use super::slot::Memory;
use super::state::HostState;
use super::store::Store;
use super::{HostError, routes};

/// What supervisor, gateway and admin API share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) paths: HostPaths,
    pub(crate) settings: Settings,
    pub(crate) board: Board,
    /// On partial weights.
    pub(crate) leases: Leases,
    /// Of the slots, to keep their logs clean of them. Never written down.
    pub(crate) secrets: Memory,
    store: Store,
    /// The daemon's own: what is begun by a worker of the gateway outlives the worker.
    runtime: Handle,
}

impl Core {
    /// Reads the home's state and settings. Inside of the daemon's runtime.
    pub(crate) fn open(paths: HostPaths) -> Result<Arc<Self>, HostError> {
        let settings = Settings::load(&paths.settings())?;
        let store = Store::open(paths.state())?;
        let board = Board::new();
        board.apply(&store.get());
        let (leases, secrets, runtime) = (Leases::default(), Memory::default(), Handle::current());
        Ok(Arc::new(Self { paths, settings, board, leases, secrets, store, runtime }))
    }

    /// The state now.
    pub(crate) fn state(&self) -> Arc<HostState> {
        self.store.get()
    }

    /// What was wrong with the state's file when this daemon read it, where the copy had to do.
    pub(crate) fn recovered(&self) -> Option<String> {
        self.store.recovered().map(str::to_owned)
    }

    /// Changes the state, or nothing: see [`Store::update`]. Runs to its end also when the caller goes away in the middle (a client
    /// that hangs up), so that memory and disk never part.
    pub(crate) async fn update<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut HostState) -> Result<T, HostError> + Send + 'static,
    ) -> Result<T, HostError> {
        let core = Arc::clone(self);
        let task = tokio::spawn(async move { core.store.update(change, |state| core.board.apply(state)).await });
        task.await.map_err(|e| HostError::io("changing the state")(std::io::Error::other(e)))?
    }

    /// Changes the state to what has happened already: see [`Store::update_anyway`]. Runs to its end likewise.
    pub(crate) async fn update_anyway<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut HostState) -> T + Send + 'static,
    ) -> Result<T, HostError> {
        let core = Arc::clone(self);
        let task = tokio::spawn(async move { core.store.update_anyway(change, |state| core.board.apply(state)).await });
        task.await.map_err(|e| HostError::io("changing the state")(std::io::Error::other(e)))
    }

    /// Writes what could not be written before.
    pub(crate) async fn flush(&self) {
        self.store.flush().await;
    }

    /// A slot refused a connection: its models' traffic goes to the warm standby, where there is one.
    pub(crate) fn unreachable(self: &Arc<Self>, token: &str, why: &str) {
        // A thousand requests may find this at once; only those before the change need to ask for it.
        if routes::fall_back(&mut HostState::clone(&self.state()), token, why).is_empty() {
            return;
        }
        let (core, token, why) = (Arc::clone(self), token.to_owned(), format!("cannot be reached ({why})"));
        self.runtime.spawn(async move {
            let moved = core.update_anyway(move |state| routes::fall_back(state, &token, &why)).await;
            tracing::warn!(?moved, "fell back to the standby");
        });
    }
}
