//! A Grafana dashboard.

use serde_json::{Value, json};

use super::Watched;
use super::promql::{bound_of, of, quantile};
use crate::release::digest::sha256_json;

/// Grafana takes ids of 40 characters at most.
const LONGEST_UID: usize = 40;

/// The dashboard's id: the same for every release of a model, so that the next one replaces it.
pub fn dashboard_uid(model: &str) -> String {
    let uid = format!("tidegate-{model}");
    if uid.len() <= LONGEST_UID {
        return uid;
    }
    let digest = sha256_json(&json!(model));
    let hex = digest.trim_start_matches("sha256:");
    format!("tidegate-{}", hex.get(..LONGEST_UID - "tidegate-".len()).unwrap_or(hex))
}

/// What a panel shows: queries with the legend of their series.
type Queries = Vec<(String, &'static str)>;

/// A dashboard of a release's model: requests, errors and latencies of each version beside the plan's limits, slots, and the gateway.
pub fn dashboard(release: &Watched<'_>) -> Value {
    let model = release.model();
    let series = of(model, None);
    let by_version = |metric: &str| format!("sum by (version) (rate({metric}{{{series}}}[$__rate_interval]))");
    let errors = format!("{} / {}", by_version("tidegate_errors_total"), by_version("tidegate_requests_total"));
    let p99_s = release.plan.serving.latency_p99_ms.map(|ms| ms / 1_000.0);
    let quantiles = [(0.5, "p50"), (0.95, "p95"), (0.99, "p99")];
    let latency: Queries = quantiles.map(|(q, name)| (quantile(q, &series, "$__rate_interval"), name)).into();
    let one = |expr: String, legend| vec![(expr, legend)];
    let gateway = vec![
        ("tidegate_held".to_owned(), "held, all models"),
        ("sum(rate(tidegate_refused_total[$__rate_interval]))".to_owned(), "refused per second, all models"),
        (format!("sum(increase(tidegate_ejections_total{{{series}}}[$__rate_interval]))"), "replicas put out"),
    ];
    let mirrored = format!("sum by (outcome) (rate(tidegate_mirrored_total{{{series}}}[$__rate_interval]))");
    let share = error_limit(release);
    let panels = [
        ("Requests per second", "reqps", one(by_version("tidegate_requests_total"), "{{version}}"), None),
        ("Share of failed requests", "percentunit", one(errors, "{{version}}"), Some(share)),
        ("Latency at the gateway", "s", latency, p99_s),
        ("Answers with 4xx per second", "reqps", one(by_version("tidegate_client_errors_total"), "{{version}}"), None),
        (
            "Slots that are ready",
            "none",
            one(format!("sum by (version) (tidegate_slot_ready{{{series}}})"), "{{version}}"),
            None,
        ),
        (
            "Requests under way",
            "none",
            one(format!("sum by (version) (tidegate_in_flight{{{series}}})"), "{{version}}"),
            None,
        ),
        ("Gateway", "none", gateway, None),
        ("Requests repeated at a shadow", "reqps", one(mirrored, "{{outcome}}"), None),
    ];
    let panels: Vec<Value> = (1_u32..).zip(panels).map(|(id, panel)| drawn(id, panel)).collect();
    json!({
        "uid": dashboard_uid(model), "title": format!("{model} (Tidegate)"), "tags": ["tidegate", model],
        "description": about(release), "schemaVersion": 39, "editable": true, "timezone": "", "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"}, "panels": panels, "annotations": {"list": []},
        "links": [{"title": "endpoint", "type": "link", "url": release.endpoint_url, "targetBlank": true}],
        "templating": {"list": [{
            "name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}, "hide": 0,
        }]},
    })
}

fn error_limit(release: &Watched<'_>) -> f64 {
    release.plan.bake.max_error_rate
}

fn about(release: &Watched<'_>) -> String {
    let latency = release.plan.serving.latency_p99_ms.map(|ms| {
        let alert = bound_of(ms / 1_000.0).map(|bound| format!(" (its alert looks at {bound} s)")).unwrap_or_default();
        format!("; p99 at most {ms} ms{alert}")
    });
    format!(
        "Version {}, release {}. Limits of its plan: failed requests at most {}{}.",
        release.version,
        release.deployment_id,
        error_limit(release),
        latency.unwrap_or_default()
    )
}

/// A panel, two in a row; a limit is a red line.
fn drawn(id: u32, (title, unit, queries, limit): (&str, &str, Queries, Option<f64>)) -> Value {
    let source = json!({"type": "prometheus", "uid": "${datasource}"});
    let targets: Vec<Value> = ('A'..)
        .zip(queries)
        .map(|(name, (expr, legend))| {
            json!({"refId": name.to_string(), "datasource": source, "expr": expr, "legendFormat": legend})
        })
        .collect();
    let steps = match limit {
        Some(limit) => json!([{"color": "green", "value": null}, {"color": "red", "value": limit}]),
        None => json!([{"color": "green", "value": null}]),
    };
    let style = if limit.is_some() { "line" } else { "off" };
    let (column, row) = ((id - 1) % 2, (id - 1) / 2);
    json!({
        "id": id, "title": title, "type": "timeseries", "datasource": source, "targets": targets,
        "gridPos": {"h": 8, "w": 12, "x": column * 12, "y": row * 8},
        "fieldConfig": {"overrides": [], "defaults": {
            "unit": unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps},
            "custom": {"thresholdsStyle": {"mode": style}, "lineWidth": 1, "fillOpacity": 5, "showPoints": "never"},
        }},
        "options": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": true}, "tooltip": {"mode": "multi", "sort": "desc"}},
    })
}
