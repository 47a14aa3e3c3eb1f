//! What the engine and the store do per second on this machine, beside what bare SQLite does with the same transactions in the same
//! run. `tidegate bench` and `cargo bench` print it.

mod graphs;
mod long;
mod many;
mod report;
mod short;
mod words;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use report::{Figure, Limit, Report};

use crate::graph::{EngineError, Failure, StoreError};
use crate::store::{Options, SqliteStore, Synchronous};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Rounds of every short measurement: the middle one counts.
    pub rounds: usize,
    /// Threads of a thousand supersteps each: the middle one counts.
    pub long: usize,
    /// Threads that stand at a question at once.
    pub threads: usize,
    /// Runs that advance at once.
    pub runs: usize,
}

impl Default for How {
    fn default() -> Self {
        Self { rounds: 15, long: 5, threads: 10_000, runs: 64 }
    }
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The engine's.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A folder or file cannot be made, read or removed.
    #[error("the bench's folder cannot be used: {0}")]
    Folder(#[from] std::io::Error),
    /// What was measured did not do what it should.
    #[error("what was measured went wrong: {0}")]
    Wrong(String),
}

impl BenchError {
    /// As data for people.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Engine(error) => error.failure(),
            Self::Store(error) => error.failure(),
            Self::Folder(error) => Failure::new("bench_folder", "the bench's folder cannot be used")
                .because(error.to_string())
                .hint("make room or mend the rights, or name another home with --home"),
            Self::Wrong(why) => Failure::new("bench_wrong", "what was measured went wrong").because(why.clone()),
        }
    }
}

type Measured<T> = Result<T, BenchError>;

/// Measures everything, in a folder inside of `dir` that is removed afterwards, also when the future is dropped.
pub async fn measure(dir: &Path, how: How) -> Measured<Report> {
    let place = Place::new(dir)?;
    let begun = Instant::now();
    let mut figures = short::figures(&place, how).await?;
    figures.extend(long::figures(&place, how).await?);
    figures.extend(many::figures(&place, how).await?);
    Ok(Report { figures, commit_us: short::commit(&place)?.as_micros(), took_ms: begun.elapsed().as_millis() })
}

/// A folder of its own, for as long as something is measured.
struct Place(PathBuf);

impl Place {
    fn new(dir: &Path) -> std::io::Result<Self> {
        let all = dir.join("bench");
        std::fs::create_dir_all(&all)?;
        for left in std::fs::read_dir(&all)? {
            let left = left?;
            // A bench that was killed could not clear away; one that runs beside this one will.
            if !Path::new("/proc").join(left.file_name()).exists() {
                std::fs::remove_dir_all(left.path())?;
            }
        }
        let place = Self(all.join(nix::unistd::getpid().to_string()));
        std::fs::create_dir_all(&place.0)?;
        Ok(place)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn store(&self, name: &str, synchronous: Synchronous) -> Measured<Arc<SqliteStore>> {
        Ok(Arc::new(SqliteStore::open_with(self.file(name), Options { synchronous, ..Options::default() })?))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // It is the user's home: what cannot be removed now is seen there.
        let _ = std::fs::remove_dir_all(&self.0);
        // Stays while another bench uses it.
        let _ = self.0.parent().map(std::fs::remove_dir);
    }
}

/// A measurement that takes longer ends with the rounds it has: a slow disk must not make the whole take minutes.
const ENOUGH: Duration = Duration::from_millis(2500);

/// Whether a measurement with so many rounds done is long enough.
fn is_enough(begun: Instant, rounds: usize) -> bool {
    rounds > 2 && begun.elapsed() > ENOUGH
}

/// The middle one.
fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn per_second(each: Duration) -> f64 {
    1.0 / each.as_secs_f64().max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_is_measured_and_nothing_stays() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let killed = dir.path().join("bench/999999999");
        std::fs::create_dir_all(killed.join("more"))?;
        let report = measure(dir.path(), How { rounds: 1, long: 1, threads: 20, runs: 4 }).await?;
        assert_eq!(report.figures.len(), 14);
        assert!(report.figures.iter().all(|figure| figure.value.is_finite()), "{report:?}");
        // A chain of ten is eleven transactions, a fan-out three: that does not depend on the machine.
        let notes: Vec<&str> = report.figures[1..4].iter().map(|figure| figure.note.as_str()).collect();
        assert!(notes[0].starts_with("11 ") && notes[1].starts_with("11 ") && notes[2].starts_with("3 "), "{notes:?}");
        assert_eq!(std::fs::read_dir(dir.path())?.count(), 0);
        Ok(())
    }
}
