//! Figures of the user's own that are held beside what the gateway counts: a query to Prometheus, or a command, with Argo Rollouts' words for
//! how many outcomes decide.

use std::cell::Cell;
use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{Millis, duration_text};
use crate::judge::threshold::{DEFAULT_CONSECUTIVE_ERROR_LIMIT, Threshold};

/// Most metrics of a release: each is asked for by itself, all the while.
pub const MOST_METRICS: usize = 32;
/// How long a measurement may take where nobody says, in milliseconds.
pub const DEFAULT_METRIC_TIMEOUT_MS: u64 = 10_000;
/// Shortest pause between two measurements, in milliseconds.
const LEAST_INTERVAL_MS: u64 = 100;
/// Longest name.
const NAME_CHARS: usize = 64;

/// What stands between double braces in a query or a command, and is filled in: see [`fill`].
pub const METRIC_NAMES: [&str; 6] = ["model", "version", "slot", "endpoint", "live_version", "live_slot"];

/// When a metric is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum During {
    /// In the slot, before users see anything: one of validation's checks.
    Validation,
    /// While the version has a part of the traffic.
    Trial,
    /// While it is watched with all of the traffic.
    Bake,
}

/// A metric as it is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricSpec {
    /// Its name, unique: letters, digits, `_`, `-`, `.`.
    pub name: String,
    /// The value of a query; exactly one of this and `command`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusQuery>,
    /// What a program says, one JSON value on standard output. Program and arguments; it runs in the project's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// When it is held; absent: `[trial, bake]`, as long as users see the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub during: Option<Vec<During>>,
    /// CEL over `result`: a measurement for which it holds is good. Where there is no failure condition every other one is bad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_condition: Option<String>,
    /// CEL over `result`: a measurement for which it holds is bad. One for which neither condition holds is inconclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_condition: Option<String>,
    /// Pause between two measurements; absent: it is measured once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Millis>,
    /// Pause before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_delay: Option<Millis>,
    /// How many measurements; absent: one without an interval, else as many as the time allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// So many may be bad.
    #[serde(default)]
    pub failure_limit: u32,
    /// So many may be inconclusive.
    #[serde(default)]
    pub inconclusive_limit: u32,
    /// So many in a row may be errors; absent: 4, or any number where it is compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_error_limit: Option<u32>,
    /// So many good ones in a row end it; absent: they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_success_limit: Option<u32>,
    /// It is measured of the live version as well, each time, for a `kayenta` check of the strategy's `analysis` that names it with `own: true`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compare: bool,
    /// How long a measurement may take; absent: 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Millis>,
    /// It is measured and shown, and decides nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// A question to a Prometheus server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrometheusQuery {
    /// The server, e.g. `http://127.0.0.1:9090`.
    pub url: String,
    /// PromQL that gives one number.
    pub query: String,
    /// Variable of this process with a bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
    /// File with a bearer token, absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
}

/// Where a metric's value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MetricSource {
    /// A Prometheus server.
    Prometheus(PrometheusQuery),
    /// A program and its arguments.
    Command(Vec<String>),
}

/// A metric as it will be held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricPlan {
    /// What decides, and when it is measured.
    pub threshold: Threshold,
    /// Where its value comes from.
    pub source: MetricSource,
    /// When it is held, at least once.
    pub during: Vec<During>,
    /// It is measured of the live version as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compare: bool,
    /// How long a measurement may take, in milliseconds.
    pub timeout_ms: u64,
}

