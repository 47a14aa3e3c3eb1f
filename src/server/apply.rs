//! How a run begins: what it asks for is done to its thread, once, whatever happens to the process in between.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::execute::Executor;
use super::resume;
use crate::app::ServedRun;
use crate::graph::{
    Checkpoint, END, Event, EventRow, Failure, Name, START, Source, StateUpdate, ThreadId, ThreadStatus,
};
use crate::release::Person;

/// How far a run that was found under way has come: the events of its thread since it began.
pub(super) struct Found {
    events: Vec<EventRow>,
}

impl Found {
    pub fn new(events: Vec<EventRow>) -> Self {
        Self { events }
    }

    /// Whether nothing has been done.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Whether nothing has been done but to accept the thread and to take it.
    pub fn has_done_nothing(&self) -> bool {
        let begins = |event: &Event| match event {
            Event::Accepted { .. } | Event::Advancing { .. } => true,
            Event::Checkpointed { step, source, .. } => *step == 0 || *source == Source::Input,
            _ => false,
        };
        self.events.iter().all(|row| begins(&row.event))
    }

    fn checkpointed(&self, wanted: Source) -> Option<u64> {
        let is = |event: &Event| matches!(event, Event::Checkpointed { ns, source, .. } if ns.is_empty() && *source == wanted);
        self.events.iter().rev().find(|row| is(&row.event)).map(|row| row.seq)
    }

    fn has_begun_anew(&self) -> bool {
        self.events.iter().any(|row| matches!(row.event, Event::Accepted { .. }))
            || self.checkpointed(Source::Input).is_some()
    }

    /// Whether the engine has taken the thread on since the run changed it last.
    pub fn was_advanced(&self) -> bool {
        let changed =
            [Source::Input, Source::Update, Source::Fork].into_iter().filter_map(|s| self.checkpointed(s)).max();
        let advanced = self.events.iter().rev().find(|row| matches!(row.event, Event::Advancing { .. }));
        advanced.is_some_and(|row| Some(row.seq) > changed)
    }
}

impl Executor {
    /// Does to the thread what the run asks for, unless that was done before the process died.
    /// `begun`: the engine has something of the thread already.
    pub(super) async fn apply(&self, run: &ServedRun, found: &Found, begun: bool) -> Result<(), Failure> {
        let kwargs = &run.body.kwargs;
        if let Some(checkpoint) = kwargs["checkpoint"].as_str()
            && begun
            && found.checkpointed(Source::Fork).is_none()
        {
            self.go_back(&run.thread, checkpoint).await?;
        }
        match &kwargs["command"] {
            Value::Object(command) => return self.command(run, command, found).await,
            _ if found.has_begun_anew() => return Ok(()),
            _ => {}
        }
        match &kwargs["input"] {
            Value::Object(input) if begun => {
                let input = input.clone();
                self.leave_what_is_over(&run.thread, found).await?;
                self.app.input_again(&run.thread, input).await
            }
            Value::Object(input) => {
                let entry = self.graphs.get(&run.body.graph).ok_or_else(|| gone(&run.body.graph))?;
                self.app.begin_served(&run.thread, entry, input.clone(), &run.body.by).await
            }
            _ if begun => Ok(()),
            _ => Err(Failure::new("no_input", "the thread has not begun, so the run needs an input")
                .hint("give `input`, an empty object where the graph takes nothing")),
        }
    }

    async fn command(&self, run: &ServedRun, command: &Map<String, Value>, found: &Found) -> Result<(), Failure> {
        if let Some(answer) = command.get("resume") {
            // Of who asked only the name was kept: what they may do beyond this was looked at when the run was accepted.
            let named = Person { roles: BTreeSet::new(), local: false, ..Person::local(&run.body.by) };
            return resume::answer(&self.app, &run.thread, answer, &named, &via(&run.id)).await;
        }
        if found.checkpointed(Source::Update).is_some() {
            return Ok(());
        }
        let values = command.get("update").and_then(Value::as_object).cloned().unwrap_or_default();
        let goto = command.get("goto").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let goto: Vec<Name> = goto.map(Name::from).collect();
        let as_node = if goto.is_empty() { self.wrote_last(&run.thread).await? } else { START.into() };
        let update = StateUpdate { values, as_node, goto };
        self.app.attend(&run.thread).await?;
        self.app.bulk_update(&run.thread, &[vec![update]]).await
    }

    /// What was cancelled or undone is over for good, but not its thread: new input begins on a branch of it.
    async fn leave_what_is_over(&self, id: &ThreadId, found: &Found) -> Result<(), Failure> {
        let thread = self.app.thread(id).await?;
        let over = thread.status == ThreadStatus::Cancelled || (thread.undone && thread.unwinding.is_none());
        if !over || found.checkpointed(Source::Fork).is_some() {
            return Ok(());
        }
        let Some(latest) = self.app.store().latest(id, "").await.map_err(|e| e.failure())? else { return Ok(()) };
        self.app.attend(id).await?;
        self.app.fork(id, latest.id.as_str(), &Map::new(), None).await.map(drop)
    }

