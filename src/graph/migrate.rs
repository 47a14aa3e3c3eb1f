//! Threads that began with an older version of a node: taken on where the node declares how, else refused with the difference in words.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::journal::Entry;
use super::{Body, CompiledGraph, Engine, EngineError, Event, Failure, NodeEntry, Record, Thread, Transaction};

impl Engine {
    /// Takes a thread on that began with older versions of nodes which declare a migration: its journal is turned into what they read
    /// now, in one transaction. Leaves every other thread as it is.
    pub(super) async fn migrate(&self, graph: &Arc<CompiledGraph>, thread: Thread) -> Result<Thread, EngineError> {
        let now = graph.node_versions();
        if graph.fingerprint() == thread.fingerprint
            || graph.fingerprint_as(&thread.node_versions) != thread.fingerprint
        {
            return Ok(thread);
        }
        let changed: BTreeMap<&str, (u32, u32)> = thread
            .node_versions
            .iter()
            .filter_map(|(kind, then)| Some((kind.as_str(), (*then, *now.get(kind)?))))
            .filter(|(_, (then, now))| then != now)
            .collect();
        let mut declared = BTreeMap::new();
        graph.each_leaf(&mut |entry| {
            if let Some((then, _)) = changed.get(entry.info.kind.as_str()) {
                *declared.entry(entry.info.kind.clone()).or_insert(true) &= entry.info.migrates_from.contains(then);
            }
        });
        if changed.is_empty() || declared.values().any(|declared| !declared) {
            return Ok(thread);
        }
        let mut records = Vec::new();
        for entry in self.store.journal(&thread.id).await? {
            let Some(node) = graph.node_at(&entry.key.ns, &entry.key.node) else { continue };
            if let Some((then, _)) = changed.get(node.info.kind.as_str()) {
                records.push(Record::Entry(Box::new(migrated(node, *then, entry)?)));
            }
        }
        let changes: Vec<String> =
            changed.iter().map(|(kind, (then, now))| format!("{kind} {then} -> {now}")).collect();
        records.push(Record::Migrated { fingerprint: graph.fingerprint(), node_versions: now.clone() });
        records.push(Record::Event(Event::Migrated { changes }));
        let at = self.clock.now();
        let transaction = Transaction { thread: thread.id.clone(), epoch: thread.epoch, at, records };
        self.store.commit(transaction).await?;
        Ok(Thread { fingerprint: graph.fingerprint(), node_versions: now, ..thread })
    }
}

fn migrated(node: &NodeEntry, from: u32, entry: Entry) -> Result<Entry, Failure> {
    let Body::Leaf(leaf) = &node.body else { return Ok(entry) };
    let (key, seq) = (entry.key.clone(), entry.seq);
    let entry = leaf.migrate(from, entry)?;
    if (&entry.key, entry.seq) != (&key, seq) {
        return Err(Failure::new(
            "bad_migration",
            format!("a migration of `{}` moves {}", node.info.kind, key.place()),
        )
        .hint("this is a defect: report it"));
    }
    Ok(entry)
}
