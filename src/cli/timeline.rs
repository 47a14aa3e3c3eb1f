//! Where a run's time went: a bar for every node, for every effect and undo that took a while, and for every wait.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::progress::seconds;
use crate::graph::{Event, EventRow, Failure, InterruptId, Name, Thread, ThreadStatus};

/// Width of a bar, in characters.
const BAR: usize = 40;
/// Most bars: of a longer run those that took longest, and what failed.
const MOST_BARS: usize = 60;
/// What takes less is no line of its own, unless it failed.
const SHORT_MS: u64 = 20;

/// A run that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderWay {
    now: DateTime<Utc>,
    /// What its open nodes are doing.
    word: &'static str,
}

impl UnderWay {
    /// Whether and how a thread is under way.
    pub fn of(thread: &Thread, now: DateTime<Utc>) -> Option<Self> {
        let word = match thread.status {
            ThreadStatus::Running if thread.owner.is_none() => "stopped",
            status => status.word(),
        };
        (!thread.status.is_terminal()).then_some(Self { now, word })
    }
}

/// One stretch of time in which something was at work.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    label: String,
    began: DateTime<Utc>,
    took_ms: u64,
    /// Said behind the bar.
    note: String,
}

impl Span {
    /// A node's attempt that ended at `at`; records of an older version do not say how long it took.
    fn of_node(node: &Name, took_ms: Option<u64>, began: Option<DateTime<Utc>>, at: DateTime<Utc>) -> Self {
        match took_ms {
            Some(took_ms) => Self::lasting(node.to_string(), took_ms, at),
            None => Self::between(node.to_string(), began.unwrap_or(at), at),
        }
    }

    fn of_waking(signal: Option<&str>, at: DateTime<Utc>) -> Self {
        let by = signal.map_or_else(|| "the time was over".to_owned(), |name| format!("signal `{name}`"));
        Self::lasting(format!("  woke: {by}"), 0, at)
    }

    fn between(label: String, began: DateTime<Utc>, ended: DateTime<Utc>) -> Self {
        let took_ms = u64::try_from((ended - began).num_milliseconds()).unwrap_or(0);
        Self { label, began, took_ms, note: String::new() }
    }

    fn lasting(label: String, took_ms: u64, ended: DateTime<Utc>) -> Self {
        let took = TimeDelta::milliseconds(i64::try_from(took_ms).unwrap_or(0));
        Self { label, began: ended - took, took_ms, note: String::new() }
    }

    fn noted(self, note: &str) -> Self {
        Self { note: note.to_owned(), ..self }
    }

    fn failed(self, failure: &Failure) -> Self {
        let name = self.label.trim_start();
        let label = format!("{}✗ {name}", &self.label[..self.label.len() - name.len()]);
        Self { label, note: failure.code.clone(), ..self }
    }

    fn ended(&self) -> DateTime<Utc> {
        self.began + TimeDelta::milliseconds(i64::try_from(self.took_ms).unwrap_or(0))
    }

    fn line(&self, zero: DateTime<Utc>, whole_ms: i64) -> String {
        let from = cells((self.began - zero).num_milliseconds(), whole_ms).min(BAR - 1);
        let took_ms = i64::try_from(self.took_ms).unwrap_or(i64::MAX);
        let bar = format!("{}{}", " ".repeat(from), "█".repeat(cells(took_ms, whole_ms).clamp(1, BAR - from)));
        let line = format!("{:<26} {:>8.2} s  │{bar:<BAR$}│ {}", self.label, seconds(self.took_ms), self.note);
        line.trim_end().to_owned()
    }
}

fn cells(part: i64, whole: i64) -> usize {
    let width = i64::try_from(BAR).unwrap_or(0);
    // Rounded to the nearest; wide numbers, so that no length of a run overflows.
    let share = (i128::from(part.max(0)) * i128::from(width) * 2 + i128::from(whole)) / (i128::from(whole.max(1)) * 2);
    usize::try_from(share).unwrap_or(BAR).min(BAR)
}

/// The bars of a run; what is still at work reaches to now.
pub fn timeline(events: &[EventRow], under_way: Option<UnderWay>) -> String {
    let (Some(first), Some(last)) = (events.first(), events.last()) else { return "nothing happened yet".to_owned() };
    let mut account = Account::default();
    events.iter().for_each(|row| account.take(row));
    if let Some(under_way) = &under_way {
        account.still_open(under_way);
    }
    let mut spans = account.spans;
    spans.sort_by_key(|span| (span.began, std::cmp::Reverse(span.took_ms)));
    let began = spans.iter().map(|span| span.began).chain([first.at]).min().unwrap_or(first.at);
    let ended = spans.iter().map(Span::ended).chain([last.at]).max().unwrap_or(last.at);
    let whole = (ended - began).num_milliseconds().max(1);
    let left_out = leave_out(&mut spans);
    let mut lines: Vec<String> = spans.iter().map(|span| span.line(began, whole)).collect();
    if left_out > 0 {
        lines.push(format!("{left_out} shorter ones left out; `run events` has everything"));
    }
    let until = if under_way.is_some() { "from first event to now" } else { "from first to last event" };
    lines.push(format!("{until:<26} {:>8.2} s", seconds(u64::try_from(whole).unwrap_or(0))));
    if !account.quick_undos.is_empty() {
        lines.push(format!("undone at once: {}", account.quick_undos.join(", ")));
    }
    lines.join("\n")
}

