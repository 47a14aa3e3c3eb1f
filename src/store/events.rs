//! Events: one row for those of a commit. Those of every superstep have a short form.

use std::fmt;
use std::ops::Range;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, Row, params};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::audit;
use super::fault::{Done, count, decode, encode, nanos, time, uncount};
use super::threads::Head;
use crate::graph::{Event, EventRow, Name, Source, StoreError, ThreadId};

/// Adds events under the thread's next numbers; audited ones to the audit too.
pub(super) fn add(
    conn: &Connection,
    thread: &ThreadId,
    head: &mut Head,
    at: DateTime<Utc>,
    events: &[&Event],
) -> Done<()> {
    let Ok(many) = i64::try_from(events.len()) else { return Ok(()) };
    if many == 0 {
        return Ok(());
    }
    head.last_event += many;
    let body = body(events)?;
    let mut insert = conn.prepare_cached("INSERT INTO events (n, at, body) VALUES (?1, ?2, ?3)")?;
    insert.execute(params![rows_of(head.n).start + head.last_event, nanos(at)?, body])?;
    audit::add(conn, thread, at, events)
}

/// Keeps events of a record from elsewhere under the numbers and times that they have; nothing of them is audited here.
pub(super) fn keep(conn: &Connection, thread: i64, rows: &[EventRow]) -> Done<()> {
    let mut insert = conn.prepare_cached("INSERT INTO events (n, at, body) VALUES (?1, ?2, ?3)")?;
    // A row is a commit: events of one moment, one behind the other.
    for together in rows.chunk_by(|one, next| one.at == next.at && one.seq + 1 == next.seq) {
        let Some(last) = together.last() else { continue };
        let body = body(&together.iter().map(|row| &row.event).collect::<Vec<_>>())?;
        insert.execute(params![rows_of(thread).start + count(last.seq)?, nanos(last.at)?, body])?;
    }
    Ok(())
}

/// The newest event's number.
pub(super) fn last(conn: &Connection, thread: i64) -> Done<i64> {
    let mut select = conn.prepare_cached("SELECT coalesce(max(n), ?1) - ?1 FROM events WHERE n > ?1 AND n < ?2")?;
    let rows = rows_of(thread);
    Ok(select.query_row([rows.start, rows.end], |row| row.get(0))?)
}

/// The numbers that a thread's rows can have; the first one stays free.
fn rows_of(thread: i64) -> Range<i64> {
    thread << 32..(thread + 1) << 32
}

/// Events of a thread after a number: at most `limit`, and no further commit once those that were read have `most_bytes` as text.
pub(super) fn after(
    conn: &Connection,
    thread: i64,
    after: u64,
    limit: usize,
    most_bytes: usize,
) -> Done<Vec<EventRow>> {
    let mut select = conn.prepare_cached("SELECT n - ?1, at, body FROM events WHERE n > ?2 AND n < ?3 ORDER BY n")?;
    let numbers = rows_of(thread);
    let after_row = numbers.start.saturating_add(i64::try_from(after).unwrap_or(i64::MAX));
    let mut rows = select.query([numbers.start, after_row, numbers.end])?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    while found.len() < limit
        && bytes < most_bytes
        && let Some(row) = rows.next()?
    {
        bytes += row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?.len();
        found.extend(commit(row)?.filter(|row| row.seq > after));
    }
    found.truncate(limit);
    Ok(found)
}

/// The events of a thread up to a commit's newest one, newest commit first, until some `limit` were read; each commit's in their order.
pub(super) fn back(conn: &Connection, thread: i64, upto: u64, limit: usize) -> Done<Vec<Vec<EventRow>>> {
    let sql = "SELECT n - ?1, at, body FROM events WHERE n > ?1 AND n <= ?2 ORDER BY n DESC";
    let numbers = rows_of(thread);
    let newest = numbers.start.saturating_add(i64::try_from(upto).unwrap_or(i64::MAX)).min(numbers.end - 1);
    let mut select = conn.prepare_cached(sql)?;
    let mut rows = select.query([numbers.start, newest])?;
    let (mut found, mut many) = (Vec::new(), 0);
    while many < limit
        && let Some(row) = rows.next()?
    {
        let events: Vec<EventRow> = commit(row)?.collect();
        many += events.len();
        found.push(events);
    }
    Ok(found)
}

