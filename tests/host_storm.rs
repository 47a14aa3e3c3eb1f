//! Traffic of all kinds at once, while versions are switched and processes are killed.

mod host_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use host_support::{Home, kill9, switch_to, url};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidegate::host::HostClient;
use tidegate::ports::{SlotState, SwitchRequest};
use tokio::task::JoinHandle;

/// Answers of v1 and v2 by kind of client, and what went wrong.
#[derive(Default)]
struct Counts {
    kinds: [[AtomicU64; 2]; 3],
    wrong: std::sync::Mutex<Vec<String>>,
}

impl Counts {
    fn note(&self, kind: usize, answer: Result<String, String>) {
        match answer.as_deref() {
            Ok("v1") => drop(self.kinds[kind][0].fetch_add(1, Ordering::Relaxed)),
            Ok("v2") => drop(self.kinds[kind][1].fetch_add(1, Ordering::Relaxed)),
            other => self.wrong.lock().unwrap().push(format!("kind {kind}: {other:?}")),
        }
    }

    /// Of this version, the kind that had fewest.
    fn least(&self, version: usize) -> u64 {
        self.kinds.iter().map(|kind| kind[version].load(Ordering::Relaxed)).min().unwrap()
    }
}

/// Clients that keep their connections, that make a new one each time, and that speak HTTP/2.
struct Storm {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    tasks: Vec<JoinHandle<()>>,
}

impl Storm {
    async fn begin(client: &HostClient) -> Self {
        let (stop, counts) = (Arc::<AtomicBool>::default(), Arc::<Counts>::default());
        let mut storm = Self { stop, counts, tasks: Vec::new() };
        let url = url(client, "/version").await;
        for kind in [0, 0, 0, 0, 0, 0, 1, 1, 1] {
            let url = url.clone();
            let idle = if kind == 0 { 1 } else { 0 };
            let http = reqwest::Client::builder().pool_max_idle_per_host(idle).build().unwrap();
            storm.spawn(kind, move || {
                let request = http.get(&url);
                async move {
                    let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
                    let status = answer.status();
                    let text = answer.text().await.map_err(|error| format!("{error:?}"))?;
                    if status == 200 { Ok(text) } else { Err(format!("{status}: {text}")) }
                }
            });
        }
        let addr = client.status().await.unwrap().public_addr.unwrap();
        for _ in 0..2 {
            let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
            let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
            let (sender, connection) = shaken.await.unwrap();
            tokio::spawn(connection);
            for _ in 0..3 {
                let sender = sender.clone();
                storm.spawn(2, move || {
                    let mut sender = sender.clone();
                    async move {
                        let request =
                            hyper::Request::get("http://models.example/iris/version").body(Empty::<Bytes>::new());
                        let answer = sender.send_request(request.unwrap()).await.map_err(|e| format!("{e:?}"))?;
                        let status = answer.status();
                        let body = answer.into_body().collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
                        let text = String::from_utf8_lossy(&body).into_owned();
                        if status == 200 { Ok(text) } else { Err(format!("{status}: {text}")) }
                    }
                });
            }
        }
        storm
    }

    fn spawn<F>(&mut self, kind: usize, ask: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = Result<String, String>> + Send,
    {
        let (stop, counts) = (Arc::clone(&self.stop), Arc::clone(&self.counts));
        self.tasks.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let answer = ask().await;
                let failed = answer.is_err();
                counts.note(kind, answer);
                if failed {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }));
    }

    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.counts.wrong.lock().unwrap().clone()
    }
}

async fn two_versions(home: &Home) -> HostClient {
    let client = home.start().await;
    home.ready_slot(&client, "a", "v1").await;
    home.ready_slot(&client, "b", "v2").await;
    client.switch(&switch_to("a", Some("b"), 0)).await.unwrap();
    client
}

/// Streams that last over many switches, one after the other.
fn streams(url: String, stop: Arc<AtomicBool>) -> JoinHandle<u32> {
    tokio::spawn(async move {
        let mut whole = 0;
        while !stop.load(Ordering::Relaxed) {
            let text = reqwest::get(&url).await.unwrap().text().await.expect("a stream that does not break off");
            let pieces = text.strip_suffix("whole").expect("the whole stream");
            assert!(pieces == "v1".repeat(20) || pieces == "v2".repeat(20), "one version answers all of it: {pieces}");
            whole += 1;
        }
        whole
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_switches_fail_nobody_whatever_they_speak() {
    let home = Home::new();
    let client = two_versions(&home).await;
    let storm = Storm::begin(&client).await;
    let stream = url(&client, "/stream?20").await;
    let streams: Vec<_> = (0..4).map(|_| streams(stream.clone(), Arc::clone(&storm.stop))).collect();
    let mut generation = 1;
    for round in 0..100 {
        let (to, from) = if round % 2 == 0 { ("b", "a") } else { ("a", "b") };
        let version = usize::from(to == "b");
        let before = storm.counts.least(version);
        generation = client.switch(&switch_to(to, Some(from), generation)).await.unwrap().generation;
        home.until("every kind is answered by it", async || (storm.counts.least(version) > before).then_some(())).await;
    }
    let wrong = storm.end().await;
    assert!(wrong.is_empty(), "{} requests failed: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    for stream in streams {
        assert!(stream.await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_live_version_under_load_is_replaced_by_all_of_its_standby() {
    let home = Home::new();
    let client = two_versions(&home).await;
    home.ready_slot(&client, "b-r2", "v2").await;
    let storm = Storm::begin(&client).await;
    home.until("all kinds are answered", async || (storm.counts.least(0) > 5).then_some(())).await;
    let live = client.slot("a").await.unwrap().unwrap();
    let killed = Instant::now();
    kill9(live.pid.unwrap());
    home.until("all kinds are answered again", async || (storm.counts.least(1) > 0).then_some(())).await;
    // A second where nothing else runs; this machine may do a lot else.
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    home.until("both replicas take their part", async || {
        let traffic = client.traffic("iris").await.unwrap();
        traffic.iter().filter(|slot| slot.version == "v2").all(|slot| slot.requests > 5).then_some(())
    })
    .await;
    let route = client.route("iris").await.unwrap().unwrap();
    assert_eq!(
        (route.live.as_deref(), &route.traffic.legs[0].slots[..]),
        (Some("b"), &["b".into(), "b-r2".into()][..])
    );
    // Only what the dead process held has failed: each caller had one request under way.
    let wrong = storm.end().await;
    assert!(wrong.len() <= 15, "{} requests failed: {:?}", wrong.len(), &wrong[..5]);
    home.wait_state(&client, "a", SlotState::Ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemon_under_load_is_back_with_the_same_routes() {
    let home = Home::new();
    let client = two_versions(&home).await;
    let switch = SwitchRequest { model: "iris".to_owned(), ..switch_to("b", Some("a"), 1) };
    let route = client.switch(&switch).await.unwrap();
    let storm = Storm::begin(&client).await;
    home.until("all kinds are answered", async || (storm.counts.least(1) > 5).then_some(())).await;
    let before = client.status().await.unwrap();
    kill9(before.pid);
    let killed = Instant::now();
    let text = home
        .until("it answers again", async || reqwest::get(url(&client, "/version").await).await.ok()?.text().await.ok())
        .await;
    assert_eq!(text, "v2");
    // A second where nothing else runs; this machine may do a lot else.
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    assert_eq!(client.route("iris").await.unwrap().unwrap(), route);
    assert_ne!(client.status().await.unwrap().pid, before.pid);
    // HTTP/2 clients of the dead daemon have lost their connection and say so without an end.
    drop(storm.end().await);
}
