//! Durable waits: for a point in time, for a signal from outside, or for whichever comes first.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::effect::{decode, encode};
use super::journal::{Entry, EntryKind, EntryStatus, JournalKey};
use super::scope::Scope;
use super::{Event, Interrupt, NodeError, Record, StoreError};

/// How long this boot of the machine has lasted, sleep included: what no change of the clock moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uptime {
    /// Which boot.
    pub boot_id: String,
    /// Since it, in milliseconds.
    pub ms: u64,
}

/// A durable timer, as it was set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// When it is over by the clock.
    pub at: DateTime<Utc>,
    /// For one that was set as a length of time: that length in milliseconds, and the uptime when it was set. As long as the machine is up
    /// the uptime counts and not the clock, which may jump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<(u64, Option<Uptime>)>,
}

impl Alarm {
    /// One that goes off when the clock says so.
    pub fn at(at: DateTime<Utc>) -> Self {
        Self { at, span: None }
    }

    /// One that goes off after a length of time.
    pub fn after(length: Duration, now: DateTime<Utc>, uptime: Option<Uptime>) -> Self {
        let ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let at = chrono::Duration::from_std(length).ok().and_then(|length| now.checked_add_signed(length));
        Self { at: at.unwrap_or(DateTime::<Utc>::MAX_UTC), span: Some((ms, uptime)) }
    }

    /// How long until it goes off; zero: now.
    pub fn remaining(&self, now: DateTime<Utc>, uptime: Option<&Uptime>) -> Duration {
        let by_clock = (self.at - now).to_std().unwrap_or_default();
        match (&self.span, uptime) {
            (Some((ms, Some(set))), Some(up)) if set.boot_id == up.boot_id => {
                Duration::from_millis(ms.saturating_sub(up.ms.saturating_sub(set.ms)))
            }
            // A clock that was set back must not make it longer than it was meant to be.
            (Some((ms, _)), _) => by_clock.min(Duration::from_millis(*ms)),
            (None, _) => by_clock,
        }
    }
}

/// A message to a thread, kept until a wait takes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Its number in the thread, from 1; given by the store.
    pub seq: u64,
    /// Its name.
    pub name: String,
    /// What comes with it.
    pub value: Value,
    /// Who sent it.
    pub by: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// What ended a wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Woken {
    /// A signal.
    Signal {
        /// Its name.
        name: String,
        /// What came with it.
        value: Value,
        /// Who sent it.
        by: String,
    },
    /// The time.
    Timer,
}

/// Until when a wait lasts at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// For ever.
    Never,
    /// This long from when it was first asked for.
    After(Duration),
    /// Until the clock says so.
    At(DateTime<Utc>),
}

/// What a wait was begun with.
#[derive(Serialize, Deserialize)]
struct Waiting {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    signals: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alarm: Option<Alarm>,
}

impl Scope {
    /// Whether the run ends only because it waits for a timer or a signal, not for an answer.
    pub fn only_sleeps(&self) -> bool {
        let memory = self.memory();
        let asks = |i: &Interrupt| i.answer.is_none() && !i.withdrawn;
        !memory.alarms.is_empty() && !memory.interrupts.values().any(asks)
    }

    /// What the thread waits for beside answers, as its run ends in an orderly way: nothing, if it stops where nobody waits.
    pub fn sleeps(&self) -> Option<Record> {
        let memory = self.memory();
        if memory.alarms.is_empty() && !memory.waited {
            return None;
        }
        let (now, uptime) = (self.now(), self.clock.uptime());
        let soonest = memory.alarms.iter().flatten().min_by_key(|alarm| alarm.remaining(now, uptime.as_ref()));
        Some(Record::Sleeps { wake: soonest.cloned(), listens: memory.listens.clone() })
    }

