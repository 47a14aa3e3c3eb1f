//! The server beside `langgraph dev`: the same trivial graph by the same requests, in one run, in turn. Only the ratios within one run mean
//! something.
//!
//! `cargo bench --bench server` for everything, `cargo bench --bench server -- 3` with 3 rounds, `-- runs`, `-- streams`, `-- threads` or `-- reader`
//! for one part. The rival is installed from PyPI into `target/` the first time; without a network it is said and left out.

#[path = "../figures/mod.rs"]
mod figures;
#[path = "../../tests/server_support/mod.rs"]
mod server_support;

mod asks;
mod rival;

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};
use server_support::{Serve, workflows};
use tidegate::bench::{Figure, Limit};
use tokio::runtime::Runtime;

use asks::{Asked, Process, ask_for};
use figures::{median, print};

/// Rounds of what is compared.
const ROUNDS: usize = 5;
/// Long enough for some hundred requests of the slowest.
const ROUND: Duration = Duration::from_secs(3);
/// Streams that are open at once.
const STREAMS: usize = 1_000;
/// Threads that a home has.
const THREADS: usize = 10_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rounds = args.iter().filter_map(|arg| arg.parse().ok()).next().unwrap_or(ROUNDS);
    let parts = ["runs", "streams", "threads", "reader"];
    let chosen: Vec<&str> = parts.into_iter().filter(|part| args.iter().any(|arg| arg == part)).collect();
    let runtime = Runtime::new().expect("a runtime");
    for part in parts.into_iter().filter(|part| chosen.is_empty() || chosen.contains(part)) {
        let figures = match part {
            "runs" => runs(&runtime, rounds),
            "streams" => runtime.block_on(streams()),
            "threads" => runtime.block_on(threads()),
            _ => runtime.block_on(reader(rounds)),
        };
        print(part, &figures);
    }
}

/// Begins a run of the trivial graph, and waits for what comes of it.
fn trivial() -> Value {
    json!({"assistant_id": "trivial", "input": {"x": 1}})
}

/// Runs one after the other, at 1, 16 and 64 clients.
fn runs(runtime: &Runtime, rounds: usize) -> Vec<Figure> {
    let ours = Serve::start();
    let patched = rival::start(true);
    let shipped = rival::start(false);
    let mut figures = Vec::new();
    for clients in [1, 16, 64] {
        let mut seen = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..rounds {
            let of = |rival: &'_ Option<rival::Rival>| rival.as_ref().map(|rival| rival.url.clone());
            let urls = [Some(ours.url.clone()), of(&patched), of(&shipped)];
            for (url, seen) in urls.into_iter().zip(&mut seen).filter_map(|(url, seen)| Some((url?, seen))) {
                seen.push(runtime.block_on(ask_for(&url, "/runs/wait", &trivial(), clients, ROUND)));
            }
        }
        let [ours, theirs, shipped] = seen.map(|rounds| Asked::middle(&rounds));
        for asked in [&ours, &theirs, &shipped].into_iter().flatten() {
            assert_eq!(asked.failed, 0, "every run ends well");
        }
        let ours = ours.expect("a round");
        let beside = |figure: Figure, of: fn(&Asked) -> f64| match &theirs {
            Some(theirs) => figure.floor(of(theirs)),
            None => figure.note("langgraph dev is not installed"),
        };
        let per_second = Figure::new(format!("runs/s, {clients} client(s)"), ours.per_second, "1/s");
        figures.push(beside(per_second, |asked| asked.per_second).target(Limit::AtLeast(20.0)));
        if let Some(shipped) = shipped {
            let name = format!("the same beside it as shipped, {clients} client(s)");
            figures
                .push(Figure::new(name, ours.per_second, "1/s").floor(shipped.per_second).target(Limit::AtLeast(20.0)));
        }
        figures.push(beside(Figure::new(format!("p50, {clients} client(s)"), ours.p50_ms, "ms"), |asked| asked.p50_ms));
        figures.push(beside(Figure::new(format!("p99, {clients} client(s)"), ours.p99_ms, "ms"), |asked| asked.p99_ms));
    }
    figures
}

/// A graph that sleeps for ten minutes, and one that takes some hundred steps.
fn own_workflows() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let of = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("a file");
    of(
        "long.yaml",
        "name: long\nchannels: { x: { type: integer } }\nnodes: { nap: { type: sleep, with: { for: 10m } } }\nedges: [ { from: START, to: nap } ]\n",
    );
    of(
        "count.yaml",
        "name: count\nchannels: { x: { type: integer }, log: { type: array, reducer: append } }\nnodes:\n  inc: { type: expr, set: { x: x + 1, log: '[x]' } }\n\
         edges:\n  - { from: START, to: inc }\n  - { from: inc, route: [ { when: state.x < 300, to: inc }, { to: END } ] }\n",
    );
    std::fs::copy(workflows().join("trivial.yaml"), dir.path().join("trivial.yaml")).expect("a file");
    dir
}

