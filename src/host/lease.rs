//! Leases on partial weights: an owner that does not come back loses what it has given to a candidate.
//!
//! Only that a route has a lease is durable, not when it ends: that is told by this process' monotonic clock, which no correction of
//! the time moves. A new daemon counts from its own start.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::core::Core;
use super::routes;
use super::state::HostState;

/// When each route's lease ends.
#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<HashMap<String, Lease>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lease {
    generation: u64,
    until: Instant,
}

impl Leases {
    /// Follows the routes: forgets what is over, begins what is new. Returns the models whose lease has ended, with generation, and when
    /// the next one ends.
    fn follow(&self, state: &HostState, now: Instant) -> (Vec<(String, u64)>, Option<Instant>) {
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // While the home is down nothing is carried; the time counts anew from `up`.
        let leased = |model: &String| {
            let route = state.routes.get(model).filter(|_| !state.down)?;
            Some((route.generation, Duration::from_millis(route.traffic.renew_within_ms?)))
        };
        leases.retain(|model, lease| leased(model).is_some_and(|(generation, _)| generation == lease.generation));
        for model in state.routes.keys() {
            if let Some((generation, within)) = leased(model) {
                leases.entry(model.clone()).or_insert(Lease { generation, until: now + within });
            }
        }
        let over = leases.iter().filter(|(_, lease)| lease.until <= now);
        let over = over.map(|(model, lease)| (model.clone(), lease.generation)).collect();
        (over, leases.values().map(|lease| lease.until).filter(|until| *until > now).min())
    }

    /// Begins the time anew.
    pub(crate) fn renew(&self, model: &str, generation: u64, within: Duration) {
        let until = Instant::now() + within;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(model.to_owned(), Lease { generation, until });
    }

    fn is_over(&self, model: &str, generation: u64) -> bool {
        let leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        leases.get(model).is_some_and(|lease| lease.generation == generation && lease.until <= Instant::now())
    }
}

/// Watches over all leases, as long as the daemon lives.
pub(crate) async fn watch(core: Arc<Core>) {
    let mut changes = core.board.changes();
    loop {
        changes.mark_unchanged();
        let (over, next) = core.leases.follow(&core.state(), Instant::now());
        for (model, generation) in over {
            give_back(&core, model, generation).await;
        }
        let next = next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        // Either a change or the end of a lease; both lead back to the top.
        let _ = tokio::time::timeout_at(next.into(), changes.changed()).await;
    }
}

async fn give_back(core: &Arc<Core>, model: String, generation: u64) {
    let (leases, of) = (Arc::clone(core), model.clone());
    let changed = core.update_anyway(move |state| {
        // Asked again where no renewal can come in between.
        leases.leases.is_over(&of, generation) && routes::lease_over(state, &of, generation)
    });
    match changed.await {
        Ok(true) => {
            tracing::warn!(model, generation, "the lease on its traffic was not renewed; all goes to the stable leg")
        }
        Ok(false) => {}
        Err(error) => tracing::error!(model, %error, "cannot give the traffic back"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::state::RouteRecord;
    use crate::ports::TrafficPlan;

    fn state(generation: u64, renew_within_ms: Option<u64>) -> HostState {
        let traffic = TrafficPlan { renew_within_ms, ..TrafficPlan::default() };
        let route = RouteRecord { generation, traffic, changed_by_gateway: None, by: None, standby: None };
        HostState { routes: [("iris".to_owned(), route)].into(), ..HostState::default() }
    }

    #[test]
    fn a_lease_ends_when_nobody_renews_it_and_counts_anew_for_each_generation() {
        let (leases, now) = (Leases::default(), Instant::now());
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!(leases.follow(&state(1, None), now), (vec![], None));
        assert_eq!(leases.follow(&state(2, Some(100)), now), (vec![], Some(at(100))));
        assert_eq!(leases.follow(&state(2, Some(100)), at(99)), (vec![], Some(at(100))));
        assert_eq!(leases.follow(&state(2, Some(100)), at(100)), (vec![("iris".to_owned(), 2)], None));
        // Changed, removed, down: the old time is forgotten.
        assert_eq!(leases.follow(&state(3, Some(100)), at(150)), (vec![], Some(at(250))));
        let down = HostState { down: true, ..state(3, Some(100)) };
        assert_eq!(leases.follow(&down, at(500)), (vec![], None));
        assert_eq!(leases.follow(&state(3, Some(100)), at(600)), (vec![], Some(at(700))));
        leases.renew("iris", 3, Duration::from_secs(60));
        assert!(leases.follow(&state(3, Some(100)), at(900)).0.is_empty() && !leases.is_over("iris", 3));
    }
}
