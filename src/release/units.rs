//! Numbers with units as people write them: durations, latencies, request rates, shares.
//!
//! Each kind is a type of its own that reads text and writes it back in one normal form; the parsing functions are public for
//! documents whose values stay text until a key can be named in the error.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Text that is not a number with a unit of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not {what}; write {accepted}")]
pub struct UnitError {
    /// What was written.
    pub value: String,
    /// What it should have been, with its article.
    pub what: &'static str,
    /// Accepted forms, by example.
    pub accepted: &'static str,
}

/// Accepted forms of a duration.
pub const DURATION_FORMS: &str = "a number with ms, s, m, h or d, such as 500ms, 60s, 5m, 1h30m";
/// Accepted forms of a latency.
pub const LATENCY_FORMS: &str = "a number with ms or s, such as 100ms, 0.2s, \"< 100ms\"";
/// Accepted forms of a throughput.
pub const THROUGHPUT_FORMS: &str =
    "a number with rps, qps, /s, req/s, requests/s or /min, such as 50 rps, 50/s, 3000/min";
/// Accepted forms of a share.
pub const SHARE_FORMS: &str = "a percentage or a number from 0 to 1, such as 99.9% or 0.999";

/// The longest duration accepted: one year. Longer ones are typing errors.
const MAX_DURATION_MS: f64 = 365.0 * 86_400_000.0;

/// Milliseconds of a duration such as `60s`, `1h30m`, `250 ms`. Zero is a duration.
///
/// # Errors
/// When a number has no unit, a unit is unknown, a part is negative, or the whole is longer than a year.
pub fn parse_duration_ms(text: &str) -> Result<u64, UnitError> {
    let fail = || UnitError { value: text.to_owned(), what: "a duration", accepted: DURATION_FORMS };
    let mut rest = text.trim();
    let mut total = 0.0;
    if rest.is_empty() {
        return Err(fail());
    }
    while !rest.is_empty() {
        let (number, after) = split_number(rest).ok_or_else(fail)?;
        let after = after.trim_start();
        let unit_len = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        total += number * duration_unit_ms(unit).ok_or_else(fail)?;
        rest = after.trim_start();
    }
    if !(0.0..=MAX_DURATION_MS).contains(&total) {
        return Err(fail());
    }
    Ok(total.round() as u64)
}

/// Milliseconds of a latency limit such as `100ms`, `0.2s`, `< 100 ms`, `≤100ms`.
///
/// # Errors
/// When it is not one, or not above zero.
pub fn parse_latency_ms(text: &str) -> Result<f64, UnitError> {
    let fail = || UnitError { value: text.to_owned(), what: "a latency", accepted: LATENCY_FORMS };
    let bare = strip_signs(text, &['<', '≤', '=']);
    let (number, unit) = split_number(bare).ok_or_else(fail)?;
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "ms" | "msec" | "milliseconds" => 1.0,
        "s" | "sec" | "second" | "seconds" => 1000.0,
        _ => return Err(fail()),
    };
    positive(tidy(number * factor)).ok_or_else(fail)
}

/// Requests per second of a throughput such as `50 rps`, `50/s`, `1k req/s`, `3000/min`.
///
/// # Errors
/// When it is not one, or not above zero.
pub fn parse_rps(text: &str) -> Result<f64, UnitError> {
    let fail = || UnitError { value: text.to_owned(), what: "a throughput", accepted: THROUGHPUT_FORMS };
    let bare = strip_signs(text, &['>', '≥', '=']);
    let (number, rest) = split_number(bare).ok_or_else(fail)?;
    let (number, rest) = match rest.strip_prefix(['k', 'K']) {
        Some(after) => (number * 1000.0, after),
        None => (number, rest),
    };
    let unit: String = rest.to_ascii_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let unit = unit.replace(" per ", "/").replace(" /", "/").replace("/ ", "/");
    let per_second = match unit.as_str() {
        "rps" | "qps" => 1.0,
        "rpm" => 1.0 / 60.0,
        other => {
            let (noun, time) = other.split_once('/').ok_or_else(fail)?;
            if !matches!(noun, "" | "r" | "req" | "reqs" | "request" | "requests" | "prediction" | "predictions") {
                return Err(fail());
            }
            match time {
                "s" | "sec" | "second" => 1.0,
                "m" | "min" | "minute" => 1.0 / 60.0,
                _ => return Err(fail()),
            }
        }
    };
    positive(tidy(number * per_second)).ok_or_else(fail)
}

/// A share from 0 to 1 written as `99.9%` or `0.999`.
///
/// # Errors
/// When it is not one, or outside 0 to 1.
pub fn parse_share(text: &str) -> Result<f64, UnitError> {
    let fail = || UnitError { value: text.to_owned(), what: "a share", accepted: SHARE_FORMS };
    let bare = strip_signs(text, &['>', '≥', '=']);
    let (number, rest) = split_number(bare).ok_or_else(fail)?;
    let share = match rest.trim() {
        "%" => tidy(number / 100.0),
        "" => number,
        _ => return Err(fail()),
    };
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(fail()) }
}

