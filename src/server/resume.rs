//! Answers that clients give with `command: {resume: …}`.

use serde_json::{Map, Value};

use crate::app::{App, Decide, OpenQuestion, missing_words};
use crate::graph::{Failure, Interrupt, StoreError, ThreadId, claim};
use crate::release::{Person, Verdict};

/// Records the answers of a run, all or none. `via` names the run, so that a crash in between is seen. The first answer counts; whoever
/// comes later is told who gave it.
pub(super) async fn answer(
    app: &App,
    thread: &ThreadId,
    resume: &Value,
    who: &Person,
    via: &str,
) -> Result<(), Failure> {
    let asked = app.store().interrupts(Some(thread), false).await.map_err(|e| e.failure())?;
    if asked.iter().any(|asked| asked.answer.as_ref().is_some_and(|answer| answer.via == via)) {
        return Ok(());
    }
    let answers = meant(&asked, resume)?;
    let (approvals, others): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|(asked, _)| OpenQuestion::from(asked.clone()).approval.is_some());
    if approvals.len() + others.len() > 1 && !approvals.is_empty() {
        return Err(Failure::new("question_ambiguous", "an approval is decided by itself")
            .hint("answer one interrupt with each run"));
    }
    let ours = app.attend(thread).await?;
    let recorded = record(app, approvals, others, who, via).await;
    if recorded.is_err() && ours && !app.is_advanced(&app.thread(thread).await?) {
        // Somebody was faster, or it was no answer: whoever comes next may go on.
        app.leave(thread).await?;
    }
    recorded
}

type Answers = Vec<(Interrupt, Value)>;

async fn record(app: &App, approvals: Answers, others: Answers, who: &Person, via: &str) -> Result<(), Failure> {
    for (asked, value) in approvals {
        let decide = decision(&value, who, via)?;
        let decided = app.decide(&OpenQuestion::from(asked), decide).await?;
        if !decided.missing.is_empty() {
            let missing = missing_words(&decided.missing);
            return Err(Failure::new("approval_incomplete", format!("your word counts; still missing: {missing}"))
                .hint("nothing more to do for you: it goes on when they have decided"));
        }
    }
    let claims = app.claims(others, &who.name, via).await?;
    app.answer_all(claims).await
}

/// Which question gets which value.
fn meant(asked: &[Interrupt], resume: &Value) -> Result<Vec<(Interrupt, Value)>, Failure> {
    let is_open = |asked: &&Interrupt| asked.answer.is_none() && !asked.withdrawn;
    if let Some(by_id) = map_by_id(resume) {
        let find = |(id, value): (&String, &Value)| {
            let found = asked.iter().find(|asked| asked.id.as_str() == id);
            let unknown = || StoreError::NoInterrupt(id.as_str().into()).failure();
            found.cloned().map(|asked| (asked, value.clone())).ok_or_else(unknown)
        };
        return by_id.iter().map(find).collect();
    }
    match asked.iter().filter(is_open).collect::<Vec<_>>().as_slice() {
        [one] => Ok(vec![((*one).clone(), resume.clone())]),
        [] => match asked.last() {
            // Says who decided, and when.
            Some(last) => Err(over(last)),
            None => Err(Failure::new("no_interrupt", "nothing is asked, so there is nothing to answer")
                .hint("give `input` instead of `command`")),
        },
        more => {
            let ids: Vec<&str> = more.iter().map(|asked| asked.id.as_str()).collect();
            Err(Failure::new(
                "question_ambiguous",
                "When there are multiple pending interrupts, you must specify the interrupt id when resuming",
            )
            .because(ids.join(", "))
            .hint("give `resume` as a map from interrupt ids to values"))
        }
    }
}

/// A map by interrupt: every key is an id, 32 hex digits.
fn map_by_id(resume: &Value) -> Option<&Map<String, Value>> {
    let is_id = |key: &String| key.len() == 32 && key.chars().all(|c| c.is_ascii_hexdigit());
    resume.as_object().filter(|map| !map.is_empty() && map.keys().all(is_id))
}