    /// Branches off a checkpoint, unless the thread stands there.
    async fn go_back(&self, thread: &ThreadId, checkpoint: &str) -> Result<(), Failure> {
        let latest = self.app.store().latest(thread, "").await.map_err(|e| e.failure())?;
        if latest.is_some_and(|latest| latest.id.as_str() == checkpoint) {
            return Ok(());
        }
        self.app.attend(thread).await?;
        self.app.fork(thread, checkpoint, &Map::new(), None).await.map(drop)
    }

    /// The node that wrote to the state last: as which a change from outside counts that names none.
    pub(super) async fn wrote_last(&self, thread: &ThreadId) -> Result<Name, Failure> {
        let history = self.app.checkpoints(thread).await?;
        last_writer(&history).ok_or_else(|| {
            Failure::new("bad_updates", "it is not clear as which node the state is changed")
                .because("several nodes ran at once")
                .hint("name one: `as_node`")
        })
    }

    /// Takes a stopped run's work back: its effects are undone, and its thread stands where it stood before the run.
    pub(super) async fn take_back(&self, run: &ServedRun, by: &str) -> Result<(), Failure> {
        let Some(thread) = self.app.store().thread(&run.thread).await.map_err(|e| e.failure())? else { return Ok(()) };
        // One that has ended has undone what it did, or had nothing to undo.
        if !thread.status.is_terminal() {
            let why = Failure::new("cancelled", format!("run {} was rolled back by {by}", run.id));
            self.app.cancel(&run.thread, true, why).await?;
        }
        if self.app.is_release(&run.thread).await? {
            return Ok(());
        }
        if run.first.is_none_or(|first| first == 0) {
            let forgotten = self.app.database().forget_progress(&run.thread, chrono::Utc::now()).await;
            return forgotten.map_err(|e| e.failure());
        }
        let before = self.app.checkpoints(&run.thread).await?.into_iter().find(|c| c.at <= run.updated_at);
        match before {
            Some(before) => self.app.fork(&run.thread, before.id.as_str(), &Map::new(), None).await.map(drop),
            None => Ok(()),
        }
    }
}

/// How an answer's record names the run that gave it.
pub(super) fn via(run: &str) -> String {
    format!("run {run}")
}

fn gone(graph: &str) -> Failure {
    Failure::new("workflow_unknown", format!("there is no graph `{graph}` any more"))
        .hint("serve with the folder that it was in: --workflows DIR")
}

/// Of the newest checkpoint: the only node that ran before it; before any ran, the graph's beginning.
fn last_writer(newest_first: &[Checkpoint]) -> Option<Name> {
    let newest = newest_first.first()?;
    if newest.ended() && newest.source == Source::Update {
        return Some(END.into());
    }
    let mut at = newest;
    loop {
        let parent = at.parent.as_ref().and_then(|parent| newest_first.iter().find(|c| c.id == *parent));
        let Some(parent) = parent else { return Some(START.into()) };
        match (at.source, parent.frontier.as_slice()) {
            (Source::Input, _) => return Some(START.into()),
            (Source::Loop, [one]) => return Some(one.node.clone()),
            (Source::Loop, _) => return None,
            // A change or a branch: whoever wrote before it.
            (Source::Update | Source::Fork, _) => at = parent,
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;

    fn found(events: Vec<Event>) -> Found {
        let rows = (1..).zip(events).map(|(seq, event)| EventRow { seq, at: DateTime::<Utc>::UNIX_EPOCH, event });
        Found::new(rows.collect())
    }

    fn checkpointed(source: Source) -> Event {
        Event::Checkpointed { ns: Name::default(), step: 3, source, next: Vec::new() }
    }

    fn advancing() -> Event {
        Event::Advancing { owner: "me".to_owned(), epoch: 2 }
    }

    #[test]
    fn what_a_dead_process_had_done_is_seen() {
        let nothing = found(Vec::new());
        assert!(!nothing.has_begun_anew() && !nothing.was_advanced());
        let accepted = found(vec![Event::Accepted { workflow: "w".to_owned() }, checkpointed(Source::Loop)]);
        assert!(accepted.has_begun_anew() && !accepted.was_advanced(), "it waits to be advanced");
        let given = found(vec![checkpointed(Source::Input)]);
        assert!(given.has_begun_anew() && !given.was_advanced());
        let advanced = found(vec![checkpointed(Source::Input), advancing(), checkpointed(Source::Loop)]);
        assert!(advanced.has_begun_anew() && advanced.was_advanced());
        let forked = found(vec![advancing(), checkpointed(Source::Fork)]);
        assert!(!forked.was_advanced() && forked.checkpointed(Source::Fork) == Some(2));
        assert!(found(vec![advancing()]).was_advanced(), "an answer lies before the run's first event");
    }
}
