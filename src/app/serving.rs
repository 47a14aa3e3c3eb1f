//! What serves, and how it fares now: what the ledger says beside what the host daemon says. Looking starts nothing.

use std::time::Duration;

use super::{App, host_failure};
use crate::graph::Failure;
use crate::host::{HostClient, HostConfig};
use crate::judge::Arm;
use crate::ports::{Route, SeriesPage, Slot, SlotState, WHOLE, first_of};
use crate::release::{ReleaseFilter, ReleaseRow};

/// How long a daemon may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(2);
/// What is shown of the traffic, in seconds, and how much of it is one point.
const SHOWN_S: u64 = 300;
const POINT_S: u64 = 5;

/// What the host daemon says of all models.
#[derive(Debug, Clone, Default)]
pub struct Serving {
    /// Why nothing is known; `None`: the daemon answers.
    pub unknown: Option<String>,
    /// Each model that has a route.
    pub models: Vec<ModelServing>,
}

/// How a model's traffic is divided, and how its versions fare.
#[derive(Debug, Clone)]
pub struct ModelServing {
    /// The model.
    pub model: String,
    /// Its public URL.
    pub endpoint_url: String,
    /// What the gateway changed by itself.
    pub changed_by_gateway: Option<String>,
    /// Requests wait instead of being answered.
    pub holds: bool,
    /// Its versions, the stable one first.
    pub versions: Vec<VersionServing>,
}

/// What a version is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It has the traffic.
    Live,
    /// It has a part of it, or copies of it.
    OnTrial,
    /// It is kept warm, to go back to.
    Standby,
    /// It is being prepared, or on its way out.
    Beside,
}

impl Role {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::OnTrial => "on trial",
            Self::Standby => "standby",
            Self::Beside => "no traffic",
        }
    }
}

/// A version with its slots and its traffic of the last minutes.
#[derive(Debug, Clone)]
pub struct VersionServing {
    /// The version.
    pub version: String,
    /// What it is there for.
    pub role: Role,
    /// Its part of the requests, 0 to 1.
    pub share: f64,
    /// Its part of the requests that are repeated at it, 0 to 1.
    pub mirrored: f64,
    /// What its slots do.
    pub slots: Vec<SlotHealth>,
    /// Requests and latencies of the last minutes.
    pub traffic: Option<RecentTraffic>,
}

/// What a slot does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotHealth {
    /// Its token.
    pub token: String,
    /// What it is doing, one word.
    pub state: String,
    /// Whether it answers.
    pub ready: bool,
    /// How often it was started again.
    pub restarts: u32,
    /// How its last process ended.
    pub last_exit: Option<String>,
}

/// Traffic of the last minutes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RecentTraffic {
    /// The seconds that are counted.
    pub over_seconds: u64,
    /// Requests that ended.
    pub requests: u64,
    /// Those of them that failed.
    pub errors: u64,
    /// Median, in milliseconds.
    pub p50_ms: Option<f64>,
    /// 99th percentile, in milliseconds.
    pub p99_ms: Option<f64>,
    /// Stretches of the same length, oldest first.
    pub points: Vec<TrafficPoint>,
}

/// A stretch of a few seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TrafficPoint {
    /// Requests per second.
    pub rps: f64,
    /// Failed requests per second.
    pub errors: f64,
    /// 99th percentile, in milliseconds.
    pub p99_ms: Option<f64>,
}

impl App {
    /// What serves, by the host daemon; with traffic, for one model.
    pub async fn serving(&self, traffic_of: Option<&str>) -> Serving {
        let client = match HostConfig::new(self.home.dir()).and_then(|config| config.paths()) {
            Ok(paths) => HostClient::new(paths),
            Err(error) => return Serving::unknown(&host_failure(&error)),
        };
        let status = match client.status_now(PATIENCE).await {
            Ok(status) => status,
            Err(_) if self.home.is_down() => return Serving::down(),
            Err(error) => return Serving::unknown(&host_failure(&error)),
        };
        let mut serving = Serving { unknown: status.down.then(|| Serving::DOWN.to_owned()), models: Vec::new() };
        for route in &status.routes {
            let shown = traffic_of.is_none_or(|model| model == route.model);
            let page = if shown { recent(&client, &route.model).await } else { None };
            serving.models.push(model(route, &status.slots, page.as_ref()));
        }
        serving
    }

