//! A store in memory: for tests, for replays, and as the plainest statement of what a store is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::store::MOST_SIGNALS;
use super::{
    Answer, Checkpoint, CheckpointId, Claim, Entry, Event, EventRow, Inbox, Interrupt, InterruptId, Item, Name,
    Opening, Owner, Partial, Produced, Recall, Record, Signal, StopAsk, Store, StoreError, Thread, ThreadFilter,
    ThreadId, Transaction,
};

/// Keeps everything until it is dropped. An owner counts as alive until it releases.
#[derive(Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    threads: BTreeMap<ThreadId, Kept>,
    cache: BTreeMap<String, Given>,
    /// What threads share, by namespace and key.
    items: BTreeMap<(String, String), Item>,
}

struct Kept {
    row: Thread,
    checkpoints: Vec<Arc<Checkpoint>>,
    partial: BTreeMap<(Name, CheckpointId), Partial>,
    journal: Vec<Entry>,
    interrupts: Vec<Interrupt>,
    events: Vec<EventRow>,
    /// A request to stop, with the epoch that is asked.
    stop: Option<(u64, StopAsk)>,
    /// How many answers the newest run knew when it began.
    seen: u64,
    /// All signals, with whether a wait has taken them.
    signals: Vec<(Signal, bool)>,
    /// Names of the signals that its waits wait for.
    listens: BTreeSet<String>,
}

/// A result that is given again for the same input.
struct Given {
    /// The thread whose node gave it.
    by: ThreadId,
    produced: Produced,
    until: Option<DateTime<Utc>>,
}

impl Inner {
    fn kept(&mut self, id: &ThreadId) -> Result<&mut Kept, StoreError> {
        self.threads.get_mut(id).ok_or_else(|| StoreError::NoThread(id.clone()))
    }
}

impl MemoryStore {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, id: &ThreadId, read: impl FnOnce(&Kept) -> T) -> Result<T, StoreError> {
        let inner = self.inner();
        inner.threads.get(id).map(read).ok_or_else(|| StoreError::NoThread(id.clone()))
    }
}

impl Kept {
    fn apply(&mut self, record: Record, at: DateTime<Utc>) {
        match record {
            Record::Checkpoint(checkpoint) => {
                self.partial.retain(|(ns, _), _| *ns != checkpoint.ns);
                self.checkpoints.push(checkpoint);
            }
            Record::Result { ns, checkpoint, result } => {
                let partial = self.partial.entry((ns, checkpoint)).or_default();
                partial.results.retain(|r| r.path != result.path);
                partial.results.push(*result);
            }
            Record::Attempts { ns, checkpoint, path, attempts } => {
                let partial = self.partial.entry((ns, checkpoint)).or_default();
                partial.attempts.retain(|(p, _)| *p != path);
                partial.attempts.push((path, attempts));
            }
            Record::Entry(entry) => match self.journal.iter_mut().find(|e| e.key == entry.key) {
                Some(old) => *old = Entry { seq: old.seq, ..*entry },
                None => {
                    self.journal.push(*entry);
                    // Siblings may commit their intents in another order than they took their numbers.
                    self.journal.sort_by_key(|e| e.seq);
                }
            },
            Record::Interrupt(asked) => match self.interrupts.iter_mut().find(|i| i.id == asked.id) {
                Some(old) if old.answer.is_some() => {}
                Some(old) => *old = *asked,
                None => self.interrupts.push(*asked),
            },
            Record::Withdraw { ns } => {
                let inside = |i: &Interrupt| ns.is_empty() || i.key.ns == ns || i.key.ns.starts_with(&format!("{ns}|"));
                self.interrupts.iter_mut().filter(|i| i.answer.is_none() && inside(i)).for_each(|i| i.withdrawn = true);
            }
            Record::Status { status, failure, unwinding } => {
                self.row.status = status;
                self.row.failure = failure;
                self.row.unwinding = unwinding;
            }
            Record::Seen(answers) => self.seen = answers,
            Record::CommitPoint(seq) => self.row.committed_seq = seq,
            Record::Undone(undone) => self.row.undone = undone,
            Record::Migrated { fingerprint, node_versions } => {
                (self.row.fingerprint, self.row.node_versions) = (fingerprint, node_versions);
            }
            Record::Took(seq) => {
                self.signals.iter_mut().filter(|(signal, _)| signal.seq == seq).for_each(|(_, taken)| *taken = true);
            }
            Record::Sleeps { wake, listens } => (self.row.wake, self.listens) = (wake, listens),
            // The store keeps it, not the thread.
            Record::Cached { .. } | Record::Uncache | Record::Keep(_) | Record::Forget { .. } => {}
            Record::Release => self.row.owner = None,
            Record::Event(event) => self.event(at, event),
        }
        self.row.updated_at = at;
    }

