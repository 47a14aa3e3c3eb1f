//! `traffic`: how a model's traffic is divided, and how each version fares, as the gateway counts it.

use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::args::TrafficArgs;
use super::drive::no_signals;
use super::out::{Out, printed};
use super::show::table;
use super::{Exit, Failed, plain};
use crate::app::{Home, host_failure};
use crate::graph::Failure;
use crate::host::{HostClient, HostError};
use crate::ports::{Route, SeriesPage, WHOLE};

/// How long a daemon may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two pictures.
const EVERY: Duration = Duration::from_secs(1);

/// One version's part of a model's traffic.
#[derive(Debug, Serialize)]
struct Part {
    version: String,
    /// Percent of the requests; `None`: none by the route's weights (the warm standby, or a version that is on its way out).
    weight_percent: Option<f64>,
    slots: Vec<String>,
    requests: u64,
    errors: u64,
    requests_per_second: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

/// A model's traffic at one moment.
#[derive(Debug, Serialize)]
struct Traffic {
    model: String,
    endpoint_url: String,
    generation: u64,
    /// The seconds that are counted.
    over_seconds: u64,
    versions: Vec<Part>,
    /// What the gateway changed by itself.
    changed_by_gateway: Option<String>,
}

/// Shows it once; on a terminal again every second until ctrl-C.
pub async fn run(home: &Home, args: &TrafficArgs, out: &Out) -> Result<Exit, Failed> {
    let client = super::hosts::client(home)?;
    // Looking must not start a daemon that was stopped on purpose.
    if let Err(error) = client.status_now(PATIENCE).await {
        let failure = Failure::new("host_is_down", "the host daemon does not run").because(error.to_string());
        return Err(plain(failure.hint("`tidegate up` starts it with all that served")));
    }
    if args.once || out.is_json() || !stdout().is_terminal() {
        let traffic = look(&client, args).await?;
        out.data(&traffic, || text(&traffic))?;
        return Ok(Exit::Done);
    }
    let mut interrupts = signal(SignalKind::interrupt()).map_err(|e| plain(no_signals(&e)))?;
    let mut tick = tokio::time::interval(EVERY);
    let mut lines = 0;
    loop {
        tokio::select! {
            _ = interrupts.recv() => return Ok(Exit::Done),
            _ = tick.tick() => {}
        }
        let picture = text(&look(&client, args).await?);
        // Over the picture before.
        let back = if lines > 0 { format!("\x1b[{lines}F\x1b[0J") } else { String::new() };
        printed(stdout().write_all(format!("{back}{picture}\n").as_bytes())).map_err(plain)?;
        lines = picture.lines().count();
    }
}

async fn look(client: &HostClient, args: &TrafficArgs) -> Result<Traffic, Failed> {
    let refused = |error: HostError| plain(host_failure(&error));
    let route = client.route(&args.model).await.map_err(refused)?.ok_or_else(|| {
        let failure = Failure::new("model_unknown", format!("no traffic was ever routed to {}", args.model));
        plain(failure.hint("`tidegate status` shows what serves"))
    })?;
    let now = client.series(&args.model, u64::MAX).await.map_err(refused)?;
    let page = client.series(&args.model, now.until.saturating_sub(args.over)).await.map_err(refused)?;
    Ok(traffic(route, &page, args.over))
}

fn traffic(route: Route, page: &SeriesPage, over_seconds: u64) -> Traffic {
    let mut versions: Vec<Part> = Vec::new();
    for leg in &route.traffic.legs {
        versions.push(part(page, leg.version.clone(), leg.slots.clone(), Some(leg.weight), over_seconds));
    }
    for slot in &page.slots {
        if let Some(known) = versions.iter_mut().find(|part| part.version == slot.version) {
            if !known.slots.contains(&slot.token) {
                known.slots.push(slot.token.clone());
            }
        } else {
            versions.push(part(page, slot.version.clone(), vec![slot.token.clone()], None, over_seconds));
        }
    }
    Traffic {
        model: route.model,
        endpoint_url: route.endpoint_url,
        generation: route.generation,
        over_seconds,
        versions,
        changed_by_gateway: route.changed_by_gateway,
    }
}

fn part(page: &SeriesPage, version: String, slots: Vec<String>, weight: Option<u32>, over_seconds: u64) -> Part {
    let arm = page.arm(&version);
    #[expect(clippy::cast_precision_loss, reason = "a second has fewer requests than a double has digits")]
    let ms = |q: f64| arm.latencies.quantile_us(q).map(|us| us as f64 / 1e3);
    #[expect(clippy::cast_precision_loss, reason = "as above")]
    let requests_per_second = arm.requests as f64 / over_seconds.max(1) as f64;
    Part {
        weight_percent: weight.map(|weight| f64::from(weight) * 100.0 / f64::from(WHOLE)),
        slots,
        requests: arm.requests,
        errors: arm.errors,
        requests_per_second,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        version,
    }
}

fn text(traffic: &Traffic) -> String {
    let mut shown = table(["VERSION", "WEIGHT", "SLOTS", "RPS", "REQUESTS", "ERRORS", "P50 MS", "P99 MS"]);
    let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"));
    for part in &traffic.versions {
        let weight = part.weight_percent.map_or_else(|| "–".to_owned(), |weight| format!("{weight} %"));
        shown.add_row([
            part.version.clone(),
            weight,
            part.slots.len().to_string(),
            format!("{:.1}", part.requests_per_second),
            part.requests.to_string(),
            part.errors.to_string(),
            number(part.p50_ms),
            number(part.p99_ms),
        ]);
    }
    let mut lines =
        format!("{} at {}, the last {} s\n{shown}", traffic.model, traffic.endpoint_url, traffic.over_seconds);
    if let Some(why) = &traffic.changed_by_gateway {
        lines.push_str(&format!("\nthe gateway changed it by itself: {why}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{Leg, SlotSeries, TrafficPlan, TrafficSecond};

    #[test]
    fn versions_are_told_with_their_weights_and_what_they_did() {
        let leg = |version: &str, slot: &str, weight| Leg { version: version.into(), slots: vec![slot.into()], weight };
        let plan = TrafficPlan { legs: vec![leg("v1", "a", 95_000), leg("v2", "b", 5_000)], ..TrafficPlan::default() };
        let route = Route {
            model: "iris".into(),
            generation: 3,
            live: Some("a".into()),
            standby: None,
            traffic: plan,
            endpoint_url: "http://127.0.0.1:7311/iris".into(),
            changed_by_gateway: None,
        };
        let second = |requests, errors| TrafficSecond { second: 9, requests, errors, ..TrafficSecond::default() };
        let slot =
            |token: &str, version: &str, seconds| SlotSeries { token: token.into(), version: version.into(), seconds };
        let slots = vec![
            slot("a", "v1", vec![second(19, 0), second(19, 0)]),
            slot("b", "v2", vec![second(2, 1)]),
            slot("old", "v0", Vec::new()),
        ];
        let seen = traffic(route, &SeriesPage { since: 1, until: 10, slots }, 2);
        let told: Vec<_> = seen
            .versions
            .iter()
            .map(|part| {
                (part.version.as_str(), part.weight_percent, part.requests, part.errors, part.requests_per_second)
            })
            .collect();
        assert_eq!(told, [("v1", Some(95.0), 38, 0, 19.0), ("v2", Some(5.0), 2, 1, 1.0), ("v0", None, 0, 0, 0.0)]);
        let shown = text(&seen);
        assert!(
            shown.contains("95 %") && shown.lines().any(|line| line.contains("v0") && line.contains('–')),
            "{shown}"
        );
    }
}
