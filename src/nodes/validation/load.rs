//! A short load on a version in its slot: bounded, warmed up first. Users see nothing of it.

use std::future::Future;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, sleep_until};

/// How long it lasts, where calls are fast enough.
const LASTS: Duration = Duration::from_secs(3);
/// Fewest calls that a 99th percentile is taken of, where they come within [`LONGEST`].
const LEAST_CALLS: usize = 30;
/// Longest it lasts, but for the calls that are under way then.
const LONGEST: Duration = Duration::from_secs(10);
/// Most calls: a fast service is not to be kept busy for nothing.
const MOST_CALLS: usize = 5_000;
/// Most calls under way at once where they are made at a rate; what is due then waits, and its wait counts.
const MOST_UNDER_WAY: usize = 256;
/// Calls of each client that are not measured.
const WARM_UP_CALLS: usize = 3;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// How long good answers took, in milliseconds, sorted; where calls were made at a rate, since they were due.
    pub(super) latencies_ms: Vec<f64>,
    /// Calls without a good answer.
    pub(super) failed: usize,
    /// From the first call to the last answer.
    pub(super) took: Duration,
}

/// One call: how long its good answer took, in milliseconds; `None` where there was none. It is told its number.
pub(super) trait Call<F: Future<Output = Option<f64>>>: Fn(usize) -> F {}
impl<F: Future<Output = Option<f64>>, C: Fn(usize) -> F> Call<F> for C {}

impl Load {
    fn of(answers: impl IntoIterator<Item = Option<f64>>, took: Duration) -> Self {
        let mut load = Self { took, ..Self::default() };
        for answer in answers {
            match answer {
                Some(ms) => load.latencies_ms.push(ms),
                None => load.failed += 1,
            }
        }
        load.latencies_ms.sort_by(f64::total_cmp);
        load
    }

    /// Good answers per second.
    pub(super) fn rps(&self) -> f64 {
        self.latencies_ms.len() as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Calls that were made.
    pub(super) fn calls(&self) -> usize {
        self.latencies_ms.len() + self.failed
    }
}

/// Calls that nobody counts: whatever is loaded, compiled or cached at the first of them is so afterwards.
pub(super) async fn warm_up<F: Future<Output = Option<f64>>>(call: &impl Call<F>, clients: usize) {
    let client = |first: usize| async move {
        for nth in 0..WARM_UP_CALLS {
            call(first + nth * clients).await;
        }
    };
    join_all((0..clients).map(client)).await;
}

/// Clients each of which calls as soon as it has its answer: what the version can do at most.
pub(super) async fn closed<F: Future<Output = Option<f64>>>(call: &impl Call<F>, clients: usize) -> Load {
    let began = Instant::now();
    let client = |first: usize| async move {
        let mut answers = Vec::new();
        loop {
            let (took, made) = (began.elapsed(), answers.len() * clients);
            if took >= LONGEST || made >= MOST_CALLS || (took >= LASTS && made >= LEAST_CALLS) {
                return answers;
            }
            answers.push(call(first + made).await);
        }
    };
    let answers = join_all((0..clients).map(client)).await;
    Load::of(answers.into_iter().flatten(), began.elapsed())
}

/// Calls at a rate, whether or not those before have been answered, as users make them: a version that falls behind shows it in every
/// answer that follows.
pub(super) async fn paced<F: Future<Output = Option<f64>>>(call: &impl Call<F>, per_second: f64) -> Load {
    let began = Instant::now();
    let (mut under_way, mut answers) = (FuturesUnordered::new(), Vec::new());
    for nth in 0..MOST_CALLS {
        let due_after = Duration::from_secs_f64(nth as f64 / per_second);
        if due_after >= LONGEST || (due_after >= LASTS && nth >= LEAST_CALLS) || began.elapsed() >= LONGEST {
            break;
        }
        let due = began + due_after;
        loop {
            let full = under_way.len() >= MOST_UNDER_WAY;
            tokio::select! {
                biased;
                Some(answer) = under_way.next() => answers.push(answer),
                () = sleep_until(due), if !full => break,
            }
        }
        under_way.push(async move {
            let waited = due.elapsed().as_secs_f64() * 1e3;
            call(nth).await.map(|ms| waited + ms)
        });
    }
    while let Some(answer) = under_way.next().await {
        answers.push(answer);
    }
    Load::of(answers, began.elapsed())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A service that answers one call at a time, each in so many milliseconds.
    fn one_at_a_time(ms: u64) -> impl Call<std::pin::Pin<Box<dyn Future<Output = Option<f64>>>>> {
        let turn = std::sync::Arc::new(tokio::sync::Mutex::new(()));
        move |_| {
            let turn = turn.clone();
            Box::pin(async move {
                let asked = Instant::now();
                let _turn = turn.lock().await;
                tokio::time::sleep(Duration::from_millis(ms)).await;
                Some(asked.elapsed().as_secs_f64() * 1e3)
            }) as std::pin::Pin<Box<dyn Future<Output = Option<f64>>>>
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_version_can_do_at_most_is_measured_by_clients_that_wait() {
        let load = closed(&one_at_a_time(10), 8).await;
        assert!((load.rps() - 100.0).abs() < 5.0 && load.failed == 0, "{load:?}");
        // A slow one is not asked for ever.
        let slow = closed(&one_at_a_time(2_000), 8).await;
        assert!(slow.took < LONGEST + Duration::from_secs(20) && slow.calls() >= 5, "{slow:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_version_that_keeps_up_is_fast_and_one_that_does_not_is_not() {
        let fast = paced(&one_at_a_time(10), 50.0).await;
        let last = *fast.latencies_ms.last().unwrap();
        assert!((149..=151).contains(&fast.calls()) && last < 20.0, "{last} {}", fast.calls());
        let behind = paced(&one_at_a_time(40), 50.0).await;
        assert!(*behind.latencies_ms.last().unwrap() > 1_000.0, "{behind:?}");
        let rare = paced(&one_at_a_time(10), 5.0).await;
        assert!((29..=31).contains(&rare.calls()), "{}", rare.calls());
        let seldom = paced(&one_at_a_time(10), 0.5).await;
        assert!(seldom.took <= LONGEST + Duration::from_secs(1), "{seldom:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_answered_is_counted_and_warming_up_is_not() {
        let made = AtomicUsize::new(0);
        let call = |nth: usize| {
            made.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                nth.is_multiple_of(2).then_some(5.0)
            }
        };
        warm_up(&call, 4).await;
        assert_eq!(made.load(Ordering::Relaxed), 4 * WARM_UP_CALLS);
        let load = paced(&call, 100.0).await;
        assert_eq!(load.failed, load.calls() / 2);
    }
}
