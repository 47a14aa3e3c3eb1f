//! Numbers as people read them.

/// A share as per cent with at least two significant digits: `2.1 %`, `0.10 %`.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        0.0 => "0 %".to_owned(),
        p if p >= 10.0 => format!("{p:.0} %"),
        p if p >= 1.0 => format!("{p:.1} %"),
        p if p >= 0.01 => format!("{p:.2} %"),
        p => format!("{p:.1e} %"),
    }
}

/// A whole number in groups of three: `1,950`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Evidence as odds, from its natural logarithm: `1:3,400` to two digits. Below two to one it is none.
pub(super) fn odds(ln: f64) -> String {
    let evidence = ln.exp();
    match evidence {
        e if e < 2.0 => "none".to_owned(),
        e if e < 10.0 => format!("1:{e:.1}"),
        e if e < 1e9 => {
            // A third digit would be noise.
            let unit = 10_f64.powf((e.log10() - 1.0).floor().max(0.0));
            format!("1:{}", count(((e / unit).round() * unit) as u64))
        }
        _ => "stronger than 1:1,000,000,000".to_owned(),
    }
}

/// Milliseconds as `80.1 ms`.
pub(super) fn ms(ms: f64) -> String {
    if ms >= 100.0 { format!("{ms:.0} ms") } else { format!("{ms:.1} ms") }
}

/// A length of time: `45 s`, `10 min`.
pub(super) fn span(ms: u64) -> String {
    match ms {
        0..120_000 => format!("{} s", ms / 1000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{:.1} h", ms as f64 / 3_600_000.0),
    }
}

/// How often, as in `at most 1.5 times`.
pub(super) fn times(ratio: f64) -> String {
    let text = format!("{ratio:.2}");
    format!("{} times", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_well() {
        assert_eq!(
            (percent(0.021), percent(0.001), percent(0.0), percent(1.0)),
            ("2.1 %".into(), "0.10 %".into(), "0 %".into(), "100 %".into())
        );
        assert_eq!((count(7), count(1950), count(1_234_567)), ("7".into(), "1,950".into(), "1,234,567".into()));
        assert_eq!(
            (odds(3412_f64.ln()), odds(0.0), odds(4.26_f64.ln())),
            ("1:3,400".into(), "none".into(), "1:4.3".into())
        );
        assert_eq!((odds(100_f64.ln()), odds(900.0)), ("1:100".into(), "stronger than 1:1,000,000,000".into()));
        assert_eq!(
            (times(1.5), times(1.0), ms(80.12), ms(412.3)),
            ("1.5 times".into(), "1 times".into(), "80.1 ms".into(), "412 ms".into())
        );
        assert_eq!((span(45_000), span(600_000), span(9_000_000)), ("45 s".into(), "10 min".into(), "2.5 h".into()));
    }
}
