//! Changes of routes, as pure functions on the state.

use super::HostError;
use super::state::{FenceRecord, HostState, RouteRecord};
use crate::ports::{Fence, Route, SwitchRequest};

/// Threads whose epochs are remembered. A release touches its thread's fence for minutes; 4096 later releases, none can be under way.
const MAX_FENCES: usize = 4096;

/// Moves a model's traffic, or says why not.
///
/// The same request again, from the same owner and with nothing in between, succeeds without a change: its first answer was lost.
pub(crate) fn switch(state: &mut HostState, request: &SwitchRequest) -> Result<(), HostError> {
    check_model(&request.model)?;
    check_fence(state, &request.fence)?;
    if state.down {
        return Err(HostError::Down);
    }
    let current = state.routes.get(&request.model);
    let actual = current.map_or(0, |route| route.generation);
    if current.is_some_and(|route| is_repeated(route, request)) {
        return Ok(());
    }
    if actual != request.expected_generation {
        let (model, expected) = (request.model.clone(), request.expected_generation);
        return Err(HostError::GenerationConflict { model, expected, actual });
    }
    for token in [&request.live, &request.standby].into_iter().flatten() {
        check_slot(state, token, &request.model)?;
    }
    if request.live.is_some() && request.live == request.standby {
        return Err(HostError::invalid("a slot cannot be its own standby", "leave the standby out"));
    }
    note_fence(state, &request.fence);
    state.routes.insert(
        request.model.clone(),
        RouteRecord {
            generation: actual + 1,
            live: request.live.clone(),
            standby: request.standby.clone(),
            changed_by_gateway: None,
            by: Some(request.fence.clone()),
        },
    );
    Ok(())
}

fn is_repeated(route: &RouteRecord, request: &SwitchRequest) -> bool {
    route.generation == request.expected_generation + 1
        && route.live == request.live
        && route.standby == request.standby
        && route.by.as_ref().is_some_and(|by| by.thread == request.fence.thread)
}

/// A model's name is the first segment of its path; `-` is the gateway's own.
pub(crate) fn check_model(model: &str) -> Result<(), HostError> {
    let fine = !model.is_empty()
        && model.len() <= 128
        && !model.starts_with(['-', '.'])
        && model.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if fine {
        return Ok(());
    }
    let message = format!("{model:?} cannot be a model's name");
    Err(HostError::invalid(message, "use letters, digits, `_`, `-` and `.`, beginning with a letter, a digit or `_`"))
}

fn check_slot(state: &HostState, token: &str, model: &str) -> Result<(), HostError> {
    let slot = state.slots.get(token).ok_or_else(|| HostError::NoSuchSlot { token: token.to_owned() })?;
    if slot.request.model != model {
        let message = format!("the slot {token} is of model {}, not of {model}", slot.request.model);
        return Err(HostError::invalid(message, "choose a slot of that model"));
    }
    if slot.life.is_over() {
        let why = slot.last_exit.clone().unwrap_or_else(|| "it was stopped".to_owned());
        return Err(HostError::SlotNotRunning { token: token.to_owned(), why });
    }
    Ok(())
}

fn check_fence(state: &HostState, fence: &Fence) -> Result<(), HostError> {
    match state.fences.get(&fence.thread) {
        Some(record) if fence.epoch < record.epoch => {
            Err(HostError::StaleFence { thread: fence.thread.clone(), epoch: fence.epoch, seen: record.epoch })
        }
        _ => Ok(()),
    }
}

fn note_fence(state: &mut HostState, fence: &Fence) {
    state.fence_count += 1;
    let record = FenceRecord { epoch: fence.epoch, touched: state.fence_count };
    state.fences.insert(fence.thread.clone(), record);
    if state.fences.len() > MAX_FENCES {
        let oldest = state.fences.iter().min_by_key(|(_, record)| record.touched).map(|(thread, _)| thread.clone());
        oldest.map(|thread| state.fences.remove(&thread));
    }
}

/// Gives the traffic of every model whose live slot is `token` to its warm standby, where that one can take it. Returns the models.
///
/// The standby's place stays empty: what has just failed is not warm.
pub(crate) fn fall_back(state: &mut HostState, token: &str, why: &str) -> Vec<String> {
    let HostState { slots, routes, .. } = state;
    let mut moved = Vec::new();
    for (model, route) in routes.iter_mut().filter(|(_, route)| route.live.as_deref() == Some(token)) {
        let warm = route.standby.as_ref().filter(|standby| slots.get(*standby).is_some_and(|s| s.life.routable()));
        if let Some(standby) = warm.cloned() {
            *route = RouteRecord {
                generation: route.generation + 1,
                changed_by_gateway: Some(format!("slot {token}: {why}; fell back to slot {standby}")),
                live: Some(standby),
                standby: None,
                by: None,
            };
            moved.push(model.clone());
        }
    }
    moved
}

/// The model that the slot serves or stands by for, and as what.
pub(crate) fn role_of(state: &HostState, token: &str) -> Option<(String, &'static str)> {
    state.routes.iter().find_map(|(model, route)| {
        if route.live.as_deref() == Some(token) {
            Some((model.clone(), "the live slot"))
        } else if route.standby.as_deref() == Some(token) {
            Some((model.clone(), "the standby"))
        } else {
            None
        }
    })
}

/// The route as callers see it; `None` when the model never had one.
pub(crate) fn shown(state: &HostState, model: &str) -> Option<Route> {
    let route = state.routes.get(model)?;
    Some(Route {
        model: model.to_owned(),
        generation: route.generation,
        live: route.live.clone(),
        standby: route.standby.clone(),
        endpoint_url: endpoint_url(state, model)?,
        changed_by_gateway: route.changed_by_gateway.clone(),
    })
}