/// The events of a row: number of the newest one, time, body.
fn commit(row: &Row<'_>) -> Done<impl Iterator<Item = EventRow> + use<>> {
    let (last, at): (i64, i64) = (row.get(0)?, row.get(1)?);
    let events = events_of(row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?)?;
    let first = uncount(last + 1 - count(events.len() as u64)?)?;
    Ok((first..).zip(events).map(move |(seq, event)| EventRow { seq, at: time(at), event }))
}

/// A row's body: `["ran", node, ms, step, next]` for the three events of the root's superstep that ran one node, the usual case, where `next` is
/// left out if it is that node again; else the list of all of them.
fn body(events: &[&Event]) -> Done<String> {
    match events {
        [
            Event::NodeStarted { ns, node, attempt: 1 },
            Event::NodeFinished { ns: finished_ns, node: finished, duration_ms },
            Event::Checkpointed { ns: step_ns, step, source: Source::Loop, next },
        ] if node == finished && [ns, finished_ns, step_ns].iter().all(|ns| ns.is_empty()) => match next.as_slice() {
            [again] if again == node => encode(&(RAN, node, duration_ms, step)),
            next => encode(&(RAN, node, duration_ms, step, next)),
        },
        all => encode(&all.iter().map(|event| Short(event)).collect::<Vec<_>>()),
    }
}

/// What begins the body of a superstep that ran one node; no list of events begins with a text.
const RAN: &str = "ran";

/// The same read back.
#[derive(Deserialize)]
struct Ran(String, Name, u64, i64, #[serde(default)] Option<Vec<Name>>);

fn events_of(body: &str) -> Done<Vec<Event>> {
    if !body.starts_with("[\"") {
        let all: Vec<Long> = decode(body, "events")?;
        return Ok(all.into_iter().map(|long| long.0).collect());
    }
    let Ran(ran, node, duration_ms, step, next) = decode(body, "events")?;
    if ran != RAN {
        return Err(StoreError::Damaged(format!("events cannot be read: `{ran}` is not known")).into());
    }
    let (ns, next) = (Name::default(), next.unwrap_or_else(|| vec![node.clone()]));
    Ok(vec![
        Event::NodeStarted { ns: ns.clone(), node: node.clone(), attempt: 1 },
        Event::NodeFinished { ns: ns.clone(), node, duration_ms },
        Event::Checkpointed { ns, step, source: Source::Loop, next },
    ])
}

/// An event as it is stored: in short `["start", node, attempt, ns]`, `["end", node, ms, ns]` or `["step", step, next, ns]`, where
/// a first attempt and the root's namespace are left out at the end; everything else as it is.
struct Short<'a>(&'a Event);

impl Serialize for Short<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Event::NodeStarted { ns, node, attempt: 1 } if ns.is_empty() => short(to, "start", node, None::<u8>, ns),
            Event::NodeStarted { ns, node, attempt } => short(to, "start", node, Some(attempt), ns),
            Event::NodeFinished { ns, node, duration_ms } => short(to, "end", node, Some(duration_ms), ns),
            Event::Checkpointed { ns, step, source: Source::Loop, next } => short(to, "step", step, Some(next), ns),
            other => other.serialize(to),
        }
    }
}

fn short<S: Serializer>(
    to: S,
    what: &str,
    first: &impl Serialize,
    second: Option<impl Serialize>,
    ns: &Name,
) -> Result<S::Ok, S::Error> {
    let mut seq = to.serialize_seq(None)?;
    seq.serialize_element(what)?;
    seq.serialize_element(first)?;
    if let Some(second) = second {
        seq.serialize_element(&second)?;
        if !ns.is_empty() {
            seq.serialize_element(ns)?;
        }
    }
    seq.end()
}

/// The same read back.
struct Long(Event);

impl<'de> Deserialize<'de> for Long {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Stored).map(Self)
    }
}

struct Stored;