/// Keeps the longest bars in their order; returns how many went.
fn leave_out(spans: &mut Vec<Span>) -> usize {
    let all = spans.len();
    if all > MOST_BARS {
        let weight = |span: &Span| (!span.note.is_empty(), span.took_ms);
        let mut weights: Vec<_> = spans.iter().map(weight).collect();
        weights.sort_unstable_by(|a, b| b.cmp(a));
        let least = weights[MOST_BARS - 1];
        // Of those that weigh the same, the first ones.
        let mut room = 1 + weights[..MOST_BARS].iter().filter(|weight| **weight == least).count();
        spans.retain(|span| match weight(span).cmp(&least) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => {
                room -= usize::from(room > 0);
                room > 0
            }
            std::cmp::Ordering::Greater => true,
        });
    }
    all - spans.len()
}

/// What is known after some events.
#[derive(Default)]
struct Account {
    spans: Vec<Span>,
    /// Nodes that are due or at work, by namespace and name, with the time since when.
    open: BTreeMap<(Name, Name), DateTime<Utc>>,
    /// Open questions.
    asked: BTreeMap<InterruptId, DateTime<Utc>>,
    /// When an effect was last begun, by place.
    intended: BTreeMap<String, DateTime<Utc>>,
    /// When the newest undo was over, while undoing.
    undoing: Option<DateTime<Utc>>,
    /// Kinds of undos that had next to nothing to do, newest first.
    quick_undos: Vec<String>,
}

impl Account {
    fn take(&mut self, row: &EventRow) {
        let at = row.at;
        match &row.event {
            Event::Checkpointed { ns, next, .. } => {
                // Due is as good as begun; the event of the beginning is committed only with what the node does first.
                self.open.retain(|(of, _), _| of != ns);
                self.open.extend(next.iter().map(|node| ((ns.clone(), node.clone()), at)));
            }
            // Whoever had it before has left it; nothing is known of the time between.
            Event::Advancing { .. } => {
                self.open.values_mut().chain(&mut self.undoing).for_each(|began| *began = at);
            }
            Event::NodeStarted { ns, node, attempt } => {
                let began = self.open.entry((ns.clone(), node.clone())).or_insert(at);
                if *attempt > 1 {
                    *began = (*began).max(at);
                }
            }
            Event::NodeFinished { ns, node, duration_ms } => {
                self.open.remove(&(ns.clone(), node.clone()));
                self.spans.push(Span::lasting(node.to_string(), *duration_ms, at));
            }
            event @ Event::NodeFailed { .. } => self.failed_node(at, event),
            Event::Cached { ns, node } => {
                self.open.remove(&(ns.clone(), node.clone()));
                self.spans.push(Span::lasting(node.to_string(), 0, at).noted("from the cache"));
            }
            Event::Woke { signal, .. } => self.spans.push(Span::of_waking(signal.as_deref(), at)),
            Event::EffectIntended { place, .. } => {
                self.intended.insert(place.clone(), at);
            }
            Event::EffectDone { place, effect, duration_ms, probed } => {
                self.intended.remove(place);
                let how = if *probed { " (found done)" } else { "" };
                self.unless_short(Span::lasting(format!("  {effect}{how}"), *duration_ms, at));
            }
            Event::EffectFailed { place, effect, failure } => {
                // Tried again it has no intent of its own, and no event tells when that began.
                let began = self.intended.remove(place).unwrap_or(at);
                self.spans.push(Span::between(format!("  {effect}"), began, at).failed(failure));
            }
            Event::UndoStarted { .. } => self.undoing_starts(at),
            Event::EffectUndone { effect, .. } => self.undone(effect, at),
            Event::UndoFailed { effect, failure, .. } => {
                let span = self.undo(effect, at).failed(failure);
                self.spans.push(span);
            }
            Event::Interrupted { id, node } => {
                self.open.retain(|(_, name), _| name != node);
                self.asked.insert(id.clone(), at);
            }
            Event::Answered { id, .. } => {
                if let Some(began) = self.asked.remove(id) {
                    self.unless_short(Span::between("  waited for an answer".to_owned(), began, at));
                }
            }
            Event::Accepted { .. }
            | Event::Voted { .. }
            | Event::StopAsked { .. }
            | Event::UndoAccepted { .. }
            | Event::Signalled { .. }
            | Event::Forked { .. }
            | Event::Migrated { .. }
            | Event::CommitPoint { .. }
            | Event::Imported { .. }
            | Event::StatusChanged { .. }
            | Event::Custom { .. }
            | Event::Wrote { .. }
            | Event::Unknown => {}
        }
    }

