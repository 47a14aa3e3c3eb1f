//! The routing table that requests read: rebuilt as a whole from every new state, swapped atomically.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use super::health::Health;
use super::meter::{Meter, Metrics};
use super::mirror::Mirrors;
use super::series;
use super::table::RouteNow;
use crate::host::slot::Life;
use crate::host::state::{HostState, RouteRecord};
use crate::ports::SeriesPage;

const UNROUTABLE: u8 = 0;
const UNREADY: u8 = 1;
const READY: u8 = 2;

/// A slot as the gateway sees it; one for the slot's whole life, so that its figures and requests under way go on over switches.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) token: String,
    pub(super) version: String,
    model: String,
    /// Changes when the slot was started again and its port had been taken meanwhile.
    port: AtomicU16,
    /// From the readiness checks, which go on as long as the slot lives.
    fitness: AtomicU8,
    /// From the answers.
    pub(super) health: Health,
    pub(crate) meter: Meter,
    /// Wakes what goes on after a change of protocol, to end it.
    pub(crate) tunnels: Notify,
}

impl Upstream {
    pub(crate) fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    /// Whether traffic may be sent there.
    pub(crate) fn routable(&self) -> bool {
        self.fitness.load(Ordering::Relaxed) != UNROUTABLE
    }

    /// Whether it has answered ready lately.
    pub(super) fn ready(&self) -> bool {
        self.fitness.load(Ordering::Relaxed) == READY
    }

    pub(super) fn follow(&self, life: Life) {
        let fitness = match life {
            Life::Ready => READY,
            life if life.routable() => UNREADY,
            _ => UNROUTABLE,
        };
        self.fitness.store(fitness, Ordering::Relaxed);
        self.meter.ready(fitness == READY);
    }

    pub(super) fn new(token: &str, model: &str, version: &str, port: u16, meter: Meter) -> Self {
        Self {
            token: token.to_owned(),
            model: model.to_owned(),
            version: version.to_owned(),
            port: AtomicU16::new(port),
            fitness: AtomicU8::new(UNROUTABLE),
            health: Health::default(),
            meter,
            tunnels: Notify::new(),
        }
    }
}

/// All slots, and which of them answer for which model.
#[derive(Debug)]
pub(crate) struct Board {
    upstreams: Mutex<HashMap<String, Arc<Upstream>>>,
    routes: ArcSwap<HashMap<String, Arc<RouteNow>>>,
    changed: watch::Sender<()>,
    pub(crate) metrics: Metrics,
    pub(crate) mirrors: Arc<Mirrors>,
}

impl Board {
    pub(crate) fn new() -> Self {
        let metrics = Metrics::new();
        Self {
            upstreams: Mutex::default(),
            routes: ArcSwap::default(),
            changed: watch::Sender::new(()),
            mirrors: Mirrors::new(&metrics),
            metrics,
        }
    }

    /// Follows a new state.
    pub(crate) fn apply(&self, state: &HostState) {
        let mut upstreams = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        upstreams.retain(|token, upstream| {
            let stays = state.slots.contains_key(token);
            if !stays {
                self.metrics.forget(&upstream.meter);
            }
            stays
        });
        for (token, slot) in &state.slots {
            let request = &slot.request;
            let upstream = upstreams.entry(token.clone()).or_insert_with(|| {
                let meter = self.metrics.meter(&request.model, &request.version, token);
                Arc::new(Upstream::new(token, &request.model, &request.version, slot.port, meter))
            });
            upstream.port.store(slot.port, Ordering::Relaxed);
            upstream.follow(slot.life);
        }
        let before = self.routes.load();
        let now = |(model, route): (&String, &RouteRecord)| {
            if route.traffic.legs.is_empty() && route.traffic.hold.is_none() {
                return None;
            }
            let now = RouteNow::new(&route.traffic, |token| upstreams.get(token).cloned());
            // The same one as long as nothing of it changes: requests tell by that whether they have to choose again.
            let same = before.get(model).filter(|before| before.is_same(&now));
            Some((model.clone(), same.cloned().unwrap_or_else(|| Arc::new(now))))
        };
        self.routes.store(Arc::new(state.routes.iter().filter_map(now).collect()));
        drop(upstreams);
        self.changed.send_replace(());
    }

    /// A model's route now.
    pub(super) fn route(&self, model: &str) -> Option<Arc<RouteNow>> {
        self.routes.load().get(model).cloned()
    }

    /// Counts a request in at a slot that `route` chose. Looks again after counting, so that whoever waits for a slot to have no
    /// requests after a change sees either this one or none. False: the route has changed meanwhile, choose again.
    pub(super) fn enter(&self, model: &str, route: &Arc<RouteNow>, upstream: &Upstream) -> bool {
        upstream.meter.enter();
        std::sync::atomic::fence(Ordering::SeqCst);
        let unchanged = self.routes.load().get(model).is_some_and(|now| Arc::ptr_eq(now, route));
        if !unchanged {
            upstream.meter.leave();
        }
        unchanged
    }

    /// Wakes on every change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// A slot by its token.
    pub(crate) fn upstream(&self, token: &str) -> Option<Arc<Upstream>> {
        self.upstreams.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }

    /// All slots of a model.
    pub(crate) fn of_model(&self, model: &str) -> Vec<Arc<Upstream>> {
        let upstreams = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<_> = upstreams.values().filter(|u| u.model == model).cloned().collect();
        found.sort_by(|a, b| a.token.cmp(&b.token));
        found
    }

    /// What the slots of a model did in the complete seconds after one.
    pub(crate) fn series(&self, model: &str, after: u64) -> SeriesPage {
        let now = series::now();
        let slots = self.of_model(model).iter().map(|upstream| upstream.meter.seconds(after, now)).collect();
        SeriesPage { since: series::began(), until: now.saturating_sub(1), slots }
    }

    /// Requests under way at all slots.
    pub(crate) fn in_flight(&self) -> u64 {
        let upstreams = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        upstreams.values().map(|upstream| upstream.meter.in_flight()).sum()
    }
}