/// The URL that a model has or would have; `None` until the public endpoint had an address for the first time.
pub(crate) fn endpoint_url(state: &HostState, model: &str) -> Option<String> {
    let mut addr = state.public_addr?;
    if addr.ip().is_unspecified() {
        // "All addresses" cannot be called; this machine's own can, from here.
        addr.set_ip(match addr {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Some(format!("http://{addr}/{model}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::slot::Life;
    use crate::host::state::SlotRecord;
    use crate::ports::SlotRequest;
    use proptest::prelude::*;

    fn slot(token: &str, model: &str, life: Life) -> (String, SlotRecord) {
        let request = SlotRequest {
            token: token.to_owned(),
            model: model.to_owned(),
            version: "v".to_owned(),
            argv: vec!["true".to_owned()],
            cwd: "/".into(),
            slot_dir: "/".into(),
            env: Default::default(),
            env_file: None,
            ready_path: "/".to_owned(),
        };
        (token.to_owned(), SlotRecord { life, ..SlotRecord::intent(request, 1) })
    }

    fn state() -> HostState {
        let slots = [
            slot("a", "iris", Life::Ready),
            slot("b", "iris", Life::Unready),
            slot("c", "iris", Life::Restarting),
            slot("d", "iris", Life::Exited),
            slot("other", "wine", Life::Ready),
        ];
        HostState { slots: slots.into(), public_addr: Some("0.0.0.0:7311".parse().unwrap()), ..HostState::default() }
    }

    fn request(live: Option<&str>, standby: Option<&str>, expected_generation: u64, epoch: u64) -> SwitchRequest {
        SwitchRequest {
            model: "iris".to_owned(),
            live: live.map(str::to_owned),
            standby: standby.map(str::to_owned),
            expected_generation,
            fence: Fence { thread: "t".to_owned(), epoch },
        }
    }

    #[test]
    fn refuses_what_makes_no_sense_and_changes_nothing() {
        let before = state();
        for (bad, code) in [
            (request(Some("nobody"), None, 0, 1), "no_such_slot"),
            (request(Some("d"), None, 0, 1), "slot_not_running"),
            (request(Some("other"), None, 0, 1), "invalid_host_request"),
            (request(Some("a"), Some("a"), 0, 1), "invalid_host_request"),
            (request(Some("a"), None, 1, 1), "route_generation_conflict"),
        ] {
            let mut state = before.clone();
            assert_eq!(switch(&mut state, &bad).unwrap_err().code(), code);
            assert_eq!(state, before);
        }
        let mut down = HostState { down: true, ..before };
        assert_eq!(switch(&mut down, &request(Some("a"), None, 0, 1)).unwrap_err().code(), "host_is_down");
    }

    #[test]
    fn falls_back_only_to_a_standby_that_can_take_it() {
        let mut state = state();
        switch(&mut state, &request(Some("a"), Some("c"), 0, 1)).unwrap();
        assert!(fall_back(&mut state, "a", "gone").is_empty());
        switch(&mut state, &request(Some("a"), Some("b"), 1, 1)).unwrap();
        assert_eq!(fall_back(&mut state, "a", "gone"), ["iris"]);
        let route = shown(&state, "iris").unwrap();
        assert_eq!((route.generation, route.live.as_deref(), route.standby), (3, Some("b"), None));
        assert_eq!(route.changed_by_gateway.as_deref(), Some("slot a: gone; fell back to slot b"));
        assert_eq!(route.endpoint_url, "http://127.0.0.1:7311/iris");
        assert!(fall_back(&mut state, "a", "again").is_empty());
        // A repetition of the request from before the fall-back is not taken for done.
        assert!(switch(&mut state, &request(Some("a"), Some("b"), 1, 1)).is_err());
    }

    #[test]
    fn forgets_the_oldest_fence_when_there_are_too_many() {
        let mut state = state();
        for n in 0..=MAX_FENCES {
            note_fence(&mut state, &Fence { thread: format!("t{n}"), epoch: 1 });
        }
        assert_eq!(state.fences.len(), MAX_FENCES);
        assert!(!state.fences.contains_key("t0") && state.fences.contains_key("t1"));
    }

    proptest! {
        /// Whatever is asked, in any order: the generation counts exactly the changes, and a route never points to nowhere.
        #[test]
        fn generations_count_changes(ops in proptest::collection::vec((0..6usize, 0..6usize, 0..6u64, 0..3u64, any::<bool>()), 0..40)) {
            let names = [Some("a"), Some("b"), Some("c"), Some("d"), Some("nobody"), None];
            let mut state = state();
            for (live, standby, expected, epoch, falls) in ops {
                let before = state.routes.get("iris").cloned();
                if falls {
                    fall_back(&mut state, names[live].unwrap_or("a"), "gone");
                } else {
                    let _ = switch(&mut state, &request(names[live], names[standby], expected, epoch));
                }
                let after = state.routes.get("iris").cloned();
                let generation = |route: &Option<RouteRecord>| route.as_ref().map_or(0, |r| r.generation);
                prop_assert_eq!(generation(&after), generation(&before) + u64::from(after != before));
                if let Some(route) = after {
                    prop_assert!(route.live.is_none() || route.live != route.standby);
                    for token in route.live.iter().chain(&route.standby) {
                        prop_assert!(state.slots.contains_key(token));
                    }
                }
            }
        }
    }
}
