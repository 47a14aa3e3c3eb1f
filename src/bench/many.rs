//! Many threads: thousands that wait in one process, and some dozen that advance at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use serde_json::json;

use super::graphs::{asking, chain, engine, expect, invoke};
use super::{BenchError, Figure, How, Measured, Place, is_enough, median};
use crate::graph::{Advance, Answer, CompiledGraph, Engine, Store, StoreError, ThreadFilter, ThreadId, ThreadStatus};
use crate::store::{SqliteStore, Synchronous};

/// How often a single thing is repeated.
const REPEATED: usize = 21;
/// Chains of each run in a round.
const CHAINS: usize = 5;

pub(super) async fn figures(place: &Place, how: How) -> Measured<Vec<Figure>> {
    let mut figures = waiting(place, how).await?;
    figures.extend(at_once(place, how).await?);
    Ok(figures)
}

/// Runs `graph` `times` times, `width` at once.
async fn together(
    engine: &Engine,
    graph: &Arc<CompiledGraph>,
    width: usize,
    times: usize,
    ends: ThreadStatus,
) -> Measured<Vec<ThreadId>> {
    let run = |share: usize| {
        let (engine, graph) = (engine.clone(), graph.clone());
        tokio::spawn(async move {
            let mut threads = Vec::with_capacity(share);
            for _ in 0..share {
                threads.push(invoke(&engine, &graph, ends).await?);
            }
            Ok::<_, BenchError>(threads)
        })
    };
    let mut runs = tokio::task::JoinSet::new();
    for n in 0..width {
        let run = run((times + n) / width);
        runs.spawn(async move { run.await.map_err(|e| BenchError::Wrong(e.to_string()))? });
    }
    let mut threads = Vec::with_capacity(times);
    while let Some(done) = runs.join_next().await {
        threads.extend(done.map_err(|e| BenchError::Wrong(e.to_string()))??);
    }
    Ok(threads)
}

async fn waiting(place: &Place, how: How) -> Measured<Vec<Figure>> {
    let graph = asking()?;
    let store = place.store("waiting.db", Synchronous::Normal)?;
    let engine = engine(store.clone());
    let before = resident_kb();
    let begun = Instant::now();
    let threads = together(&engine, &graph, 64, how.threads, ThreadStatus::Interrupted).await?;
    let rate = threads.len() as f64 / begun.elapsed().as_secs_f64();
    let memory = resident_kb().saturating_sub(before) as f64 / 1e3;
    let waits = ThreadFilter { statuses: vec![ThreadStatus::Interrupted], ..ThreadFilter::default() };
    let newest = ThreadFilter { limit: 50, ..waits.clone() };
    let (all, all_took) = listed(&store, &waits, 3).await?;
    if all != how.threads {
        return Err(BenchError::Wrong(format!("{all} threads wait")));
    }
    let (_, newest_took) = listed(&store, &newest, REPEATED).await?;
    let resumed = resumed(&store, &engine, &graph, &threads).await?;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let many = format!("{} threads at a question", how.threads);
    Ok(vec![
        Figure::new(format!("{many}: begun, 64 at once"), rate, "threads/s").note("NORMAL"),
        Figure::new(format!("{many}: memory"), memory, "MB").note("what the process grew by, SQLite's caches included"),
        Figure::new(format!("{many}: list the newest 50"), ms(newest_took), "ms"),
        Figure::new(format!("{many}: list all"), ms(all_took), "ms"),
        Figure::new(format!("{many}: resume one"), ms(resumed), "ms").note("answered, to its end"),
    ])
}

async fn listed(store: &SqliteStore, filter: &ThreadFilter, times: usize) -> Result<(usize, Duration), StoreError> {
    let (mut found, mut took) = (0, Vec::new());
    for _ in 0..times {
        let begun = Instant::now();
        found = store.threads(filter).await?.len();
        took.push(begun.elapsed());
    }
    Ok((found, median(&mut took)))
}

async fn resumed(
    store: &SqliteStore,
    engine: &Engine,
    graph: &Arc<CompiledGraph>,
    threads: &[ThreadId],
) -> Measured<Duration> {
    let mut took = Vec::new();
    for thread in threads.iter().step_by((threads.len() / REPEATED).max(1)) {
        for asked in store.interrupts(Some(thread), true).await? {
            let answer = Answer { value: json!(true), by: "bench".into(), via: "bench".into(), at: Utc::now() };
            store.answer(&asked.id, &answer, None).await?;
        }
        let begun = Instant::now();
        expect(engine.advance(graph, thread, Advance::default()).await?.status, ThreadStatus::Succeeded)?;
        took.push(begun.elapsed());
    }
    Ok(median(&mut took))
}

async fn at_once(place: &Place, how: How) -> Measured<Vec<Figure>> {
    let graph = chain()?;
    let store = place.store("at-once.db", Synchronous::Full)?;
    let engine = engine(store.clone());
    let (mut alone, mut many) = (Vec::new(), Vec::new());
    let mut transactions = 0;
    let all = Instant::now();
    for round in 0..=how.rounds.div_ceil(3) {
        if is_enough(all, round) {
            break;
        }
        let begun = Instant::now();
        together(&engine, &graph, 1, CHAINS * 4, ThreadStatus::Succeeded).await?;
        let one = begun.elapsed() / (CHAINS * 4) as u32;
        let (begun, before) = (Instant::now(), store.transactions());
        together(&engine, &graph, how.runs, CHAINS * how.runs, ThreadStatus::Succeeded).await?;
        if round > 0 {
            alone.push(one);
            many.push(begun.elapsed() / (CHAINS * how.runs) as u32);
            transactions = store.transactions() - before;
        }
    }
    // Eleven commits make a chain.
    let commits = |each: Duration| 11.0 * super::per_second(each);
    let (alone, together) = (commits(median(&mut alone)), commits(median(&mut many)));
    let shared = (11 * CHAINS * how.runs) as f64 / transactions.max(1) as f64;
    Ok(vec![
        Figure::new("one run, FULL", alone, "commits/s"),
        Figure::new(format!("{} runs at once, FULL", how.runs), together, "commits/s")
            .note(format!("{:.1} times one run's; {shared:.0} commits share a transaction", together / alone.max(1.0))),
    ])
}

/// This process's memory; 0 where the system does not say.
fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
}
