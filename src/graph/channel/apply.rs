//! Applies the writes of a superstep to the state.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Channel, ChannelKind, Fold, Write, kind};
use crate::graph::{Failure, Name, State};

/// Applies the writes of one superstep, in order, to `state`. Fails on an undeclared channel, a wrong type, a second write to a
/// channel that takes one, a second overwrite; `state` is then half-written and must be dropped. What the superstep clears is still
/// there afterwards: see [`end_step`].
pub fn apply_writes<'w>(
    channels: &BTreeMap<Name, Channel>,
    state: &mut State,
    writes: impl IntoIterator<Item = &'w Write>,
) -> Result<(), Failure> {
    let mut seen = Seen::default();
    for write in writes {
        // The state's names are the channels' own, so that they are found without a comparison.
        let declared = channels.get_key_value(&write.channel);
        let (name, channel) = declared.ok_or_else(|| undeclared(&write.channel, channels))?;
        match seen.how(channel, write)? {
            How::Skip => {}
            How::Set => {
                check_type(channel, write, &write.value)?;
                state.insert(name, write.value.clone());
            }
            How::Fold { fold, afresh } => {
                if afresh {
                    state.remove(name);
                }
                let old = state.get_or_insert_with(name, || fold.initial());
                fold.fold(old, write.value.clone()).map_err(|why| wrong_type(&write.channel, why))?;
                check_type(channel, write, old)?;
                // A topic with nothing in it has no value.
                if fold == Fold::Topic && old.as_array().is_some_and(Vec::is_empty) {
                    state.remove(name);
                }
            }
        }
    }
    Ok(())
}

/// Fails as [`apply_writes`] would, without making the new state: what lists and objects hold is not copied.
pub fn check_writes<'w>(
    channels: &BTreeMap<Name, Channel>,
    state: &State,
    writes: impl IntoIterator<Item = &'w Write>,
) -> Result<(), Failure> {
    let mut seen = Seen::default();
    // Few: searched one by one.
    let mut folded: Vec<(&Name, Value)> = Vec::new();
    for write in writes {
        let declared = channels.get_key_value(&write.channel);
        let (name, channel) = declared.ok_or_else(|| undeclared(&write.channel, channels))?;
        match seen.how(channel, write)? {
            How::Skip => {}
            How::Set => {
                check_type(channel, write, &write.value)?;
                *in_folded(&mut folded, name, || Value::Null) = hollow(&write.value);
            }
            How::Fold { fold, afresh } => {
                let first = || state.get(name).filter(|_| !afresh).map_or_else(|| fold.initial(), hollow);
                let old = in_folded(&mut folded, name, first);
                fold.fold(old, hollow(&write.value)).map_err(|why| wrong_type(&write.channel, why))?;
                check_type(channel, write, old)?;
            }
        }
    }
    Ok(())
}

/// A channel's place in what was folded so far.
fn in_folded<'f, 'n>(
    folded: &'f mut Vec<(&'n Name, Value)>,
    name: &'n Name,
    first: impl FnOnce() -> Value,
) -> &'f mut Value {
    let at = folded.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
        folded.push((name, first()));
        folded.len() - 1
    });
    &mut folded[at].1
}

/// Ends a superstep that wrote `writes`: a channel that keeps its value for one superstep, and was not written in this one, has none
/// any more. LangGraph tells every channel without a write that a superstep has ended. `cleared`: those channels, see [`cleared`].
pub fn end_step<'w>(cleared: &[Name], state: &mut State, writes: impl Iterator<Item = &'w Write> + Clone) {
    for name in cleared {
        if state.contains_key(name) && !writes.clone().any(|write| write.channel == *name) {
            state.remove(name);
        }
    }
}

/// The channels that keep a value for one superstep.
pub fn cleared(channels: &BTreeMap<Name, Channel>) -> Vec<Name> {
    channels.iter().filter(|(_, channel)| channel.kind.is_cleared()).map(|(name, _)| name.clone()).collect()
}

