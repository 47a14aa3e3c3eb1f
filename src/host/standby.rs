//! The end of a standby's time: taken out of its route, drained, removed.
//!
//! When it ends is told as for an engine's timer: by this process' monotonic clock as long as it lives, which no correction of the time
//! moves; a new daemon takes what the clock says is left, at most all of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::control::Host;
use super::routes;
use super::state::{HostState, StandbyTerm};

/// A clock that is set is noticed after this.
const LOOK_AT_LEAST: Duration = Duration::from_secs(3600);
/// Longest wait for requests that began while it was live.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// When each route's standby has been kept long enough, by model.
#[derive(Default)]
struct Terms(HashMap<String, (u64, StandbyTerm, Instant)>);

impl Terms {
    /// Follows the routes: forgets what is over, begins what is new. Returns the models whose standby's time has ended, with generation,
    /// and when the next one ends.
    fn follow(
        &mut self,
        state: &HostState,
        now: Instant,
        clock: DateTime<Utc>,
    ) -> (Vec<(String, u64)>, Option<Instant>) {
        // While the home is down nothing stands by, and nothing is removed.
        let term = |model: &String| {
            let route = state.routes.get(model).filter(|_| !state.down)?;
            Some((route.generation, route.standby.clone()?))
        };
        self.0.retain(|model, (generation, known, _)| {
            term(model).is_some_and(|(now, term)| (now, &term) == (*generation, &*known))
        });
        for model in state.routes.keys() {
            if let Some((generation, term)) = term(model) {
                let until = now + left(&term, clock);
                self.0.entry(model.clone()).or_insert((generation, term, until));
            }
        }
        let over = self.0.iter().filter(|(_, (.., until))| *until <= now);
        let over = over.map(|(model, (generation, ..))| (model.clone(), *generation)).collect();
        (over, self.0.values().map(|(.., until)| *until).filter(|until| *until > now).min())
    }
}

fn left(term: &StandbyTerm, clock: DateTime<Utc>) -> Duration {
    let gone = (clock - term.since).to_std().unwrap_or_default();
    Duration::from_millis(term.keep_ms).saturating_sub(gone)
}

/// Watches over all standbys, as long as the daemon lives.
pub(crate) async fn watch(host: Arc<Host>) {
    let mut changes = host.core.board.changes();
    let mut terms = Terms::default();
    loop {
        changes.mark_unchanged();
        let (over, next) = terms.follow(&host.core.state(), Instant::now(), Utc::now());
        for (model, generation) in over {
            retire(&host, model, generation).await;
        }
        let latest = Instant::now() + LOOK_AT_LEAST;
        let next = next.map_or(latest, |next| next.min(latest));
        // Either a change or the end of a term; both lead back to the top.
        let _ = tokio::time::timeout_at(next.into(), changes.changed()).await;
    }
}

/// Out of the route first; only then does it end.
async fn retire(host: &Arc<Host>, model: String, generation: u64) {
    let of = model.clone();
    let taken = host.core.update_anyway(move |state| routes::standby_over(state, &of, generation)).await;
    let tokens = match taken {
        Ok(tokens) => tokens,
        Err(error) => return tracing::error!(model, %error, "cannot take the standby out of the route"),
    };
    for token in tokens {
        tracing::info!(model, token, "the standby has been kept as long as was asked; it ends");
        // What is still under way afterwards has had its time.
        let removed = match host.drain(&token, DRAIN_WITHIN).await {
            Ok(_) => host.supervisor.remove(&token, host.core.settings.stop_grace_ms).await,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(model, token, %error, "the standby could not be removed; the next release of the model retires it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::state::RouteRecord;
    use crate::ports::TrafficPlan;

    fn state(generation: u64, since: DateTime<Utc>, keep_ms: u64) -> HostState {
        let standby = Some(StandbyTerm { since, keep_ms });
        let traffic = TrafficPlan { standby: Some("a".into()), ..TrafficPlan::default() };
        let route = RouteRecord { generation, traffic, changed_by_gateway: None, by: None, standby };
        HostState { routes: [("iris".to_owned(), route)].into(), ..HostState::default() }
    }

    #[test]
    fn a_term_goes_by_the_process_own_clock_and_a_new_daemon_s_by_what_is_left() {
        let (mut terms, now, clock) = (Terms::default(), Instant::now(), Utc::now());
        let at = |ms| now + Duration::from_millis(ms);
        let jumped = clock + chrono::Duration::days(400);
        let kept = state(2, clock, 1000);
        assert_eq!(terms.follow(&kept, now, clock), (vec![], Some(at(1000))));
        assert_eq!(terms.follow(&kept, at(999), jumped).0, vec![]);
        assert_eq!(terms.follow(&kept, at(1000), clock).0, vec![("iris".to_owned(), 2)]);
        // Changed meanwhile, or the home is down: another term, or none.
        assert_eq!(terms.follow(&state(3, clock, 500), at(1000), clock), (vec![], Some(at(1500))));
        let down = HostState { down: true, ..state(3, clock, 500) };
        assert_eq!(terms.follow(&down, at(9000), clock), (vec![], None));
        // A new daemon: what is left, at most all of it.
        let early = clock - chrono::Duration::milliseconds(400);
        assert_eq!(Terms::default().follow(&state(2, early, 1000), now, clock).1, Some(at(600)));
        let ahead = clock + chrono::Duration::days(3);
        assert_eq!(Terms::default().follow(&state(2, ahead, 1000), now, clock).1, Some(at(1000)));
    }
}
