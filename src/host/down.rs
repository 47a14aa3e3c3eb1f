//! `down` for a home as it is found: its daemon answers, or is just being started again, or is gone while its slots go on.

use std::fs::File;
use std::time::{Duration, Instant};

use super::HostError;
use super::api::HostStatus;
use super::client::HostClient;
use super::config::{HostConfig, HostPaths};
use super::daemon::lock_within;
use super::identity::{self, Mark};
use super::start::{ASK_EVERY, START_WITHIN, TRIES, is_there, start};
use super::store::Store;

/// Stops everything that serves in this home, and the daemon; what served stays on record for `up`. `None`: nothing served.
pub async fn stop_everything(config: &HostConfig) -> Result<Option<HostStatus>, HostError> {
    // Wherever it listens: that somebody wishes for another address is no reason to let it run.
    let config = HostConfig { public_addr: None, ..config.clone() };
    let client = HostClient::new(config.paths()?);
    let mut tries = 0;
    loop {
        tries += 1;
        // Until the end of the try: nobody starts a daemon between our look at the state and that daemon's end.
        let _lock = match look(&config, &client).await? {
            Found::Daemon => None,
            Found::Nobody(locks) => {
                if !mark_down(client.paths()).await? {
                    return Ok(None);
                }
                drop((locks.keeper, locks.daemon));
                // It finds the home down when it begins, and ends what still runs.
                start(&config, &client).await?;
                Some(locks.start)
            }
        };
        match client.down_and_end().await {
            Err(error) if error.is_gone() && tries < TRIES => {}
            ended => return ended.map(Some),
        }
    }
}

/// Who is there.
enum Found {
    /// A daemon that answers.
    Daemon,
    /// Nobody, as long as these are held.
    Nobody(Locks),
}

/// What everybody needs who would start, keep or be the daemon.
struct Locks {
    start: File,
    keeper: File,
    daemon: File,
}

impl Locks {
    /// All three, or none.
    async fn try_take(paths: &HostPaths) -> Result<Option<Self>, HostError> {
        let Some(start) = lock_within(&paths.start_lock(), Duration::ZERO).await? else { return Ok(None) };
        let Some(keeper) = lock_within(&paths.keeper_lock(), Duration::ZERO).await? else { return Ok(None) };
        let Some(daemon) = lock_within(&paths.daemon_lock(), Duration::ZERO).await? else { return Ok(None) };
        Ok(Some(Self { start, keeper, daemon }))
    }
}

/// Waits where the one of keeper and daemon is about to start the other again, or somebody else is starting both.
async fn look(config: &HostConfig, client: &HostClient) -> Result<Found, HostError> {
    let until = Instant::now() + START_WITHIN;
    loop {
        if is_there(client, config).await? {
            return Ok(Found::Daemon);
        }
        if let Some(locks) = Locks::try_take(client.paths()).await? {
            return Ok(Found::Nobody(locks));
        }
        if Instant::now() >= until {
            let waited_ms = START_WITHIN.as_millis();
            let log = client.paths().log();
            let cause = format!("its processes live and did not answer for {waited_ms} ms; see {}", log.display());
            return Err(HostError::Unreachable { home: client.paths().home.clone(), cause });
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Writes `down` into the state, if any slot may run; whether one may. Only for who holds all locks.
async fn mark_down(paths: &HostPaths) -> Result<bool, HostError> {
    let store = Store::open(paths.state())?;
    let state = store.get();
    let may_run = state.slots.iter().any(|(token, slot)| {
        // A process that is not on record may still be found by its mark.
        slot.is_wanted() || !identity::marked(&Mark::new(token, &paths.home)).is_empty()
    });
    if may_run {
        let down = |state: &mut super::state::HostState| {
            state.down = true;
            Ok(())
        };
        store.update(down, |_| {}).await?;
    }
    Ok(may_run)
}
