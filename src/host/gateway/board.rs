//! The routing table that requests read: rebuilt as a whole from every new state, swapped atomically.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::meter::{Meter, Metrics};
use crate::host::state::HostState;

/// A slot as the gateway sees it; one for the slot's whole life, so that its figures and requests under way go on over switches.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) token: String,
    model: String,
    /// Changes when the slot was started again and its port had been taken meanwhile.
    port: AtomicU16,
    routable: AtomicBool,
    pub(crate) meter: Meter,
}

impl Upstream {
    pub(crate) fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    pub(crate) fn routable(&self) -> bool {
        self.routable.load(Ordering::Relaxed)
    }
}

/// All slots, and which of them answers for which model.
#[derive(Debug)]
pub(crate) struct Board {
    upstreams: Mutex<HashMap<String, Arc<Upstream>>>,
    live: ArcSwap<HashMap<String, Arc<Upstream>>>,
    changed: watch::Sender<()>,
    pub(crate) metrics: Metrics,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self {
            upstreams: Mutex::default(),
            live: ArcSwap::default(),
            changed: watch::Sender::new(()),
            metrics: Metrics::new(),
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
                Arc::new(Upstream {
                    token: token.clone(),
                    model: request.model.clone(),
                    port: AtomicU16::new(slot.port),
                    routable: AtomicBool::new(false),
                    meter: self.metrics.meter(&request.model, &request.version, token),
                })
            });
            upstream.port.store(slot.port, Ordering::Relaxed);
            upstream.routable.store(slot.life.routable(), Ordering::Relaxed);
        }
        let of_model = |(model, route): (&String, &crate::host::state::RouteRecord)| {
            Some((model.clone(), Arc::clone(upstreams.get(route.live.as_ref()?)?)))
        };
        self.live.store(Arc::new(state.routes.iter().filter_map(of_model).collect()));
        drop(upstreams);
        self.changed.send_replace(());
    }

    /// The slot that answers for a model now.
    pub(crate) fn live(&self, model: &str) -> Option<Arc<Upstream>> {
        self.live.load().get(model).cloned()
    }

    /// Counts a request in at the model's slot. Looks again after counting, so that whoever waits for a slot to have no requests
    /// after a switch sees either this one or none.
    pub(crate) fn enter(&self, model: &str) -> Option<Arc<Upstream>> {
        loop {
            let upstream = self.live(model)?;
            upstream.meter.enter();
            std::sync::atomic::fence(Ordering::SeqCst);
            if self.live.load().get(model).is_some_and(|now| Arc::ptr_eq(now, &upstream)) {
                return Some(upstream);
            }
            upstream.meter.leave();
        }
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

    /// Requests under way at all slots.
    pub(crate) fn in_flight(&self) -> u64 {
        let upstreams = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        upstreams.values().map(|upstream| upstream.meter.in_flight()).sum()
    }
}
