//! Questions and the inbox: asked once, claimed once, ended; seen by the next owner.

use serde_json::json;

use super::{Checked, Harness, StoreViolation, at, begun, key, owner, refused, same, transaction};
use crate::graph::{
    Answer, Claim, Event, Inbox, Interrupt, InterruptId, Name, Record, StopAsk, StoreError, ThreadId, digest,
};

fn asked(thread: &str, ns: &str, name: &str, n: i64) -> Interrupt {
    let (key, value) = (key(ns, name), json!({"deploy": name, "share": 0.1}));
    let thread = ThreadId::from(thread);
    let digest = digest(&value);
    let id = key.interrupt_id(&thread);
    let (answer, expires_at) = (None, None);
    Interrupt { id, thread, key, value, digest, asked_at: at(n), expires_at, answer, withdrawn: false, expired: false }
}

fn answered(by: &str, n: i64) -> Answer {
    Answer { value: json!({"approved": true}), by: by.into(), via: "terminal".into(), at: at(n) }
}

pub(super) async fn questions_are_claimed_once(harness: &dyn Harness) -> Checked {
    let store = harness.open();
    begun(&*store, "asked").await?;
    let question = asked("asked", "", "gate", 1);
    let id = question.id.clone();
    store.commit(transaction("asked", 1, 1, vec![Record::Interrupt(Box::new(question.clone()))])).await?;
    let unknown = InterruptId::from("none");
    let none = store.answer(&unknown, &answered("x", 1), None).await;
    refused("an unknown question cannot be answered", none, StoreError::NoInterrupt(unknown.clone()))?;
    same("nor be read", store.interrupt(&unknown).await?, None)?;
    let (ada, bob) = (answered("ada", 2), answered("bob", 2));
    let (first, second) = tokio::join!(store.answer(&id, &ada, None), store.answer(&id, &bob, Some(&question.digest)));
    let (winner, lost) = match (first, second) {
        (Ok(won), Err(lost)) => (won, lost),
        (Err(lost), Ok(won)) => (won, lost),
        other => return Err(StoreViolation { check: "exactly one answer wins", detail: format!("{other:?}") }),
    };
    let Some(answer) = winner.answer.clone() else {
        return Err(StoreViolation { check: "the winner sees its answer", detail: format!("{winner:?}") });
    };
    let told = StoreError::Answered { id: id.clone(), by: answer.by.clone(), at: answer.at, via: answer.via.clone() };
    same("the other one is told who was first", lost, told)?;
    // The node runs again from its top and asks the same question.
    store.commit(transaction("asked", 1, 3, vec![Record::Interrupt(Box::new(question.clone()))])).await?;
    drop(store);
    let store = harness.open();
    let expected = Interrupt { answer: Some(answer.clone()), ..question };
    same("an answered question stays answered", store.interrupt(&id).await?, Some(expected.clone()))?;
    let thread = ThreadId::from("asked");
    same("it is not open", store.interrupts(Some(&thread), true).await?, Vec::new())?;
    same("it is listed", store.interrupts(Some(&thread), false).await?, vec![expected])?;
    let event = Event::Answered { id, by: answer.by, via: answer.via };
    let events = store.events(&thread, 0, 9).await?;
    same("an event tells it", events.last().map(|row| (row.seq, row.at, row.event.clone())), Some((1, at(2), event)))
}

pub(super) async fn the_inbox_is_the_next_owners(harness: &dyn Harness) -> Checked {
    let store = harness.open();
    let id = ThreadId::from("inbox");
    begun(&*store, "inbox").await?;
    let nothing = |epoch| Inbox { epoch, stop: None, answered: false, signalled: false };
    same("an inbox begins empty", store.inbox(&id).await?, nothing(1))?;
    let ask = |hold, n| StopAsk { hold, by: "down".into(), at: at(n) };
    store.ask_stop(&id, &ask(true, 1)).await?;
    store.ask_stop(&id, &ask(false, 2)).await?;
    let question = asked("inbox", "", "gate", 1);
    store.commit(transaction("inbox", 1, 3, vec![Record::Interrupt(Box::new(question.clone()))])).await?;
    store.answer(&question.id, &answered("ada", 4), None).await?;
    drop(store);
    let store = harness.open();
    let expected = Inbox { epoch: 1, stop: Some(ask(false, 2)), answered: true, signalled: false };
    same("the newest request and the answer are kept", store.inbox(&id).await?, expected)?;
    same("an answer is a change", store.thread(&id).await?.map(|t| t.updated_at), Some(at(4)))?;
    let events = store.events(&id, 0, 9).await?;
    let told = events.first().map(|row| (row.at, row.event.clone()));
    same("an event tells who asked", told, Some((at(1), Event::StopAsked { by: "down".into(), hold: true })))?;
    store.release(&id, 1).await?;
    store.acquire(&id, &owner(2)).await?;
    let taken = Inbox { epoch: 2, stop: None, answered: true, signalled: false };
    same("a request is for one owner; an answer waits for a run that begins", store.inbox(&id).await?, taken)?;
    store.commit(transaction("inbox", 2, 5, vec![Record::Seen(1)])).await?;
    same("which has seen it then", store.inbox(&id).await?, nothing(2))?;
    let nobody = ThreadId::from("nobody");
    refused("an unknown thread has none", store.inbox(&nobody).await, StoreError::NoThread(nobody.clone()))?;
    refused("nor can it be asked", store.ask_stop(&nobody, &ask(true, 1)).await, StoreError::NoThread(nobody))
}

