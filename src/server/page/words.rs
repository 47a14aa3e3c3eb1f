//! Numbers and times as people read them.

use std::fmt::{self, Display, Formatter};

use chrono::{DateTime, SecondsFormat, Utc};

/// A moment: how long ago or ahead, with the exact time for machines and for those who point at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct When {
    at: DateTime<Utc>,
    now: DateTime<Utc>,
}

impl When {
    /// A moment, seen from `now`.
    pub fn at(at: DateTime<Utc>, now: DateTime<Utc>) -> Self {
        Self { at, now }
    }
}

// Digits and words of ours only.
impl askama::filters::HtmlSafe for When {}

impl Display for When {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let machine = self.at.to_rfc3339_opts(SecondsFormat::Millis, true);
        let exact = self.at.format("%Y-%m-%d %H:%M:%S UTC");
        write!(f, "<time datetime=\"{machine}\" title=\"{exact}\">{}</time>", distance(self.at, self.now))
    }
}

/// How far away a moment is; the script says the same.
fn distance(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - at).num_seconds();
    let far = seconds.unsigned_abs();
    let far = match far {
        0..60 => format!("{far} s"),
        60..3_600 => format!("{} min", far / 60),
        3_600..86_400 => format!("{} h", far / 3_600),
        _ => format!("{} d", far / 86_400),
    };
    if seconds < 0 { format!("in {far}") } else { format!("{far} ago") }
}

/// A number with as many digits as say something.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    match value {
        value if !value.is_finite() => "–".to_owned(),
        value if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        value if size >= 1.0 => format!("{value:.1}"),
        value if size >= 0.01 => format!("{value:.2}"),
        value => format!("{value:.4}"),
    }
}

/// A number with its unit; a share as a percentage.
pub(super) fn measured(value: f64, unit: &str) -> String {
    match unit {
        "share" => percent(value),
        "" => number(value),
        "rps" => format!("{} requests/s", number(value)),
        unit => format!("{} {unit}", number(value)),
    }
}

/// A share, 0 to 1.
pub(super) fn percent(share: f64) -> String {
    format!("{} %", number(share * 100.0))
}

/// Milliseconds, if they are known.
pub(super) fn ms(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{} ms", number(value)))
}

/// The beginning of a long text.
pub(super) fn short(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A text as one part of a path.
pub(super) fn path_part(text: &str) -> String {
    // Of the set that forms use, only the space is another one in paths; a plus is escaped.
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// One or several.
pub(super) fn count(n: usize, one: &str, more: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { more })
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn times_are_told_from_now() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(10);
        for (seconds, told) in [
            (-5, "5 s ago"),
            (-59, "59 s ago"),
            (-60, "1 min ago"),
            (-7_300, "2 h ago"),
            (-200_000, "2 d ago"),
            (3_700, "in 1 h"),
            (0, "0 s ago"),
        ] {
            assert_eq!(distance(now + TimeDelta::seconds(seconds), now), told);
        }
        let said = When::at(now, now).to_string();
        assert!(said.contains("datetime=\"1970-01-11T00:00:00.000Z\" title=\"1970-01-11 00:00:00 UTC\""), "{said}");
    }

    #[test]
    fn numbers_are_as_long_as_they_must_be() {
        let told: Vec<String> = [0.0, 12.0, 12.34, 123.4, 0.123, 0.0021, f64::NAN].iter().map(|n| number(*n)).collect();
        assert_eq!(told, ["0", "12", "12.3", "123", "0.12", "0.0021", "–"]);
        assert_eq!(
            (percent(0.0512), ms(None), measured(3.0, "rps")),
            ("5.1 %".into(), "–".into(), "3 requests/s".into())
        );
        assert_eq!(path_part("a b+ä/<"), "a%20b%2B%C3%A4%2F%3C");
        assert_eq!((short("äöü", 2), short("äöü", 3)), ("äö…".to_owned(), "äöü".to_owned()));
    }
}
