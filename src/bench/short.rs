//! One invoke after the other: in memory, and durable beside the floor, in rounds that alternate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::graphs::{CHAIN, SENDS, chain, engine, fan_out, invoke, kilobyte, light_chain};
use super::{Figure, How, Limit, Measured, Place, is_enough, median, per_second};
use crate::graph::{CompiledGraph, Engine, MemoryStore, ThreadStatus};
use crate::store::{Floor, SqliteStore, Synchronous};

/// Invokes of a round: long enough for the clock, short enough for many rounds.
const IN_MEMORY: usize = 400;
const DURABLE: usize = 25;

pub(super) async fn figures(place: &Place, how: How) -> Measured<Vec<Figure>> {
    let (chain, fan) = (chain()?, fan_out()?);
    let mut figures = vec![in_memory(how).await?];
    for synchronous in [Synchronous::Full, Synchronous::Normal] {
        let name = format!("chain of {CHAIN}, {}", synchronous.word());
        let rows = vec![1; CHAIN + 1];
        let figure = beside_the_floor(place, how, synchronous, &chain, &rows).await?.named(name);
        figures.push(figure.figure().target(Limit::AtLeast(0.8)));
    }
    let name = format!("fan-out of {SENDS}, FULL");
    let figure = beside_the_floor(place, how, Synchronous::Full, &fan, &[SENDS, 1]).await?.named(name);
    figures.push(figure.figure().target(Limit::AtLeast(0.6)));
    Ok(figures)
}

async fn in_memory(how: How) -> Measured<Figure> {
    let graph = light_chain()?;
    let mut times = Vec::new();
    // Once: finding out who one is reads /proc.
    let first = engine(Arc::new(MemoryStore::default()));
    let all = Instant::now();
    for round in 0..how.rounds {
        if is_enough(all, round) {
            break;
        }
        let begun = Instant::now();
        for _ in 0..IN_MEMORY {
            // A store in memory keeps everything: a fresh one each time, or it is the store that is measured.
            let engine = first.on(Arc::new(MemoryStore::default()));
            invoke(&engine, &graph, ThreadStatus::Succeeded).await?;
        }
        times.push(begun.elapsed() / IN_MEMORY as u32);
        tokio::task::yield_now().await;
    }
    let each = per_second(median(&mut times));
    Ok(Figure::new(format!("chain of {CHAIN}, in memory"), each, "invokes/s").target(Limit::AtLeast(60_000.0)))
}

/// Ours and the floor's times for one invoke.
struct Pair {
    name: String,
    ours: Duration,
    floor: Duration,
    transactions: f64,
    floor_transactions: usize,
}

impl Pair {
    fn named(self, name: String) -> Self {
        Self { name, ..self }
    }

    fn figure(self) -> Figure {
        let note = format!("{:.0} transactions per invoke, the floor {}", self.transactions, self.floor_transactions);
        Figure::new(self.name, per_second(self.ours), "invokes/s").floor(per_second(self.floor)).note(note)
    }
}

/// `rows`: how many rows of 1 KB the floor writes in each of an invoke's transactions.
async fn beside_the_floor(
    place: &Place,
    how: How,
    synchronous: Synchronous,
    graph: &Arc<CompiledGraph>,
    rows: &[usize],
) -> Measured<Pair> {
    let file = |name: &str| format!("{name}-{}-{}.db", graph.name(), synchronous.word());
    let floor = Floor::open(place.file(&file("floor")), synchronous)?;
    let store: Arc<SqliteStore> = place.store(&file("ours"), synchronous)?;
    let engine: Engine = engine(store.clone());
    let body = kilobyte();
    let bodies: Vec<Vec<&str>> = rows.iter().map(|rows| vec![body.as_str(); *rows]).collect();
    let (mut ours, mut floors) = (Vec::new(), Vec::new());
    // The first round finds empty files and cold caches.
    let (all, mut invokes) = (Instant::now(), 0);
    for round in 0..=how.rounds {
        if is_enough(all, round) {
            break;
        }
        invokes += DURABLE;
        let begun = Instant::now();
        for _ in 0..DURABLE {
            bodies.iter().try_for_each(|bodies| floor.transaction(bodies))?;
        }
        let floor_took = begun.elapsed() / DURABLE as u32;
        let begun = Instant::now();
        for _ in 0..DURABLE {
            invoke(&engine, graph, ThreadStatus::Succeeded).await?;
        }
        if round > 0 {
            ours.push(begun.elapsed() / DURABLE as u32);
            floors.push(floor_took);
        }
        tokio::task::yield_now().await;
    }
    Ok(Pair {
        name: String::new(),
        ours: median(&mut ours),
        floor: median(&mut floors),
        transactions: store.transactions() as f64 / invokes as f64,
        floor_transactions: rows.len(),
    })
}

/// What one durable transaction of 1 KB takes here.
pub(super) fn commit(place: &Place) -> Measured<Duration> {
    let floor = Floor::open(place.file("commit.db"), Synchronous::Full)?;
    let body = kilobyte();
    let mut times = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        floor.transaction(&[&body])?;
        times.push(begun.elapsed());
    }
    Ok(median(&mut times))
}
