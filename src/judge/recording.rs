//! Recorded traffic as people have it: one JSON object per line, or a list of them, of requests or of intervals.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::histogram::Histogram;
use super::sample::{Arm, Sample};

/// Everything recorded within so many milliseconds is one sample.
const STEP_MS: u64 = 1000;

/// What one version did, second by second: the end of each second in milliseconds, and what ended in it.
pub type Recording = BTreeMap<u64, Arm>;

/// One object of a recording. With `requests` it is an interval, without it a single request.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Entry {
    /// When the request, or the interval, ended, in milliseconds of any clock that does not go back.
    pub at_ms: Option<u64>,
    /// Of an interval: requests that ended.
    pub requests: Option<u64>,
    /// Of an interval: those of them that failed.
    pub errors: Option<u64>,
    /// Of an interval: how long answers took, in milliseconds; as many as were measured.
    pub latencies_ms: Vec<f64>,
    /// Of an interval: the same as a histogram.
    pub latencies: Histogram,
    /// Of a request: whether it failed.
    pub error: Option<bool>,
    /// Of a request: the answer's HTTP status; 5xx failed.
    pub status: Option<u16>,
    /// Of a request: how long the answer took, in milliseconds.
    pub latency_ms: Option<f64>,
}

/// Why a recording cannot be used.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum RecordingError {
    /// An entry is not as it should be.
    #[error("entry {number}: {why}")]
    Entry {
        /// Which one, from 1; in a file of lines its line.
        number: usize,
        /// What is wrong.
        why: String,
    },
    /// Nothing is recorded.
    #[error("nothing is recorded")]
    Empty,
    /// Baseline and candidate have not one second in common.
    #[error("the baseline was recorded from {} to {} ms, the candidate from {} to {} ms", .baseline.0, .baseline.1, .candidate.0, .candidate.1)]
    Apart {
        /// First and last second of the baseline.
        baseline: (u64, u64),
        /// First and last second of the candidate.
        candidate: (u64, u64),
    },
}

/// Reads a recording: a JSON list, or one JSON object per line.
///
/// # Errors
/// The first entry that makes no sense, or that nothing is recorded.
pub fn read(text: &str) -> Result<Recording, RecordingError> {
    let mut recording = Recording::new();
    if text.trim_start().starts_with('[') {
        let entries: Vec<serde_json::Value> =
            serde_json::from_str(text).map_err(|e| RecordingError::Entry { number: e.line(), why: e.to_string() })?;
        for (number, entry) in (1..).zip(entries) {
            take(&mut recording, number, serde_json::from_value(entry))?;
        }
    } else {
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            take(&mut recording, number, serde_json::from_str(line))?;
        }
    }
    if recording.is_empty() { Err(RecordingError::Empty) } else { Ok(recording) }
}

fn take(recording: &mut Recording, number: usize, entry: serde_json::Result<Entry>) -> Result<(), RecordingError> {
    let wrong = |why: String| RecordingError::Entry { number, why };
    let entry = entry.map_err(|e| wrong(e.to_string()))?;
    let at_ms = entry.at_ms.ok_or_else(|| wrong("`at_ms` is missing: when it ended, in milliseconds".to_owned()))?;
    let end = at_ms.max(1).div_ceil(STEP_MS).checked_mul(STEP_MS);
    let end = end.ok_or_else(|| wrong(format!("`at_ms` is {at_ms}, which is no time")))?;
    let arm = if entry.requests.is_some() { interval(entry) } else { request(entry) }.map_err(wrong)?;
    recording.entry(end).or_default().merge(&arm);
    Ok(())
}

fn interval(entry: Entry) -> Result<Arm, String> {
    if entry.error.is_some() || entry.status.is_some() || entry.latency_ms.is_some() {
        return Err("`error`, `status` and `latency_ms` are of one request, `requests` is of an interval".to_owned());
    }
    let (requests, errors) = (entry.requests.unwrap_or(0), entry.errors.unwrap_or(0));
    let mut latencies = entry.latencies;
    for ms in entry.latencies_ms {
        latencies.record(microseconds(ms)?);
    }
    if errors > requests || latencies.count() > requests {
        return Err(format!("{errors} errors and {} latencies of {requests} requests", latencies.count()));
    }
    Ok(Arm { requests, errors, latencies })
}

fn request(entry: Entry) -> Result<Arm, String> {
    if entry.errors.is_some() || !entry.latencies_ms.is_empty() || !entry.latencies.is_empty() {
        return Err("`errors` and `latencies` are of an interval: say of how many `requests`".to_owned());
    }
    let failed = match (entry.error, entry.status) {
        (Some(error), _) => error,
        (None, Some(status)) => status >= 500,
        (None, None) if entry.latency_ms.is_some() => false,
        (None, None) => return Err("it says neither `requests` nor `error`, `status` or `latency_ms`".to_owned()),
    };
    let mut latencies = Histogram::default();
    if let Some(ms) = entry.latency_ms {
        latencies.record(microseconds(ms)?);
    }
    Ok(Arm { requests: 1, errors: u64::from(failed), latencies })
}

