//! What changes while traffic flows: switches, versions and daemons that are killed.

use std::time::{Duration, Instant};

use tidegate::bench::{Figure, Limit};
use tidegate::ports::SlotState;

use crate::host_support::{kill9, switch_to};
use crate::load::{Ask, How, Took, run};
use crate::{Place, median};

/// A load that leaves room: the middle of a machine that is not saturated.
pub const PACED: How =
    How { connections: 32, lasts: Duration::from_millis(1500), every: Some(Duration::from_millis(16)) };

/// The load runs while something is done. The answer of each request counts.
fn beside<T>(place: &Place, how: How, what: impl FnOnce() -> T) -> (Took, T) {
    let ask = Ask::predict(place.gateway, "/iris/predict");
    std::thread::scope(|scope| {
        let load = scope.spawn(|| run(&ask, how));
        std::thread::sleep(Duration::from_millis(200));
        let done = what();
        (load.join().expect("the load"), done)
    })
}

/// Who answers a new connection now.
async fn version(place: &Place) -> Option<String> {
    let http = reqwest::Client::builder().no_proxy().build().ok()?;
    let url = format!("http://{}/iris/predict", place.gateway);
    let text = http.get(url).timeout(Duration::from_secs(5)).send().await.ok()?.text().await.ok()?;
    serde_json::from_str::<serde_json::Value>(&text).ok()?["version"].as_str().map(str::to_owned)
}

/// From the decision to the durable change, and to the first answer of the other version.
pub fn switches(place: &Place, rounds: usize) -> Vec<Figure> {
    let how = How { connections: 32, lasts: Duration::from_millis(400 * rounds as u64 + 500), every: None };
    let (mut changed, mut answered) = (Vec::new(), Vec::new());
    let (took, ()) = beside(place, how, || {
        place.runtime.block_on(async {
            for n in 0..rounds * 4 {
                let (to, from, named) = if n % 2 == 0 { ("b", "a", "v2") } else { ("a", "b", "v1") };
                let generation = place.client.route("iris").await.expect("a route").map_or(0, |r| r.generation);
                let began = Instant::now();
                place.client.switch(&switch_to(to, Some(from), generation)).await.expect("switched");
                changed.push(ms(began));
                assert_eq!(version(place).await.as_deref(), Some(named));
                answered.push(ms(began));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    });
    place.switch("a", None);
    let worst =
        |times: &[f64]| format!("worst {:.1} ms of {}", times.iter().fold(0.0, |a: f64, b| a.max(*b)), times.len());
    let lost = Figure::new("requests that failed meanwhile", took.failed as f64, "");
    vec![
        Figure::new("a switch, until it is durable", median(changed.clone()), "ms")
            .target(Limit::AtMost(50.0))
            .note(worst(&changed)),
        Figure::new("rollback to a warm version, to the first answer", median(answered.clone()), "ms")
            .target(Limit::AtMost(50.0))
            .note(worst(&answered)),
        lost.target(Limit::AtMost(0.0)).note(format!("of {}", took.latencies.len())),
    ]
}

/// SIGKILL of the live version, with a warm standby, and of the daemon: how long until a new connection is answered again.
pub fn recovery(place: &Place, rounds: usize) -> Vec<Figure> {
    let (mut slots, mut daemons) = (Vec::new(), Vec::new());
    let how = How { lasts: Duration::from_millis(1000), ..PACED };
    for _ in 0..rounds {
        place.switch("a", Some("b"));
        beside(place, how, || {
            place.runtime.block_on(async {
                let live = place.client.slot("a").await.expect("asked").expect("a slot");
                kill9(live.pid.expect("a process"));
                let began = Instant::now();
                while version(place).await.is_none() {}
                slots.push(ms(began));
            });
        });
        place.runtime.block_on(place.home.wait_state(&place.client, "a", SlotState::Ready));
    }
    place.switch("a", None);
    for _ in 0..rounds {
        let before = place.runtime.block_on(place.client.routes()).expect("routes");
        beside(place, how, || {
            place.runtime.block_on(async {
                kill9(place.client.status().await.expect("a status").pid);
                let began = Instant::now();
                while version(place).await.is_none() {}
                daemons.push(ms(began));
            });
        });
        assert_eq!(place.runtime.block_on(place.client.routes()).expect("routes"), before, "the same routes");
        // The keeper starts at once what was well for ten seconds, and later what dies young.
        std::thread::sleep(Duration::from_secs(10));
    }
    let worst = |times: &[f64]| format!("middle {:.1} ms of {}", median(times.to_vec()), times.len());
    let most = |times: &[f64]| times.iter().fold(0.0, |a: f64, b| a.max(*b));
    let killed =
        |what, times: &[f64]| Figure::new(what, most(times), "ms").target(Limit::AtMost(1000.0)).note(worst(times));
    vec![
        killed("live version killed, to the first answer, worst", &slots),
        killed("daemon killed, to the first answer, worst", &daemons),
    ]
}

fn ms(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}
