//! What several people say of one question.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};
use serde_json::Value;

use crate::graph::{Answer, Claim, Event, InterruptId, StoreError, claim};
use crate::store::batch::Tx;
use crate::store::fault::{Done, decode, encode, nanos};
use crate::store::people::links::{self, LinkUse};
use crate::store::{events, interrupts, threads};

/// From all that has been said of a question: its answer, once that is enough.
pub type Settle = dyn Fn(&[Value]) -> Option<Value> + Send + Sync;

/// What one person says.
#[derive(Debug, Clone, PartialEq)]
pub struct NewVote {
    /// The question.
    pub question: InterruptId,
    /// The digest that the question was read with.
    pub digest: String,
    /// Who. Each says one thing; saying it again changes nothing.
    pub voter: String,
    /// Through what.
    pub via: String,
    /// What.
    pub body: Value,
    /// One word for it.
    pub verdict: String,
    /// When.
    pub at: DateTime<Utc>,
    /// The link that it is said with, which is used up by it.
    pub link: Option<LinkUse>,
}

/// How a question stands after somebody spoke.
#[derive(Debug, Clone, PartialEq)]
pub struct Voted {
    /// Everything that has been said of it, oldest first.
    pub votes: Vec<Value>,
    /// Whether that is its answer.
    pub settled: bool,
}

/// `None`: its link had been used before; nothing was recorded.
pub(super) fn cast(tx: &mut Tx<'_>, new: &NewVote, settle: &Settle) -> Done<Option<Voted>> {
    let NewVote { question, digest, voter, via, body, verdict, at, link } = new;
    let asked = interrupts::one(tx.conn, question)?.ok_or_else(|| StoreError::NoInterrupt(question.clone()))?;
    threads::refuse_imported(tx.conn, &asked.thread)?;
    let answer = |value| Answer { value, by: voter.clone(), via: via.clone(), at: *at };
    claim(&asked, &answer(Value::Null), Some(digest))?;
    if let Some(link) = link
        && !links::spend(tx.conn, link)?
    {
        return Ok(None);
    }
    // One who says yes and then no has changed their mind: the last word counts, as long as the question stands.
    let sql = "INSERT INTO votes (question, digest, voter, body, at) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (question, digest, voter) DO UPDATE SET body = excluded.body, at = excluded.at";
    tx.conn.prepare_cached(sql)?.execute(params![question.as_str(), digest, voter, encode(body)?, nanos(*at)?])?;
    let votes = list(tx.conn, question, digest)?;
    let settled = settle(&votes);
    if let Some(value) = &settled {
        let claimed = Claim { id: question.clone(), answer: answer(value.clone()), digest: Some(digest.clone()) };
        interrupts::answer(tx, &claimed)?;
    } else {
        let mut head = threads::known_head(tx, &asked.thread)?;
        let (by, via) = (voter.clone(), via.clone());
        let event = Event::Voted { id: question.clone(), by, via, verdict: verdict.clone() };
        events::add(tx.conn, &asked.thread, &mut head, *at, &[&event])?;
        tx.lines.put_head(&asked.thread, head);
    }
    Ok(Some(Voted { votes, settled: settled.is_some() }))
}

/// Records answers with a link, which is used up by them. False: it had been before; nothing was recorded.
pub(super) fn answer_by_link(tx: &mut Tx<'_>, link: &LinkUse, claims: &[Claim]) -> Done<bool> {
    if !links::spend(tx.conn, link)? {
        return Ok(false);
    }
    for claim in claims {
        interrupts::answer(tx, claim)?;
    }
    Ok(true)
}

pub(super) fn list(conn: &Connection, question: &InterruptId, digest: &str) -> Done<Vec<Value>> {
    let mut select =
        conn.prepare_cached("SELECT body FROM votes WHERE question = ?1 AND digest = ?2 ORDER BY at, n")?;
    let rows = select.query_map([question.as_str(), digest], |row| row.get::<_, String>(0))?;
    rows.map(|body| decode(&body?, "a vote")).collect()
}
