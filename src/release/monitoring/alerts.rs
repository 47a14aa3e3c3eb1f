//! The alerts of a release: what its plan promises, held for as long as it serves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Watched;
use super::promql::{bound_of, error_share, increase, of, rate, ready, slower_than};
use crate::release::units::duration_text;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Users feel it: somebody has to look now.
    Critical,
    /// Something that was promised or prepared is missing.
    Warning,
}

impl Severity {
    /// The label's value.
    pub fn word(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

/// One alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alert {
    /// Its name, e.g. `TidegateErrorRate`.
    pub name: String,
    /// It fires while this PromQL gives anything …
    pub expr: String,
    /// … for so long, as Prometheus writes durations.
    #[serde(rename = "for")]
    pub held_for: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is the case, one sentence.
    pub summary: String,
    /// What it means and what to do.
    pub description: String,
}

/// Fewer errors than this within five minutes are no rate.
const FEWEST_ERRORS: u32 = 3;

/// The alerts of a release that serves. Which ones there are follows from its plan: without a limit on latency nothing holds it.
pub fn alerts(release: &Watched<'_>) -> Vec<Alert> {
    let mut all = vec![unmeasured(release), nothing_ready(release), errors(release)];
    all.extend(availability(release));
    all.extend(slow(release));
    all.extend(replicas(release));
    all.extend(replicas(release).map(|_| ejected(release)));
    all.push(no_traffic(release));
    all.push(elsewhere(release));
    all.extend(standby(release));
    all
}

fn alert(name: &str, severity: Severity, held_for: &str, expr: String, says: (String, String)) -> Alert {
    let (summary, description) = says;
    Alert { name: name.to_owned(), expr, held_for: held_for.to_owned(), severity, summary, description }
}

/// A share in percent, without the noise of binary fractions.
fn percent(share: f64) -> f64 {
    (share * 1e8).round() / 1e6
}

fn unmeasured(release: &Watched<'_>) -> Alert {
    let model = release.model();
    let says = (
        format!("{model} is not measured"),
        "Prometheus has no series of the model: the host daemon is down, or nobody scrapes its /-/metrics. All other alerts of this model \
         are blind meanwhile. `tidegate host status` tells how it fares, `tidegate up` brings it back."
            .to_owned(),
    );
    alert(
        "TidegateNotMeasured",
        Severity::Critical,
        "5m",
        format!("absent(tidegate_slot_ready{{{}}})", of(model, None)),
        says,
    )
}

fn nothing_ready(release: &Watched<'_>) -> Alert {
    let model = release.model();
    let says = (
        format!("no slot of {model} is ready"),
        format!(
            "Requests wait at the gateway, then they are answered 503. `tidegate status {model}` and `tidegate host logs --slot TOKEN` tell \
             more; `tidegate rollback {model}` goes back."
        ),
    );
    alert("TidegateNothingReady", Severity::Critical, "1m", format!("{} == 0", ready(&of(model, None))), says)
}

fn errors(release: &Watched<'_>) -> Alert {
    let (model, limit) = (release.model(), release.plan.bake.max_error_rate);
    let series = of(model, None);
    let expr = format!(
        "({}) > {limit} and {} >= {FEWEST_ERRORS}",
        error_share(&series, "5m"),
        increase("tidegate_errors_total", &series, "5m")
    );
    let says = (
        format!("more than {} % of the requests to {model} fail", percent(limit)),
        format!(
            "Answers with status 5xx and requests without an answer, over five minutes. A release with so many would have been taken back. \
             `tidegate traffic {model}` shows each version; `tidegate rollback {model}` goes back."
        ),
    );
    alert("TidegateErrorRate", Severity::Critical, "2m", expr, says)
}

fn availability(release: &Watched<'_>) -> Option<Alert> {
    let promised = release.plan.serving.availability?;
    let (model, series) = (release.model(), of(release.model(), None));
    // One failure alone must not break the promise: so many requests are needed that it may have one.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is 0 to 1; `as` saturates")]
    let fewest = (1.0 / (1.0 - promised).max(1e-6)).ceil() as u64;
    let expr = format!(
        "1 - {} / {} < {promised} and {} >= {fewest}",
        increase("tidegate_errors_total", &series, "1h"),
        increase("tidegate_requests_total", &series, "1h"),
        increase("tidegate_requests_total", &series, "1h"),
    );
    let says = (
        format!("{model} answered less than {} % of its requests within an hour", percent(promised)),
        format!(
            "Release {} was asked for with an availability of {} %. Counted from {fewest} requests in the hour on.",
            release.deployment_id,
            percent(promised)
        ),
    );
    Some(alert("TidegateAvailability", Severity::Warning, "5m", expr, says))
}

fn slow(release: &Watched<'_>) -> Option<Alert> {
    let limit_ms = release.plan.serving.latency_p99_ms?;
    // Above the last bound nothing is told apart: an alert would be a guess.
    let bound = bound_of(limit_ms / 1_000.0)?;
    let model = release.model();
    let bound_ms = percent(bound * 10.0);
    let says = (
        format!("the p99 of {model} is above {bound_ms} ms"),
        format!(
            "More than one request in a hundred took longer than {bound_ms} ms, over five minutes. Release {} was asked for with a p99 of \
             {limit_ms} ms; {bound_ms} ms is the first bound of the gateway's buckets that is not below. `tidegate traffic {model}` shows each \
             version.",
            release.deployment_id
        ),
    );
    let expr = format!("{} > 0.01", slower_than(bound, &of(model, None), "5m"));
    Some(alert("TidegateLatencyP99", Severity::Critical, "5m", expr, says))
}

fn replicas(release: &Watched<'_>) -> Option<Alert> {
    let wanted = Some(release.plan.replicas).filter(|replicas| *replicas > 1)?;
    let (model, version) = (release.model(), release.version);
    let says = (
        format!("fewer than {wanted} replicas of {model} {version} are ready"),
        format!(
            "The plan has {wanted}. `tidegate status {model}` and `tidegate host status` tell which one is missing."
        ),
    );
    let expr = format!("{} < {wanted}", ready(&of(model, Some(version))));
    Some(alert("TidegateReplicasMissing", Severity::Warning, "5m", expr, says))
}

fn ejected(release: &Watched<'_>) -> Alert {
    let model = release.model();
    let expr = format!("{} > 0", increase("tidegate_ejections_total", &of(model, None), "10m"));
    let says = (
        format!("the gateway has put out a replica of {model}"),
        "It failed five requests in a row, or took no connection; the others have its part. `tidegate host logs --slot TOKEN` tells why."
            .to_owned(),
    );
    alert("TidegateReplicaEjected", Severity::Warning, "0m", expr, says)
}

fn no_traffic(release: &Watched<'_>) -> Alert {
    let (model, url) = (release.model(), release.endpoint_url);
    let expr = format!("{} == 0", rate("tidegate_requests_total", &of(model, None), "15m"));
    let says = (
        format!("nobody has asked {model} for half an hour"),
        format!(
            "The gateway answers at {url}: is what calls it still there? Silence this one for models that rest at night."
        ),
    );
    alert("TidegateNoTraffic", Severity::Warning, "15m", expr, says)
}

fn elsewhere(release: &Watched<'_>) -> Alert {
    let (model, version) = (release.model(), release.version);
    let requests = |version| rate("tidegate_requests_total", &of(model, version), "10m");
    let expr = format!("({} > 0) unless ({} > 0)", requests(None), requests(Some(version)));
    let says = (
        format!("{model} is asked, but version {version} is not"),
        format!(
            "The gateway has gone back to the version before, or another release has taken the place of {}: then fetch that one's rules. \
             `tidegate status {model}` tells what serves.",
            release.deployment_id
        ),
    );
    alert("TidegateVersionNotServing", Severity::Warning, "5m", expr, says)
}

fn standby(release: &Watched<'_>) -> Option<Alert> {
    let before = release.standby()?;
    let (model, standby) = (release.model(), ready(&of(release.model(), Some(before))));
    let (expr, time) = match release.plan.standby_ms {
        // It leaves by itself after its time; until then it is there, and may be broken.
        Some(ms) => (format!("{standby} == 0"), format!(" It is kept for {}.", duration_text(ms))),
        None => {
            let serves = format!("{} > 0", ready(&of(model, Some(release.version))));
            (format!("(({standby} or vector(0)) == 0) and on() ({serves})"), String::new())
        }
    };
    let says = (
        format!("the standby of {model}, version {before}, is lost"),
        format!(
            "There is nothing warm to fall back to: `tidegate rollback {model}` would have to start it first, and the gateway cannot go back \
             by itself.{time} `tidegate host status` tells what became of it."
        ),
    );
    Some(alert("TidegateStandbyLost", Severity::Warning, "5m", expr, says))
}
