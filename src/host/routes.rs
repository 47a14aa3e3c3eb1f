//! Changes of routes, as pure functions on the state.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::state::{FenceRecord, HostState, RouteRecord, SlotRecord, StandbyTerm};
use super::{HostError, plan};
use crate::ports::{
    Fence, RenewRequest, Route, RouteRequest, StandbyRequest, SwitchRequest, TrafficPlan, first_of, number_of,
};

/// Threads whose epochs are remembered. A release touches its thread's fence for minutes; 4096 later releases, none can be under way.
const MAX_FENCES: usize = 4096;

/// Moves all of a model's traffic to one slot, or says why not.
pub(crate) fn switch(state: &mut HostState, request: &SwitchRequest) -> Result<(), HostError> {
    let version = |token: &String| state.slots.get(token).map_or_else(String::new, |slot| slot.request.version.clone());
    let standby = request.standby.clone();
    let traffic = match &request.live {
        Some(live) => TrafficPlan::all_to(version(live), vec![live.clone()], standby),
        None => TrafficPlan { standby, ..TrafficPlan::default() },
    };
    let SwitchRequest { model, expected_generation, fence, .. } = request.clone();
    put(state, &RouteRequest { model, traffic, expected_generation, fence })
}

/// Divides a model's traffic anew, or says why not.
///
/// The same request again, from the same owner and with nothing in between, succeeds without a change: its first answer was lost.
pub(crate) fn put(state: &mut HostState, request: &RouteRequest) -> Result<(), HostError> {
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
    plan::check(state, &request.model, &request.traffic)?;
    note_fence(state, &request.fence);
    let (traffic, by) = (request.traffic.clone(), Some(request.fence.clone()));
    let record = RouteRecord { generation: actual + 1, traffic, changed_by_gateway: None, by, standby: None };
    state.routes.insert(request.model.clone(), record);
    Ok(())
}

fn is_repeated(route: &RouteRecord, request: &RouteRequest) -> bool {
    route.generation == request.expected_generation + 1
        && route.traffic == request.traffic
        && route.by.as_ref().is_some_and(|by| by.thread == request.fence.thread)
}

/// Whether the lease of a route may be renewed by who asks; returns its length in milliseconds. The route stays as it is.
pub(crate) fn renew(state: &mut HostState, request: &RenewRequest) -> Result<u64, HostError> {
    check_fence(state, &request.fence)?;
    if state.down {
        return Err(HostError::Down);
    }
    let route = state.routes.get(&request.model);
    let actual = route.map_or(0, |route| route.generation);
    let Some(route) = route.filter(|route| route.generation == request.generation) else {
        let (model, expected) = (request.model.clone(), request.generation);
        return Err(HostError::GenerationConflict { model, expected, actual });
    };
    let Some(within_ms) = route.traffic.renew_within_ms else {
        let message = format!("the route of {} has no lease", request.model);
        return Err(HostError::invalid(message, "divide the traffic with renew_within_ms first"));
    };
    if route.by.as_ref().is_none_or(|by| by.thread != request.fence.thread) {
        let message = format!("the lease on the traffic of {} belongs to another thread", request.model);
        return Err(HostError::invalid(message, "only the thread that divided the traffic renews it"));
    }
    // A new owner of the thread is noted; otherwise nothing changes, and nothing has to be written.
    if state.fences.get(&request.fence.thread).is_none_or(|seen| seen.epoch < request.fence.epoch) {
        note_fence(state, &request.fence);
    }
    Ok(within_ms)
}

/// Notes how long the standby of a route is kept. The route stays as it is.
pub(crate) fn keep_standby(
    state: &mut HostState,
    request: &StandbyRequest,
    since: DateTime<Utc>,
) -> Result<(), HostError> {
    check_fence(state, &request.fence)?;
    if state.down {
        return Err(HostError::Down);
    }
    let route = state.routes.get_mut(&request.model);
    let actual = route.as_ref().map_or(0, |route| route.generation);
    let Some(route) = route.filter(|route| route.generation == request.generation) else {
        let (model, expected) = (request.model.clone(), request.generation);
        return Err(HostError::GenerationConflict { model, expected, actual });
    };
    route.standby = Some(StandbyTerm { since, keep_ms: request.keep_ms });
    note_fence(state, &request.fence);
    Ok(())
}

/// Takes the standby out of a route whose time for it is over; its replicas, which nobody needs then. Nothing where the route has changed
/// since, or where they carry traffic.
pub(crate) fn standby_over(state: &mut HostState, model: &str, generation: u64) -> Vec<String> {
    let HostState { slots, routes, .. } = state;
    let Some(route) = routes.get_mut(model).filter(|route| route.generation == generation) else { return Vec::new() };
    let (Some(standby), Some(term)) = (route.traffic.standby.clone(), route.standby.clone()) else { return Vec::new() };
    let why = format!("the standby {standby} was kept for {} s, as was asked", term.keep_ms / 1000);
    let traffic = TrafficPlan { standby: None, ..route.traffic.clone() };
    *route =
        RouteRecord { generation: generation + 1, traffic, changed_by_gateway: Some(why), by: None, standby: None };
    let traffic = &route.traffic;
    let carries = |token: &&String| traffic.legs.iter().any(|leg| leg.slots.contains(token));
    slots.keys().filter(|token| first_of(token) == first_of(&standby) && !carries(token)).cloned().collect()
}

