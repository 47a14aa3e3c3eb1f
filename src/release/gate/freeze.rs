//! Times in which nothing is released.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, FixedOffset, Timelike, Utc, Weekday};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Who;

/// A time in which nothing is released but by those who may override it, with a reason. It is between two times, or recurs each week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// What it is called.
    pub name: String,
    /// From when on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<DateTime<Utc>>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// Each week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekly: Option<Weekly>,
    /// For which target environments; empty: for all releases. One that names no environment is held too: nobody leaves it by saying less.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<String>,
    /// Who may override it; nobody named: admins.
    #[serde(default, skip_serializing_if = "Who::is_anyone")]
    pub may_override: Who,
}

/// A part of each week: `{ from: "Fri 16:00", until: "Mon 06:00", offset: "+01:00" }`. It may reach over the week's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Weekly {
    /// It begins.
    pub from: WeekTime,
    /// It ends.
    pub until: WeekTime,
    /// How far the clock that is meant is ahead of UTC; absent: it is UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<String>,
}

/// A minute of the week: `Fri 16:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WeekTime(u32);

const DAY: u32 = 24 * 60;
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

impl FromStr for WeekTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no time of a week such as \"Fri 16:00\"");
        let (day, time) = text.trim().split_once(' ').ok_or_else(wrong)?;
        let day: Weekday = day.parse().map_err(|_| wrong())?;
        let (hour, minute) = time.trim().split_once(':').ok_or_else(wrong)?;
        let number = |text: &str, most: u32| text.parse().ok().filter(|n: &u32| *n <= most).ok_or_else(wrong);
        let (hour, minute) = (number(hour, 23)?, number(minute, 59)?);
        Ok(Self(day.num_days_from_monday() * DAY + hour * 60 + minute))
    }
}

impl fmt::Display for WeekTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = DAYS.get((self.0 / DAY) as usize).copied().unwrap_or_default();
        write!(f, "{day} {:02}:{:02}", self.0 % DAY / 60, self.0 % 60)
    }
}

impl Serialize for WeekTime {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WeekTime {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for WeekTime {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "WeekTime".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "description": "A minute of the week", "examples": ["Fri 16:00"]})
    }
}

impl Freeze {
    /// What makes no sense in it.
    pub fn fault(&self) -> Option<String> {
        let offset = self.weekly.as_ref().and_then(|weekly| weekly.offset.as_ref());
        if let Some(offset) = offset.filter(|offset| offset.parse::<FixedOffset>().is_err()) {
            return Some(format!("`{offset}` is no offset such as \"+01:00\""));
        }
        if self.weekly.as_ref().is_some_and(|weekly| weekly.from == weekly.until) {
            return Some("its week's part ends where it begins: for all of the time name no part".to_owned());
        }
        match (self.from, self.until, &self.weekly) {
            (Some(from), Some(until), None) if until <= from => Some("it ends before it begins".to_owned()),
            (Some(_), Some(_), None) | (None, None, Some(_)) => None,
            _ => Some("it has either `from` and `until`, or `weekly`".to_owned()),
        }
    }

    /// Whether it counts at `now` for releases to `environment`.
    pub fn holds(&self, now: DateTime<Utc>, environment: Option<&str>) -> bool {
        let here = self.environments.is_empty() || environment.is_none_or(|e| self.environments.iter().any(|f| f == e));
        let once = self.from.is_some_and(|from| from <= now) && self.until.is_some_and(|until| now < until);
        here && (once || self.weekly.as_ref().is_some_and(|weekly| weekly.holds(now)))
    }
}

impl Weekly {
    fn holds(&self, now: DateTime<Utc>) -> bool {
        let ahead = self.offset.as_ref().and_then(|offset| offset.parse::<FixedOffset>().ok());
        let there = now.with_timezone(&ahead.unwrap_or_else(|| chrono::Offset::fix(&Utc)));
        let minute = WeekTime(there.weekday().num_days_from_monday() * DAY + there.hour() * 60 + there.minute());
        if self.from <= self.until {
            self.from <= minute && minute < self.until
        } else {
            self.from <= minute || minute < self.until
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn weekend(offset: Option<&str>) -> Freeze {
        let (from, until) = ("Fri 16:00".parse().unwrap(), "Mon 06:00".parse().unwrap());
        Freeze {
            name: "weekend".into(),
            from: None,
            until: None,
            weekly: Some(Weekly { from, until, offset: offset.map(str::to_owned) }),
            environments: vec!["prod".into()],
            may_override: Who::default(),
        }
    }

    #[test]
    fn a_week_goes_round() {
        let freeze = weekend(None);
        // 2026-11-20 is a Friday.
        for (now, held) in [
            ("2026-11-20T15:59:59Z", false),
            ("2026-11-20T16:00:00Z", true),
            ("2026-11-22T23:59:00Z", true),
            ("2026-11-23T05:59:59Z", true),
            ("2026-11-23T06:00:00Z", false),
        ] {
            assert_eq!(freeze.holds(at(now), Some("prod")), held, "{now}");
        }
        let within = at("2026-11-21T12:00:00Z");
        assert!(!freeze.holds(within, Some("dev")) && freeze.holds(within, None), "saying less leaves no freeze");
        assert!(weekend(Some("+02:00")).holds(at("2026-11-20T14:00:00Z"), Some("prod")), "its own clock counts");
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        assert_eq!(weekend(None).fault(), None);
        assert!(weekend(Some("two hours")).fault().unwrap().contains("+01:00"));
        let mut once = Freeze { weekly: None, ..weekend(None) };
        assert!(once.fault().unwrap().contains("weekly"));
        (once.from, once.until) = (Some(at("2026-12-24T00:00:00Z")), Some(at("2026-12-20T00:00:00Z")));
        assert!(once.fault().unwrap().contains("before"));
        for wrong in ["Fri", "Fri 24:00", "Xyz 10:00", "Fri 10"] {
            assert!(wrong.parse::<WeekTime>().is_err(), "{wrong}");
        }
        assert_eq!("Sun 09:05".parse::<WeekTime>().unwrap().to_string(), "Sun 09:05");
    }
}