impl MetricSpec {
    /// With its defaults.
    ///
    /// # Errors
    /// What makes no sense, in words.
    pub fn plan(&self) -> Result<MetricPlan, String> {
        let source = match (&self.prometheus, &self.command) {
            (Some(query), None) => MetricSource::Prometheus(query.clone()),
            (None, Some(argv)) => MetricSource::Command(argv.clone()),
            _ => return Err("exactly one of `prometheus` and `command` says where its value comes from".to_owned()),
        };
        let ms = |time: Option<Millis>| time.map(|time| time.0);
        let threshold = Threshold {
            name: self.name.clone(),
            interval_ms: ms(self.interval),
            initial_delay_ms: ms(self.initial_delay).unwrap_or(0),
            count: self.count,
            success_condition: self.success_condition.clone(),
            failure_condition: self.failure_condition.clone(),
            failure_limit: self.failure_limit,
            inconclusive_limit: self.inconclusive_limit,
            // A value that is compared may be missing now and then: its check says how many it needs.
            consecutive_error_limit: self.consecutive_error_limit.unwrap_or(if self.compare {
                u32::MAX
            } else {
                DEFAULT_CONSECUTIVE_ERROR_LIMIT
            }),
            consecutive_success_limit: self.consecutive_success_limit,
            dry_run: self.dry_run,
        };
        // Beside each other they have traffic on trial only.
        let usual = if self.compare { vec![During::Trial] } else { vec![During::Trial, During::Bake] };
        let mut during = self.during.clone().unwrap_or(usual);
        during.sort_unstable();
        during.dedup();
        let timeout_ms = ms(self.timeout).unwrap_or(DEFAULT_METRIC_TIMEOUT_MS);
        let plan = MetricPlan { threshold, source, during, compare: self.compare, timeout_ms };
        plan.check()?;
        Ok(plan)
    }
}

impl MetricPlan {
    fn check(&self) -> Result<(), String> {
        let Self { threshold, source, during, compare, timeout_ms } = self;
        let fine = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        let name = &threshold.name;
        if name.is_empty() || name.len() > NAME_CHARS || !name.chars().all(fine) {
            return Err(format!("name: 1 to {NAME_CHARS} letters, digits, `_`, `-`, `.`"));
        }
        if during.is_empty() {
            return Err("during: at least one of validation, trial, bake".to_owned());
        }
        if *compare && during != &[During::Trial] {
            return Err(
                "compare: two versions have traffic beside each other on trial only, so it is `during: [trial]`"
                    .to_owned(),
            );
        }
        if let (true, MetricSource::Prometheus(asked)) = (*compare, source)
            && !names_version(&asked.query)
        {
            return Err("compare: a query without {{version}} or {{slot}} says the same of both".to_owned());
        }
        if !threshold.dry_run && !compare && !self.has_condition() {
            return Err("without success_condition or failure_condition nothing could fail; \
                        to look at it only write `dry_run: true`"
                .to_owned());
        }
        if threshold.interval_ms.is_some_and(|ms| ms < LEAST_INTERVAL_MS) {
            return Err(format!("interval: at least {}", duration_text(LEAST_INTERVAL_MS)));
        }
        if threshold.count == Some(0) || threshold.consecutive_success_limit == Some(0) || *timeout_ms == 0 {
            return Err("count, consecutive_success_limit and timeout are more than 0".to_owned());
        }
        if threshold.interval_ms.is_none() && threshold.count.is_some_and(|count| count > 1) {
            return Err("count: more than one measurement needs an interval".to_owned());
        }
        if during.contains(&During::Validation) && threshold.effective_count().is_none() {
            return Err("during: in validation it needs a count: nothing else would end it".to_owned());
        }
        source.check()?;
        self.texts().try_for_each(|text| fill(text, |_| Some(String::new())).map(drop))
    }

    /// Whether a measurement by itself can be bad.
    pub fn has_condition(&self) -> bool {
        self.threshold.success_condition.is_some() || self.threshold.failure_condition.is_some()
    }