    fn event(&mut self, at: DateTime<Utc>, event: Event) {
        let seq = self.events.len() as u64 + 1;
        self.events.push(EventRow { seq, at, event });
        self.row.updated_at = self.row.updated_at.max(at);
    }

    fn acquire(&mut self, owner: &Owner) -> Result<Thread, StoreError> {
        if let Some(held) = self.row.owner.as_ref().filter(|held| *held != owner) {
            return Err(StoreError::Held { thread: self.row.id.clone(), owner: Box::new(held.clone()) });
        }
        self.row.owner = Some(owner.clone());
        self.row.epoch += 1;
        Ok(self.row.clone())
    }

    fn answers(&self) -> u64 {
        self.interrupts.iter().filter(|i| i.answer.is_some()).count() as u64
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn create(&self, thread: &Thread, records: Vec<Record>) -> Result<(), StoreError> {
        let mut inner = self.inner();
        if inner.threads.contains_key(&thread.id) {
            return Err(StoreError::ThreadExists(thread.id.clone()));
        }
        let mut kept = Kept {
            row: thread.clone(),
            checkpoints: Vec::with_capacity(16),
            partial: BTreeMap::new(),
            journal: Vec::new(),
            interrupts: Vec::new(),
            events: Vec::with_capacity(40),
            stop: None,
            seen: 0,
            signals: Vec::new(),
            listens: BTreeSet::new(),
        };
        records.into_iter().for_each(|record| kept.apply(record, thread.created_at));
        inner.threads.insert(thread.id.clone(), kept);
        Ok(())
    }

    async fn thread(&self, id: &ThreadId) -> Result<Option<Thread>, StoreError> {
        Ok(self.inner().threads.get(id).map(|k| k.row.clone()))
    }

    async fn threads(&self, filter: &ThreadFilter) -> Result<Vec<Thread>, StoreError> {
        let inner = self.inner();
        let mut rows: Vec<Thread> = inner
            .threads
            .values()
            .map(|k| &k.row)
            .filter(|t| filter.statuses.is_empty() || filter.statuses.contains(&t.status))
            .filter(|t| filter.label.as_ref().is_none_or(|(k, v)| t.labels.get(k) == Some(v)))
            .cloned()
            .collect();
        rows.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        if filter.limit > 0 {
            rows.truncate(filter.limit);
        }
        Ok(rows)
    }

    async fn acquire(&self, id: &ThreadId, owner: &Owner) -> Result<Thread, StoreError> {
        self.inner().kept(id)?.acquire(owner)
    }

    async fn begin(
        &self,
        id: &ThreadId,
        owner: &Owner,
        at: DateTime<Utc>,
        opening: Opening,
    ) -> Result<Thread, StoreError> {
        let mut inner = self.inner();
        let kept = inner.kept(id)?;
        let found = kept.acquire(owner)?;
        opening(&found, kept.answers()).into_iter().for_each(|record| kept.apply(record, at));
        Ok(found)
    }

    async fn recall(&self, id: &ThreadId) -> Result<Recall, StoreError> {
        self.read(id, |k| {
            let latest = k.checkpoints.iter().rev().find(|c| c.ns.is_empty()).cloned();
            let partial = latest.as_ref().and_then(|of| k.partial.get(&(Name::default(), of.id.clone())));
            let partial = partial.cloned().unwrap_or_default();
            Recall { journal: k.journal.clone(), interrupts: k.interrupts.clone(), latest, partial }
        })
    }

    async fn release(&self, id: &ThreadId, epoch: u64) -> Result<(), StoreError> {
        let mut inner = self.inner();
        if let Some(kept) = inner.threads.get_mut(id).filter(|k| k.row.epoch == epoch) {
            kept.row.owner = None;
        }
        Ok(())
    }

    async fn attend(&self, id: &ThreadId, attendant: Option<&Owner>) -> Result<(), StoreError> {
        let mut inner = self.inner();
        let kept = inner.kept(id)?;
        kept.row.attendant = attendant.cloned();
        Ok(())
    }

    async fn signal(&self, id: &ThreadId, signal: &Signal) -> Result<u64, StoreError> {
        let mut inner = self.inner();
        let kept = inner.threads.get_mut(id).ok_or_else(|| StoreError::NoThread(id.clone()))?;
        if kept.signals.iter().filter(|(_, taken)| !taken).count() >= MOST_SIGNALS {
            return Err(StoreError::InboxFull(id.clone()));
        }
        let seq = kept.signals.len() as u64 + 1;
        kept.signals.push((Signal { seq, ..signal.clone() }, false));
        kept.event(signal.at, Event::Signalled { seq, name: signal.name.clone(), by: signal.by.clone() });
        Ok(seq)
    }

    async fn signals(&self, id: &ThreadId) -> Result<Vec<Signal>, StoreError> {
        self.read(id, |k| k.signals.iter().filter(|(_, taken)| !taken).map(|(signal, _)| signal.clone()).collect())
    }

    async fn cached(&self, key: &str, now: DateTime<Utc>) -> Result<Option<Produced>, StoreError> {
        let inner = self.inner();
        let found = inner.cache.get(key).filter(|given| given.until.is_none_or(|until| now < until));
        Ok(found.map(|given| given.produced.clone()))
    }

    async fn item(&self, namespace: &str, key: &str, now: DateTime<Utc>) -> Result<Option<Item>, StoreError> {
        let found = self.inner().items.get(&(namespace.to_owned(), key.to_owned())).cloned();
        Ok(found.filter(|item| item.is_there(now)))
    }

    async fn items(&self, prefix: &str, now: DateTime<Utc>, limit: usize) -> Result<Vec<Item>, StoreError> {
        let inner = self.inner();
        let found = inner.items.values().filter(|item| item.is_in(prefix) && item.is_there(now));
        Ok(found.take(limit).cloned().collect())
    }

    async fn ask_stop(&self, id: &ThreadId, ask: &StopAsk) -> Result<(), StoreError> {
        let mut inner = self.inner();
        let kept = inner.kept(id)?;
        kept.stop = Some((kept.row.epoch, ask.clone()));
        kept.event(ask.at, Event::StopAsked { by: ask.by.clone(), hold: ask.hold });
        Ok(())
    }

    async fn inbox(&self, id: &ThreadId) -> Result<Inbox, StoreError> {
        self.read(id, |k| {
            let epoch = k.row.epoch;
            let stop = k.stop.as_ref().filter(|(asked, _)| *asked == epoch).map(|(_, ask)| ask.clone());
            let signalled = k.signals.iter().any(|(signal, taken)| !taken && k.listens.contains(&signal.name));
            Inbox { epoch, stop, answered: k.seen < k.answers(), signalled }
        })
    }

    async fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        let mut inner = self.inner();
        let id = &transaction.thread;
        let Inner { threads, cache, items } = &mut *inner;
        let kept = threads.get_mut(id).ok_or_else(|| StoreError::NoThread(id.clone()))?;
        if kept.row.epoch != transaction.epoch {
            return Err(StoreError::Fenced { thread: id.clone(), ours: transaction.epoch, current: kept.row.epoch });
        }
        let at = transaction.at;
        for record in transaction.records {
            match record {
                Record::Cached { key, produced, expires_at: until } => {
                    cache.insert(key, Given { by: id.clone(), produced, until });
                }
                Record::Uncache => cache.retain(|_, given| given.by != *id),
                Record::Keep(item) => {
                    let key = (item.namespace.clone(), item.key.clone());
                    let before = items.get(&key).filter(|before| before.is_there(at));
                    let created_at = before.map_or(item.created_at, |before| before.created_at);
                    items.insert(key, Item { created_at, ..*item });
                }
                Record::Forget { namespace, key } => drop(items.remove(&(namespace, key))),
                record => kept.apply(record, at),
            }
        }
        Ok(())
    }

