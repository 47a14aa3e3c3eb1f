//! Who gets how much, and who stays where.

use super::*;
use crate::host::gateway::meter::Metrics;
use crate::host::slot::Life;

fn upstream(token: &str, life: Life) -> Arc<Upstream> {
    let upstream = Upstream::new(token, "iris", "v", 1, Metrics::new().meter("iris", "v", token));
    upstream.follow(life);
    Arc::new(upstream)
}

fn leg(version: &str, slots: &[&str], weight: u32) -> Leg {
    Leg { version: version.to_owned(), slots: slots.iter().map(|&s| s.to_owned()).collect(), weight }
}

fn route_of(legs: Vec<Leg>, slots: &[Arc<Upstream>]) -> RouteNow {
    let plan = TrafficPlan { legs, ..TrafficPlan::default() };
    RouteNow::new(&plan, |token| slots.iter().find(|slot| slot.token == token).cloned())
}

fn weighted(weights: &[u32]) -> RouteNow {
    let names: Vec<String> = (0..weights.len()).map(|n| format!("s{n}")).collect();
    let slots: Vec<_> = names.iter().map(|name| upstream(name, Life::Ready)).collect();
    let legs = names.iter().zip(weights).map(|(name, weight)| leg(&format!("v-{name}"), &[name.as_str()], *weight));
    route_of(legs.collect(), &slots)
}

fn chosen(route: &RouteNow, wish: Wish<'_>, not: Option<&Arc<Upstream>>) -> String {
    match route.choose(wish, not) {
        Choice::Slot(upstream) => upstream.token.clone(),
        other => format!("{other:?}"),
    }
}

#[test]
fn shares_converge_to_the_weights() {
    const N: u32 = 400_000;
    for weights in [vec![100_000], vec![95_000, 5_000], vec![0, 100_000], vec![60_000, 25_000, 10_000, 5_000]] {
        let route = weighted(&weights);
        let mut counts = vec![0_u32; weights.len()];
        for _ in 0..N {
            let token = chosen(&route, Wish::Point(draw::point()), None);
            counts[token[1..].parse::<usize>().unwrap()] += 1;
        }
        for (count, weight) in counts.iter().zip(&weights) {
            let share = f64::from(*weight) / f64::from(WHOLE);
            // Six standard deviations of a binomial: a fair one is outside once in half a billion.
            let deviation = (f64::from(N) * share * (1.0 - share)).sqrt();
            let off = (f64::from(*count) - f64::from(N) * share).abs();
            assert!(off <= 6.0 * deviation, "{weights:?}: {counts:?}");
        }
    }
}

#[test]
fn raising_a_weight_moves_callers_towards_the_candidate_only() {
    let (small, large) = (weighted(&[95_000, 5_000]), weighted(&[75_000, 25_000]));
    let (three, more) = (weighted(&[80_000, 5_000, 15_000]), weighted(&[55_000, 30_000, 15_000]));
    let mut at_large = 0;
    for n in 0..20_000_u32 {
        let caller = format!("caller-{n}");
        let at = |route: &RouteNow| chosen(route, Wish::Point(route.point_of(caller.as_bytes())), None);
        if at(&small) == "s1" {
            assert_eq!(at(&large), "s1");
        }
        at_large += u32::from(at(&large) == "s1");
        // Of two candidates the one that stays as it is keeps exactly its own.
        assert_eq!(at(&three) == "s2", at(&more) == "s2");
        assert!(at(&three) != "s1" || at(&more) == "s1");
    }
    assert!((4_500..5_500).contains(&at_large), "{at_large}");
}

