//! Requests per second and latencies, at few and many connections, beside the rivals.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate::bench::{Figure, Limit};

use crate::load::{Ask, How, Took, run};
use crate::{Place, median, rivals};

/// Long enough for some thousand requests, short enough that whatever else the machine does hits all of them.
const ROUND: Duration = Duration::from_millis(1000);

/// One of those that are compared.
struct Proxy {
    name: &'static str,
    addr: SocketAddr,
    prefix: &'static str,
    pid: u32,
}

/// What one did at one load, over the rounds.
#[derive(Default)]
struct Seen {
    per_second: Vec<f64>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
    /// Of the processors, for each request: what else the machine does hardly matters to it.
    cpu_us: Vec<f64>,
    failed: u64,
}

impl Seen {
    fn add(&mut self, took: &Took, cpu: Duration) {
        self.cpu_us.push(cpu.as_secs_f64() * 1e6 / took.latencies.len() as f64);
        self.per_second.push(took.per_second);
        self.p50_us.push(took.quantile_us(0.5));
        self.p99_us.push(took.quantile_us(0.99));
        self.failed += took.failed;
    }
}

/// All loads.
pub fn figures(place: &Place, rounds: usize) -> Vec<Figure> {
    let dir = place.home.path("rivals");
    std::fs::create_dir_all(&dir).expect("a folder");
    let status = place.runtime.block_on(place.client.status()).expect("a status");
    let (daemon, upstream) = (status.pid, status.slots[0].pid.expect("a process"));
    let nginx = rivals::nginx(&dir, place.direct, place.candidate);
    let haproxy = rivals::haproxy(&dir, place.direct);
    let mut proxies = vec![Proxy { name: "direct", addr: place.direct, prefix: "", pid: upstream }];
    for (name, rival) in [("nginx", &nginx), ("haproxy", &haproxy)] {
        match rival {
            Some(rival) => proxies.push(Proxy { name, addr: rival.addr, prefix: "/iris", pid: rival.pid() }),
            None => println!("{name} is not installed and left out"),
        }
    }
    proxies.push(Proxy { name: "tidegate", addr: place.gateway, prefix: "/iris", pid: daemon });
    let mut figures = Vec::new();
    for (connections, body) in [(1, true), (32, true), (256, true), (32, false)] {
        figures.extend(at(&proxies, connections, body, rounds));
    }
    figures
}

fn at(proxies: &[Proxy], connections: usize, body: bool, rounds: usize) -> Vec<Figure> {
    let how = |lasts| How { connections, lasts, every: None };
    let asks: Vec<Ask> = proxies
        .iter()
        .map(|Proxy { addr, prefix, .. }| {
            let path = format!("{prefix}/predict");
            if body { Ask::predict(*addr, &path) } else { Ask::get(*addr, &path) }
        })
        .collect();
    asks.iter().for_each(|ask| drop(run(ask, how(ROUND / 4))));
    let mut seen: Vec<Seen> = proxies.iter().map(|_| Seen::default()).collect();
    for round in 0..rounds {
        for n in 0..proxies.len() {
            // Another one begins each time.
            let n = (n + round) % proxies.len();
            let before = rivals::cpu_time(proxies[n].pid);
            let took = run(&asks[n], how(ROUND));
            seen[n].add(&took, rivals::cpu_time(proxies[n].pid).saturating_sub(before));
        }
    }
    let kind = if body { "POST" } else { "GET" };
    let of = |name: &str| proxies.iter().position(|proxy| proxy.name == name).map(|n| &seen[n]);
    let mut figures = Vec::new();
    for (proxy, ours) in proxies.iter().zip(&seen) {
        let name = |what: &str| format!("{kind}, {connections} connections, {}, {what}", proxy.name);
        let beside = of("nginx").filter(|_| proxy.name == "tidegate");
        let failed = if ours.failed > 0 { format!("{} FAILED", ours.failed) } else { String::new() };
        figures.push(ratio(name("requests"), "/s", &ours.per_second, beside.map(|b| &b.per_second)).note(failed));
        figures.push(Figure::new(name("p50"), median(ours.p50_us.clone()), "us"));
        figures.push(ratio(name("p99"), "us", &ours.p99_us, beside.map(|b| &b.p99_us)));
        figures
            .push(ratio(name("its work"), "us", &ours.cpu_us, beside.map(|b| &b.cpu_us)).note("of a processor, each"));
        if connections > 1 && beside.is_some() {
            let last = figures.len();
            figures[last - 4].target = Some(Limit::AtLeast(1.0));
        }
        if beside.is_some() {
            let last = figures.len();
            figures[last - 2].target = Some(Limit::AtMost(1.0));
        }
    }
    if connections == 1 {
        figures.extend(added(&of, proxies));
    }
    figures
}

/// The middle one of the values; its floor is such that the ratio is the middle one of the rounds' ratios.
fn ratio(what: String, unit: &'static str, ours: &[f64], beside: Option<&Vec<f64>>) -> Figure {
    let figure = Figure::new(what, median(ours.to_vec()), unit);
    let Some(beside) = beside else { return figure };
    let ratio = median(ours.iter().zip(beside).map(|(ours, beside)| ours / beside).collect());
    let floor = figure.value / ratio;
    figure.floor(floor)
}

/// What each adds to the middle latency of a lone caller, round by round.
fn added<'a>(of: &impl Fn(&str) -> Option<&'a Seen>, proxies: &[Proxy]) -> Vec<Figure> {
    let Some(direct) = of("direct") else { return Vec::new() };
    let added = |proxy: &Proxy| {
        let seen = of(proxy.name)?;
        let added = median(seen.p50_us.iter().zip(&direct.p50_us).map(|(p50, direct)| p50 - direct).collect());
        let figure = Figure::new(format!("added to p50 at 1 connection, {}", proxy.name), added, "us");
        Some(if proxy.name == "tidegate" { figure.target(Limit::AtMost(30.0)) } else { figure })
    };
    proxies.iter().filter(|proxy| proxy.name != "direct").filter_map(added).collect()
}
