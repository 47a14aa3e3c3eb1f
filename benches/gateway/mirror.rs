//! What mirroring costs live traffic, beside nginx' own mirror in the same run.

use std::time::Duration;

use tidegate::bench::{Figure, Limit};
use tidegate::ports::{Leg, Mirror, RouteRequest, TrafficPlan, WHOLE};

use crate::host_support::fence;
use crate::load::{Ask, How, run};
use crate::rivals::{self, Rival};
use crate::upheaval::PACED;
use crate::{Place, median};

/// As much as the machine gives.
const SATURATED: How = How { connections: 32, lasts: Duration::from_millis(1000), every: None };

/// One proxy's rounds: without a mirror, and with one.
#[derive(Default)]
struct Pair([Vec<f64>; 2]);

impl Pair {
    fn ratio(&self) -> f64 {
        let [without, with] = &self.0;
        median(with.iter().zip(without).map(|(with, without)| with / without).collect())
    }

    /// The figure with a mirror; its floor is the same without.
    fn figure(&self, name: &str, unit: &'static str) -> Figure {
        let with = median(self.0[1].clone());
        Figure::new(name, with, unit).floor(with / self.ratio())
    }
}

/// All of it.
pub fn figures(place: &Place, rounds: usize) -> Vec<Figure> {
    let dir = place.home.path("mirror");
    std::fs::create_dir_all(&dir).expect("a folder");
    let nginx = rivals::nginx(&dir, place.direct, place.candidate);
    let (mut paced, mut full) = ([Pair::default(), Pair::default()], [Pair::default(), Pair::default()]);
    let (mut repeated, mut direct) = ([Vec::new(), Vec::new()], Pair::default());
    for _ in 0..rounds {
        for (with, share) in [None, Some(WHOLE), Some(WHOLE / 10)].into_iter().enumerate() {
            divide(place, share);
            let ours = Ask::predict(place.gateway, "/iris/predict");
            let theirs =
                |nginx: &Rival| Ask::predict(nginx.addr, ["/iris/predict", "/all/predict", "/some/predict"][with]);
            if with < 2 {
                let p50 = |ask: &Ask| run(ask, PACED).quantile_us(0.5);
                counted(place, &mut repeated[0], share, || paced[0].0[with].push(p50(&ours)));
                nginx.iter().for_each(|nginx| paced[1].0[with].push(p50(&theirs(nginx))));
                if with == 0 {
                    direct.0[0].extend(paced[0].0[0].last());
                    direct.0[1].push(beside(&Ask::predict(place.candidate, "/predict"), || p50(&ours)));
                }
            }
            if with != 1 {
                let rate = |ask: &Ask| run(ask, SATURATED).per_second;
                counted(place, &mut repeated[1], share, || full[0].0[with / 2].push(rate(&ours)));
                nginx.iter().for_each(|nginx| full[1].0[with / 2].push(rate(&theirs(nginx))));
            }
        }
    }
    place.switch("a", None);
    let mut figures = vec![
        paced[0]
            .figure("p50 at 2,000 requests/s, all of them mirrored", "us")
            .target(Limit::AtMost(1.05))
            .note(format!("beside the same without; {:.0} % were repeated", median(repeated[0].clone()))),
        full[0].figure("requests/s at 32 connections, a tenth mirrored", "/s").target(Limit::AtLeast(0.95)).note(
            format!(
                "with the candidate's own work on the same cores; {:.0} % were repeated",
                median(repeated[1].clone())
            ),
        ),
    ];
    figures.push(direct.figure("the same p50 without a mirror, as many asked of the candidate by others", "us"));
    if nginx.is_some() {
        figures.push(paced[1].figure("the same p50, nginx' mirror", "us"));
        figures.push(full[1].figure("the same requests/s, nginx' mirror", "/s"));
    }
    figures
}

/// Measures while the candidate is asked as much as a mirror of everything would: what its own work on the same cores costs.
fn beside<T>(candidate: &Ask, what: impl FnOnce() -> T) -> T {
    std::thread::scope(|scope| {
        let other = scope.spawn(|| run(candidate, How { lasts: PACED.lasts * 2, ..PACED }));
        let done = what();
        other.join().expect("the other load");
        done
    })
}

/// Runs a load, and notes how much of what was to be repeated was, in per cent.
fn counted(place: &Place, to: &mut Vec<f64>, share: Option<u32>, load: impl FnOnce()) {
    let seen = || {
        let page = async {
            let http = reqwest::Client::builder().no_proxy().build().expect("a client");
            http.get(format!("http://{}/-/metrics", place.gateway)).send().await.expect("asked").text().await
        };
        let text = place.runtime.block_on(page).expect("a page");
        let of_mirror = text.lines().filter(|line| line.starts_with("tidegate_mirrored_total"));
        let number = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0);
        let all: f64 = of_mirror.clone().map(number).sum();
        (of_mirror.filter(|line| line.contains("outcome=\"repeated\"")).map(number).sum::<f64>(), all)
    };
    let before = seen();
    load();
    if share.is_some() {
        // What waits is still repeated.
        std::thread::sleep(Duration::from_millis(200));
        let after = seen();
        to.push(100.0 * (after.0 - before.0) / (after.1 - before.1).max(1.0));
    }
}

fn divide(place: &Place, share: Option<u32>) {
    let leg = |version: &str, slot: &str, weight| Leg { version: version.into(), slots: vec![slot.into()], weight };
    let (methods, paths) = (vec!["POST".to_owned()], vec!["/predict".to_owned()]);
    let mirror = share.map(|share| Mirror { to: "v2".to_owned(), share, methods, paths });
    let legs = vec![leg("v1", "a", WHOLE), leg("v2", "b", 0)];
    let traffic = TrafficPlan { legs, mirror, ..TrafficPlan::default() };
    place.runtime.block_on(async {
        let generation = place.client.route("iris").await.expect("a route").map_or(0, |route| route.generation);
        let request = RouteRequest { model: "iris".into(), traffic, expected_generation: generation, fence: fence(1) };
        place.client.put_route(&request).await.expect("divided");
    });
}
