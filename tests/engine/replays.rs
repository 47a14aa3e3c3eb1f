//! Replay over random lives: what was recorded comes out again, whoever died meanwhile; and a record in which anything was changed does not.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate::graph::{Export, Source, ThreadId, replay};

use crate::faults::{Faulty, Place, performed_once, replays, seeds};
use crate::random::{Case, Dice, THREAD, live};

/// Lives a case through up to three deaths, each at a random write; after each the record so far replays. Returns the record of the whole.
async fn through_deaths(seed: u64, kind: &str) -> (Case, Export) {
    let (case, id) = (Case::wild(seed), ThreadId::from(THREAD));
    let (place, mut dice) = (Place::new(kind), Dice::new(seed ^ 0xDEAD));
    for _ in 0..dice.below(4) {
        let deadly = Faulty::deadly(place.store.clone(), seed, 1 + dice.below(40) as u64);
        let engine = place.engine(deadly.clone());
        tokio::select! {
            errors = live(&case, &engine) => assert!(errors.is_empty(), "{errors:?}"),
            () = deadly.death() => {}
        }
        drop(engine);
        if place.store.thread(&id).await.unwrap().is_some() {
            replays(&case, &Export::of(&*place.store, &id).await.unwrap()).await;
        }
    }
    let errors = live(&case, &place.engine(place.store.clone())).await;
    assert!(errors.is_empty(), "{errors:?}");
    performed_once(&place.world);
    (case, Export::of(&*place.store, &id).await.unwrap())
}

async fn comes_out_again(seed: u64, kind: &str) -> usize {
    let (case, export) = through_deaths(seed, kind).await;
    let text = serde_json::to_string(&export).unwrap();
    let read: Export = serde_json::from_str(&text).unwrap();
    assert_eq!(read, export);
    assert_eq!(serde_json::to_string(&read).unwrap(), text, "byte for byte");
    replays(&case, &read).await;
    text.len()
}

#[tokio::test]
async fn random_lives_in_memory_replay_whoever_died_meanwhile() {
    seeds(80, Duration::from_secs(20), async |seed| comes_out_again(seed, "memory").await).await;
}

#[tokio::test]
async fn random_lives_in_sqlite_replay_whoever_died_meanwhile() {
    seeds(20, Duration::from_secs(20), async |seed| comes_out_again(seed, "sqlite").await).await;
}

/// Every leaf of a document, as a path.
fn leaves(of: &Value, path: &str, into: &mut Vec<String>) {
    match of {
        Value::Object(keys) if !keys.is_empty() => {
            keys.iter().for_each(|(key, value)| {
                leaves(value, &format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")), into)
            });
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(at, value)| leaves(value, &format!("{path}/{at}"), into));
        }
        _ => into.push(path.to_owned()),
    }
}

/// Another value in its place.
fn other(value: &Value) -> Value {
    match value {
        Value::Null => json!("x"),
        Value::Bool(is) => json!(!is),
        Value::Number(n) => n.as_i64().map_or(json!(1), |n| json!(n + 1)),
        Value::String(text) if text.contains("T") && text.ends_with('Z') => json!(text.replacen("20", "19", 1)),
        Value::String(text) => json!(format!("{text}x")),
        Value::Array(_) => json!(["x"]),
        Value::Object(_) => json!({"x": 1}),
    }
}

/// What a changed record is called.
const CHANGED: [&str; 4] = ["replay_diverged", "export_changed", "export_format", "record_pruned"];

/// What was changed, and how the replay took it.
async fn changed(case: &Case, document: &Value, path: &str) -> Result<(), String> {
    let mut changed = document.clone();
    let leaf = changed.pointer_mut(path).unwrap();
    let was = leaf.clone();
    *leaf = other(&was);
    let now = leaf.clone();
    // A change that is no export any more needs no replay.
    let Ok(read) = serde_json::from_value::<Export>(changed) else { return Ok(()) };
    let replayed = tokio::time::timeout(Duration::from_secs(5), replay(&case.graph, &read)).await;
    match replayed.map_err(|_| format!("{path}: {was} -> {now}: the replay hangs"))? {
        Ok(_) => Err(format!("{path}: {was} -> {now} is not seen")),
        Err(error) => {
            let failure = error.failure();
            let named = failure.cause.is_some() || ["export_format", "record_pruned"].contains(&failure.code.as_str());
            let known = CHANGED.contains(&failure.code.as_str());
            if named && known { Ok(()) } else { Err(format!("{path}: {was} -> {now}: {failure:?}")) }
        }
    }
}

#[tokio::test]
async fn whatever_is_changed_in_a_record_its_replay_fails_with_the_place() {
    let test = async |seed| {
        let (case, export) = through_deaths(seed, "memory").await;
        let document = serde_json::to_value(&export).unwrap();
        let (mut paths, mut dice) = (Vec::new(), Dice::new(seed ^ 0xC4A46E));
        leaves(&document, "", &mut paths);
        for _ in 0..12 {
            let path = &paths[dice.below(paths.len())];
            changed(&case, &document, path).await.unwrap_or_else(|why| panic!("{why}"));
        }
        // A row less, too.
        for list in ["checkpoints", "journal", "interrupts", "events"] {
            let mut shorter = document.clone();
            let rows = shorter[list].as_array_mut().unwrap();
            if rows.is_empty() {
                continue;
            }
            rows.remove(dice.below(rows.len()));
            let read: Export = serde_json::from_value(shorter).unwrap();
            assert!(replay(&case.graph, &read).await.is_err(), "a row less in {list} is not seen");
        }
        paths.len()
    };
    seeds(40, Duration::from_secs(30), test).await;
}

/// The parts of a record that running the graph gives again are held against what comes out, without any digest.
#[tokio::test]
async fn what_the_graph_gives_again_needs_no_seal() {
    let given = ["values", "written", "visits", "frontier", "barriers", "parent"];
    let test = async |seed| {
        let case = Case::of(seed);
        let place = Place::new("memory");
        live(&case, &place.engine(place.store.clone())).await;
        let mut export = Export::of(&*place.store, &ThreadId::from(THREAD)).await.unwrap();
        // What a branch has left is no part of what a replay gives.
        if export.checkpoints.iter().any(|c| c.fork > 0 || c.source != Source::Loop) {
            return 0;
        }
        export.seal = None;
        let document = serde_json::to_value(&export).unwrap();
        let mut paths = Vec::new();
        leaves(&document, "", &mut paths);
        let is_given = |path: &&String| {
            let mut parts = path.split('/').skip(1);
            match parts.next() {
                Some("checkpoints") => parts.nth(1).is_some_and(|field| given.contains(&field)),
                Some("interrupts") => {
                    parts.nth(1).is_some_and(|field| ["id", "digest", "value", "thread"].contains(&field))
                }
                Some("thread") => parts.next().is_some_and(|field| ["input", "fingerprint"].contains(&field)),
                _ => false,
            }
        };
        let paths: Vec<&String> = paths.iter().filter(is_given).collect();
        let mut dice = Dice::new(seed);
        for _ in 0..10 {
            let path = paths[dice.below(paths.len())];
            changed(&case, &document, path).await.unwrap_or_else(|why| panic!("{why}"));
        }
        10
    };
    let tried = seeds(60, Duration::from_secs(30), test).await;
    assert!(tried > 100, "{tried}");
}
