//! Webhooks of single runs: whoever starts a run of the server names where its end is told. Such a request is made by the server, from where the
//! server is, so it goes only where the operator says that it may.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{SecondsFormat, Utc};
use reqwest::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::deliver::{Message, next_attempt};
use super::pause;
use crate::app::App;
use crate::graph::{Failure, Stop};
use crate::ports::SecretSource;
use crate::store::{RunWebhookDue, RunWebhookRow};

/// Most messages under way at once, and most of them to one place: one that does not answer holds up only its own.
const AT_ONCE: usize = 16;
const AT_ONE_PLACE: usize = 4;
/// Most messages to each place that one look finds: those under way, and those that come next.
const DUE: usize = 2 * AT_ONE_PLACE;
/// Most messages that wait for somebody who does not take them. As long as there are so many no run is accepted that wants another one.
const MOST_WAITING: u64 = 10_000;
/// Longest address, in bytes.
const LONGEST: usize = 2_048;

/// Where the ends of runs may be told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunWebhookSettings {
    /// What the `webhook` of a run may begin with, such as `https://ops.example.org/tidegate`; none: runs may have no webhook.
    pub allow: Vec<String>,
    /// What signs what they are told: `whsec_` with base64, or any text.
    pub secret: Option<SecretSource>,
}

impl RunWebhookSettings {
    /// What makes no sense in it.
    pub fn fault(&self) -> Option<String> {
        if let Some(fault) = self.secret.as_ref().and_then(SecretSource::fault) {
            return Some(fault.to_owned());
        }
        let wrong = |prefix: &String| match address(prefix) {
            Ok(url) if url.query().is_some() => {
                Some(format!("`{prefix}` has a query: paths are compared, and no queries"))
            }
            Ok(_) => None,
            Err(why) => Some(format!("`{prefix}` {why}")),
        };
        self.allow.iter().find_map(wrong)
    }

    /// Whether a run may name this address.
    ///
    /// # Errors
    /// Why not.
    pub fn permits(&self, wanted: &str) -> Result<(), String> {
        if self.allow.is_empty() {
            return Err("runs may have no webhook here: nothing is allowed under `run_webhooks: allow` in config.yaml"
                .to_owned());
        }
        let url = address(wanted)?;
        let begins = |prefix: &String| address(prefix).is_ok_and(|prefix| is_below(&url, &prefix));
        match self.allow.iter().any(begins) {
            true => Ok(()),
            false => Err("is not below any address under `run_webhooks: allow` in config.yaml".to_owned()),
        }
    }
}

/// An address that a request can be made to; dots in its path are resolved.
fn address(text: &str) -> Result<Url, String> {
    if text.len() > LONGEST {
        return Err(format!("is longer than {LONGEST} bytes"));
    }
    let url =
        Url::parse(text).map_err(|_| "is no http:// or https:// URL; paths of this server are none".to_owned())?;
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
        return Err("is no http:// or https:// URL".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a name or a password".to_owned());
    }
    let path = url.path().to_ascii_lowercase();
    if ["%2f", "%5c", "%2e", "%25", "%00", ";"].iter().any(|hidden| path.contains(hidden)) {
        return Err("has a path that others may read otherwise: an encoded `/`, `\\`, `.` or `%`, or a `;`".to_owned());
    }
    Ok(url)
}

/// Scheme, host and port of an address; empty: it is none.
pub fn webhook_place(url: &str) -> String {
    Url::parse(url).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
}