    /// Until one of `signals` comes or the time is over; `Suspended` while neither is so.
    pub async fn wait(&self, key: JournalKey, signals: &[String], until: Until) -> Result<Woken, NodeError> {
        if let Some(recorded) = &self.recorded {
            let entry = recorded.reading(&key)?;
            let receipt = entry.receipt.clone();
            let record = self.note(entry);
            self.commit(vec![record]).await?;
            return receipt.map_or_else(|| Err(recorded.ends()), |receipt| Ok(decode(receipt, &key.name)?));
        }
        let (known, (now, uptime)) = (self.entry(&key), (self.now(), self.clock.uptime()));
        if let Some(Entry { status: EntryStatus::Done, receipt: Some(receipt), .. }) = &known {
            return Ok(decode(receipt.clone(), &key.name)?);
        }
        let is_new = known.is_none();
        let entry = match known {
            Some(entry) => entry,
            None => {
                let alarm = match until {
                    Until::Never => None,
                    Until::At(at) => Some(Alarm::at(at)),
                    Until::After(length) => Some(Alarm::after(length, now, uptime.clone())),
                };
                self.fresh(&key, EntryKind::Wait, "", encode(&Waiting { signals: signals.to_vec(), alarm }, &key.name)?)
            }
        };
        let waiting: Waiting = decode(entry.input.clone(), &key.name)?;
        let (woken, took) = match self.take_signal(&waiting.signals).await? {
            Some(Signal { seq, name, value, by, .. }) => (Some(Woken::Signal { name, value, by }), Some(seq)),
            None => {
                let over = waiting.alarm.as_ref().is_some_and(|a| a.remaining(now, uptime.as_ref()).is_zero());
                (over.then_some(Woken::Timer), None)
            }
        };
        let Some(woken) = woken else {
            {
                let mut memory = self.memory();
                memory.alarms.push(waiting.alarm);
                memory.listens.extend(waiting.signals);
            }
            if is_new {
                let record = self.note(entry);
                self.commit(vec![record]).await?;
            }
            return Err(NodeError::Suspended);
        };
        let receipt = Some(encode(&woken, &key.name)?);
        let signal = if let Woken::Signal { name, .. } = &woken { Some(name.clone()) } else { None };
        let done = Entry { status: EntryStatus::Done, receipt, updated_at: now, ..entry };
        let mut records = vec![self.note(done), Record::Event(Event::Woke { place: key.place(), signal })];
        records.extend(took.map(Record::Took));
        self.commit(records).await?;
        Ok(woken)
    }

    /// The oldest signal of one of these names that nobody has taken.
    async fn take_signal(&self, names: &[String]) -> Result<Option<Signal>, StoreError> {
        if names.is_empty() {
            return Ok(None);
        }
        let there = self.store.signals(&self.thread).await?;
        let mut memory = self.memory();
        let found = there.into_iter().find(|s| names.contains(&s.name) && !memory.taken.contains(&s.seq));
        memory.taken.extend(found.iter().map(|s| s.seq));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(boot: &str, ms: u64) -> Uptime {
        Uptime { boot_id: boot.into(), ms }
    }

    #[test]
    fn a_length_of_time_is_told_by_the_uptime_and_after_a_boot_by_the_clock() {
        let set = DateTime::UNIX_EPOCH;
        let alarm = Alarm::after(Duration::from_secs(60), set, Some(up("a", 1_000)));
        let later = |seconds: i64| set + chrono::Duration::seconds(seconds);
        let left = |seconds, up: Option<Uptime>| alarm.remaining(later(seconds), up.as_ref()).as_secs();
        assert_eq!(left(10, Some(up("a", 11_000))), 50);
        // The clock jumps, either way.
        assert_eq!(left(100_000, Some(up("a", 11_000))), 50);
        assert_eq!(left(-100_000, Some(up("a", 11_000))), 50);
        assert_eq!(left(0, Some(up("a", 61_000))), 0);
        // Another boot: only the clock is left, and it never makes it longer.
        assert_eq!(left(10, Some(up("b", 500))), 50);
        assert_eq!(left(-100_000, Some(up("b", 500))), 60);
        assert_eq!(left(61, None), 0);
    }

    #[test]
    fn a_point_in_time_is_told_by_the_clock() {
        let alarm = Alarm::at(DateTime::UNIX_EPOCH);
        assert_eq!(alarm.remaining(DateTime::UNIX_EPOCH - chrono::Duration::seconds(5), None).as_secs(), 5);
        assert_eq!(alarm.remaining(DateTime::UNIX_EPOCH, Some(&up("a", 1))), Duration::ZERO);
        assert!(Alarm::after(Duration::MAX, DateTime::UNIX_EPOCH, None).at > DateTime::UNIX_EPOCH);
    }
}
