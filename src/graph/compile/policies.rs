//! How nodes are run: limits that cannot be met, handlers that handle nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::{END, Failure, Name};
use super::reach::{Kind, Paths};
use super::{Exam, Place};

impl Exam<'_> {
    pub(super) fn policies(&mut self, paths: &Paths) {
        for (name, entry) in self.nodes {
            let policy = &entry.policy;
            self.not_zero(name, "timeout", policy.timeout, "every attempt would be over at once");
            self.not_zero(name, "idle_timeout", policy.idle_timeout, "it could never give a sign of life in time");
            let ttl = policy.cache.as_ref().and_then(|cache| cache.ttl);
            self.not_zero(name, "cache", ttl, "nothing that is kept could ever serve again");
            self.not_zero(name, "ttl", policy.interrupt_ttl, "its question would be over before anybody sees it");
            if policy.retry.iter().any(|retry| retry.max_attempts == 0) {
                let failure = Failure::new("bad_retry", format!("`{name}` is attempted at least once"));
                self.senseless(Place::Policy(name.clone(), "retry"), failure.hint("1 means: no repetition"));
            }
            let sent = |kind: &Kind| matches!(kind, Kind::Sent(_));
            let mut leads = paths.to(name).map(|arrow| sent(&arrow.kind)).peekable();
            let waited_for = || self.graph.barriers.values().any(|b| b.to == *name);
            if policy.defer && leads.peek().is_some() && leads.all(|sent| sent) && !waited_for() {
                let failure = Failure::new("defer_ignored", format!("`{name}` is deferred, but only Sends lead to it"))
                    .because("what is sent runs in the next superstep, whatever else is due");
                self.warn(
                    Place::Policy(name.clone(), "defer"),
                    failure.hint("remove `defer`, or send to another node"),
                );
            }
        }
        self.handlers();
    }

    fn not_zero(&mut self, node: &Name, key: &'static str, length: Option<Duration>, why: &str) {
        if length == Some(Duration::ZERO) {
            let failure = Failure::new("zero_duration", format!("the `{key}` of `{node}` is zero")).because(why);
            self.senseless(Place::Policy(node.clone(), key), failure.hint("name a length of time, or leave it out"));
        }
    }

    /// Handlers whose failure leads back to where it came from.
    fn handlers(&mut self) {
        let handler = |name: &Name| self.nodes.get(name)?.policy.on_error.as_ref().map(|by| &by.to);
        let mut told: BTreeSet<&Name> = BTreeSet::new();
        for name in self.nodes.keys() {
            let mut chain = vec![name];
            while let Some(next) = chain.last().and_then(|last| handler(last)).filter(|next| *next != END) {
                if next == name || chain.contains(&next) {
                    break;
                }
                chain.push(next);
            }
            let closes = chain.last().and_then(|last| handler(last)) == Some(name);
            if !closes || chain.iter().any(|n| told.contains(*n)) {
                continue;
            }
            told.extend(chain.iter().copied());
            let place = Place::Policy(name.clone(), "on_error");
            if chain.len() == 1 {
                let failure = Failure::new("handler_circle", format!("`{name}` handles its own failure, without end"));
                self.senseless(place, failure.hint("to repeat it give it `retry`; a handler is another node, or END"));
            } else {
                let names: Vec<&str> = chain.iter().map(|n| n.as_str()).collect();
                let message = format!("{} handle each other's failures", names.join(", "));
                let failure = Failure::new("handler_circle", message);
                self.warn(place, failure.because("while all of them fail, none of them ends the run"));
            }
        }
    }
}