    /// Every text in which names are filled in.
    fn texts(&self) -> impl Iterator<Item = &str> {
        let (query, argv): (Option<&str>, &[String]) = match &self.source {
            MetricSource::Prometheus(asked) => (Some(&asked.query), &[]),
            MetricSource::Command(argv) => (None, argv),
        };
        query.into_iter().chain(argv.iter().map(String::as_str))
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let Threshold { name, success_condition, failure_condition, interval_ms, .. } = &self.threshold;
        let good = success_condition.as_ref().map(|holds| format!("good if {holds}"));
        let bad = failure_condition.as_ref().map(|holds| format!("bad if {holds}"));
        let beside = self.compare.then(|| "beside the live version's".to_owned());
        let conditions: Vec<String> = good.into_iter().chain(bad).chain(beside).collect();
        let conditions = if conditions.is_empty() { "looked at only".to_owned() } else { conditions.join(", ") };
        let every = interval_ms.map_or_else(|| "once".to_owned(), |ms| format!("every {}", duration_text(ms)));
        let source = match &self.source {
            MetricSource::Prometheus(asked) => format!("Prometheus at {}", asked.url),
            MetricSource::Command(argv) => format!("`{}`", argv.join(" ")),
        };
        let dry = if self.threshold.dry_run { "; decides nothing" } else { "" };
        format!("{name}: {conditions}; {every}, from {source}{dry}")
    }
}

impl MetricSource {
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Command(argv) if argv.first().is_none_or(String::is_empty) => {
                Err("command: a program and its arguments, such as [python, drift.py]".to_owned())
            }
            Self::Command(_) => Ok(()),
            Self::Prometheus(PrometheusQuery { url, query, token_env, token_file }) => {
                if !(url.starts_with("http://") || url.starts_with("https://")) {
                    return Err(format!(
                        "prometheus.url: `{url}` must begin with http:// or https://, such as http://127.0.0.1:9090"
                    ));
                }
                // Plans are kept and shown.
                let authority = url.split("//").nth(1).and_then(|rest| rest.split(['/', '?', '#']).next());
                if authority.is_some_and(|authority| authority.contains('@')) {
                    return Err(
                        "prometheus.url: no password in it: `token_env` or `token_file` say where one is".to_owned()
                    );
                }
                if query.trim().is_empty() {
                    return Err("prometheus.query: PromQL that gives one number".to_owned());
                }
                if token_env.is_some() && token_file.is_some() {
                    return Err("prometheus: at most one of token_env and token_file".to_owned());
                }
                if token_file.as_ref().is_some_and(|file| !file.starts_with('/')) {
                    return Err("prometheus.token_file: an absolute path".to_owned());
                }
                Ok(())
            }
        }
    }
}

/// All metrics of a request, with their defaults.
///
/// # Errors
/// The first that makes no sense: its name, or its number from 1, and why.
pub fn metric_plans(specs: &[MetricSpec]) -> Result<Vec<MetricPlan>, (String, String)> {
    if specs.len() > MOST_METRICS {
        return Err((String::new(), format!("at most {MOST_METRICS}")));
    }
    let (mut names, mut plans) = (BTreeSet::new(), Vec::with_capacity(specs.len()));
    for (index, spec) in specs.iter().enumerate() {
        let place = || if spec.name.is_empty() { (index + 1).to_string() } else { spec.name.clone() };
        if !names.insert(spec.name.as_str()) {
            return Err((place(), "two metrics have this name; names tell them apart in reports".to_owned()));
        }
        plans.push(spec.plan().map_err(|why| (place(), why))?);
    }
    Ok(plans)
}

/// Whether a text says something else of each version.
fn names_version(text: &str) -> bool {
    let named = Cell::new(false);
    let note = |name: &str| {
        named.set(named.get() || name == "version" || name == "slot");
        None
    };
    // What cannot be filled in is refused with its own words.
    fill(text, note).is_err() || named.get()
}

