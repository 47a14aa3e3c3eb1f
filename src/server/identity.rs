//! Who asks: known by a key, by a token of an identity provider, or, while nobody has either, because only the user of this machine can.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode, header};

use super::authorise::Caller;
use super::error::{Answer, ApiError};
use super::limits::Buckets;
use crate::app::{App, key_id};
use crate::release::Person;

/// The header of the LangGraph clients.
pub(super) const KEY_HEADER: &str = "x-api-key";
/// How long what was read of a key counts: a revoked one is let in no longer than so.
const REMEMBER: Duration = Duration::from_secs(1);
/// Longest key or token, in bytes.
const LONGEST: usize = 8 * 1024;
/// Most keys that are remembered.
const MOST_REMEMBERED: usize = 1_000;
/// Wrong keys of one address: so many at once, then one in ten seconds. A secret cannot be guessed; this keeps the log short.
const WRONG_AT_ONCE: f64 = 20.0;
const WRONG_PER_SECOND: f64 = 0.1;

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub IpAddr);

struct Remembered {
    person: Person,
    at: Instant,
}

/// Knows people.
pub(super) struct Identities {
    app: Arc<App>,
    user: String,
    keys: Mutex<HashMap<String, Remembered>>,
    /// When it was last looked whether there are keys, and whether there were.
    keyed: Mutex<Option<(Instant, bool)>>,
    wrong: Buckets<IpAddr>,
}

impl Identities {
    pub fn new(app: Arc<App>, user: String) -> Self {
        let wrong = Buckets::new(WRONG_PER_SECOND, WRONG_AT_ONCE);
        Self { app, user, keys: Mutex::default(), keyed: Mutex::default(), wrong }
    }

    /// Whether only who shows something is let in. Once there has been a key it stays so.
    pub async fn are_required(&self) -> Answer<bool> {
        if self.app.identity_provider().is_some() {
            return Ok(true);
        }
        let known = *self.keyed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, keyed)) = known
            && (keyed || at.elapsed() < REMEMBER)
        {
            return Ok(keyed);
        }
        let keyed = self.app.has_keys().await?;
        *self.keyed.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), keyed));
        Ok(keyed)
    }

    /// Who sends these headers, or has logged in with this browser. `None`: nobody is shown.
    ///
    /// # Errors
    /// 401: a key or token that does not count.
    pub async fn caller(&self, headers: &HeaderMap, login: Option<&str>, peer: Option<Peer>) -> Answer<Option<Caller>> {
        if !self.are_required().await? {
            // What clients send for another server of theirs is none of ours.
            return Ok(Some(Caller::of(Person::local(&self.user))));
        }
        match (shown(headers), login) {
            (Some(shown), _) => self.shows(shown, peer).await.map(Some),
            // A login whose key counts no more is none.
            (None, Some(login)) => {
                Ok(self.known(login).await?.map(|person| Caller::of(person).with_key(key_id(login))))
            }
            (None, None) => Ok(None),
        }
    }

    /// Who shows this key or token.
    ///
    /// # Errors
    /// 401: it does not count; 429: too many that do not came from there.
    pub async fn shows(&self, shown: &str, peer: Option<Peer>) -> Answer<Caller> {
        if let Some(person) = self.known(shown).await? {
            return Ok(Caller::of(person).with_key(key_id(shown)));
        }
        self.was_wrong(peer)?;
        Err(ApiError::new(StatusCode::UNAUTHORIZED, "this key does not count: it is unknown, revoked or over"))
    }

    /// Counts a wrong key, or a wrong link. Only wrong ones are held up: behind a proxy everybody has its address.
    ///
    /// # Errors
    /// 429: too many came from there.
    pub fn was_wrong(&self, peer: Option<Peer>) -> Answer<()> {
        let Some(peer) = peer else { return Ok(()) };
        self.wrong.take(&peer.0).map_err(|wait| too_many("too many wrong keys came from your address", wait))
    }

    async fn known(&self, shown: &str) -> Answer<Option<Person>> {
        if shown.len() > LONGEST {
            return Ok(None);
        }
        {
            let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(found) = keys.get(shown).filter(|found| found.at.elapsed() < REMEMBER) {
                return Ok(Some(found.person.clone()));
            }
        }
        // Of those that are nobody's nothing is kept.
        let Some(person) = self.app.person_of(shown).await? else { return Ok(None) };
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MOST_REMEMBERED {
            keys.retain(|_, found| found.at.elapsed() < REMEMBER);
        }
        if keys.len() < MOST_REMEMBERED {
            keys.insert(shown.to_owned(), Remembered { person: person.clone(), at: Instant::now() });
        }
        Ok(Some(person))
    }
}

/// The key or token of a request.
fn shown(headers: &HeaderMap) -> Option<&str> {
    let key = headers.get(KEY_HEADER).and_then(|value| value.to_str().ok());
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    key.or(bearer).filter(|shown| !shown.is_empty())
}

/// Refused for now.
pub(super) fn too_many(what: &str, wait: Duration) -> ApiError {
    let seconds = wait.as_secs() + 1;
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, format!("{what}: ask again in {seconds} s")).after(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_either_header() {
        let headers = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            headers
        };
        assert_eq!(shown(&headers("x-api-key", "tgk_a_b")), Some("tgk_a_b"));
        assert_eq!(shown(&headers("authorization", "bearer  tgk_a_b ")), Some("tgk_a_b"));
        assert_eq!(shown(&headers("authorization", "Basic YTpi")), None);
        assert_eq!(shown(&headers("x-api-key", "")), None);
    }
}
