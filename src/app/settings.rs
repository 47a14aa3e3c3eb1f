//! What the operator of a home has set: `config.yaml`.

use std::net::SocketAddr;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::webhooks::MOST_HOOKS;
use super::{Home, RunWebhookSettings, Unreadable, WebhookSettings, host_failure, read_text};
use crate::adapters::oidc::OidcSettings;
use crate::graph::Failure;
use crate::host::HostConfig;
use crate::ports::Expressions;
use crate::release::Policy;
use crate::workflow::Cel;

/// Larger files are no settings.
const MAX_BYTES: u64 = 1024 * 1024;

/// The file's content. Every key may be absent.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// When a human must decide.
    pub policy: Policy,
    /// Where the public endpoint listens, e.g. `127.0.0.1:7311`.
    pub public_addr: Option<SocketAddr>,
    /// Whose tokens the server takes, beside its own keys.
    pub oidc: Option<OidcSettings>,
    /// Who is told of releases and approvals, by the server.
    pub webhooks: Vec<WebhookSettings>,
    /// Where the ends of single runs may be told, by the server.
    pub run_webhooks: RunWebhookSettings,
    /// Under which address people reach the server's pages, e.g. `https://tidegate.example.org`.
    pub public_url: Option<String>,
}

impl Settings {
    /// Reads the file; a missing one is all defaults.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = match read_text(path, MAX_BYTES) {
            Ok(text) => text,
            Err(Unreadable::Missing) => return Ok(Self::default()),
            Err(e) => return Err(wrong(path, &e.to_string())),
        };
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let settings: Self = serde_saphyr::from_str(&text).map_err(|e| wrong(path, &e.to_string()))?;
        match settings.fault() {
            Some(fault) => Err(wrong(path, &fault)),
            None => Ok(settings),
        }
    }

    /// What can be read and makes no sense.
    fn fault(&self) -> Option<String> {
        let names = ["plan", "environment", "evidence"];
        let conditions = self.policy.gates.iter().filter_map(|gate| Some((&gate.name, gate.when.as_ref()?)));
        let wrong = |(gate, when): (&String, &String)| {
            Cel.check(when, &names).err().map(|e| format!("gate \"{gate}\": `when`: {}", e.message))
        };
        let hook = |hook: &WebhookSettings| hook.fault().map(|why| format!("webhook \"{}\": {why}", hook.name));
        let faults = self.policy.fault().into_iter().chain(conditions.filter_map(wrong));
        let of_runs = self.run_webhooks.fault().map(|why| format!("run_webhooks: {why}"));
        let many = (self.webhooks.len() > MOST_HOOKS).then(|| format!("there are more than {MOST_HOOKS} webhooks"));
        faults.chain(self.webhooks.iter().filter_map(hook)).chain(of_runs).chain(many).next()
    }

    /// Which host daemon the home has. `public_addr`, where one is given, wins over the file's.
    pub fn host(&self, home: &Home, public_addr: Option<SocketAddr>) -> Result<HostConfig, Failure> {
        let config = HostConfig::new(home.dir()).map_err(|e| host_failure(&e))?;
        Ok(HostConfig { public_addr: public_addr.or(self.public_addr), ..config })
    }
}

fn wrong(path: &Path, why: &str) -> Failure {
    Failure::new("settings_invalid", format!("{} cannot be read", path.display()))
        .because(why)
        .hint("mend the file; `tidegate schema settings` describes it")
}
