//! API keys: made, shown once, known again by their digest, revoked.

use chrono::{DateTime, Utc};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

use super::App;
use crate::graph::Failure;
use crate::release::{Person, Role};
pub use crate::store::KeyRow;
use crate::store::NewKey;

/// What every key begins with, so that people and scanners of repositories know one.
const PREFIX: &str = "tgk_";
/// Longest name of a holder or a group, in characters.
const LONGEST_NAME: usize = 64;
/// Random bytes of an id, which only has to be told from others, and of a secret, which nobody may guess.
pub(super) const ID_BYTES: usize = 6;
pub(super) const SECRET_BYTES: usize = 32;

/// For whom a key is made.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyWanted {
    /// Whose it is: the name that records get.
    pub holder: String,
    /// What they may do; at least one.
    pub roles: Vec<Role>,
    /// The groups that they are in.
    pub groups: Vec<String>,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
}

impl App {
    /// Makes a key. The text is shown this once: only its digest is kept.
    ///
    /// # Errors
    /// `key_invalid`: a name that is none, or no role.
    pub async fn create_key(&self, wanted: KeyWanted, by: &str) -> Result<(KeyRow, String), Failure> {
        let invalid = |why: String| {
            Failure::new("key_invalid", "this key cannot be made")
                .because(why)
                .hint("see `tidegate keys create --help`")
        };
        for name in std::iter::once(&wanted.holder).chain(&wanted.groups) {
            let fits = name.chars().count() <= LONGEST_NAME && !name.chars().any(char::is_control);
            if name.trim().is_empty() || name.trim() != name || !fits {
                return Err(invalid(format!("{name:?} is no name: 1 to {LONGEST_NAME} characters, none of control")));
            }
        }
        let at = Utc::now();
        if wanted.roles.is_empty() {
            return Err(invalid("it has no role".to_owned()));
        }
        if wanted.expires_at.is_some_and(|end| end <= at) {
            return Err(invalid("it would have ended already".to_owned()));
        }
        let (id, secret) = (random_hex::<ID_BYTES>()?, random_hex::<SECRET_BYTES>()?);
        let KeyWanted { holder, mut roles, mut groups, expires_at } = wanted;
        roles.sort();
        roles.dedup();
        groups.sort();
        groups.dedup();
        let roles = roles.into_iter().map(|role| role.word().to_owned()).collect();
        let by = by.to_owned();
        let new = NewKey { id: id.clone(), holder, roles, groups, digest: digest(&secret), expires_at, at, by };
        let row = self.sqlite.add_key(new).await.map_err(|e| e.failure())?;
        Ok((row, format!("{PREFIX}{id}_{secret}")))
    }

    /// All keys, oldest first, revoked ones too.
    pub async fn keys(&self) -> Result<Vec<KeyRow>, Failure> {
        self.sqlite.keys().await.map_err(|e| e.failure())
    }

    /// Revokes a key, by its id or by its whole text.
    ///
    /// # Errors
    /// `key_unknown`.
    pub async fn revoke_key(&self, meant: &str, by: &str) -> Result<KeyRow, Failure> {
        let id = parts(PREFIX, meant).map_or(meant, |(id, _)| id);
        let found = self.sqlite.revoke_key(id, by, Utc::now()).await.map_err(|e| e.failure())?;
        found.ok_or_else(|| {
            Failure::new("key_unknown", format!("there is no key {id}")).hint("`tidegate keys list` shows all of them")
        })
    }

    /// Whether there has ever been a key: then nobody is let in without one.
    pub async fn has_keys(&self) -> Result<bool, Failure> {
        self.sqlite.has_keys().await.map_err(|e| e.failure())
    }

    /// Who shows this key. `None`: nobody's, or not any more.
    pub async fn holder_of(&self, shown: &str) -> Result<Option<Person>, Failure> {
        let Some((id, secret)) = parts(PREFIX, shown) else { return Ok(None) };
        let row = self.sqlite.key(id).await.map_err(|e| e.failure())?;
        Ok(row.filter(|row| fits(row, secret) && counts(row, Utc::now())).map(|row| person(&row)))
    }

    /// Somebody by their name, with what all of their keys that count now let them do. `None`: they have none. Whom only an identity provider
    /// knows has none: only the provider could say who they still are.
    pub(super) async fn keyed_person(&self, name: &str) -> Result<Option<Person>, Failure> {
        let now = Utc::now();
        let all = self.keys().await?;
        let of_theirs = all.iter().filter(|row| row.holder == name && counts(row, now)).map(person);
        Ok(of_theirs.reduce(|mut all, one| {
            all.roles.extend(one.roles);
            all.groups.extend(one.groups);
            all
        }))
    }

    /// Whose key has this id. `None`: nobody's, or not any more.
    pub async fn holder_of_key(&self, id: &str) -> Result<Option<Person>, Failure> {
        let row = self.sqlite.key(id).await.map_err(|e| e.failure())?;
        Ok(row.filter(|row| counts(row, Utc::now())).map(|row| person(&row)))
    }

    /// Who shows this key, or this token of the identity provider. `None`: nobody's, or not any more.
    pub async fn person_of(&self, shown: &str) -> Result<Option<Person>, Failure> {
        match &self.oidc {
            Some(provider) if !shown.starts_with(PREFIX) => {
                provider.person(shown).await.map_err(|e| Failure::new(&e.code, e.message))
            }
            _ => self.holder_of(shown).await,
        }
    }
}

/// Whether a key counts at `now`.
pub fn counts(row: &KeyRow, now: DateTime<Utc>) -> bool {
    row.revoked_at.is_none() && row.expires_at.is_none_or(|end| now < end)
}

/// Id and secret of a text that begins with `prefix`.
pub(super) fn parts<'t>(prefix: &str, text: &'t str) -> Option<(&'t str, &'t str)> {
    text.trim().strip_prefix(prefix)?.split_once('_')
}

/// The id of a key's text, which is no secret; `None`: it is no key.
pub fn key_id(shown: &str) -> Option<String> {
    parts(PREFIX, shown).map(|(id, _)| id.to_owned())
}

/// Compares digests, so that the time it takes tells nothing of the secret.
fn fits(row: &KeyRow, secret: &str) -> bool {
    row.digest == digest(secret)
}

fn person(row: &KeyRow) -> Person {
    Person {
        name: row.holder.clone(),
        roles: row.roles.iter().filter_map(|word| Role::parse(word)).collect(),
        groups: row.groups.iter().cloned().collect(),
        local: false,
    }
}

/// A secret has all the randomness that a digest can hold, so that a slow one would protect nothing.
pub(super) fn digest(secret: &str) -> String {
    hex(&Sha256::digest(secret))
}

/// So many random bytes, as hex.
pub(super) fn random_hex<const N: usize>() -> Result<String, Failure> {
    let mut bytes = [0; N];
    let random = SystemRandom::new().fill(&mut bytes);
    random.map_err(|_| Failure::new("no_randomness", "this machine gives no random numbers"))?;
    Ok(hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing into a text does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_an_id_and_a_secret() {
        assert_eq!(parts(PREFIX, "tgk_abc_def\n"), Some(("abc", "def")));
        assert!(["lsv2_abc", "tgk_abc", ""].iter().all(|text| parts(PREFIX, text).is_none()));
        assert_ne!(random_hex::<32>().unwrap(), random_hex::<32>().unwrap());
        assert_eq!(random_hex::<6>().unwrap().len(), 12);
    }
}
