//! Changes of routes, one after the other.

use super::*;
use crate::host::slot::Life;
use crate::host::state::SlotRecord;
use crate::ports::{Hold, Leg, Mirror, SlotRequest, Sticky, VersionHeader, WHOLE};
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
                let named: Vec<&String> = route.traffic.slots().collect();
                prop_assert!(named.iter().all(|token| state.slots.contains_key(*token)));
                prop_assert!(named.len() < 2 || named[0] != named[1]);
                prop_assert!(route.traffic.legs.iter().all(|leg| leg.weight == WHOLE));
            }
        }
    }
}

fn leg(version: &str, slots: &[&str], weight: u32) -> Leg {
    Leg { version: version.to_owned(), slots: slots.iter().map(|&s| s.to_owned()).collect(), weight }
}

fn canary(weight: u32) -> TrafficPlan {
    TrafficPlan {
        legs: vec![leg("v", &["a", "b"], WHOLE - weight), leg("v2", &["e"], weight)],
        ..TrafficPlan::default()
    }
}

fn state_with_candidate() -> HostState {
    let mut state = state();
    let (token, mut candidate) = slot("e", "iris", Life::Ready);
    candidate.request.version = "v2".to_owned();
    state.slots.insert(token, candidate);
    state
}

fn divide(traffic: TrafficPlan, expected_generation: u64, epoch: u64) -> RouteRequest {
    let fence = Fence { thread: "t".to_owned(), epoch };
    RouteRequest { model: "iris".to_owned(), traffic, expected_generation, fence }
}

#[test]
fn a_division_must_make_sense() {
    let before = state_with_candidate();
    let with = |change: &dyn Fn(&mut TrafficPlan)| {
        let mut plan = canary(5_000);
        change(&mut plan);
        plan
    };
    let mirror =
        |to: &str, share| Mirror { to: to.to_owned(), share, methods: vec!["POST".into()], paths: vec!["/".into()] };
    let bad = [
        with(&|p| p.legs[1].weight += 1),
        with(&|p| p.legs[1].weight = u32::MAX),
        with(&|p| p.legs[1].version = "v".to_owned()),
        with(&|p| p.legs[1].version = "v3".to_owned()),
        with(&|p| p.legs[1].slots.clear()),
        with(&|p| p.legs[1].slots = vec!["a".to_owned()]),
        with(&|p| p.standby = Some("e".to_owned())),
        with(&|p| p.sticky = Some(Sticky::Header { name: "not a name".to_owned() })),
        with(&|p| p.sticky = Some(Sticky::Cookie { name: "x".to_owned(), max_age_s: 0 })),
        with(&|p| p.version_header = Some(VersionHeader { token_sha256: "secret".to_owned() })),
        with(&|p| p.mirror = Some(mirror("v", 1))),
        with(&|p| p.mirror = Some(mirror("v2", 0))),
        with(&|p| p.mirror = Some(Mirror { methods: vec!["post".into()], ..mirror("v2", 1) })),
        with(&|p| p.mirror = Some(Mirror { paths: vec!["predict".into()], ..mirror("v2", 1) })),
        with(&|p| p.renew_within_ms = Some(1)),
        TrafficPlan { renew_within_ms: Some(1_000), ..canary(0) },
        with(&|p| p.hold = Some(Hold { timeout_ms: u64::MAX })),
    ];
    for plan in bad {
        let mut state = before.clone();
        assert_eq!(
            put(&mut state, &divide(plan.clone(), 0, 1)).unwrap_err().code(),
            "invalid_host_request",
            "{plan:?}"
        );
        assert_eq!(state, before);
    }
    let mut state = before;
    let good = TrafficPlan { mirror: Some(mirror("v2", 1)), renew_within_ms: Some(1_000), ..canary(5_000) };
    put(&mut state, &divide(good.clone(), 0, 1)).unwrap();
    put(&mut state, &divide(good, 0, 1)).unwrap();
    assert_eq!(state.routes["iris"].generation, 1);
    assert_eq!(role_of(&state, "e"), Some(("iris".to_owned(), "a candidate")));
    assert_eq!(shown(&state, "iris").unwrap().live.as_deref(), Some("a"));
}

