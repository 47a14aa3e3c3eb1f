//! Who carries connections: a thread for each core, each with its own runtime, so that a request never changes threads.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::Serving;
use super::pool::Pool;
use crate::host::HostError;

/// More would wait for each other at the board and the meters.
const MOST: usize = 16;
/// Connections on their way to a worker: as many as come while it is busy for some milliseconds; then the acceptor waits.
const QUEUE: usize = 1024;

/// What a worker's requests share.
#[derive(Debug, Clone, Default)]
pub(super) struct Local {
    pub(super) pool: Arc<Pool>,
    /// What goes on after its connection has ended: tunnels.
    pub(super) tasks: TaskTracker,
}

/// A connection that was accepted.
struct Given {
    stream: std::net::TcpStream,
    ip: IpAddr,
    place: OwnedSemaphorePermit,
}

struct Worker {
    queue: mpsc::Sender<Given>,
    /// Connections that it has, or is about to get.
    open: Arc<AtomicUsize>,
    ended: oneshot::Receiver<()>,
}

/// All of them.
pub(super) struct Workers(Vec<Worker>);

impl Workers {
    /// One for each core that this process may use.
    pub(super) fn start(serving: &Arc<Serving>, grace: Duration) -> Result<Self, HostError> {
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(MOST);
        let one = |n| {
            let doing = "starting a worker of the gateway";
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(HostError::io(doing))?;
            let (queue, given) = mpsc::channel(QUEUE);
            let (say, ended) = oneshot::channel();
            let open = Arc::new(AtomicUsize::new(0));
            let (serving, counted) = (Arc::clone(serving), Arc::clone(&open));
            let body = move || runtime.block_on(work(serving, given, counted, grace, say));
            let thread = std::thread::Builder::new().name(format!("gateway-{n}"));
            thread.spawn(body).map_err(HostError::io(doing))?;
            Ok(Worker { queue, open, ended })
        };
        (0..count).map(one).collect::<Result<_, _>>().map(Self)
    }

    /// Gives a connection to the worker that has fewest.
    pub(super) async fn give(&self, stream: TcpStream, ip: IpAddr, place: OwnedSemaphorePermit) {
        let Some(worker) = self.0.iter().min_by_key(|worker| worker.open.load(Ordering::Relaxed)) else { return };
        // It belongs to our runtime's poll and has to leave it; where that fails the connection is broken.
        let Ok(stream) = stream.into_std() else { return };
        worker.open.fetch_add(1, Ordering::Relaxed);
        if worker.queue.send(Given { stream, ip, place }).await.is_err() {
            worker.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Waits until every one has let its requests end, or its grace is over.
    pub(super) async fn end(self) {
        for Worker { queue, ended, .. } in self.0 {
            drop(queue);
            // A worker that is gone has ended, too.
            let _ = ended.await;
        }
    }
}

async fn work(
    serving: Arc<Serving>,
    mut given: mpsc::Receiver<Given>,
    open: Arc<AtomicUsize>,
    grace: Duration,
    say: oneshot::Sender<()>,
) {
    let (local, graceful) = (Local::default(), GracefulShutdown::new());
    let pool = Arc::clone(&local.pool);
    tokio::spawn(async move { pool.sweep().await });
    while let Some(Given { stream, ip, place }) = given.recv().await {
        let (serving, watcher, open, local) =
            (Arc::clone(&serving), graceful.watcher(), Arc::clone(&open), local.clone());
        let tasks = local.tasks.clone();
        tasks.spawn(async move {
            if let Ok(stream) = TcpStream::from_std(stream) {
                serving.begin(stream, ip, watcher, local).await;
            }
            open.fetch_sub(1, Ordering::Relaxed);
            drop(place);
        });
    }
    let _ = tokio::time::timeout(grace, graceful.shutdown()).await;
    // Nobody waits any more where the daemon ends at once.
    let _ = say.send(());
    // Whoever has not ended by then goes on beside us, and ends with its slot.
    local.tasks.close();
    local.tasks.wait().await;
}