    /// Takes what lasted long enough to be seen.
    fn unless_short(&mut self, span: Span) -> bool {
        let seen = span.took_ms >= SHORT_MS;
        self.spans.extend(seen.then_some(span));
        seen
    }

    fn undone(&mut self, effect: &str, at: DateTime<Utc>) {
        let span = self.undo(effect, at);
        if !self.unless_short(span) && !self.quick_undos.iter().any(|quick| quick == effect) {
            self.quick_undos.push(effect.to_owned());
        }
    }

    fn failed_node(&mut self, at: DateTime<Utc>, event: &Event) {
        let Event::NodeFailed { ns, node, failure, duration_ms, retry_in_ms, .. } = event else { return };
        let began = self.open.remove(&(ns.clone(), node.clone()));
        self.spans.push(Span::of_node(node, *duration_ms, began, at).failed(failure));
        if let Some(pause) = retry_in_ms {
            let again = at + TimeDelta::milliseconds(i64::try_from(*pause).unwrap_or(0));
            self.open.insert((ns.clone(), node.clone()), again);
        }
    }

    fn undoing_starts(&mut self, at: DateTime<Utc>) {
        // What was at work beside the failure, or when somebody cancelled.
        for ((_, node), began) in std::mem::take(&mut self.open) {
            self.unless_short(Span::between(node.to_string(), began, at).noted("stopped"));
        }
        self.asked.clear();
        self.undoing = Some(at);
    }

    /// Undos come one after the other: each began when the one before was over.
    fn undo(&mut self, effect: &str, at: DateTime<Utc>) -> Span {
        let began = self.undoing.replace(at).unwrap_or(at);
        Span::between(format!("  undo {effect}"), began, at)
    }

