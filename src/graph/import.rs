//! Reading an export that is to be kept: it must be whole, as it was made, and of one piece.

use std::collections::BTreeSet;

use serde_json::Value;

use super::export::FORMAT;
use super::replay::questions_fit;
use super::{Export, Failure};

/// More events than this have no number in a store.
const MOST_EVENTS: u64 = u32::MAX as u64 - 1;

/// Reads a document and proves it.
pub(super) fn read(text: &str) -> Result<Export, Failure> {
    let damaged = |why: String| {
        let failure = Failure::new("export_damaged", "this is no export of a run").because(why);
        failure.hint("`tidegate run export` writes one; export the run again")
    };
    let told: Value = serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
    // First: another format may look altogether otherwise.
    let format = told.get("format").cloned().unwrap_or_default();
    if format != FORMAT {
        let failure = Failure::new("export_format", format!("this is not an export that can be imported: {format}"));
        return Err(failure.hint(format!("it must be `{FORMAT}`")));
    }
    let export: Export = serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
    if export.seal.is_none() {
        let failure =
            Failure::new("export_unsealed", "the export has no digests: nobody can tell whether it was changed");
        return Err(failure.hint("export the run again; versions before seals made such exports"));
    }
    let read = serde_json::to_value(&export).map_err(|e| damaged(e.to_string()))?;
    let unread = unread("$".to_owned(), &told, &read);
    // What a newer version has is told as that, and not as a change.
    if let Some(Unread { place, lost: true }) = &unread {
        return Err(unknown(place));
    }
    export.is_sealed()?;
    if let Some(Unread { place, .. }) = unread {
        return Err(unknown(&place));
    }
    of_one_piece(&export)?;
    questions_fit(&export)?;
    Ok(export)
}

fn unknown(place: &str) -> Failure {
    let failure = Failure::new("export_unknown", format!("this version does not know what the export has at {place}"));
    failure.because("it would be lost").hint("import it with the version that made it, or a later one")
}

/// What would not come out again as it is.
struct Unread {
    place: String,
    /// It was not understood at all, rather than understood and written otherwise.
    lost: bool,
}

/// The first place in which a document has something that was not read.
fn unread(place: String, told: &Value, read: &Value) -> Option<Unread> {
    match (told, read) {
        (Value::Object(told), Value::Object(read)) => told.iter().find_map(|(key, told)| match read.get(key) {
            Some(read) => unread(format!("{place}.{key}"), told, read),
            None => (!told.is_null()).then(|| Unread { place: format!("{place}.{key}"), lost: true }),
        }),
        (Value::Array(told), Value::Array(read)) if told.len() == read.len() => told
            .iter()
            .zip(read)
            .enumerate()
            .find_map(|(at, (told, read))| unread(format!("{place}[{at}]"), told, read)),
        // An event of a kind that is not known is read as that.
        _ => (told != read).then(|| Unread { lost: place.ends_with(".type") && read == "unknown", place }),
    }
}

/// Whether its rows can lie beside each other: numbers go up, nothing is there twice.
fn of_one_piece(export: &Export) -> Result<(), Failure> {
    let id = export.thread.id.as_str();
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if id.is_empty() || id.len() > 100 || !id.chars().all(fits) {
        return Err(Failure::new("bad_thread_id", format!("`{id}` cannot be the id of a run")));
    }
    let mut places = BTreeSet::new();
    let entry = export.journal.iter().zip(before(export.journal.iter().map(|entry| entry.seq)));
    let entry = entry.enumerate().find(|(_, (entry, before))| entry.seq <= *before || !places.insert(&entry.key));
    let mut ids = BTreeSet::new();
    let checkpoint = export.checkpoints.iter().position(|checkpoint| !ids.insert(&checkpoint.id));
    let event = export.events.iter().zip(before(export.events.iter().map(|event| event.seq)));
    let event = event.enumerate().find(|(_, (event, before))| event.seq <= *before || event.seq > MOST_EVENTS);
    let mut asked = BTreeSet::new();
    let question = export.interrupts.iter().position(|question| !asked.insert(&question.id));
    let place = entry
        .map(|(at, _)| format!("journal entry {}", at + 1))
        .or(checkpoint.map(|at| format!("checkpoint {}", at + 1)))
        .or(event.map(|(at, _)| format!("event {}", at + 1)))
        .or(question.map(|at| format!("question {}", at + 1)));
    let Some(place) = place else { return Ok(()) };
    let failure = Failure::new("export_damaged", format!("the export is not of one piece: {place}"));
    Err(failure.because("it is there twice, or not behind the one before it").hint("export the run again"))
}

/// The number before each number; 0 before the first.
fn before(numbers: impl Iterator<Item = u64>) -> impl Iterator<Item = u64> {
    numbers.scan(0, |last, number| Some(std::mem::replace(last, number)))
}
