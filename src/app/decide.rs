//! Decisions at gates: who may, what is enough, and what is recorded.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::runs::{APPROVED_BY, to_value};
use super::{App, OpenQuestion};
use crate::graph::{Failure, InterruptId, ThreadId};
use crate::release::{Casting, Decision, Format, Person, Policy, Quorum, Standing, Terms, Verdict, Vote};
use crate::store::{LinkUse, NewVote, Settle};

/// A decision on a question.
#[derive(Debug, Clone)]
pub struct Decide {
    /// Yes or no.
    pub verdict: Verdict,
    /// Who.
    pub who: Person,
    /// Through what.
    pub via: String,
    /// Why.
    pub reason: Option<String>,
    /// Digest of what was shown; `None`: as it is now.
    pub digest: Option<String>,
    /// It is meant although nothing is released at this time.
    pub overrides: bool,
}

impl Decide {
    /// The yes that was given when the release was begun, by the user of this machine.
    pub fn in_advance(by: String) -> Self {
        let reason = Some("approved by --yes".to_owned());
        let (verdict, who, via) = (Verdict::Approve, Person::local(by), "--yes".to_owned());
        Self { verdict, who, via, reason, digest: None, overrides: false }
    }
}

/// What came of a decision.
#[derive(Debug, Clone)]
pub struct Decided {
    /// The thread.
    pub thread: ThreadId,
    /// A living process that waits for the answer and goes on by itself.
    pub attended_by: Option<String>,
    /// Whose word is still missing; empty: it is decided.
    pub missing: Vec<Quorum>,
}

/// How a question stands.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// What people have said.
    pub votes: Vec<Vote>,
    /// Whose word is missing.
    pub missing: Vec<Quorum>,
}

/// Whether a failure says that somebody's word does not count now; the question stands.
pub fn is_refusal(failure: &Failure) -> bool {
    ["own_request", "not_an_approver", "frozen", "decision_unexplained"].contains(&failure.code.as_str())
}