/// Fills `{{name}}` in: one of [`METRIC_NAMES`]. What `value` does not know, such as the live version of a first release, is empty.
///
/// # Errors
/// When a name is not one of them, or the braces are not closed.
pub fn fill(text: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("{{") {
        let Some((name, after)) = behind.split_once("}}") else {
            return Err(format!("`{{{{` without `}}}}` in `{text}`"));
        };
        let name = name.trim();
        if !METRIC_NAMES.contains(&name) {
            return Err(format!("`{{{{{name}}}}}` is not known; there are {}", METRIC_NAMES.join(", ")));
        }
        filled.push_str(before);
        filled.push_str(&value(name).unwrap_or_default());
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(json: serde_json::Value) -> MetricSpec {
        let mut whole = json!({"name": "m", "command": ["true"], "success_condition": "result < 1"});
        for (key, value) in json.as_object().expect("an object") {
            whole[key] = value.clone();
        }
        serde_json::from_value(whole).expect("a metric")
    }

    #[test]
    fn a_metric_has_its_defaults() {
        let plan = spec(json!({})).plan().expect("a plan");
        assert_eq!((plan.during, plan.timeout_ms), (vec![During::Trial, During::Bake], 10_000));
        assert_eq!((plan.threshold.effective_count(), plan.threshold.consecutive_error_limit), (Some(1), 4));
        let often = spec(json!({"interval": "30s", "failure_limit": 2})).plan().expect("a plan");
        assert_eq!((often.threshold.interval_ms, often.threshold.effective_count()), (Some(30_000), None));
        assert_eq!(often.line(), "m: good if result < 1; every 30s, from `true`");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let asked = |url: &str, query: &str| json!({"command": null, "prometheus": {"url": url, "query": query}});
        for (wrong, part) in [
            (json!({"command": null}), "exactly one"),
            (json!({"prometheus": {"url": "http://x", "query": "y"}}), "exactly one"),
            (json!({"command": []}), "program"),
            (json!({"command": ["a", "{{verison}}"]}), "`{{verison}}` is not known"),
            (json!({"command": ["a", "{{version"]}), "without"),
            (json!({"success_condition": null}), "dry_run"),
            (json!({"compare": true, "during": ["trial", "bake"]}), "on trial only"),
            (
                json!({"compare": true, "command": null, "prometheus": {"url": "http://x", "query": "x{version=\"1\"} * {{model}}"}}),
                "of both",
            ),
            (json!({"name": "a b"}), "name"),
            (json!({"during": []}), "during"),
            (json!({"interval": "1ms"}), "interval"),
            (json!({"count": 3}), "interval"),
            (json!({"during": ["validation"], "interval": "1s"}), "count"),
            (json!({"count": 0}), "more than 0"),
            (asked("127.0.0.1:9090", "x"), "http://"),
            (asked("http://127.0.0.1:9090", " "), "PromQL"),
            (asked("https://me:secret@prometheus", "x"), "no password"),
        ] {
            let error = spec(wrong.clone()).plan().expect_err(part);
            assert!(error.contains(part), "{wrong}: {error}");
        }
        assert!(spec(json!({"success_condition": null, "dry_run": true})).plan().is_ok());
        assert!(spec(json!({"during": ["validation"], "interval": "1s", "count": 2})).plan().is_ok());
        let compared =
            spec(json!({"success_condition": null, "compare": true, "interval": "1s"})).plan().expect("a plan");
        assert_eq!((compared.compare, compared.during.as_slice()), (true, &[During::Trial][..]));
        assert_eq!(compared.line(), "m: beside the live version's; every 1s, from `true`");
        let twice = metric_plans(&[spec(json!({})), spec(json!({}))]).expect_err("twice");
        assert!(twice.0 == "m" && twice.1.contains("two metrics"), "{twice:?}");
        let unknown = serde_json::from_value::<MetricSpec>(json!({"name": "m", "successCondition": "x"}));
        assert!(unknown.is_err());
    }

    #[test]
    fn names_are_filled_in() {
        let value = |name: &str| (name == "version").then(|| "v2".to_owned());
        let query = r#"sum(rate(x{version="{{version}}",old="{{ live_version }}"}[1m]))"#;
        assert_eq!(fill(query, value).as_deref(), Ok(r#"sum(rate(x{version="v2",old=""}[1m]))"#));
        assert_eq!(fill("plain", value).as_deref(), Ok("plain"));
    }
}