fn over(question: &Interrupt) -> Failure {
    let (by, via) = (String::new(), String::new());
    let late = crate::graph::Answer { value: Value::Null, by, via, at: chrono::Utc::now() };
    let refused = claim(question, &late, None).err();
    refused.unwrap_or_else(|| StoreError::Withdrawn(question.id.clone())).failure()
}

/// A decision on a release: `true`, `{"approved": true}`, Agent Inbox's `[{"type": "accept"}]`, agent-chat-ui's
/// `{"decisions": [{"type": "approve"}]}`.
fn decision(value: &Value, who: &Person, via: &str) -> Result<Decide, Failure> {
    let forms = ["decisions", "approved", "type"].into_iter().filter(|form| value.get(form).is_some());
    if forms.count() > 1 {
        return Err(unclear(value));
    }
    let inner = value.get("decisions").unwrap_or(value);
    let one = match inner.as_array().map(Vec::as_slice) {
        Some([one]) => one,
        Some(_) => return Err(unclear(value)),
        None => inner,
    };
    let approved = match (one, one.get("approved"), one.get("type").and_then(Value::as_str)) {
        (Value::Bool(yes), ..) | (_, Some(Value::Bool(yes)), _) => *yes,
        (.., Some("accept" | "approve")) => true,
        (.., Some("ignore" | "reject")) => false,
        _ => return Err(unclear(value)),
    };
    // What is there and is no text was meant to say something: a digest that is not held against anything would let everything pass.
    let text = |key: &str| match one.get(key).or_else(|| value.get(key)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(unclear(value)),
    };
    Ok(Decide {
        verdict: if approved { Verdict::Approve } else { Verdict::Reject },
        who: who.clone(),
        via: via.to_owned(),
        reason: text("reason")?.or(text("message")?),
        digest: text("digest")?,
        overrides: one.get("override").or_else(|| value.get("override")) == Some(&Value::Bool(true)),
    })
}

fn unclear(value: &Value) -> Failure {
    Failure::new("bad_answer", "this is neither a yes nor a no")
        .because(value.to_string())
        .hint("resume with {\"approved\": true} or {\"approved\": false, \"reason\": …}")
}

/// What a question looks like in values and streams.
pub(super) fn told(asked: &Interrupt) -> Value {
    serde_json::json!({"value": super::shapes::shown(asked), "id": asked.id, "response_schema": null})
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn decisions_in_all_their_shapes() {
        for yes in [
            json!(true),
            json!({"approved": true}),
            json!([{"type": "accept", "args": null}]),
            json!({"decisions": [{"type": "approve"}]}),
        ] {
            assert_eq!(decision(&yes, &Person::local("ann"), "run").unwrap().verdict, Verdict::Approve, "{yes}");
        }
        let no =
            decision(&json!({"decisions": [{"type": "reject", "message": "stale"}]}), &Person::local("ann"), "run")
                .unwrap();
        assert_eq!((no.verdict, no.reason.as_deref()), (Verdict::Reject, Some("stale")));
        for unclear in [
            json!("yes"),
            json!([]),
            json!({"type": "edit"}),
            json!([true, true]),
            json!(1),
            json!({"approved": true, "digest": 5}),
            json!({"approved": false, "reason": ["why"]}),
            json!({"approved": true, "decisions": [{"type": "reject"}]}),
            json!({"approved": true, "type": "ignore"}),
        ] {
            assert!(decision(&unclear, &Person::local("ann"), "run").is_err(), "{unclear}");
        }
    }

    #[test]
    fn only_ids_make_a_map() {
        let id = "e136d61e3c67cbf4ea95144644572f73";
        assert!(map_by_id(&json!({id: 1})).is_some());
        assert!(map_by_id(&json!({id: 1, "x": 2})).is_none() && map_by_id(&json!({})).is_none());
    }
}