fn microseconds(ms: f64) -> Result<u64, String> {
    // Beyond this it is no latency; below it the product is exact enough and fits.
    if (0.0..1e12).contains(&ms) { Ok((ms * 1000.0).round() as u64) } else { Err(format!("a latency of {ms} ms")) }
}

/// Both versions second by second, as far as both were recorded. Without a baseline: the candidate alone.
///
/// # Errors
/// [`RecordingError::Apart`] when they have no second in common.
pub fn side_by_side(baseline: Option<&Recording>, candidate: &Recording) -> Result<Vec<Sample>, RecordingError> {
    let span = |of: &Recording| of.first_key_value().zip(of.last_key_value()).map(|((a, _), (b, _))| (*a, *b));
    let there = span(candidate).ok_or(RecordingError::Empty)?;
    let here = baseline.map(|baseline| span(baseline).ok_or(RecordingError::Empty)).transpose()?;
    let (from, to) = here.map_or(there, |here| (here.0.max(there.0), here.1.min(there.1)));
    if let Some(here) = here.filter(|_| from > to) {
        return Err(RecordingError::Apart { baseline: here, candidate: there });
    }
    let mut samples: BTreeMap<u64, Sample> = BTreeMap::new();
    let empty = Recording::new();
    for (at_ms, arm) in baseline.unwrap_or(&empty).range(from..=to) {
        samples.entry(*at_ms).or_default().baseline = arm.clone();
    }
    for (at_ms, arm) in candidate.range(from..=to) {
        samples.entry(*at_ms).or_default().candidate = arm.clone();
    }
    Ok(samples.into_iter().map(|(at_ms, sample)| Sample { at_ms, ..sample }).collect())
}

/// The same recording with its first second as the first second there is: for recordings of different times.
#[must_use]
pub fn from_zero(recording: &Recording) -> Recording {
    let first = recording.first_key_value().map_or(0, |(first, _)| first - STEP_MS);
    recording.iter().map(|(at_ms, arm)| (at_ms - first, arm.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_intervals_are_seconds() {
        let lines = "{\"at_ms\": 0, \"status\": 200, \"latency_ms\": 1.5}\n\n{\"at_ms\": 1000, \"status\": 503}\n\
                     {\"at_ms\": 1001, \"error\": false}\n";
        let read_lines = read(lines).expect("a recording");
        assert_eq!(read_lines.keys().copied().collect::<Vec<_>>(), [1000, 2000]);
        assert_eq!((read_lines[&1000].requests, read_lines[&1000].errors), (2, 1));
        assert_eq!(read_lines[&1000].latencies.quantile_us(1.0), Some(1503), "the upper end of its bucket");
        let list =
            r#"[{"at_ms": 5000, "requests": 3, "errors": 1, "latencies_ms": [1, 2]}, {"at_ms": 4100, "requests": 2}]"#;
        let read_list = read(list).expect("a recording");
        assert_eq!((read_list[&5000].requests, read_list[&5000].latencies.count()), (5, 2));
    }

    #[test]
    fn what_makes_no_sense_is_told_with_its_place() {
        for (text, number, part) in [
            ("{\"at_ms\": 1, \"status\": 200}\n{\"at_ms\": 2}", 2, "neither `requests`"),
            ("{\"status\": 200}", 1, "`at_ms` is missing"),
            ("\n{\"at_ms\": 1, \"requests\": 1, \"errors\": 2}", 2, "2 errors"),
            ("[{\"at_ms\": 1, \"requests\": 1, \"status\": 200}]", 1, "of one request"),
            ("{\"at_ms\": 1, \"latency_ms\": -1}", 1, "a latency of -1 ms"),
            ("{\"at_ms\": 1, \"statsu\": 200}", 1, "statsu"),
            ("[{\"at_ms\": 1,]", 1, "key must be"),
            ("{\"at_ms\": 18446744073709551615, \"status\": 200}", 1, "no time"),
        ] {
            let error = read(text).expect_err(text);
            assert!(
                matches!(&error, RecordingError::Entry { number: at, why } if *at == number && why.contains(part)),
                "{text}: {error}"
            );
        }
        assert_eq!(read(" \n"), Err(RecordingError::Empty));
        assert_eq!(read("[]"), Err(RecordingError::Empty));
    }

    #[test]
    fn only_what_both_saw_is_compared() {
        let of = |seconds: std::ops::Range<u64>| -> Recording { seconds.map(|s| (s * 1000, Arm::of(1, 0))).collect() };
        let samples = side_by_side(Some(&of(1..5)), &of(3..9)).expect("samples");
        assert_eq!(samples.iter().map(|s| s.at_ms).collect::<Vec<_>>(), [3000, 4000]);
        assert!(samples.iter().all(|s| s.baseline.requests == 1 && s.candidate.requests == 1));
        let apart = side_by_side(Some(&of(1..3)), &of(7..9));
        assert_eq!(apart, Err(RecordingError::Apart { baseline: (1000, 2000), candidate: (7000, 8000) }));
        let samples = side_by_side(Some(&from_zero(&of(1..3))), &from_zero(&of(7..9))).expect("samples");
        assert_eq!(samples.iter().map(|s| s.at_ms).collect::<Vec<_>>(), [1000, 2000]);
        assert_eq!(side_by_side(None, &of(7..9)).expect("samples").len(), 2);
    }
}