fn serve_own(workflows: &tempfile::TempDir) -> Serve {
    let home = tempfile::Builder::new().prefix("tidegate-serve-").tempdir().expect("a folder");
    Serve::start_in(std::sync::Arc::new(home), workflows.path(), "127.0.0.1:0")
}

/// A thousand clients that follow a run each, in which nothing happens.
async fn streams() -> Vec<Figure> {
    let flows = own_workflows();
    let server = serve_own(&flows);
    let process = Process(server.pid());
    let before = ask_for(&server.url, "/runs/wait", &trivial(), 4, ROUND).await;
    let (idle_mb, began) = (process.memory_mb(), Instant::now());
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        let thread = server.thread().await;
        let run = json!({"assistant_id": "long", "input": {"x": 1}, "stream_mode": "values"});
        let mut stream =
            server.request("POST", &format!("/threads/{thread}/runs/stream"), Some(run)).await.bytes_stream();
        stream.next().await.expect("its first part").expect("bytes");
        open.push(stream);
    }
    let opened = began.elapsed();
    let share = process.share_over(Duration::from_secs(10)).await;
    let memory = process.memory_mb() - idle_mb;
    let beside = ask_for(&server.url, "/runs/wait", &trivial(), 4, ROUND).await;
    drop(open);
    vec![
        Figure::new("1,000 runs begun and followed, each", opened.as_secs_f64() * 1e3 / STREAMS as f64, "ms"),
        Figure::new("share of a processor while nothing happens", share, ""),
        Figure::new("memory of the 1,000, each", memory * 1024.0 / STREAMS as f64, "KB"),
        Figure::new("runs/s beside them, 4 clients", beside.per_second, "1/s").floor(before.per_second),
        Figure::new("p99 beside them, 4 clients", beside.p99_ms, "ms").floor(before.p99_ms),
    ]
}

/// A home of ten thousand threads.
async fn threads() -> Vec<Figure> {
    let server = Serve::start();
    let process = Process(server.pid());
    let few = ask_for(&server.url, "/threads/search", &json!({"limit": 10}), 4, ROUND).await;
    let runs = ask_for(&server.url, "/runs/wait", &trivial(), 4, ROUND).await;
    let (began, http) = (Instant::now(), reqwest::Client::new());
    let made = futures_util::stream::iter(0..THREADS).map(|n| {
        let body = json!({"metadata": {"n": n, "owner": format!("user-{}", n % 100)}});
        http.post(format!("{}/threads", server.url)).json(&body).send()
    });
    let made: Vec<_> = made.buffer_unordered(16).collect().await;
    assert!(made.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.status() == 200)), "all are made");
    let per_second = THREADS as f64 / began.elapsed().as_secs_f64();
    let search = ask_for(&server.url, "/threads/search", &json!({"limit": 10}), 4, ROUND).await;
    let one = json!({"metadata": {"owner": "user-7"}, "limit": 10});
    let by_owner = ask_for(&server.url, "/threads/search", &one, 4, ROUND).await;
    let after = ask_for(&server.url, "/runs/wait", &trivial(), 4, ROUND).await;
    vec![
        Figure::new("threads made, 16 clients", per_second, "1/s"),
        Figure::new("newest 10 of 10,000, p50", search.p50_ms, "ms").floor(few.p50_ms),
        Figure::new("newest 10 of 10,000, p99", search.p99_ms, "ms").floor(few.p99_ms),
        Figure::new("newest 10 of one owner's 100, p50", by_owner.p50_ms, "ms"),
        Figure::new("newest 10 of one owner's 100, p99", by_owner.p99_ms, "ms"),
        Figure::new("runs/s with 10,000 threads, 4 clients", after.per_second, "1/s").floor(runs.per_second),
        Figure::new("memory", process.memory_mb(), "MB"),
    ]
}

/// One run of 300 steps, followed by a client that reads, and by one that does not.
async fn reader(rounds: usize) -> Vec<Figure> {
    let flows = own_workflows();
    let server = serve_own(&flows);
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (reads, took) in [true, false].into_iter().zip(&mut took) {
            let thread = server.thread().await;
            let modes = json!(["values", "updates", "debug"]);
            let config = json!({"recursion_limit": 1_000});
            let run = json!({"assistant_id": "count", "input": {"x": 0}, "stream_mode": modes, "config": config});
            let began = Instant::now();
            let path = format!("/threads/{thread}/runs/stream");
            let mut stream = server.request("POST", &path, Some(run)).await.bytes_stream();
            if reads {
                while stream.next().await.is_some() {}
            }
            server.until(&format!("/threads/{thread}"), |thread| thread["status"] == "idle").await;
            took.push(began.elapsed().as_secs_f64() * 1e3);
            drop(stream);
        }
    }
    let [reads, not] = took.map(median);
    vec![
        Figure::new("a run of 300 steps, a client reads", reads, "ms"),
        Figure::new("the same, the client does not read", not, "ms").floor(reads).target(Limit::AtMost(1.1)),
    ]
}