impl<'de> Visitor<'de> for Stored {
    type Value = Event;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Event, A::Error> {
        Event::deserialize(MapAccessDeserializer::new(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Event, A::Error> {
        let missing = || A::Error::custom("an event in short is too short");
        let what: String = seq.next_element()?.ok_or_else(missing)?;
        match what.as_str() {
            "start" => {
                let node = seq.next_element()?.ok_or_else(missing)?;
                let attempt = seq.next_element()?.unwrap_or(1);
                Ok(Event::NodeStarted { ns: seq.next_element()?.unwrap_or_default(), node, attempt })
            }
            "end" => {
                let node = seq.next_element()?.ok_or_else(missing)?;
                let duration_ms = seq.next_element()?.ok_or_else(missing)?;
                Ok(Event::NodeFinished { ns: seq.next_element()?.unwrap_or_default(), node, duration_ms })
            }
            "step" => {
                let step = seq.next_element()?.ok_or_else(missing)?;
                let next = seq.next_element()?.ok_or_else(missing)?;
                let ns = seq.next_element()?.unwrap_or_default();
                Ok(Event::Checkpointed { ns, step, source: Source::Loop, next })
            }
            // A newer version's: as with an unknown type.
            _ => {
                while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(Event::Unknown)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_come_back() -> serde_json::Result<()> {
        let (root, inner) = (Name::default(), Name::from("sub:1"));
        let mut all = Vec::new();
        for ns in [root, inner] {
            for attempt in [1, 3] {
                all.push(Event::NodeStarted { ns: ns.clone(), node: "a".into(), attempt });
            }
            all.push(Event::NodeFinished { ns: ns.clone(), node: "a".into(), duration_ms: 7 });
            for source in [Source::Loop, Source::Update] {
                all.push(Event::Checkpointed { ns: ns.clone(), step: -1, source, next: vec!["a".into(), "b".into()] });
            }
        }
        all.push(Event::Accepted { workflow: "w".into() });
        let text = serde_json::to_string(&all.iter().map(Short).collect::<Vec<_>>())?;
        let back: Vec<Long> = serde_json::from_str(&text)?;
        assert_eq!(back.into_iter().map(|long| long.0).collect::<Vec<_>>(), all);
        assert!(text.starts_with(r#"[["start","a"],["start","a",3],["end","a",7],["step",-1,["a","b"]],{"#), "{text}");
        let newer: Vec<Long> = serde_json::from_str(r#"[["later",1,{"x":2}],{"type":"later"}]"#)?;
        assert!(newer.iter().all(|long| long.0 == Event::Unknown));
        Ok(())
    }

    #[test]
    fn a_superstep_of_one_node_is_shorter_still() -> Done<()> {
        let (root, inner) = (Name::default(), Name::from("sub:1"));
        let step = |ns: &Name, attempt, finished: &str, source| {
            [
                Event::NodeStarted { ns: ns.clone(), node: "a \"b\"".into(), attempt },
                Event::NodeFinished { ns: ns.clone(), node: finished.into(), duration_ms: 7 },
                Event::Checkpointed { ns: ns.clone(), step: 3, source, next: vec!["c".into(), "d".into()] },
            ]
        };
        let same = "a \"b\"";
        for (events, short) in [
            (step(&root, 1, same, Source::Loop), true),
            (step(&root, 2, same, Source::Loop), false),
            (step(&inner, 1, same, Source::Loop), false),
            (step(&root, 1, "other", Source::Loop), false),
            (step(&root, 1, same, Source::Update), false),
        ] {
            let text = body(&events.iter().collect::<Vec<_>>())?;
            assert_eq!(text == r#"["ran","a \"b\"",7,3,["c","d"]]"#, short, "{text}");
            assert_eq!(events_of(&text)?, events);
        }
        let [started, finished, _] = step(&root, 1, same, Source::Loop);
        let again = Event::Checkpointed { ns: root, step: 4, source: Source::Loop, next: vec![same.into()] };
        let text = body(&[&started, &finished, &again])?;
        assert_eq!(text, r#"["ran","a \"b\"",7,4]"#);
        assert_eq!(events_of(&text)?, [started, finished, again]);
        for damaged in [r#"["ran"]"#, r#"["ran","a",1,2,[]"#, r#"["went","a",1,2,[]]"#, r#"["ran","a",-1,2,[]]"#] {
            assert!(events_of(damaged).is_err(), "{damaged}");
        }
        Ok(())
    }
}
