//! Expressions over what the gateway exports at `/-/metrics`.

/// Upper bounds of the gateway's latency buckets, in seconds: from a fast small model to a slow large one.
pub const LATENCY_BOUNDS_S: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// A value in quotation marks.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// Series of a model, or of one of its versions.
pub(super) fn of(model: &str, version: Option<&str>) -> String {
    let version = version.map(|version| format!(",version={}", quoted(version))).unwrap_or_default();
    format!("model={}{version}", quoted(model))
}

/// How much a counter grew each second, over all slots.
pub(super) fn rate(metric: &str, of: &str, window: &str) -> String {
    format!("sum(rate({metric}{{{of}}}[{window}]))")
}

/// How much a counter grew, over all slots.
pub(super) fn increase(metric: &str, of: &str, window: &str) -> String {
    format!("sum(increase({metric}{{{of}}}[{window}]))")
}

/// Slots that answer that they are ready.
pub(super) fn ready(of: &str) -> String {
    format!("sum(tidegate_slot_ready{{{of}}})")
}

/// Share of the requests that failed.
pub(super) fn error_share(of: &str, window: &str) -> String {
    format!("{} / {}", rate("tidegate_errors_total", of, window), rate("tidegate_requests_total", of, window))
}

/// The first bound of the buckets that is not below a limit; `None`: the limit is above all of them.
pub(super) fn bound_of(limit_s: f64) -> Option<f64> {
    LATENCY_BOUNDS_S.into_iter().find(|bound| *bound >= limit_s)
}

/// Share of the requests that took longer than a bucket's bound. Exact, where a quantile between two bounds would be a guess.
pub(super) fn slower_than(bound_s: f64, of: &str, window: &str) -> String {
    // A whole number is `1.0` in what the gateway says and may be `1` after Prometheus has read it.
    let matches =
        if bound_s.fract() == 0.0 { format!("le=~\"{bound_s}([.]0)?\"") } else { format!("le=\"{bound_s}\"") };
    let within = rate("tidegate_request_duration_seconds_bucket", &format!("{of},{matches}"), window);
    format!("1 - {within} / {}", rate("tidegate_request_duration_seconds_count", of, window))
}

/// A quantile as far as the buckets can tell, in seconds; for pictures.
pub(super) fn quantile(quantile: f64, of: &str, window: &str) -> String {
    format!(
        "histogram_quantile({quantile}, sum by (le) (rate(tidegate_request_duration_seconds_bucket{{{of}}}[{window}])))"
    )
}
