//! A thread of a thousand supersteps: what it takes to write, in time and in bytes, and to go on with.

use std::time::{Duration, Instant};

use chrono::Utc;
use serde_json::{Value, json};

use super::graphs::{ITEM_BYTES, STEPS, engine, expect, growing, growing_then_asking, invoke, kilobyte};
use super::words::words;
use super::{Figure, How, Limit, Measured, Place, is_enough, median};
use crate::graph::{Advance, Answer, Store, ThreadStatus};
use crate::store::{Floor, Synchronous};

pub(super) async fn figures(place: &Place, how: How) -> Measured<Vec<Figure>> {
    let mut figures = writing(place, how).await?;
    figures.push(resuming(place, how).await?);
    Ok(figures)
}

async fn writing(place: &Place, how: How) -> Measured<Vec<Figure>> {
    let (graph, item) = (growing()?, words(0, ITEM_BYTES));
    let (mut ours, mut floors) = (Vec::new(), Vec::new());
    let (mut bytes, mut floor_bytes, mut empty) = (0, 0, 0);
    let all = Instant::now();
    for thread in 0..how.long {
        if is_enough(all, thread) {
            break;
        }
        let (path, floor_path) = (place.file(&format!("long-{thread}.db")), place.file(&format!("floor-{thread}.db")));
        let floor = Floor::open(&floor_path, Synchronous::Full)?;
        let begun = Instant::now();
        for _ in 0..STEPS {
            floor.transaction(&[item])?;
        }
        floors.push(begun.elapsed());
        drop(floor);
        drop(place.store(&format!("long-{thread}.db"), Synchronous::Full)?);
        empty = std::fs::metadata(&path)?.len();
        let store = place.store(&format!("long-{thread}.db"), Synchronous::Full)?;
        let engine = engine(store);
        let begun = Instant::now();
        invoke(&engine, &graph, ThreadStatus::Succeeded).await?;
        ours.push(begun.elapsed());
        // Closed, so that everything is in the file.
        drop(engine);
        (bytes, floor_bytes) = (std::fs::metadata(&path)?.len(), std::fs::metadata(&floor_path)?.len());
        tokio::task::yield_now().await;
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let what = format!("{STEPS} supersteps, a list growing by {ITEM_BYTES} B");
    // A file without a thread has a page for each table and index; a floor's file has one table.
    let grown = (bytes - empty) as f64 / 1e3;
    Ok(vec![
        Figure::new(format!("{what}: time"), ms(median(&mut ours)), "ms")
            .floor(ms(median(&mut floors)))
            .target(Limit::AtMost(1.5)),
        Figure::new(format!("{what}: file"), grown, "KB")
            .floor(floor_bytes as f64 / 1e3)
            .target(Limit::AtMost(2.0))
            .note(format!("what the file grew by; it is {} KB when empty", empty / 1000)),
    ])
}

async fn resuming(place: &Place, how: How) -> Measured<Figure> {
    let graph = growing_then_asking()?;
    let mut threads = Vec::new();
    {
        let writer = engine(place.store("resume.db", Synchronous::Normal)?);
        let all = Instant::now();
        for thread in 0..=how.long {
            if is_enough(all, thread) {
                break;
            }
            threads.push(invoke(&writer, &graph, ThreadStatus::Interrupted).await?);
            tokio::task::yield_now().await;
        }
    }
    // Opened anew: as another process finds it.
    let store = place.store("resume.db", Synchronous::Full)?;
    let engine = engine(store.clone());
    let floor = Floor::open(place.file("resume-floor.db"), Synchronous::Full)?;
    let state = json!({"items": (0..STEPS).map(|n| words(n, ITEM_BYTES)).collect::<Vec<_>>()}).to_string();
    floor.transaction(&[&state])?;
    let (rows, one) = (Floor::open(place.file("resume-rows.db"), Synchronous::Full)?, kilobyte());
    let (mut ours, mut floors) = (Vec::new(), Vec::new());
    for thread in &threads {
        for asked in store.interrupts(Some(thread), true).await? {
            let answer = Answer { value: json!(true), by: "bench".into(), via: "bench".into(), at: Utc::now() };
            store.answer(&asked.id, &answer, None).await?;
        }
        let begun = Instant::now();
        let end = engine.advance(&graph, thread, Advance::default()).await?;
        ours.push(begun.elapsed());
        expect(end.status, ThreadStatus::Succeeded)?;
        let begun = Instant::now();
        let read: Option<Value> = serde_json::from_str(&floor.newest()?).ok();
        rows.transaction(&[&one])?;
        rows.transaction(&[&one])?;
        floors.push(begun.elapsed());
        drop(read);
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let floor = ms(median(&mut floors));
    let note = format!("to its end, FULL; bare SQLite reads such a state and commits twice in {floor:.2} ms");
    let what = format!("resume on a thread of {STEPS} checkpoints");
    Ok(Figure::new(what, ms(median(&mut ours)), "ms").target(Limit::AtMost(0.6)).note(note))
}