fn duration_unit_ms(unit: &str) -> Option<f64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "ms" | "msec" => 1.0,
        "s" | "sec" | "second" | "seconds" => 1000.0,
        "m" | "min" | "minute" | "minutes" => 60_000.0,
        "h" | "hour" | "hours" => 3_600_000.0,
        "d" | "day" | "days" => 86_400_000.0,
        _ => return None,
    })
}

/// Splits a leading decimal number (no sign, no exponent) from what follows.
fn split_number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    Some((number.parse().ok().filter(|n: &f64| n.is_finite())?, rest.trim_start()))
}

fn strip_signs<'a>(text: &'a str, signs: &[char]) -> &'a str {
    text.trim().trim_start_matches(signs).trim()
}

/// Takes the noise of binary fractions off a product or quotient: 99.9 / 100 becomes 0.999.
fn tidy(number: f64) -> f64 {
    (number * 1e9).round() / 1e9
}

fn positive(number: f64) -> Option<f64> {
    (number > 0.0 && number.is_finite()).then_some(number)
}

/// A duration in its shortest exact form: `90s`, `5m`, `250ms`.
pub fn duration_text(ms: u64) -> String {
    match ms {
        0 => "0s".to_owned(),
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    }
}

/// Serde, schema and display for a type that people write as text with a unit.
macro_rules! text_unit {
    ($name:ident($inner:ty), $parse:path, $show:expr, $forms:expr, $numbers:expr) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&$show(self.0))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($forms)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        $parse(text).map($name).map_err(E::custom)
                    }
                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$name, E> {
                        $parse(&number.to_string()).map($name).map_err(E::custom)
                    }
                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$name, E> {
                        $parse(&number.to_string()).map($name).map_err(E::custom)
                    }
                    fn visit_f64<E: de::Error>(self, number: f64) -> Result<$name, E> {
                        $parse(&number.to_string()).map($name).map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                if $numbers {
                    json_schema!({ "type": ["string", "number"], "description": $forms })
                } else {
                    json_schema!({ "type": "string", "description": $forms })
                }
            }
        }
    };
}

/// A duration in milliseconds, written `60s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);
text_unit!(Millis(u64), parse_duration_ms, duration_text, DURATION_FORMS, false);

/// A latency limit in milliseconds, written `100ms`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct LatencyMs(pub f64);
text_unit!(LatencyMs(f64), parse_latency_ms, |ms: f64| format!("{ms}ms"), LATENCY_FORMS, false);

/// A request rate in requests per second, written `50 rps`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rps(pub f64);
text_unit!(Rps(f64), parse_rps, |rps: f64| format!("{rps} rps"), THROUGHPUT_FORMS, false);

/// A share from 0 to 1, written `99.9%` or `0.999`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Share(pub f64);
text_unit!(Share(f64), parse_share, |share: f64| share.to_string(), SHARE_FORMS, true);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in
            [("60s", 60_000), ("250 ms", 250), ("1h30m", 5_400_000), ("1.5s", 1500), ("0s", 0), ("5 min", 300_000)]
        {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
        for text in ["", "60", "s", "-1s", "1x", "1s2", "999999h", "1..2s", "٣s"] {
            let error = parse_duration_ms(text).expect_err(text).to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("1h30m"), "{error}");
        }
    }

    #[test]
    fn latencies_rates_and_shares() {
        assert_eq!(parse_latency_ms("< 100 ms"), Ok(100.0));
        assert_eq!(parse_latency_ms("0.2s"), Ok(200.0));
        assert!(parse_latency_ms("100").is_err() && parse_latency_ms("0ms").is_err());
        let rates =
            ["50 rps", "50/s", "50 req/s", "50 requests per second", "50 requests/second", "3000/min", ">=50qps"];
        for text in rates {
            assert_eq!(parse_rps(text), Ok(50.0), "{text}");
        }
        assert_eq!(parse_rps("1k rps"), Ok(1000.0));
        assert!(parse_rps("50").is_err() && parse_rps("50 apples/s").is_err() && parse_rps("0 rps").is_err());
        assert_eq!(parse_share("99.9%"), Ok(0.999));
        assert_eq!(parse_share("0.999"), Ok(0.999));
        assert!(parse_share("99.9").is_err() && parse_share("101%").is_err() && parse_share("high").is_err());
    }

    #[test]
    fn a_number_without_unit_names_the_forms() {
        let error = serde_json::from_str::<Millis>("60").expect_err("no unit").to_string();
        assert!(error.contains("`60` is not a duration") && error.contains("60s"), "{error}");
    }

    proptest! {
        #[test]
        fn durations_survive_their_text(ms in 0..=31_536_000_000_u64) {
            prop_assert_eq!(parse_duration_ms(&duration_text(ms)), Ok(ms));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,12}") {
            let _ = (parse_duration_ms(&text), parse_latency_ms(&text), parse_rps(&text), parse_share(&text));
        }
    }
}