/// Whether `url` is at the same place as `prefix`, and its path the prefix's or one below it.
fn is_below(url: &Url, prefix: &Url) -> bool {
    let path = prefix.path().trim_end_matches('/');
    let rest = url.path().strip_prefix(path);
    url.origin() == prefix.origin() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl App {
    /// Whether a run may have this webhook.
    ///
    /// # Errors
    /// `webhook_refused`: it may not, or too many wait already.
    pub async fn admits_webhook(&self, url: &str) -> Result<(), Failure> {
        let refused = |why: String| {
            Failure::new("webhook_refused", "a run with this `webhook` is not accepted")
                .because(why)
                .hint("join the run, or follow its stream; or let the operator of the server allow the address")
        };
        self.run_webhooks.permits(url).map_err(|why| refused(format!("`{url}`: {why}")))?;
        if self.sqlite.run_webhooks_waiting().await.map_err(|e| e.failure())? >= MOST_WAITING {
            return Err(refused(format!("{MOST_WAITING} messages wait for receivers that do not take them")));
        }
        Ok(())
    }

    /// Tells of one run. Whatever comes of it is in the database afterwards.
    async fn tell_of_run(&self, due: &RunWebhookDue) -> Result<(), Failure> {
        let of = |e: crate::graph::StoreError| e.failure();
        let Some(row) = self.sqlite.run_webhook(&due.run).await.map_err(of)? else { return Ok(()) };
        let RunWebhookRow { run, url, mut body, attempts } = row;
        if let Err(why) = self.run_webhooks.permits(&url) {
            tracing::error!(run, "nobody is told of the end of this run: its webhook {why}");
            return self.sqlite.drop_run_webhook(&run).await.map_err(of);
        }
        body["webhook_sent_at"] = Value::from(Utc::now().to_rfc3339_opts(SecondsFormat::Micros, false));
        let (name, id, secret) = ("run_webhooks", format!("msg_run_{run}"), self.run_webhooks.secret.as_ref());
        let Err(why) = self.deliver(Message { name, id, url: &url, secret, body }).await else {
            return self.sqlite.drop_run_webhook(&run).await.map_err(of);
        };
        match next_attempt(attempts, Utc::now()) {
            Some(next_at) => {
                tracing::warn!(run, "the webhook of a run waits: {why}");
                self.sqlite.delay_run_webhook(&run, next_at).await.map_err(of)
            }
            None => {
                tracing::error!(run, "the webhook of this run was not told of its end, and never will be: {why}");
                self.sqlite.drop_run_webhook(&run).await.map_err(of)
            }
        }
    }
}

/// Tells of runs that have ended, until it is asked to stop. What is under way then is told again by the next server.
pub(super) async fn keep_telling(app: Arc<App>, mut stop: watch::Receiver<Stop>) {
    let mut tasks = JoinSet::new();
    // Runs whose webhook is just being told, each with where.
    let mut busy: HashMap<String, String> = HashMap::new();
    loop {
        while let Some(ended) = tasks.try_join_next() {
            match ended {
                Ok(run) => drop(busy.remove::<String>(&run)),
                Err(error) => tracing::error!(%error, "the webhook of a run was not told"),
            }
        }
        let due = app.sqlite.run_webhooks_due(Utc::now(), DUE).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "nobody is told of runs");
            Vec::new()
        });
        for due in due {
            let there = busy.values().filter(|other| **other == due.place).count();
            if busy.len() >= AT_ONCE || there >= AT_ONE_PLACE || busy.contains_key(&due.run) {
                continue;
            }
            busy.insert(due.run.clone(), due.place.clone());
            let app = app.clone();
            tasks.spawn(async move {
                if let Err(failure) = app.tell_of_run(&due).await {
                    tracing::warn!(run = due.run, code = failure.code, "the webhook of a run waits: {failure}");
                }
                due.run
            });
        }
        if !pause(&mut stop).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowing(prefixes: &[&str]) -> RunWebhookSettings {
        RunWebhookSettings { allow: prefixes.iter().map(|&prefix| prefix.to_owned()).collect(), secret: None }
    }

    #[test]
    fn only_what_the_operator_allows() {
        let settings = allowing(&["https://ops.example.org/tidegate", "http://127.0.0.1:8080"]);
        for url in [
            "https://ops.example.org/tidegate",
            "https://ops.example.org:443/tidegate/runs?token=1",
            "https://OPS.example.org/tidegate/",
            "http://127.0.0.1:8080/anything",
        ] {
            assert_eq!(settings.permits(url), Ok(()), "{url}");
        }
        for url in [
            "https://ops.example.org/",
            "https://ops.example.org/tidegate2",
            "https://ops.example.org/tidegate/../admin",
            "https://ops.example.org/tidegate/%2e%2e/admin",
            "https://ops.example.org/tidegate/..%2fadmin",
            "https://ops.example.org/tidegate/..%5Cadmin",
            "https://ops.example.org/tidegate/..;/admin",
            "https://ops.example.org/tidegate/%252e%252e/admin",
            "http://ops.example.org/tidegate",
            "https://ops.example.org.evil.example/tidegate",
            "https://ops.example.org@evil.example/tidegate",
            "https://a:b@ops.example.org/tidegate",
            "https://ops.example.org:8443/tidegate",
            "http://169.254.169.254/latest/meta-data",
            "http://127.0.0.1/",
            "http://localhost:8080/",
            "/runs",
            "ftp://127.0.0.1:8080/",
            "",
        ] {
            assert!(settings.permits(url).is_err(), "{url}");
        }
        assert!(allowing(&[]).permits("https://ops.example.org/tidegate").unwrap_err().contains("nothing is allowed"));
    }

    #[test]
    fn a_prefix_that_is_no_address_is_a_mistake() {
        assert!(allowing(&["https://ops.example.org/tidegate/"]).fault().is_none());
        for prefix in ["ops.example.org", "https://", "*", "https://a:b@x.example.org", "https://x.example.org/?a=b"] {
            assert!(allowing(&[prefix]).fault().is_some(), "{prefix}");
        }
    }
}
