//! A route as requests read it: made once per change, never changed, and asked for a slot by each request.

use std::sync::Arc;

use super::board::Upstream;
use super::draw;
use super::health;
use super::mirror::Rule;
use super::sticky::Key;
use super::version::Gate;
use crate::ports::{Leg, TrafficPlan, WHOLE};

/// One model's route.
#[derive(Debug)]
pub(crate) struct RouteNow {
    pub(super) plan: TrafficPlan,
    legs: Vec<LegNow>,
    /// The candidate's name: callers of one release are not always those of the next.
    salt: Vec<u8>,
    pub(super) key: Option<Key>,
    pub(super) gate: Option<Gate>,
    pub(super) mirror: Option<Rule>,
}

/// One version's slots.
#[derive(Debug)]
pub(super) struct LegNow {
    pub(super) version: String,
    pool: Vec<Arc<Upstream>>,
    weight: u32,
}

/// What a request wants.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wish<'a> {
    /// This version and no other.
    Version(&'a str),
    /// Wherever this point of the whole lies.
    Point(u32),
}

/// Where a request goes.
#[derive(Debug)]
pub(super) enum Choice<'a> {
    Slot(&'a Arc<Upstream>),
    /// Nothing can take it now.
    Wait,
    /// No leg has this version.
    NoSuchVersion,
}

impl RouteNow {
    /// Puts the plan and its slots together; a slot that is not there is left out.
    pub(super) fn new(plan: &TrafficPlan, upstream: impl Fn(&str) -> Option<Arc<Upstream>>) -> Self {
        let leg = |leg: &Leg| LegNow {
            version: leg.version.clone(),
            pool: leg.slots.iter().filter_map(|token| upstream(token)).collect(),
            weight: leg.weight,
        };
        Self {
            legs: plan.legs.iter().map(leg).collect(),
            salt: plan.candidates().first().map(|leg| leg.version.clone().into_bytes()).unwrap_or_default(),
            key: plan.sticky.as_ref().and_then(Key::new),
            gate: plan.version_header.as_ref().and_then(Gate::new),
            mirror: plan.mirror.as_ref().map(Rule::new),
            plan: plan.clone(),
        }
    }

    /// Whether nothing has changed: the same plan with the same slots.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let same = |(a, b): (&LegNow, &LegNow)| {
            a.pool.len() == b.pool.len() && a.pool.iter().zip(&b.pool).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        self.plan == other.plan && self.legs.iter().zip(&other.legs).all(same)
    }

    /// The slot for a request. `not`: where it has just been in vain; chosen again only where there is no other.
    pub(super) fn choose(&self, wish: Wish<'_>, not: Option<&Arc<Upstream>>) -> Choice<'_> {
        let leg = match wish {
            Wish::Version(version) => match self.legs.iter().find(|leg| leg.version == version) {
                Some(leg) => leg,
                None => return Choice::NoSuchVersion,
            },
            Wish::Point(point) => match self.leg_at(point) {
                Some(leg) => leg,
                None => return Choice::Wait,
            },
        };
        if self.plan.hold.is_some() {
            return Choice::Wait;
        }
        let picked = leg.pick(not);
        let in_vain = picked.is_none_or(|picked| not.is_some_and(|not| Arc::ptr_eq(not, picked)));
        // A candidate that cannot answer is replaced by what is proven; never the other way round.
        let instead = match wish {
            Wish::Point(_) if in_vain => self.legs.first().and_then(|stable| stable.pick(not)),
            _ => None,
        };
        instead.or(picked).map_or(Choice::Wait, Choice::Slot)
    }

    /// The leg at a point of the whole. Candidates grow from both ends towards the middle, which is the stable leg's: so a candidate
    /// that grows takes from the stable leg only.
    fn leg_at(&self, point: u32) -> Option<&LegNow> {
        let (mut low, mut high) = (0, WHOLE);
        for (n, leg) in self.legs.iter().skip(1).enumerate() {
            if n % 2 == 0 {
                low += leg.weight;
                if point < low {
                    return Some(leg);
                }
            } else {
                high = high.saturating_sub(leg.weight);
                if point >= high {
                    return Some(leg);
                }
            }
        }
        self.legs.first()
    }

    /// The point of a caller who is known by something.
    pub(super) fn point_of(&self, caller: &[u8]) -> u32 {
        draw::point_of(draw::hash(&[&self.salt, caller]))
    }

    /// The slots of a version; `None` where it has no leg.
    pub(super) fn pick_version(&self, version: &str) -> Option<&Arc<Upstream>> {
        self.legs.iter().find(|leg| leg.version == version)?.pick(None)
    }

    /// How many slots there are to try.
    pub(super) fn slots(&self) -> usize {
        self.legs.iter().map(|leg| leg.pool.len()).sum()
    }
}

/// How willingly a slot is taken; higher is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fitness {
    /// Where the request has just been in vain.
    Tried,
    /// It was ready and is not now: it may answer, which nothing else here does.
    Unready,
    /// It failed again and again lately.
    Ejected,
    Ready,
}

impl LegNow {
    /// Of the fittest slots the one of two drawn that has fewer requests under way.
    fn pick(&self, not: Option<&Arc<Upstream>>) -> Option<&Arc<Upstream>> {
        if let [only] = self.pool.as_slice() {
            return only.routable().then_some(only);
        }
        let now = health::now();
        let fitness = |upstream: &Arc<Upstream>| {
            let tried = not.is_some_and(|not| Arc::ptr_eq(not, upstream));
            match (upstream.routable(), upstream.ready()) {
                (false, _) => None,
                (true, _) if tried => Some(Fitness::Tried),
                (true, false) => Some(Fitness::Unready),
                (true, true) if upstream.health.is_out(now) => Some(Fitness::Ejected),
                (true, true) => Some(Fitness::Ready),
            }
        };
        let best = self.pool.iter().filter_map(fitness).max()?;
        let fit = || self.pool.iter().filter(|upstream| fitness(upstream) == Some(best));
        let count = fit().count();
        let first = draw::below(count);
        // A second one that is not the first.
        let second = (first + 1 + draw::below(count.saturating_sub(1))) % count.max(1);
        let (first, second) = (fit().nth(first)?, fit().nth(second)?);
        Some(if second.meter.in_flight() < first.meter.in_flight() { second } else { first })
    }
}

#[cfg(test)]
mod tests;
