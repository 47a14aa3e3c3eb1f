//! `bench`: how fast engine and store are on this machine.

use tokio::signal::unix::{SignalKind, signal};

use super::drive::no_signals;
use super::out::Out;
use super::show::table;
use super::{Exit, Failed, plain};
use crate::app::Home;
use crate::bench::{Figure, How, Limit, Report, measure};

/// Measures in the home's file system; ctrl-C stops it, and nothing stays there.
pub async fn run(home: Home, out: &Out) -> Result<Exit, Failed> {
    out.note("measuring for some seconds in a folder of its own; ctrl-C stops it");
    let mut interrupts = signal(SignalKind::interrupt()).map_err(|e| plain(no_signals(&e)))?;
    let mut terms = signal(SignalKind::terminate()).map_err(|e| plain(no_signals(&e)))?;
    // Dropped when it is stopped: then its folder goes too.
    let report = tokio::select! {
        report = measure(home.dir(), How::default()) => report.map_err(|e| plain(e.failure()))?,
        _ = interrupts.recv() => return Ok(Exit::Stopped),
        _ = terms.recv() => return Ok(Exit::Stopped),
    };
    out.data(&report, || text(&report))?;
    Ok(Exit::Done)
}

fn text(report: &Report) -> String {
    let mut shown = table(["WHAT", "HERE", "BARE SQLITE", "RATIO", "TARGET", ""]);
    for figure in &report.figures {
        let number = |value: f64| format!("{} {}", rounded(value), figure.unit);
        shown.add_row([
            figure.what.clone(),
            number(figure.value),
            figure.floor.map(number).unwrap_or_default(),
            figure.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            target(figure),
            figure.note.clone(),
        ]);
    }
    format!(
        "{shown}\n\nbare SQLite commits 1 KB durably in {} µs here; measured in {:.1} s",
        report.commit_us,
        report.took_ms as f64 / 1e3
    )
}

fn target(figure: &Figure) -> String {
    let Some((limit, reached)) = figure.target.zip(figure.is_reached()) else { return String::new() };
    let limit = match limit {
        Limit::AtLeast(least) => format!("≥ {least}"),
        Limit::AtMost(most) => format!("≤ {most}"),
    };
    format!("{limit} {}", if reached { "✓" } else { "✗" })
}

fn rounded(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}
