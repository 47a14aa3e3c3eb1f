//! Whether a division of traffic makes sense, before anything is changed for it.

use std::collections::BTreeSet;
use std::time::Duration;

use hyper::Method;
use hyper::header::HeaderName;

use super::HostError;
use super::state::HostState;
use crate::ports::{Leg, Mirror, Sticky, TrafficPlan, WHOLE};

/// The stable leg and seven candidates: more versions of one model at once are a mistake.
const MAX_LEGS: usize = 8;
/// Replicas of a version on one machine.
pub(super) const MAX_POOL: usize = 64;
/// Shorter leases would end by a pause of the scheduler.
const MIN_LEASE: Duration = Duration::from_millis(100);
/// Nobody watches what is renewed less often.
const MAX_LEASE: Duration = Duration::from_secs(24 * 3600);
/// A request that waits longer has lost its client.
const MAX_HOLD: Duration = Duration::from_secs(3600);
/// RFC 6265bis: browsers cap it there.
const MAX_COOKIE_AGE: Duration = Duration::from_secs(400 * 24 * 3600);

/// Refuses what could not be carried out, or would mean nothing.
pub(super) fn check(state: &HostState, model: &str, plan: &TrafficPlan) -> Result<(), HostError> {
    for token in plan.slots() {
        check_slot(state, token, model)?;
    }
    check_legs(state, plan)?;
    check_sticky(plan.sticky.as_ref())?;
    if let Some(header) = &plan.version_header {
        let hex = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f');
        if header.token_sha256.len() != 64 || !header.token_sha256.bytes().all(hex) {
            let hint = "give the token's SHA-256 in lower-case hex, never the token";
            return Err(HostError::invalid("token_sha256 is no digest", hint));
        }
    }
    if let Some(mirror) = &plan.mirror {
        check_mirror(plan, mirror)?;
    }
    check_times(plan)
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

fn check_legs(state: &HostState, plan: &TrafficPlan) -> Result<(), HostError> {
    let mut named = BTreeSet::new();
    if let Some(twice) = plan.slots().find(|token| !named.insert(*token)) {
        let message = match &plan.standby {
            Some(standby) if standby == twice => "a slot cannot be its own standby".to_owned(),
            _ => format!("the slot {twice} is named twice"),
        };
        return Err(HostError::invalid(message, "name each slot once"));
    }
    if plan.legs.len() > MAX_LEGS || plan.legs.iter().any(|leg| leg.slots.is_empty() || leg.slots.len() > MAX_POOL) {
        let message = format!("at most {MAX_LEGS} legs, each with 1 to {MAX_POOL} slots");
        return Err(HostError::invalid(message, "leave out the versions that get nothing"));
    }
    let mut versions = BTreeSet::new();
    for leg in &plan.legs {
        if !versions.insert(&leg.version) {
            return Err(HostError::invalid(format!("version {} has two legs", leg.version), "give it one leg"));
        }
        check_version(state, leg)?;
    }
    let sum: u64 = plan.legs.iter().map(|leg| u64::from(leg.weight)).sum();
    if !plan.legs.is_empty() && sum != u64::from(WHOLE) {
        let message = format!("the weights make {sum}, not {WHOLE}");
        return Err(HostError::invalid(message, "weights are parts of 100000 and make all of it"));
    }
    Ok(())
}

fn check_version(state: &HostState, leg: &Leg) -> Result<(), HostError> {
    for token in &leg.slots {
        let version = state.slots.get(token).map(|slot| &slot.request.version);
        if version != Some(&leg.version) {
            let has = version.map_or("none", String::as_str);
            let message = format!("the slot {token} has version {has}, not {}", leg.version);
            return Err(HostError::invalid(message, "a leg has slots of one version"));
        }
    }
    Ok(())
}

fn check_sticky(sticky: Option<&Sticky>) -> Result<(), HostError> {
    // Header names and cookie names are the same tokens (RFC 9110 5.6.2, RFC 6265 4.1.1).
    let is_token = |name: &str| name.parse::<HeaderName>().is_ok();
    match sticky {
        Some(Sticky::Header { name } | Sticky::Cookie { name, .. }) if !is_token(name) => {
            Err(HostError::invalid(format!("{name:?} is no name of a header or cookie"), "use letters, digits and `-`"))
        }
        Some(Sticky::Cookie { max_age_s, .. }) if !(1..=MAX_COOKIE_AGE.as_secs()).contains(max_age_s) => {
            Err(HostError::invalid("max_age_s is out of range", "browsers keep cookies for 400 days at most"))
        }
        _ => Ok(()),
    }
}

fn check_mirror(plan: &TrafficPlan, mirror: &Mirror) -> Result<(), HostError> {
    if !plan.candidates().iter().any(|leg| leg.version == mirror.to) {
        let message = format!("the mirror's version {} is no candidate of this route", mirror.to);
        return Err(HostError::invalid(message, "give it a leg, of weight 0 if nothing but the mirror shall reach it"));
    }
    if !(1..=WHOLE).contains(&mirror.share) {
        let message = format!("a mirror's share is 1 to {WHOLE}, not {}", mirror.share);
        return Err(HostError::invalid(message, "leave the mirror out where nothing is to be repeated"));
    }
    let is_method = |name: &String| {
        name.parse::<Method>().is_ok_and(|m| m != Method::CONNECT) && !name.bytes().any(|b| b.is_ascii_lowercase())
    };
    if mirror.methods.is_empty() || !mirror.methods.iter().all(is_method) {
        return Err(HostError::invalid("a mirror's methods are names like GET", "declare what may be repeated"));
    }
    if mirror.paths.is_empty() || !mirror.paths.iter().all(|path| path.starts_with('/')) {
        let hint = "declare the beginnings of paths below the model's own, e.g. /predict";
        return Err(HostError::invalid("a mirror's paths begin with /", hint));
    }
    Ok(())
}

fn check_times(plan: &TrafficPlan) -> Result<(), HostError> {
    if let Some(ms) = plan.renew_within_ms {
        if !plan.is_partial() {
            let hint = "leave renew_within_ms out where no candidate gets anything";
            return Err(HostError::invalid("there is nothing that a lease could return", hint));
        }
        if !(MIN_LEASE..=MAX_LEASE).contains(&Duration::from_millis(ms)) {
            let hint = "choose 100 ms to a day";
            return Err(HostError::invalid(format!("a lease of {ms} ms is out of range"), hint));
        }
    }
    if plan.hold.is_some_and(|hold| Duration::from_millis(hold.timeout_ms) > MAX_HOLD) {
        return Err(HostError::invalid("a hold is an hour at most", "choose a shorter time"));
    }
    Ok(())
}