/// A value of the same type; a number as it is, because a sum may be too large.
fn hollow(value: &Value) -> Value {
    match value {
        Value::Array(_) => Value::Array(Vec::new()),
        Value::Object(_) => Value::Object(Map::new()),
        Value::String(_) => Value::String(String::new()),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// What one write does to its channel.
enum How {
    Skip,
    Set,
    Fold {
        fold: Fold,
        /// What was there before the superstep does not count.
        afresh: bool,
    },
}

/// The channels that a superstep has written so far, and whether by an overwrite. Few: searched one by one. Mostly it is one.
#[derive(Default)]
struct Seen<'w> {
    first: Option<(&'w str, bool)>,
    more: Vec<(&'w str, bool)>,
}

impl<'w> Seen<'w> {
    fn how(&mut self, channel: &Channel, write: &'w Write) -> Result<How, Failure> {
        let name = write.channel.as_str();
        let before = self.first.iter_mut().chain(&mut self.more).find(|(seen, _)| *seen == name);
        let overwritten = before.as_ref().map(|(_, overwritten)| *overwritten);
        let topic = matches!(channel.kind, ChannelKind::Topic { .. });
        let fold = if topic { Some(Fold::Topic) } else { channel.kind.fold() };
        let how = match (fold, write.overwrite, overwritten) {
            (None, _, Some(_)) if channel.kind.is_single() => return Err(concurrent(name, channel.kind)),
            (Some(_), true, Some(true)) => return Err(concurrent(name, channel.kind)),
            // An overwrite earlier in the superstep wins over folds (LangGraph: Overwrite bypasses the reducer).
            (Some(_), false, Some(true)) => return Ok(How::Skip),
            (Some(Fold::Topic), true, _) => How::Fold { fold: Fold::Topic, afresh: true },
            (None, _, _) | (Some(Fold::By(_)), true, _) => How::Set,
            (Some(fold), false, before) => How::Fold { fold, afresh: before.is_none() && channel.kind.is_cleared() },
        };
        match before {
            Some(seen) => seen.1 = write.overwrite,
            None => match &self.first {
                None => self.first = Some((name, write.overwrite)),
                Some(_) => self.more.push((name, write.overwrite)),
            },
        }
        Ok(how)
    }
}

fn check_type(channel: &Channel, write: &Write, value: &Value) -> Result<(), Failure> {
    if channel.value.admits(value) {
        return Ok(());
    }
    let why = format!("the channel holds {}, got {}", channel.value.word(), kind(value));
    Err(wrong_type(&write.channel, why))
}

fn wrong_type(channel: &str, why: String) -> Failure {
    Failure::new("channel_type", format!("a write to channel `{channel}` has the wrong type"))
        .because(why)
        .hint("write the declared type, or declare the channel as `any`")
}

fn concurrent(channel: &str, of: ChannelKind) -> Failure {
    let failure =
        Failure::new("invalid_concurrent_update", format!("channel `{channel}` was written twice in one superstep"));
    match of {
        ChannelKind::Ephemeral { .. } | ChannelKind::Untracked { .. } => failure
            .because("it is guarded, so neither write could win")
            .hint("declare it with `guard: false` and the last write counts, or let the nodes run one after the other"),
        ChannelKind::LastValue | ChannelKind::Reduced(_) | ChannelKind::Topic { .. } | ChannelKind::AnyValue => failure
            .because("it has no reducer, so neither write could win")
            .hint("give the channel a reducer, or let the nodes run one after the other"),
    }
}

fn undeclared(channel: &str, channels: &BTreeMap<Name, Channel>) -> Failure {
    let known: Vec<&str> = channels.keys().map(Name::as_str).collect();
    Failure::new("undeclared_channel", format!("channel `{channel}` is not declared"))
        .because(format!("declared are: {}", known.join(", ")))
        .hint("declare it, or mend the name")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::graph::channel::initial;
    use crate::graph::{ChannelType, Reducer};

    fn channels() -> BTreeMap<Name, Channel> {
        BTreeMap::from([
            ("x".into(), Channel::last(ChannelType::Integer)),
            ("n".into(), Channel::reduced(ChannelType::Integer, Reducer::Add)),
            ("log".into(), Channel::reduced(ChannelType::Array, Reducer::Append)),
        ])
    }

    fn written(writes: &[Write]) -> Result<State, Failure> {
        let mut state = initial(&channels());
        apply_writes(&channels(), &mut state, writes).map(|()| state)
    }

    #[test]
    fn folds_in_order() {
        let state = written(&[
            Write::new("n", json!(2)),
            Write::new("log", json!(["a"])),
            Write::new("n", json!(3)),
            Write::new("log", json!(["b"])),
        ])
        .unwrap();
        assert_eq!(json!(state), json!({"n": 5, "log": ["a", "b"]}));
    }

    #[test]
    fn refuses_what_would_be_lost() {
        let twice = written(&[Write::new("x", json!(1)), Write::new("x", json!(2))]).unwrap_err();
        assert_eq!(twice.code, "invalid_concurrent_update");
        assert_eq!(written(&[Write::new("y", json!(1))]).unwrap_err().code, "undeclared_channel");
        assert_eq!(written(&[Write::new("x", json!("1"))]).unwrap_err().code, "channel_type");
        assert_eq!(written(&[Write::new("log", json!(1))]).unwrap_err().code, "channel_type");
    }

    #[test]
    fn what_is_only_checked_fails_alike() {
        let values = [json!(1), json!(i64::MAX), json!(1.5), json!("a"), json!(["a"]), json!({"k": 1}), json!(null)];
        let mut channels = channels();
        for (n, reducer) in [Reducer::Add, Reducer::Append, Reducer::Max, Reducer::Min, Reducer::Merge, Reducer::Union]
            .iter()
            .enumerate()
        {
            channels.insert(format!("any{n}").into(), Channel::reduced(ChannelType::Any, *reducer));
            channels.insert(format!("text{n}").into(), Channel::reduced(ChannelType::String, *reducer));
        }
        let all: Vec<Write> = channels
            .keys()
            .flat_map(|name| values.iter().map(|value| Write::new(name.clone(), value.clone())))
            .flat_map(|write| [write.clone(), Write { overwrite: true, ..write }])
            .collect();
        for first in &all {
            let mut state = initial(&channels);
            // What stands there may be of any type, where the channel allows it.
            let _ = apply_writes(&channels, &mut state, [&Write { overwrite: true, ..first.clone() }]);
            for second in all.iter().filter(|second| second.channel == first.channel) {
                let writes = [first.clone(), second.clone()];
                let checked = check_writes(&channels, &state, &writes);
                assert_eq!(checked, apply_writes(&channels, &mut state.clone(), &writes), "{writes:?}");
            }
        }
    }

    #[test]
    fn overwrite_bypasses_the_reducer() {
        let replace = |value| Write { channel: "n".into(), value, overwrite: true };
        let state = written(&[Write::new("n", json!(2)), replace(json!(7)), Write::new("n", json!(1))]).unwrap();
        assert_eq!(state["n"], json!(7));
        assert!(written(&[replace(json!(1)), replace(json!(2))]).is_err());
    }

    /// Superstep after superstep, each a list of writes: the channel's value behind each.
    fn steps(channel: Channel, steps: &[&[Value]]) -> Vec<Value> {
        let channels = BTreeMap::from([("c".into(), channel)]);
        let mut state = initial(&channels);
        let mut seen = Vec::new();
        for step in steps {
            let writes: Vec<Write> = step.iter().map(|value| Write::new("c", value.clone())).collect();
            check_writes(&channels, &state, &writes).unwrap();
            apply_writes(&channels, &mut state, &writes).unwrap();
            end_step(&cleared(&channels), &mut state, writes.iter());
            seen.push(state.get("c").cloned().unwrap_or(json!("nothing")));
        }
        seen
    }

    #[test]
    fn a_topic_flattens_lists_and_begins_anew() {
        let wrote: &[&[Value]] = &[&[json!(1), json!([2, [3]])], &[json!([])], &[json!("a")], &[], &[json!("b")]];
        let nothing = json!("nothing");
        let fresh = steps(Channel::topic(false), wrote);
        assert_eq!(fresh, [json!([1, 2, [3]]), nothing.clone(), json!(["a"]), nothing, json!(["b"])]);
        let all = steps(Channel::topic(true), wrote);
        assert_eq!(all[1], json!([1, 2, [3]]));
        assert_eq!(all[4], json!([1, 2, [3], "a", "b"]));
    }

    #[test]
    fn what_is_ephemeral_is_gone_after_a_superstep() {
        let wrote: &[&[Value]] = &[&[json!(1)], &[], &[json!(2)], &[json!(3)]];
        let seen = [json!(1), json!("nothing"), json!(2), json!(3)];
        assert_eq!(steps(Channel::ephemeral(ChannelType::Integer), wrote), seen);
        assert_eq!(steps(Channel::any_value(ChannelType::Integer), wrote), seen);
        let kept = [json!(1), json!(1), json!(2), json!(3)];
        assert_eq!(steps(Channel::untracked(ChannelType::Integer), wrote), kept);
    }

    #[test]
    fn guards_decide_about_a_second_write() {
        let twice = [Write::new("c", json!(1)), Write::new("c", json!(2))];
        let ends = |channel: Channel| {
            let channels = BTreeMap::from([("c".into(), channel)]);
            let mut state = initial(&channels);
            let applied = apply_writes(&channels, &mut state, &twice);
            assert_eq!(applied, check_writes(&channels, &initial(&channels), &twice));
            applied.map(|()| state["c"].clone()).map_err(|failure| failure.code.clone())
        };
        let any = ChannelType::Any;
        for guarded in [Channel::ephemeral(any), Channel::untracked(any), Channel::last(any)] {
            assert_eq!(ends(guarded).unwrap_err(), "invalid_concurrent_update");
        }
        for open in [Channel::ephemeral(any).unguarded(), Channel::untracked(any).unguarded(), Channel::any_value(any)]
        {
            assert_eq!(ends(open), Ok(json!(2)));
        }
        assert_eq!(ends(Channel::topic(false)), Ok(json!([1, 2])));
    }

    #[test]
    fn a_channel_is_declared_as_it_stands_in_a_file() {
        for (text, channel) in [
            (json!({"type": "integer"}), Channel::last(ChannelType::Integer)),
            (json!({"type": "array", "reducer": "append"}), Channel::reduced(ChannelType::Array, Reducer::Append)),
            (json!({"type": "array", "kind": "topic"}), Channel::topic(false)),
            (json!({"type": "array", "kind": "topic", "accumulate": true}), Channel::topic(true)),
            (json!({"type": "any", "kind": "any"}), Channel::any_value(ChannelType::Any)),
            (json!({"type": "any", "kind": "ephemeral"}), Channel::ephemeral(ChannelType::Any)),
            (
                json!({"type": "any", "kind": "untracked", "guard": false}),
                Channel::untracked(ChannelType::Any).unguarded(),
            ),
        ] {
            assert_eq!(json!(channel), text);
            assert_eq!(serde_json::from_value::<Channel>(text).unwrap(), channel);
        }
        for wrong in [
            json!({"type": "array", "kind": "topic", "reducer": "append"}),
            json!({"type": "array", "accumulate": true}),
            json!({"type": "array", "kind": "any", "guard": false}),
        ] {
            serde_json::from_value::<Channel>(wrong).unwrap_err();
        }
    }
}