    /// The releases of all models that are worth a look now: what is live and what is under way, newest first.
    pub async fn releases_at_work(&self) -> Result<Vec<ReleaseRow>, Failure> {
        use crate::release::PlanState::{Approved, Draft, Executing};
        let of = |e: crate::release::LedgerError| Failure::new(e.code(), e.to_string());
        let mut rows = self.ledger().active().await.map_err(of)?;
        let under_way = ReleaseFilter { status: vec![Draft, Approved, Executing], ..ReleaseFilter::default() };
        rows.extend(self.ledger().list(&under_way).await.map_err(of)?.into_iter().filter(|row| !row.live));
        rows.sort_by_key(|row| std::cmp::Reverse(row.created_at));
        Ok(rows)
    }
}

impl Serving {
    const DOWN: &str = "the home is down; `tidegate up` starts what served";

    fn down() -> Self {
        Self { unknown: Some(Self::DOWN.to_owned()), models: Vec::new() }
    }

    fn unknown(failure: &Failure) -> Self {
        tracing::debug!(code = failure.code, "the host daemon is not there: {failure}");
        Self {
            unknown: Some("the host daemon does not run; it starts with the first release".to_owned()),
            ..Self::default()
        }
    }

    /// One model.
    pub fn of(&self, model: &str) -> Option<&ModelServing> {
        self.models.iter().find(|serving| serving.model == model)
    }
}

/// The last minutes of a model's traffic; `None` where nothing was measured.
async fn recent(client: &HostClient, model: &str) -> Option<SeriesPage> {
    let now = client.series(model, u64::MAX).await.ok()?;
    client.series(model, now.until.saturating_sub(SHOWN_S)).await.ok()
}

fn model(route: &Route, slots: &[Slot], page: Option<&SeriesPage>) -> ModelServing {
    let plan = &route.traffic;
    let mut versions: Vec<VersionServing> = Vec::new();
    let of_model = || slots.iter().filter(|slot| slot.model == route.model);
    let standby = route.standby.as_deref().map(first_of);
    let role = |version: &str, slots: &[String]| match plan.stable() {
        Some(stable) if stable.version == version => Role::Live,
        _ if plan.candidates().iter().any(|leg| leg.version == version) => Role::OnTrial,
        _ if slots.iter().any(|token| Some(first_of(token)) == standby) => Role::Standby,
        _ => Role::Beside,
    };
    let named = plan.legs.iter().map(|leg| leg.version.as_str());
    for version in named.chain(of_model().map(|slot| slot.version.as_str())) {
        if versions.iter().any(|known| known.version == version) {
            continue;
        }
        let own: Vec<SlotHealth> = of_model().filter(|slot| slot.version == version).map(health).collect();
        let tokens: Vec<String> = own.iter().map(|slot| slot.token.clone()).collect();
        let weight = plan.legs.iter().find(|leg| leg.version == version).map_or(0, |leg| leg.weight);
        let mirrored = plan.mirror.as_ref().filter(|mirror| mirror.to == version).map_or(0, |mirror| mirror.share);
        versions.push(VersionServing {
            role: role(version, &tokens),
            share: f64::from(weight) / f64::from(WHOLE),
            mirrored: f64::from(mirrored) / f64::from(WHOLE),
            slots: own,
            traffic: page.map(|page| traffic(page, version)),
            version: version.to_owned(),
        });
    }
    ModelServing {
        model: route.model.clone(),
        endpoint_url: route.endpoint_url.clone(),
        changed_by_gateway: route.changed_by_gateway.clone(),
        holds: plan.hold.is_some(),
        versions,
    }
}