#[test]
fn a_pool_falls_back_with_its_last_slot_and_takes_the_candidates_along() {
    let mut state = state_with_candidate();
    let (token, standby) = slot("warm", "iris", Life::Ready);
    state.slots.insert(token, standby);
    put(&mut state, &divide(TrafficPlan { standby: Some("warm".to_owned()), ..canary(5_000) }, 0, 1)).unwrap();
    assert!(fall_back(&mut state, "e", "a candidate is no reason").is_empty());
    assert!(fall_back(&mut state, "a", "b is still there").is_empty());
    state.slots.get_mut("a").unwrap().life = Life::Restarting;
    assert_eq!(fall_back(&mut state, "b", "gone"), ["iris"]);
    assert_eq!(state.routes["iris"].traffic, TrafficPlan::all_to("v", vec!["warm".to_owned()], None));
}

#[test]
fn all_replicas_of_a_standby_take_over() {
    let mut state = state_with_candidate();
    let lives =
        [("warm", Life::Unready), ("warm-r2", Life::Ready), ("warm-r3", Life::Restarting), ("warm-r4", Life::Exited)];
    state.slots.extend(lives.map(|(token, life)| slot(token, "iris", life)));
    // Of another version, though its token looks as if it were one of them.
    let (token, mut other) = slot("warm-r5", "iris", Life::Ready);
    other.request.version = "v2".to_owned();
    state.slots.insert(token, other);
    put(&mut state, &divide(TrafficPlan { standby: Some("warm".to_owned()), ..canary(0) }, 0, 1)).unwrap();
    let all_down = |state: &mut HostState| {
        for token in ["warm", "warm-r2"] {
            state.slots.get_mut(token).unwrap().life = Life::Restarting;
        }
    };
    state.slots.get_mut("a").unwrap().life = Life::Restarting;
    let mut nobody = state.clone();
    all_down(&mut nobody);
    assert!(fall_back(&mut nobody, "b", "gone").is_empty(), "nobody of them can take it");
    assert_eq!(fall_back(&mut state, "b", "gone"), ["iris"]);
    let pool = ["warm", "warm-r2", "warm-r3"].map(str::to_owned).to_vec();
    let route = &state.routes["iris"];
    assert_eq!(route.traffic, TrafficPlan::all_to("v", pool, None));
    assert_eq!(route.changed_by_gateway.as_deref(), Some("slot b: gone; fell back to slots warm, warm-r2, warm-r3"));
    assert!(carries(&state, "warm-r3") && !carries(&state, "b"));
}

#[test]
fn a_lease_is_renewed_by_its_owner_only_and_otherwise_returns_everything() {
    let mut state = state_with_candidate();
    let leased = TrafficPlan { renew_within_ms: Some(1_000), ..canary(5_000) };
    put(&mut state, &divide(leased, 0, 3)).unwrap();
    let renewal = |generation, thread: &str, epoch| RenewRequest {
        model: "iris".to_owned(),
        generation,
        fence: Fence { thread: thread.to_owned(), epoch },
    };
    let before = state.clone();
    assert_eq!(renew(&mut state, &renewal(1, "t", 3)).unwrap(), 1_000);
    assert_eq!(state, before, "nothing to write");
    for (request, code) in [
        (renewal(2, "t", 3), "route_generation_conflict"),
        (renewal(1, "t", 2), "stale_fence"),
        (renewal(1, "somebody", 9), "invalid_host_request"),
    ] {
        assert_eq!(renew(&mut state, &request).unwrap_err().code(), code);
    }
    renew(&mut state, &renewal(1, "t", 4)).unwrap();
    assert_eq!(renew(&mut state, &renewal(1, "t", 3)).unwrap_err().code(), "stale_fence");

    assert!(!lease_over(&mut state, "iris", 7) && !lease_over(&mut state, "wine", 1));
    assert!(lease_over(&mut state, "iris", 1));
    let route = shown(&state, "iris").unwrap();
    assert_eq!((route.generation, &route.traffic.legs[..]), (2, &[leg("v", &["a", "b"], WHOLE)][..]));
    let why = route.changed_by_gateway.unwrap();
    assert!(why.contains("t did not renew") && why.contains("version v"), "{why}");
    assert!(!lease_over(&mut state, "iris", 2));
    assert_eq!(renew(&mut state, &renewal(2, "t", 4)).unwrap_err().code(), "invalid_host_request");
}