pub(super) async fn answers_come_together(harness: &dyn Harness) -> Checked {
    let store = harness.open();
    begun(&*store, "together").await?;
    let (one, two) = (asked("together", "", "one", 1), asked("together", "", "two", 2));
    let ask = |i: &Interrupt| Record::Interrupt(Box::new(i.clone()));
    store.commit(transaction("together", 1, 1, vec![ask(&one), ask(&two)])).await?;
    let claim = |i: &Interrupt, digest: Option<&str>| Claim {
        id: i.id.clone(),
        answer: answered("ada", 3),
        digest: digest.map(str::to_owned),
    };
    let changed = StoreError::Changed { id: two.id.clone(), current: two.digest.clone() };
    let given = store.answer_all(vec![claim(&one, None), claim(&two, Some("other"))]).await;
    refused("one that is refused refuses all", given, changed)?;
    let twice = store.answer_all(vec![claim(&one, None), claim(&one, None)]).await;
    let first = answered("ada", 3);
    let told = StoreError::Answered { id: one.id.clone(), by: first.by.clone(), at: first.at, via: first.via.clone() };
    refused("a question has one answer, in one turn too", twice, told)?;
    let thread = ThreadId::from("together");
    same("nothing of it is kept", store.interrupts(Some(&thread), true).await?, vec![one.clone(), two.clone()])?;
    same("nor told", store.events(&thread, 0, 9).await?.len(), 0)?;
    let given = store.answer_all(vec![claim(&two, None), claim(&one, Some(&one.digest))]).await?;
    let ids: Vec<InterruptId> = given.into_iter().map(|i| i.id).collect();
    same("all are given in order", ids, vec![two.id, one.id])?;
    same("and none is open", store.interrupts(Some(&thread), true).await?, Vec::new())?;
    same("an event tells each", store.events(&thread, 0, 9).await?.len(), 2)
}

pub(super) async fn questions_end(harness: &dyn Harness) -> Checked {
    let store = harness.open();
    begun(&*store, "ends").await?;
    let late = Interrupt { expires_at: Some(at(10)), ..asked("ends", "", "late", 1) };
    let shown = asked("ends", "", "changed", 2);
    let value = json!({"deploy": "another"});
    let now = Interrupt { digest: digest(&value), value, ..shown.clone() };
    let ask = |i: &Interrupt| Record::Interrupt(Box::new(i.clone()));
    store.commit(transaction("ends", 1, 1, vec![ask(&late), ask(&shown), ask(&now)])).await?;
    let expired = StoreError::Expired { id: late.id.clone(), at: at(10) };
    refused("an answer can be too late", store.answer(&late.id, &answered("a", 10), None).await, expired)?;
    store.answer(&late.id, &answered("a", 9), None).await?;
    let changed = StoreError::Changed { id: now.id.clone(), current: now.digest.clone() };
    let given = store.answer(&now.id, &answered("a", 3), Some(&shown.digest)).await;
    refused("an answer is for what was shown", given, changed)?;
    let open = store.interrupts(Some(&"ends".into()), true).await?;
    same("a refused answer leaves it open", open, vec![now.clone()])?;
    store.answer(&now.id, &answered("a", 3), Some(&now.digest)).await?;
    Ok(())
}

pub(super) async fn questions_are_withdrawn(harness: &dyn Harness) -> Checked {
    let store = harness.open();
    begun(&*store, "withdrawn").await?;
    begun(&*store, "a-later-thread").await?;
    let spaces = ["sub:1", "sub:1|in:1", "sub:10", ""];
    let questions: Vec<_> = (1..).zip(spaces).map(|(n, ns)| asked("withdrawn", ns, "gate", n)).collect();
    let records = questions.iter().map(|i| Record::Interrupt(Box::new(i.clone()))).collect();
    store.commit(transaction("withdrawn", 1, 1, records)).await?;
    let other = asked("a-later-thread", "sub:1", "gate", 50);
    store.commit(transaction("a-later-thread", 1, 1, vec![Record::Interrupt(Box::new(other.clone()))])).await?;
    store.commit(transaction("withdrawn", 1, 2, vec![Record::Withdraw { ns: "sub:1".into() }])).await?;
    let given = store.answer(&questions[1].id, &answered("a", 3), None).await;
    refused("a withdrawn question is closed", given, StoreError::Withdrawn(questions[1].id.clone()))?;
    let left = vec![questions[2].clone(), questions[3].clone()];
    same("only that namespace is withdrawn", store.interrupts(Some(&"withdrawn".into()), true).await?, left.clone())?;
    let all: Vec<_> = store.interrupts(None, true).await?.into_iter().map(|i| i.id).collect();
    let expected: Vec<_> = left.iter().chain([&other]).map(|i| i.id.clone()).collect();
    same("questions of all threads are listed oldest first", all, expected)?;
    store.commit(transaction("withdrawn", 1, 4, vec![Record::Withdraw { ns: Name::default() }])).await?;
    let open = store.interrupts(Some(&"withdrawn".into()), true).await?;
    same("the root's withdrawal takes all", open, Vec::new())?;
    same("questions stay readable", store.interrupts(Some(&"withdrawn".into()), false).await?.len(), 4)
}