#[test]
fn callers_of_one_release_are_not_those_of_the_next() {
    let of = |candidate: &str| {
        let legs = vec![leg("v1", &["a"], 90_000), leg(candidate, &["b"], 10_000)];
        route_of(legs, &[upstream("a", Life::Ready), upstream("b", Life::Ready)])
    };
    let (one, next) = (of("v2"), of("v3"));
    let at = |route: &RouteNow, n: u32| chosen(route, Wish::Point(route.point_of(&n.to_le_bytes())), None) == "b";
    let both = (0..20_000).filter(|n| at(&one, *n) && at(&next, *n)).count();
    // Independent: a tenth of a tenth, 200, with a deviation of 14.
    assert!((116..284).contains(&both), "{both}");
}

#[test]
fn a_candidate_that_cannot_answer_is_replaced_by_the_stable_leg_and_not_the_other_way_round() {
    let (stable, candidate) = (upstream("a", Life::Ready), upstream("b", Life::Restarting));
    let legs = || vec![leg("v1", &["a"], 0), leg("v2", &["b"], WHOLE)];
    let route = route_of(legs(), &[Arc::clone(&stable), Arc::clone(&candidate)]);
    assert_eq!(chosen(&route, Wish::Point(0), None), "a");
    assert_eq!(chosen(&route, Wish::Version("v2"), None), "Wait");
    assert_eq!(chosen(&route, Wish::Version("v3"), None), "NoSuchVersion");
    candidate.follow(Life::Ready);
    assert_eq!(chosen(&route, Wish::Point(0), None), "b");
    assert_eq!(chosen(&route, Wish::Point(0), Some(&candidate)), "a");
    assert_eq!(chosen(&route, Wish::Version("v1"), None), "a");

    let mostly_stable = route_of(vec![leg("v1", &["a"], 99_999), leg("v2", &["b"], 1)], &[stable.clone(), candidate]);
    stable.follow(Life::Restarting);
    assert_eq!(chosen(&mostly_stable, Wish::Point(50_000), None), "Wait");
}

#[test]
fn of_a_pool_the_fit_and_idle_ones_are_taken() {
    let slots: Vec<_> = ["a", "b", "c", "d"].map(|token| upstream(token, Life::Ready)).into();
    let route = route_of(vec![leg("v1", &["a", "b", "c", "d"], WHOLE)], &slots);
    let taken = || (0..200).map(|_| chosen(&route, Wish::Point(0), None)).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(taken().len(), 4);
    slots[0].follow(Life::Restarting);
    slots[1].follow(Life::Unready);
    assert!(slots[2].health.refused(health::now()));
    assert_eq!(taken(), ["d".to_owned()].into());
    // Just tried in vain: rather one that is ejected than the same again.
    assert_eq!(chosen(&route, Wish::Point(0), Some(&slots[3])), "c");
    slots[3].follow(Life::Restarting);
    assert_eq!(taken(), ["c".to_owned()].into());
    slots[2].follow(Life::Unready);
    assert_eq!(taken(), ["b".to_owned(), "c".to_owned()].into());

    for slot in &slots {
        slot.follow(Life::Ready);
    }
    let route = route_of(vec![leg("v1", &["a", "b"], WHOLE)], &slots);
    slots[0].meter.enter();
    assert_eq!(taken_of(&route), ["b".to_owned()].into(), "the one with fewer under way");
}

fn taken_of(route: &RouteNow) -> std::collections::BTreeSet<String> {
    (0..200).map(|_| chosen(route, Wish::Point(0), None)).collect()
}

#[test]
fn a_hold_waits_whatever_there_is() {
    let plan = TrafficPlan {
        hold: Some(crate::ports::Hold { timeout_ms: 1 }),
        ..TrafficPlan::all_to("v1", vec!["a".to_owned()], None)
    };
    let slot = upstream("a", Life::Ready);
    let route = RouteNow::new(&plan, |_| Some(Arc::clone(&slot)));
    assert_eq!(chosen(&route, Wish::Point(0), None), "Wait");
    assert_eq!(chosen(&route, Wish::Version("v2"), None), "NoSuchVersion");
    let nothing = TrafficPlan { legs: vec![], ..plan };
    assert_eq!(chosen(&RouteNow::new(&nothing, |_| None), Wish::Point(0), None), "Wait");
}