    async fn latest(&self, id: &ThreadId, ns: &str) -> Result<Option<Checkpoint>, StoreError> {
        self.read(id, |k| k.checkpoints.iter().rev().find(|c| c.ns == ns).map(|c| Checkpoint::clone(c)))
    }

    async fn history(&self, id: &ThreadId, ns: &str) -> Result<Vec<Checkpoint>, StoreError> {
        self.read(id, |k| k.checkpoints.iter().filter(|c| c.ns == ns).map(|c| Checkpoint::clone(c)).collect())
    }

    async fn namespaces(&self, id: &ThreadId) -> Result<Vec<String>, StoreError> {
        self.read(id, |k| {
            let names: std::collections::BTreeSet<&Name> = k.checkpoints.iter().map(|c| &c.ns).collect();
            names.into_iter().map(Name::to_string).collect()
        })
    }

    async fn partial(&self, id: &ThreadId, ns: &str, checkpoint: &CheckpointId) -> Result<Partial, StoreError> {
        self.read(id, |k| k.partial.get(&(ns.into(), checkpoint.clone())).cloned().unwrap_or_default())
    }

    async fn journal(&self, id: &ThreadId) -> Result<Vec<Entry>, StoreError> {
        self.read(id, |k| k.journal.clone())
    }

    async fn interrupts(&self, thread: Option<&ThreadId>, open_only: bool) -> Result<Vec<Interrupt>, StoreError> {
        let inner = self.inner();
        let threads = inner.threads.values().filter(|k| thread.is_none_or(|id| k.row.id == *id));
        let wanted = |i: &&Interrupt| !open_only || (i.answer.is_none() && !i.withdrawn);
        let mut asked: Vec<Interrupt> = threads.flat_map(|k| k.interrupts.iter().filter(wanted).cloned()).collect();
        asked.sort_by_key(|i| i.asked_at);
        Ok(asked)
    }

