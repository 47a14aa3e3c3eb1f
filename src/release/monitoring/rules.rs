//! Prometheus' rule file.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Alert, Watched, alerts};

#[derive(Serialize)]
struct File<'a> {
    groups: [Group<'a>; 1],
}

#[derive(Serialize)]
struct Group<'a> {
    name: String,
    rules: Vec<Rule<'a>>,
}

#[derive(Serialize)]
struct Rule<'a> {
    alert: &'a str,
    expr: &'a str,
    #[serde(rename = "for")]
    held_for: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
    annotations: BTreeMap<&'a str, String>,
}

/// What people read. Text that comes from names must not be read as a template.
fn annotations<'a>(release: &Watched<'_>, alert: &Alert) -> BTreeMap<&'a str, String> {
    let text = |text: &str| text.replace("{{", "{ {");
    BTreeMap::from([
        ("summary", text(&alert.summary)),
        ("description", text(&alert.description)),
        ("deployment_id", text(release.deployment_id)),
        ("endpoint_url", text(release.endpoint_url)),
    ])
}

/// The alerts of a release as a rule file, YAML: one group, named by the model, so that the next release's file replaces it.
///
/// # Errors
/// When YAML cannot say it; no text that a release has is such.
pub fn rules(release: &Watched<'_>) -> Result<String, String> {
    let alerts = alerts(release);
    let model = release.model();
    let rules = alerts.iter().map(|alert| Rule {
        alert: &alert.name,
        expr: &alert.expr,
        held_for: &alert.held_for,
        labels: BTreeMap::from([("model", model), ("severity", alert.severity.word())]),
        annotations: annotations(release, alert),
    });
    let file = File { groups: [Group { name: format!("tidegate-{model}"), rules: rules.collect() }] };
    let head = format!(
        "# Alerts of {model}, version {}, release {}.\n# Written by Tidegate from the release's plan; fetch it anew after each release.\n",
        release.version.replace(['\n', '\r'], " "),
        release.deployment_id.replace(['\n', '\r'], " ")
    );
    let body = serde_saphyr::to_string(&file).map_err(|e| e.to_string())?;
    Ok(head + &body)
}
