//! Sends: a node that is sent something sees nothing else.

use super::super::{Failure, Name};
use super::reach::{Arrow, Kind, Paths};
use super::{Exam, Place};

impl Exam<'_> {
    pub(super) fn sends(&mut self, paths: &Paths) {
        for arrow in &paths.arrows {
            let Kind::Sent(Some(keys)) = &arrow.kind else { continue };
            self.payload(arrow, keys);
            self.written_once(arrow);
        }
    }

    fn payload(&mut self, arrow: &Arrow, keys: &[Name]) {
        let Some(reads) = self.nodes.get(&arrow.to).and_then(|entry| entry.info.reads.as_ref()) else { return };
        let needed = reads.iter().filter(|(_, field)| field.required).map(|(name, _)| name);
        let lacks: Vec<String> =
            needed.filter(|name| keys.iter().all(|key| key != *name)).map(|name| format!("`{name}`")).collect();
        if lacks.is_empty() {
            return;
        }
        let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
        let message = format!(
            "`{}` reads {}, but what `{}` sends it has only {}",
            arrow.to,
            lacks.join(", "),
            arrow.from,
            if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") }
        );
        let failure = Failure::new("send_unreadable", message)
            .because("a node that is sent something sees that and no channel")
            .hint(format!("put {} into what is sent, or let the node do without", lacks.join(", ")));
        self.senseless(edge(arrow), failure);
    }

    /// The same node runs once for each item at the same time.
    fn written_once(&mut self, arrow: &Arrow) {
        let Some(entry) = self.nodes.get(&arrow.to) else { return };
        let plain = |name: &&String| self.graph.channels.get(name.as_str()).is_some_and(|c| c.kind.is_single());
        let Some(channel) = entry.info.always_writes.iter().find(plain) else { return };
        let message = format!("`{}` writes `{channel}` once for each item that it is sent", arrow.to);
        let failure = Failure::new("send_conflict", message)
            .because("the channel takes one write in a superstep: with two items the run fails")
            .hint(format!("give `{channel}` a reducer"));
        self.warn(edge(arrow), failure);
    }
}

fn edge(arrow: &Arrow) -> Place {
    Place::Edge { from: arrow.from.clone(), to: arrow.to.clone() }
}
