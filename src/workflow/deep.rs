//! Room for recursion. The CEL parser takes up to 100 KB of stack for each bracket, a worker thread has 2 MB in all, and an overflow is
//! not an error but the end of the process; so whatever is deep runs on a stack of its own.

use std::cell::Cell;
use std::thread;

use crate::graph::Failure;

/// Measured unoptimised: the worst expression that [`super::cel`] lets through takes a third of it. Only touched pages count.
const STACK_BYTES: usize = 64 * 1024 * 1024;

thread_local! {
    static HAS_ROOM: Cell<bool> = const { Cell::new(false) };
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
            Err(error) => Err(Failure::new("os_thread_unavailable", "no thread could be started to read expressions")
                .because(error.to_string())
                .hint("raise the limit of processes and threads")
                .retryable()),
        }
    })
}