/// Returns everything to the stable leg because the lease was not renewed; false when the route has changed since.
pub(crate) fn lease_over(state: &mut HostState, model: &str, generation: u64) -> bool {
    let Some(route) = state.routes.get_mut(model).filter(|route| route.generation == generation) else { return false };
    let Some(within_ms) = route.traffic.renew_within_ms else { return false };
    let owner = route.by.as_ref().map_or("its owner", |by| by.thread.as_str());
    let version = route.traffic.stable().map_or("the stable one", |leg| leg.version.as_str());
    let why = format!(
        "{owner} did not renew the partial traffic within {within_ms} ms; all of it went back to version {version}"
    );
    *route = RouteRecord {
        generation: generation + 1,
        traffic: route.traffic.back_to_stable(),
        changed_by_gateway: Some(why),
        by: None,
        standby: None,
    };
    true
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

/// Gives the traffic of every model whose stable leg has lost its last slot with `token` to its warm standby, where that one can take it.
/// Returns the models.
///
/// The standby's place stays empty: what has just failed is not warm. Candidates go too: what they were compared with is gone.
pub(crate) fn fall_back(state: &mut HostState, token: &str, why: &str) -> Vec<String> {
    let HostState { slots, routes, .. } = state;
    let mut moved = Vec::new();
    for (model, route) in routes.iter_mut() {
        let stable = route.traffic.stable().filter(|leg| leg.weight > 0 && leg.slots.iter().any(|slot| slot == token));
        let Some(stable) = stable else { continue };
        let routable = |slot: &String| slots.get(slot).is_some_and(|s| s.life.routable());
        if stable.slots.iter().any(|slot| slot != token && routable(slot)) {
            continue;
        }
        let Some(standby) = &route.traffic.standby else { continue };
        let (version, pool) = standby_pool(slots, standby, &stable.slots);
        if !pool.iter().any(routable) {
            continue;
        }
        let to = if pool.len() == 1 { "slot" } else { "slots" };
        *route = RouteRecord {
            generation: route.generation + 1,
            changed_by_gateway: Some(format!("slot {token}: {why}; fell back to {to} {}", pool.join(", "))),
            traffic: TrafficPlan::all_to(version, pool, None),
            by: None,
            standby: None,
        };
        moved.push(model.clone());
    }
    moved
}

/// The version of a standby and all of its replicas that run or will run again, the named one first: whoever is not ready joins the others
/// when it is. `not`: what has just failed.
fn standby_pool(slots: &BTreeMap<String, SlotRecord>, standby: &str, not: &[String]) -> (String, Vec<String>) {
    let Some(named) = slots.get(standby) else { return (String::new(), Vec::new()) };
    let (model, version) = (&named.request.model, &named.request.version);
    let is_one = |(token, slot): &(&String, &SlotRecord)| {
        first_of(token) == first_of(standby)
            && (&slot.request.model, &slot.request.version) == (model, version)
            && !slot.life.is_over()
            && !not.contains(token)
    };
    let mut pool: Vec<String> = slots.iter().filter(is_one).map(|(token, _)| token.clone()).collect();
    pool.sort_by_key(|token| (token != standby, number_of(token)));
    pool.truncate(plan::MAX_POOL);
    (version.clone(), pool)
}

/// Whether new requests may come to this slot.
pub(crate) fn carries(state: &HostState, token: &str) -> bool {
    let routes = state.routes.values().filter(|route| route.traffic.hold.is_none());
    routes.flat_map(|route| &route.traffic.legs).any(|leg| leg.slots.iter().any(|slot| slot == token))
}

/// The model that the slot serves or stands by for, and as what.
pub(crate) fn role_of(state: &HostState, token: &str) -> Option<(String, &'static str)> {
    state.routes.iter().find_map(|(model, route)| {
        let has = |leg: &crate::ports::Leg| leg.slots.iter().any(|slot| slot == token);
        let role = if route.traffic.stable().is_some_and(has) {
            "the live slot"
        } else if route.traffic.standby.as_deref() == Some(token) {
            "the standby"
        } else if route.traffic.candidates().iter().any(has) {
            "a candidate"
        } else {
            return None;
        };
        Some((model.clone(), role))
    })
}

/// The route as callers see it; `None` when the model never had one.
pub(crate) fn shown(state: &HostState, model: &str) -> Option<Route> {
    let route = state.routes.get(model)?;
    Some(Route {
        model: model.to_owned(),
        generation: route.generation,
        live: route.traffic.stable().and_then(|leg| leg.slots.first()).cloned(),
        standby: route.traffic.standby.clone(),
        traffic: route.traffic.clone(),
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
mod tests;
