//! Room for recursion. The CEL parser takes up to 100 KB of stack for each bracket, a worker thread has 2 MB in all, and an overflow is
//! not an error but the end of the process; so whatever is deep runs on a stack of its own.

use std::cell::Cell;
use std::sync::{Arc, LazyLock};
use std::thread;

use tokio::sync::{Semaphore, oneshot};

use crate::graph::Failure;

/// Measured unoptimised: the worst expression that [`super::cel`] lets through takes a third of it. Only touched pages count.
const STACK_BYTES: usize = 64 * 1024 * 1024;

thread_local! {
    static HAS_ROOM: Cell<bool> = const { Cell::new(false) };
}

/// What runs apart at once. Work that nobody waits for any more goes on to its end and counts.
const MOST_APART: usize = 16;

static APART: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(MOST_APART)));

/// Runs `work` that may take long where nobody stands still for it: the caller may be gone before it ends, and so may the process.
pub(super) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let panicked = || Failure::new("node_panicked", "an expression's evaluation ended in a panic");
    let place = APART.clone().acquire_owned().await.map_err(|_| panicked())?;
    let (reply, done) = oneshot::channel();
    let roomy = thread::Builder::new().name("expressions".into()).stack_size(STACK_BYTES);
    let started = roomy.spawn(move || {
        HAS_ROOM.set(true);
        // Whoever asked may be gone.
        let _ = reply.send(work());
        drop(place);
    });
    started.map_err(unavailable)?;
    done.await.map_err(|_| panicked())
}

fn unavailable(error: std::io::Error) -> Failure {
    Failure::new("os_thread_unavailable", "no thread could be started to read expressions")
        .because(error.to_string())
        .hint("raise the limit of processes and threads")
        .retryable()
}

/// Runs `work` where there is room; nested calls stay where they are.
pub(super) fn run<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    if HAS_ROOM.get() {
        return Ok(work());
    }
    thread::scope(|scope| {
        let roomy = thread::Builder::new().name("expressions".into()).stack_size(STACK_BYTES);
        let started = roomy.spawn_scoped(scope, || {
            HAS_ROOM.set(true);
            work()
        });
        match started.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(error) => Err(unavailable(error)),
        }
    })
}
