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