    fn still_open(&mut self, under_way: &UnderWay) {
        for ((_, node), began) in std::mem::take(&mut self.open) {
            self.spans.push(Span::between(node.to_string(), began, under_way.now).noted(under_way.word));
        }
        for began in std::mem::take(&mut self.asked).into_values() {
            let span = Span::between("  waits for an answer".to_owned(), began, under_way.now);
            self.spans.push(span.noted(under_way.word));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Source;

    fn row(ms: i64, event: Event) -> EventRow {
        EventRow { seq: 1, at: at(ms), event }
    }

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::milliseconds(ms)
    }

    fn due(ms: i64, next: &str) -> EventRow {
        let next = vec![next.into()];
        row(ms, Event::Checkpointed { ns: Name::default(), step: 1, source: Source::Loop, next })
    }

    fn finished(ms: i64, node: &str, duration_ms: u64) -> EventRow {
        row(ms, Event::NodeFinished { ns: Name::default(), node: node.into(), duration_ms })
    }

    fn failed(ms: i64, node: &str, duration_ms: Option<u64>, retry_in_ms: Option<u64>) -> EventRow {
        let failure = Failure::new("went_bad", "it went bad");
        row(
            ms,
            Event::NodeFailed {
                ns: Name::default(),
                node: node.into(),
                failure,
                retry_in_ms,
                duration_ms,
                handler: None,
            },
        )
    }

    fn undone(ms: i64, effect: &str) -> EventRow {
        row(ms, Event::EffectUndone { place: effect.to_owned(), effect: effect.to_owned() })
    }

    fn undoing(ms: i64) -> EventRow {
        row(ms, Event::UndoStarted { failure: Failure::new("went_bad", "it went bad") })
    }

    /// The lines without their bars: label, seconds, note.
    fn shown(events: &[EventRow], now: Option<(i64, &'static str)>) -> Vec<String> {
        let text = timeline(events, now.map(|(ms, word)| UnderWay { now: at(ms), word }));
        let words = |part: &str| part.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = |line: &str| {
            let mut parts = line.split('│');
            let (left, note) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
            let indent = left.len() - left.trim_start().len();
            format!("{}{} {}", " ".repeat(indent), words(left), words(note)).trim_end().to_owned()
        };
        text.lines().map(line).collect()
    }

    #[test]
    fn a_failed_run_shows_what_failed_and_what_undoing_took() {
        let events = [
            due(0, "packager"),
            finished(5_000, "packager", 5_000),
            due(5_000, "watch"),
            row(5_000, Event::EffectIntended { place: "w".into(), effect: "switch".into() }),
            row(
                5_010,
                Event::EffectFailed { place: "w".into(), effect: "switch".into(), failure: Failure::new("no", "no") },
            ),
            failed(9_000, "watch", Some(4_000), None),
            undoing(9_000),
            undone(9_005, "update_release"),
            undone(12_005, "start_slot"),
            undone(12_006, "update_release"),
            undone(12_007, "open_release"),
        ];
        let lines = [
            "packager 5.00 s",
            "✗ watch 4.00 s went_bad",
            "  ✗ switch 0.01 s no",
            "  undo start_slot 3.00 s",
            "from first to last event 12.01 s",
            "undone at once: update_release, open_release",
        ];
        assert_eq!(shown(&events, None), lines);
    }

    #[test]
    fn every_attempt_is_shown_also_of_records_that_do_not_say_how_long_it_took() {
        let started =
            |ms, attempt| row(ms, Event::NodeStarted { ns: Name::default(), node: "packager".into(), attempt });
        let events = [
            due(0, "packager"),
            failed(2_000, "packager", None, Some(1_000)),
            started(3_100, 2),
            failed(5_100, "packager", None, None),
        ];
        let lines = ["✗ packager 2.00 s went_bad", "✗ packager 2.00 s went_bad", "from first to last event 5.10 s"];
        assert_eq!(shown(&events, None), lines);
    }

    #[test]
    fn what_is_under_way_reaches_to_now_and_waits_are_seen() {
        let asked = |ms| row(ms, Event::Interrupted { id: "q".into(), node: "gate".into() });
        let answered = Event::Answered { id: "q".into(), by: "ada".into(), via: "approve".into() };
        let advancing = Event::Advancing { owner: "tidegate".into(), epoch: 2 };
        let mut events = vec![due(0, "gate"), asked(100)];
        assert_eq!(
            shown(&events, Some((60_100, "interrupted"))),
            ["  waits for an answer 60.00 s interrupted", "from first event to now 60.10 s"]
        );
        events.extend([row(5_100, answered), row(6_000, advancing), finished(6_010, "gate", 10), due(6_010, "watch")]);
        let lines =
            ["  waited for an answer 5.00 s", "gate 0.01 s", "watch 3.99 s running", "from first event to now 10.00 s"];
        assert_eq!(shown(&events, Some((10_000, "running"))), lines);
    }

    #[test]
    fn a_cancelled_node_was_stopped_and_a_pause_of_the_undoing_is_no_undo() {
        let advancing = Event::Advancing { owner: "tidegate".into(), epoch: 2 };
        let failure = Failure::new("undo_failed", "it is held");
        let stuck = Event::UndoFailed { place: "s".into(), effect: "start_slot".into(), failure };
        let events = [
            due(0, "packager"),
            undoing(2_000),
            row(3_000, stuck),
            row(90_000, advancing),
            undone(91_000, "start_slot"),
        ];
        let lines = [
            "packager 2.00 s stopped",
            "  ✗ undo start_slot 1.00 s undo_failed",
            "  undo start_slot 1.00 s",
            "from first to last event 91.00 s",
        ];
        assert_eq!(shown(&events, None), lines);
    }

    #[test]
    fn of_a_long_run_the_longest_and_what_failed_are_shown() {
        let mut events: Vec<EventRow> = Vec::new();
        for n in 0..1_000_u64 {
            let at = i64::try_from(n).unwrap() * 10 + 10;
            events.push(finished(at, &format!("n{n}"), if n % 100 == 7 { 9 } else { 3 }));
        }
        events.push(failed(10_010, "bad", Some(1), None));
        let lines = shown(&events, None);
        assert_eq!(lines.len(), MOST_BARS + 2, "{lines:?}");
        let long = |line: &&String| line.ends_with("07 0.01 s") || line.starts_with("n7 ");
        assert_eq!(lines.iter().filter(long).count(), 10, "{lines:?}");
        assert_eq!(lines[MOST_BARS - 1], "✗ bad 0.00 s went_bad");
        assert_eq!(lines[MOST_BARS], "941 shorter ones left out; `run events` has everything");
    }

    #[test]
    fn bars_stay_inside_their_frame() {
        for (began, took) in [(0, 0), (0, u64::MAX), (i64::MAX / 2, 7), (-5, 3)] {
            let span = Span { label: "x".into(), began: at(began.min(1 << 40)), took_ms: took, note: String::new() };
            let line = span.line(at(0), 10_000);
            assert_eq!(line.split('│').nth(1).map(|bar| bar.chars().count()), Some(BAR), "{line}");
        }
    }
}
