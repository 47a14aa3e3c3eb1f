//! Links that decide: each one question, once, as one person, on what was asked when it was made. Whoever has the link is that person for
//! this one thing, so it is kept as a key is: its digest alone.

use chrono::{TimeDelta, Utc};

use super::keys::{ID_BYTES, SECRET_BYTES, digest, parts, random_hex};
use super::{App, Decide, Decided, OpenQuestion};
use crate::graph::{Answer, Claim, Failure, claim};
use crate::release::{Person, Role, Verdict, units};
pub use crate::store::LinkRow;
use crate::store::{LinkBounds, LinkUse};

/// What every link's text begins with, so that people and scanners of repositories know one.
const PREFIX: &str = "tgl_";
/// Under which path of the server links are.
pub const LINK_PATH: &str = "/l/";
/// How long a link counts where nobody says otherwise, in milliseconds: a day.
pub const LINK_TTL_MS: u64 = 24 * 3_600_000;
/// The longest time that one may be given, in milliseconds: mail is kept, and read by others, for longer than anybody remembers.
const LONGEST_TTL_MS: u64 = 30 * 24 * 3_600_000;
/// What decisions with a link say that they came through.
const VIA: &str = "link";

/// For whom a link is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkWanted {
    /// As whom it decides: a holder of a key.
    pub holder: String,
    /// How long it counts, in milliseconds; never longer than its question stands.
    pub ttl_ms: u64,
    /// Who makes it.
    pub by: String,
    /// Who makes it for themselves, with what they have shown: it can do no more than that, whatever other keys of theirs can.
    pub within: Option<Person>,
}

/// A link with what it is about, as that is now.
#[derive(Debug, Clone)]
pub struct Linked {
    /// The link.
    pub link: LinkRow,
    /// What it decides.
    pub question: OpenQuestion,
    /// As whom it decides, with what their keys let them do now.
    pub person: Person,
}

impl Linked {
    /// Whether something else is asked now than when it was made: then it decides nothing.
    pub fn is_outdated(&self) -> bool {
        self.question.interrupt.digest != self.link.shown
    }
}

/// A link as people follow it; `base`: where they reach the server.
pub fn link_url(base: &str, token: &str) -> String {
    format!("{}{LINK_PATH}{token}", base.trim_end_matches('/'))
}

impl App {
    /// Makes a link for a question. The text is shown this once: only its digest is kept.
    ///
    /// # Errors
    /// `link_invalid`: a time out of bounds, somebody whose keys let them decide nothing, too many links; `not_an_approval`;
    /// `already_decided`, `withdrawn`, `expired`.
    pub async fn make_link(&self, question: &OpenQuestion, wanted: LinkWanted) -> Result<(LinkRow, String), Failure> {
        let asked = &question.interrupt;
        if question.approval.is_none() {
            return Err(Failure::new("not_an_approval", format!("question {} asks for something else", asked.id))
                .hint("links decide releases; an answer to a workflow's question needs a key"));
        }
        let LinkWanted { holder, ttl_ms, by, within } = wanted;
        let at = Utc::now();
        // What is over is told before what is wrong.
        let nothing = Answer { value: serde_json::Value::Null, by: by.clone(), via: VIA.to_owned(), at };
        claim(asked, &nothing, None).map_err(|e| e.failure())?;
        let invalid = |why: String| {
            Failure::new("link_invalid", "this link cannot be made")
                .because(why)
                .hint("see `tidegate approvals link --help`")
        };
        if !(1..=LONGEST_TTL_MS).contains(&ttl_ms) {
            return Err(invalid(format!("it would count for {}; at most 30d", units::duration_text(ttl_ms))));
        }
        let within = within.map(|shown| LinkBounds {
            roles: shown.roles.iter().map(|role| role.word().to_owned()).collect(),
            groups: shown.groups.into_iter().collect(),
        });
        let person = self.keyed_person(&holder).await?.map(|person| held_to(person, within.as_ref()));
        if !person.is_some_and(|person| decides(&person)) {
            let why =
                format!("{holder:?} holds no key that counts and may decide: a link decides by its person's keys");
            return Err(invalid(why));
        }
        let ends = at + TimeDelta::milliseconds(i64::try_from(ttl_ms).unwrap_or(i64::MAX / 2));
        let expires_at = asked.expires_at.map_or(ends, |end| end.min(ends));
        let (id, secret) = (random_hex::<ID_BYTES>()?, random_hex::<SECRET_BYTES>()?);
        let row = LinkRow {
            id: id.clone(),
            question: asked.id.clone(),
            shown: asked.digest.clone(),
            holder,
            within,
            digest: digest(&secret),
            created_at: at,
            created_by: by,
            expires_at,
            used: None,
        };
        if !self.sqlite.add_link(row.clone()).await.map_err(|e| e.failure())? {
            return Err(invalid("so many links of this question can still be used that no more is made".to_owned()));
        }
        Ok((row, format!("{PREFIX}{id}_{secret}")))
    }