    async fn interrupt(&self, id: &InterruptId) -> Result<Option<Interrupt>, StoreError> {
        Ok(self.inner().threads.values().flat_map(|k| &k.interrupts).find(|i| i.id == *id).cloned())
    }

    async fn answer_all(&self, claims: Vec<Claim>) -> Result<Vec<Interrupt>, StoreError> {
        let mut inner = self.inner();
        let mut claimed: Vec<Interrupt> = Vec::with_capacity(claims.len());
        // Nothing is changed before all are looked at.
        for Claim { id, answer, digest } in &claims {
            let twin = claimed.iter().find(|i| i.id == *id);
            let known = || inner.threads.values().flat_map(|k| &k.interrupts).find(|i| i.id == *id);
            let asked = twin.or_else(known).ok_or_else(|| StoreError::NoInterrupt(id.clone()))?;
            claim(asked, answer, digest.as_deref())?;
            claimed.push(Interrupt { answer: Some(answer.clone()), ..asked.clone() });
        }
        for (asked, Claim { id, answer, .. }) in claimed.iter().zip(claims) {
            let Some(kept) = inner.threads.get_mut(&asked.thread) else { continue };
            kept.interrupts.iter_mut().filter(|i| i.id == id).for_each(|i| *i = asked.clone());
            kept.event(answer.at, Event::Answered { id, by: answer.by, via: answer.via });
        }
        Ok(claimed)
    }

    async fn events(&self, id: &ThreadId, after: u64, limit: usize) -> Result<Vec<EventRow>, StoreError> {
        self.read(id, |k| k.events.iter().filter(|e| e.seq > after).take(limit).cloned().collect())
    }
}

/// Whether an answer may be given: the rules that every store shares.
pub fn claim(asked: &Interrupt, answer: &Answer, digest: Option<&str>) -> Result<(), StoreError> {
    let id = asked.id.clone();
    if let Some(first) = &asked.answer {
        return Err(StoreError::Answered { id, by: first.by.clone(), at: first.at, via: first.via.clone() });
    }
    if let Some(at) = asked.expires_at.filter(|at| asked.expired || *at <= answer.at) {
        return Err(StoreError::Expired { id, at });
    }
    if asked.withdrawn {
        return Err(StoreError::Withdrawn(id));
    }
    if digest.is_some_and(|shown| shown != asked.digest) {
        return Err(StoreError::Changed { id, current: asked.digest.clone() });
    }
    Ok(())
}
