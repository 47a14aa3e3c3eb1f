//! People by the tokens of an OpenID Connect provider: signed by its keys, meant for us, not over.
//!
//! OpenID Connect Core 1.0, RFC 7519 (JWT), RFC 7517 (JWKS).

mod crypto;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use crate::ports::{HttpCall, HttpCaller, PortError};
use crate::release::{Person, Role};

/// How long the provider's keys count without looking again.
const KEYS_COUNT: Duration = Duration::from_secs(600);
/// A token with a key that is not known makes us look again, but no sooner than so.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How far the provider's clock may be off, in seconds.
const LEEWAY_SECONDS: u64 = 60;
/// How long the provider has for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Signatures with the provider's private key. One with a shared secret would be anybody's who has it.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// An identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OidcSettings {
    /// Its URL, as tokens name it (`iss`).
    pub issuer: String,
    /// Whom tokens must be meant for (`aud`).
    pub audience: String,
    /// Where its keys are; absent: as `ISSUER/.well-known/openid-configuration` says.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// The claim with somebody's name.
    #[serde(default = "subject")]
    pub name_claim: String,
    /// The claim with the list of their groups.
    #[serde(default = "groups")]
    pub groups_claim: String,
    /// Which groups have which role; `*` is everybody.
    pub roles: BTreeMap<Role, BTreeSet<String>>,
}

fn subject() -> String {
    "sub".to_owned()
}

fn groups() -> String {
    "groups".to_owned()
}

/// Knows people by their tokens.
pub struct OidcProvider {
    settings: OidcSettings,
    calls: Arc<dyn HttpCaller>,
    keys: Mutex<Option<Keys>>,
    /// When they could not be had: nobody waits for that twice in a row.
    failed: Mutex<Option<Instant>>,
}

struct Keys {
    set: JwkSet,
    at: Instant,
}

impl OidcProvider {
    /// Of these settings; nothing is asked yet.
    pub fn new(settings: OidcSettings, calls: Arc<dyn HttpCaller>) -> Self {
        static INSTALLED: Once = Once::new();
        // Somebody else's provider in this process would be as good.
        INSTALLED.call_once(|| {
            let _ = crypto::PROVIDER.install_default();
        });
        Self { settings, calls, keys: Mutex::default(), failed: Mutex::default() }
    }

    /// Whose token this is. `None`: nobody's, or not any more.
    ///
    /// # Errors
    /// `identity_provider`: its keys cannot be had.
    pub async fn person(&self, token: &str) -> Result<Option<Person>, PortError> {
        let Ok(header) = decode_header(token) else { return Ok(None) };
        if !ALGORITHMS.contains(&header.alg) {
            return Ok(None);
        }
        let Some(key) = self.key(header.kid.as_deref(), header.alg).await? else { return Ok(None) };
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS;
        let Ok(found) = decode::<Map<String, Value>>(token, &key, &validation) else { return Ok(None) };
        Ok(self.named(&found.claims))
    }

    fn named(&self, claims: &Map<String, Value>) -> Option<Person> {
        let name = claims.get(&self.settings.name_claim)?.as_str().filter(|name| !name.trim().is_empty())?;
        let groups: BTreeSet<String> = match claims.get(&self.settings.groups_claim) {
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Some(Value::String(one)) => [one.clone()].into(),
            _ => BTreeSet::new(),
        };
        let is_of = |of: &BTreeSet<String>| of.iter().any(|group| group == "*" || groups.contains(group));
        let roles = self.settings.roles.iter().filter(|(_, of)| is_of(of)).map(|(role, _)| *role).collect();
        Some(Person { name: name.to_owned(), roles, groups, local: false })
    }

    /// The provider's key of that id; without an id, its only one.
    async fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Option<DecodingKey>, PortError> {
        let mut keys = self.keys.lock().await;
        let known = keys.as_ref().map(|keys| (pick(&keys.set, id, algorithm), keys.at.elapsed()));
        match known {
            Some((Some(key), age)) if age < KEYS_COUNT => return Ok(Some(key)),
            // Whoever sends nonsense does not make us ask each time.
            Some((None, age)) if age < LOOK_AGAIN => return Ok(None),
            _ => {}
        }
        match self.fetch_unless_it_just_failed().await {
            Ok(set) => {
                let key = pick(&set, id, algorithm);
                *keys = Some(Keys { set, at: Instant::now() });
                Ok(key)
            }
            // Its keys of before go on to count while it does not answer.
            Err(error) => match known {
                Some((Some(key), _)) => Ok(Some(key)),
                _ => Err(error),
            },
        }
    }

    async fn fetch_unless_it_just_failed(&self) -> Result<JwkSet, PortError> {
        let mut failed = self.failed.lock().await;
        if failed.is_some_and(|at| at.elapsed() < LOOK_AGAIN) {
            return Err(wrong(&self.settings.issuer, "it has just failed, and is asked again in a moment"));
        }
        let fetched = self.fetch().await;
        *failed = fetched.is_err().then(Instant::now);
        fetched
    }

    async fn fetch(&self) -> Result<JwkSet, PortError> {
        let url = match &self.settings.jwks_url {
            Some(url) => url.clone(),
            None => {
                let at = format!("{}/.well-known/openid-configuration", self.settings.issuer.trim_end_matches('/'));
                let found = self.get(&at).await?;
                if found.get("issuer").and_then(Value::as_str) != Some(&self.settings.issuer) {
                    return Err(wrong(&at, "it names another issuer"));
                }
                let jwks = found.get("jwks_uri").and_then(Value::as_str);
                jwks.ok_or_else(|| wrong(&at, "it has no `jwks_uri`"))?.to_owned()
            }
        };
        let set = self.get(&url).await?;
        // A key of a kind that nobody knows does not hide the others.
        let known = |key: Value| serde_json::from_value(key).ok();
        let keys = set.get("keys").and_then(Value::as_array).ok_or_else(|| wrong(&url, "it has no `keys`"))?;
        Ok(JwkSet { keys: keys.iter().cloned().filter_map(known).collect() })
    }

    async fn get(&self, url: &str) -> Result<Value, PortError> {
        let call = HttpCall::get(url);
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.calls.call(&call, None)).await;
        let answer =
            answer.map_err(|_| wrong(url, "it does not answer in time"))?.map_err(|e| wrong(url, &e.message))?;
        if answer.status != 200 {
            return Err(wrong(url, &format!("it answers {}", answer.status)));
        }
        // Some send their documents as a text of another type.
        match answer.body {
            Value::String(text) => serde_json::from_str(&text).map_err(|_| wrong(url, "it answers with no JSON")),
            body => Ok(body),
        }
    }
}

fn pick(set: &JwkSet, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
    let jwk = match (id, set.keys.as_slice()) {
        (Some(id), _) => set.find(id)?,
        (None, [only]) => only,
        (None, _) => return None,
    };
    // A key says what it is for: no token chooses that.
    let meant = jwk.common.key_algorithm.and_then(|of| of.to_string().parse::<Algorithm>().ok());
    if meant.is_some_and(|meant| meant != algorithm) {
        return None;
    }
    DecodingKey::from_jwk(jwk).ok().filter(|key| key.family() == algorithm.family())
}

fn wrong(url: &str, why: &str) -> PortError {
    PortError::new("identity_provider", format!("the identity provider's {url} cannot be used: {why}"))
}