    /// The link of this text, with its question and its person as they are now.
    ///
    /// # Errors
    /// `link_unknown`: nobody's; `link_over`: its time is over; `link_powerless`: its person's keys let them decide nothing now.
    pub async fn linked(&self, token: &str) -> Result<Linked, Failure> {
        let unknown = || {
            Failure::new("link_unknown", "there is no such link")
                .hint("follow it as it was sent, whole; or log in, and decide there")
        };
        let (id, secret) = parts(PREFIX, token).ok_or_else(unknown)?;
        let link = self.sqlite.link(id).await.map_err(|e| e.failure())?;
        let link = link.filter(|link| link.digest == digest(secret)).ok_or_else(unknown)?;
        if link.expires_at <= Utc::now() {
            let ended = link.expires_at.format("%Y-%m-%d %H:%M:%S UTC");
            return Err(Failure::new("link_over", format!("this link counted until {ended}"))
                .hint("log in and decide there, or ask for another link"));
        }
        let person = self.keyed_person(&link.holder).await?.map(|person| held_to(person, link.within.as_ref()));
        let person = person.filter(decides).ok_or_else(|| {
            Failure::new("link_powerless", format!("{} may not decide any more, and so may not this link", link.holder))
                .because("a link decides by its person's keys, and none of them counts for this now")
                .hint("let somebody decide who may")
        })?;
        let asked = self.store.interrupt(&link.question).await.map_err(|e| e.failure())?.ok_or_else(unknown)?;
        Ok(Linked { link, question: asked.into(), person })
    }

    /// A link by its id, its text or its whole address, whatever became of it.
    ///
    /// # Errors
    /// `link_unknown`.
    pub async fn find_link(&self, meant: &str) -> Result<LinkRow, Failure> {
        let text = meant.rsplit('/').next().unwrap_or(meant);
        let id = parts(PREFIX, text).map_or(text, |(id, _)| id);
        let found = self.sqlite.link(id).await.map_err(|e| e.failure())?;
        found.ok_or_else(|| {
            Failure::new("link_unknown", "there is no such link")
                .hint("the audit names each (`link_made`): `tidegate audit export`")
        })
    }

    /// Lets a link count no more; one that was used, or has ended, stays as it is.
    pub async fn revoke_link(&self, link: &LinkRow, by: &str) -> Result<LinkRow, Failure> {
        let ended = self.sqlite.revoke_link(&link.id, by, Utc::now()).await.map_err(|e| e.failure())?;
        Ok(ended.unwrap_or_else(|| link.clone()))
    }

    /// Decides with a link as its person: everything that holds for them holds here. It is used up by the word that it carries. It overrides no
    /// freeze: for that one shows one's key.
    ///
    /// # Errors
    /// Those of [`App::decide`]; `link_used`: it was used before.
    pub async fn decide_by_link(
        &self,
        linked: &Linked,
        verdict: Verdict,
        reason: Option<String>,
    ) -> Result<Decided, Failure> {
        let Linked { link, question, person } = linked;
        if let Some(used) = used(link) {
            return Err(used);
        }
        if linked.is_outdated() {
            return Err(Failure::new("decision_outdated", "something else is asked now than when this link was made")
                .hint("nothing was recorded: log in and decide there, or ask for another link"));
        }
        let digest = question.approval.as_ref().map(|approval| approval.digest.clone());
        let (who, via) = (person.clone(), VIA.to_owned());
        let decide = Decide { verdict, who, via, reason, digest, overrides: false };
        self.decide_with(question, decide, Some(&link.id)).await
    }

    /// Records answers with a link, which is used up.
    pub(super) async fn answered_by(&self, link: LinkUse, claims: Vec<Claim>) -> Result<(), Failure> {
        match self.sqlite.answer_by_link(link.clone(), claims).await.map_err(|e| e.failure())? {
            true => Ok(()),
            false => Err(self.used_before(Some(link)).await),
        }
    }

    /// What is told where a link was used in this very moment.
    pub(super) async fn used_before(&self, link: Option<LinkUse>) -> Failure {
        let known = match &link {
            Some(link) => self.sqlite.link(&link.id).await.ok().flatten(),
            None => None,
        };
        known.as_ref().and_then(used).unwrap_or_else(|| Failure::new("link_used", "this link was used before"))
    }
}

/// Whether somebody has a role that decides.
fn decides(person: &Person) -> bool {
    [Role::Approver, Role::Admin].iter().any(|role| person.roles.contains(role))
}

/// The person with no more than the bounds allow.
fn held_to(mut person: Person, within: Option<&LinkBounds>) -> Person {
    if let Some(LinkBounds { roles, groups }) = within {
        person.roles.retain(|role| roles.iter().any(|word| word == role.word()));
        person.groups.retain(|group| groups.contains(group));
    }
    person
}

fn used(link: &LinkRow) -> Option<Failure> {
    let (at, verdict) = link.used.as_ref()?;
    let word = if verdict == "approve" { "yes" } else { "no" };
    let at = at.format("%Y-%m-%d %H:%M:%S UTC");
    Some(
        Failure::new("link_used", format!("this link was used: {} said {word} at {at}", link.holder))
            .hint("nothing more to do; a link counts once"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_can_do_no_more_than_who_made_it() {
        let mut person = Person::local("ann");
        person.groups = ["leads".to_owned(), "night".to_owned()].into();
        let bounds = LinkBounds { roles: vec!["approver".into()], groups: vec!["night".into(), "other".into()] };
        let held = held_to(person.clone(), Some(&bounds));
        assert_eq!((held.roles, held.groups), ([Role::Approver].into(), ["night".to_owned()].into()));
        assert_eq!(held_to(person.clone(), None), person);
    }

    #[test]
    fn a_link_is_under_where_people_reach_the_server() {
        assert_eq!(link_url("https://t.example.org/", "tgl_a_b"), "https://t.example.org/l/tgl_a_b");
        assert_eq!(link_url("http://127.0.0.1:7310", "tgl_a_b"), "http://127.0.0.1:7310/l/tgl_a_b");
        assert_eq!(parts(PREFIX, "tgl_a_b"), Some(("a", "b")));
        assert!(parts(PREFIX, "tgk_a_b").is_none(), "a key is no link");
    }
}