/// For people: what is still missing.
pub fn missing_words(missing: &[Quorum]) -> String {
    missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl App {
    /// Decides an approval. The first decision wins; a later one is told who decided. Where the rule wants several people it is one word of
    /// them. Where no other process attends the thread, a decided one is the caller's to advance.
    ///
    /// # Errors
    /// `own_request`, `not_an_approver`, `frozen`, `decision_unexplained`: who may not, or not so; `decision_outdated`: something else was
    /// shown; `already_decided`, `expired`, `withdrawn`.
    pub async fn decide(&self, question: &OpenQuestion, decide: Decide) -> Result<Decided, Failure> {
        self.decide_with(question, decide, None).await
    }

    /// The same, with a link that is used up by it.
    pub(super) async fn decide_with(
        &self,
        question: &OpenQuestion,
        decide: Decide,
        link: Option<&str>,
    ) -> Result<Decided, Failure> {
        let asked = &question.interrupt;
        let Some(approval) = &question.approval else {
            return Err(Failure::new("not_an_approval", format!("question {} asks for something else", asked.id))
                .hint(format!("answer it with `tidegate run resume {} --value JSON`", asked.thread)));
        };
        let at = Utc::now();
        let mut decision = Decision {
            format: Format,
            verdict: decide.verdict,
            by: decide.who.name.clone(),
            at,
            reason: decide.reason.clone(),
            digest: decide.digest.clone().unwrap_or_else(|| approval.digest.clone()),
            votes: Vec::new(),
        };
        // What is over is told before who may decide, and what is wrong before it is counted.
        let claim = |decision: &Decision| Ok::<_, Failure>(vec![(asked.clone(), to_value(decision)?)]);
        let mut claims = self.admitted(claim(&decision)?, &decision.by, &decide.via).await?;
        decision.check(&approval.digest).map_err(|e| Failure::new(e.code(), e.to_string()))?;
        let terms = approval.evidence.terms.clone();
        let vote = self.vote_of(question, terms.as_ref(), &decide, at)?;
        let thread = self.thread(&asked.thread).await?;
        let attended_by = self.other_attendant(&thread).map(ToString::to_string);
        let link = match link {
            Some(id) => Some(LinkUse { id: id.to_owned(), verdict: verdict_word(decide.verdict)?, at }),
            None => None,
        };
        let missing = if let Some(terms) = terms {
            self.voted(question, vote, (terms, link), decision).await?
        } else {
            if vote.overrides.is_some() {
                decision.votes = vec![vote];
                claims = self.admitted(claim(&decision)?, &decision.by, &decide.via).await?;
            }
            match link {
                Some(link) => self.answered_by(link, claims).await?,
                None => self.answer_all(claims).await?,
            }
            Vec::new()
        };
        if missing.is_empty() && attended_by.is_none() && !self.is_advanced(&thread) {
            // Only the one whose decision counts goes on with it.
            self.store.attend(&asked.thread, Some(&self.owner)).await.map_err(|e| e.failure())?;
        }
        Ok(Decided { thread: thread.id, attended_by, missing })
    }

    /// Their word, if it counts by the operator's rules of this moment.
    fn vote_of(
        &self,
        question: &OpenQuestion,
        terms: Option<&Terms>,
        decide: &Decide,
        at: DateTime<Utc>,
    ) -> Result<Vote, Failure> {
        // Read afresh: a freeze and who is in which group count from now on, whoever has been running since when.
        let policy: Policy = self.world.policy.policy()?;
        let evidence = question.approval.as_ref().map(|approval| &approval.evidence);
        let said = Casting {
            person: &decide.who,
            requested_by: evidence.and_then(|evidence| evidence.requested_by.as_deref()),
            environment: evidence.and_then(|evidence| evidence.environment.as_deref()),
            verdict: decide.verdict,
            reason: decide.reason.as_deref(),
            overrides: decide.overrides,
            at,
            via: &decide.via,
        };
        policy.cast(terms, &said).map_err(|e| Failure::new(e.code(), e.to_string()).hint(e.hint()))
    }

    /// Adds one word to what has been said; what is then enough is the decision. Gives what is missing.
    async fn voted(
        &self,
        question: &OpenQuestion,
        vote: Vote,
        (terms, link): (Terms, Option<LinkUse>),
        decision: Decision,
    ) -> Result<Vec<Quorum>, Failure> {
        let asked = &question.interrupt;
        let new = NewVote {
            question: asked.id.clone(),
            digest: asked.digest.clone(),
            voter: vote.by.clone(),
            via: vote.via.clone(),
            verdict: verdict_word(vote.verdict)?,
            at: vote.at,
            body: to_value(&vote)?,
            link: link.clone(),
        };
        let rule = terms.clone();
        let settle: Arc<Settle> = Arc::new(move |said: &[Value]| {
            let votes = readable(said);
            let verdict = match Standing::after(Some(&rule), &votes) {
                Standing::Approved => Verdict::Approve,
                Standing::Rejected => Verdict::Reject,
                Standing::Open(_) => return None,
            };
            serde_json::to_value(Decision { verdict, votes, ..decision.clone() }).ok()
        });
        let voted = self.sqlite.vote(new, settle).await.map_err(|e| e.failure())?;
        let Some(voted) = voted else { return Err(self.used_before(link).await) };
        if voted.settled {
            return Ok(Vec::new());
        }
        match Standing::after(Some(&terms), &readable(&voted.votes)) {
            Standing::Open(missing) => Ok(missing),
            Standing::Approved | Standing::Rejected => Ok(Vec::new()),
        }
    }

    /// What people have said of an open approval, and whose word is missing.
    pub async fn said(&self, question: &OpenQuestion) -> Result<Said, Failure> {
        let Some(approval) = &question.approval else { return Ok(Said::default()) };
        let asked: &InterruptId = &question.interrupt.id;
        let votes = self.sqlite.votes(asked, &question.interrupt.digest).await.map_err(|e| e.failure())?;
        let votes = readable(&votes);
        let missing = match Standing::after(approval.evidence.terms.as_ref(), &votes) {
            Standing::Open(missing) => missing,
            Standing::Approved | Standing::Rejected => Vec::new(),
        };
        Ok(Said { votes, missing })
    }

    /// Gives the approval that was given when the release was begun. False: there is none, or it is not enough.
    pub(super) async fn approve_in_advance(&self, id: &ThreadId) -> Result<bool, Failure> {
        let Some(by) = self.thread(id).await?.labels.get(APPROVED_BY).cloned() else { return Ok(false) };
        let open = self.questions(Some(id)).await?;
        let Some(question) = open.iter().find(|q| q.approval.is_some()) else { return Ok(false) };
        match self.decide(question, Decide::in_advance(by)).await {
            // Somebody decided in this very moment; that counts.
            Err(failure) if failure.code == "already_decided" => Ok(true),
            Err(failure) if is_refusal(&failure) => {
                tracing::warn!(thread = %id, code = failure.code, "the approval given in advance does not count: {failure}");
                Ok(false)
            }
            decided => decided.map(|decided| decided.missing.is_empty()),
        }
    }
}

/// `approve` or `reject`.
fn verdict_word(verdict: Verdict) -> Result<String, Failure> {
    Ok(to_value(&verdict)?.as_str().unwrap_or_default().to_owned())
}

/// A word that this binary cannot read is none.
fn readable(votes: &[Value]) -> Vec<Vote> {
    votes.iter().filter_map(|vote| serde_json::from_value(vote.clone()).ok()).collect()
}