fn health(slot: &Slot) -> SlotHealth {
    let state = match slot.state {
        SlotState::Starting => "starting",
        SlotState::Ready => "ready",
        SlotState::Unready => "not ready",
        SlotState::Restarting => "starting again",
        SlotState::Exited => "exited",
        SlotState::Stopped => "stopped",
    };
    SlotHealth {
        token: slot.token.clone(),
        state: state.to_owned(),
        ready: slot.state == SlotState::Ready,
        restarts: slot.restarts,
        last_exit: slot.last_exit.clone(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few minutes have fewer requests than a double has digits")]
fn traffic(page: &SeriesPage, version: &str) -> RecentTraffic {
    let ms = |arm: &Arm, q: f64| arm.latencies.quantile_us(q).map(|us| us as f64 / 1e3);
    let from = page.until.saturating_sub(SHOWN_S);
    let mut stretches = vec![Arm::default(); usize::try_from(SHOWN_S / POINT_S).unwrap_or(0)];
    let seconds = page.slots.iter().filter(|slot| slot.version == version).flat_map(|slot| &slot.seconds);
    for second in seconds {
        // The page has the seconds after `from`.
        let at = second.second.saturating_sub(from + 1) / POINT_S;
        if let Some(stretch) = usize::try_from(at).ok().and_then(|at| stretches.get_mut(at)) {
            stretch.merge(&second.arm());
        }
    }
    let all = page.arm(version);
    let point = |arm: &Arm| TrafficPoint {
        rps: arm.requests as f64 / POINT_S as f64,
        errors: arm.errors as f64 / POINT_S as f64,
        p99_ms: ms(arm, 0.99),
    };
    RecentTraffic {
        over_seconds: SHOWN_S,
        requests: all.requests,
        errors: all.errors,
        p50_ms: ms(&all, 0.5),
        p99_ms: ms(&all, 0.99),
        points: stretches.iter().map(point).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{Leg, SlotSeries, TrafficPlan, TrafficSecond};

    #[test]
    fn each_version_has_its_role_its_share_and_its_seconds() {
        let leg = |version: &str, slot: &str, weight| Leg { version: version.into(), slots: vec![slot.into()], weight };
        let traffic =
            TrafficPlan { legs: vec![leg("v1", "a", 95_000), leg("v2", "b", 5_000)], ..TrafficPlan::default() };
        let route = Route {
            model: "iris".into(),
            generation: 3,
            live: Some("a".into()),
            standby: Some("old".into()),
            traffic,
            endpoint_url: "http://127.0.0.1:7311/iris".into(),
            changed_by_gateway: None,
        };
        let slot = |token: &str, version: &str, state| Slot {
            token: token.into(),
            model: "iris".into(),
            version: version.into(),
            state,
            pid: None,
            port: 1,
            log: "/log".into(),
            restarts: 0,
            last_exit: None,
            started_at: None,
            ready_at: None,
        };
        let slots = [
            slot("a", "v1", SlotState::Ready),
            slot("b", "v2", SlotState::Starting),
            slot("old", "v0", SlotState::Ready),
            slot("new", "v3", SlotState::Starting),
        ];
        let second = |second, requests| TrafficSecond { second, requests, errors: 1, ..TrafficSecond::default() };
        let series =
            SlotSeries { token: "a".into(), version: "v1".into(), seconds: vec![second(701, 10), second(1000, 5)] };
        let page = SeriesPage { since: 1, until: 1000, slots: vec![series] };
        let seen = model(&route, &slots, Some(&page));
        let told: Vec<_> = seen.versions.iter().map(|v| (v.version.as_str(), v.role, v.share)).collect();
        let expected = [
            ("v1", Role::Live, 0.95),
            ("v2", Role::OnTrial, 0.05),
            ("v0", Role::Standby, 0.0),
            ("v3", Role::Beside, 0.0),
        ];
        assert_eq!(told, expected);
        let v1 = seen.versions[0].traffic.as_ref().unwrap();
        assert_eq!((v1.requests, v1.errors, v1.points.len()), (15, 2, 60));
        assert_eq!((v1.points[0].rps, v1.points[59].rps), (2.0, 1.0));
        assert!(seen.versions[0].slots[0].ready && !seen.versions[1].slots[0].ready);
    }
}
