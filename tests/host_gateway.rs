//! The gateway, spoken to as its users do.

mod host_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use host_support::{Home, code, fence, get, kill9, switch_to, url};
use sha2::{Digest, Sha256};
use tidegate::ports::{SlotState, SwitchRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn routes_by_model_strips_the_prefix_and_tells_the_slot() {
    let home = Home::new();
    let client = home.start().await;
    home.ready_slot(&client, "a", "v1").await;
    let route = client.switch(&switch_to("a", None, 0)).await.unwrap();
    assert_eq!((route.generation, route.live.as_deref()), (1, Some("a")));

    assert_eq!(get(&client, "").await, "v1 /");
    assert_eq!(get(&client, "/").await, "v1 /");
    assert_eq!(get(&client, "/predict?x=1").await, "v1 /predict?x=1");
    let seen: serde_json::Value = serde_json::from_str(&get(&client, "/headers").await).unwrap();
    assert_eq!(seen["headers"]["x-forwarded-prefix"], "/iris");
    assert_eq!(seen["headers"]["x-forwarded-for"], "127.0.0.1");
    assert_eq!(seen["headers"]["x-forwarded-proto"], "http");
    assert_eq!(seen["headers"]["host"], seen["headers"]["x-forwarded-host"]);

    let base = route.endpoint_url.trim_end_matches("/iris").to_owned();
    let unknown = reqwest::get(format!("{base}/nobody/x")).await.unwrap();
    assert_eq!(unknown.status(), 404);
    let unknown: serde_json::Value = unknown.json().await.unwrap();
    assert_eq!(unknown["error"]["code"], "unknown_model");
    assert!(unknown["error"]["hint"].is_string());
    assert_eq!(reqwest::get(format!("{base}/")).await.unwrap().status(), 404);
    assert_eq!(reqwest::get(format!("{base}/-/healthz")).await.unwrap().status(), 200);
    let metrics = reqwest::get(format!("{base}/-/metrics")).await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"tidegate_requests_total{model="iris",version="v1",slot="a"} 4"#), "{metrics}");
    assert!(client.metrics().await.unwrap().contains("tidegate_request_duration_seconds_bucket"));
}

#[tokio::test]
async fn measures_what_it_carries() {
    let home = Home::new();
    let client = home.start().await;
    home.ready_slot(&client, "a", "v1").await;
    client.switch(&switch_to("a", None, 0)).await.unwrap();
    for status in [200, 404, 503] {
        get(&client, &format!("/status?{status}")).await;
    }
    let traffic = &client.traffic("iris").await.unwrap()[0];
    assert_eq!((traffic.requests, traffic.errors, traffic.client_errors, traffic.in_flight), (3, 1, 1, 0));
    assert!(traffic.latency.unwrap().p50_ms > 0.0);
    assert!(client.traffic("other").await.unwrap().is_empty());
}

#[tokio::test]
async fn the_series_has_every_request_in_its_second() {
    let home = Home::new();
    let client = home.start().await;
    home.ready_slot(&client, "a", "v1").await;
    home.ready_slot(&client, "b", "v2").await;
    client.switch(&switch_to("a", Some("b"), 0)).await.unwrap();
    for status in [200, 200, 404, 503] {
        get(&client, &format!("/status?{status}")).await;
    }
    let page = home
        .until("the second is complete", async || {
            Some(client.series("iris", 0).await.unwrap()).filter(|page| page.arm("v1").requests == 4)
        })
        .await;
    let arm = page.arm("v1");
    assert_eq!((arm.errors, arm.latencies.count()), (1, 4));
    assert!(arm.latencies.quantile_us(0.5).unwrap() > 0);
    let (a, b) = (&page.slots[0], &page.slots[1]);
    assert_eq!((a.token.as_str(), b.token.as_str(), b.seconds.len()), ("a", "b", 0));
    assert_eq!(a.seconds.iter().map(|second| second.client_errors).sum::<u64>(), 1);
    let seconds = || a.seconds.iter().map(|second| second.second);
    assert!(seconds().is_sorted() && seconds().all(|second| (page.since..=page.until).contains(&second)));
    assert!(client.series("iris", page.until).await.unwrap().slots.iter().all(|slot| slot.seconds.is_empty()));
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let home = Home::new();
    let client = home.start().await;
    home.ready_slot(&client, "a", "v1").await;
    client.switch(&switch_to("a", None, 0)).await.unwrap();

    // 8 MB in pieces of unknown total length.
    let piece = vec![7u8; 64 * 1024];
    let expected = Sha256::digest(piece.repeat(128)).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let pieces = futures_util::stream::iter((0..128).map(move |_| Ok::<_, std::io::Error>(piece.clone())));
    let sent = reqwest::Client::new().post(url(&client, "/echo").await).body(reqwest::Body::wrap_stream(pieces));
    let answer: serde_json::Value = sent.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["sha"], expected);

    // Events arrive one by one, not at the end.
    let mut events = reqwest::get(url(&client, "/sse").await).await.unwrap().bytes_stream();
    let mut arrivals = Vec::new();
    while let Some(event) = events.next().await {
        event.unwrap();
        arrivals.push(Instant::now());
    }
    assert!(arrivals.len() >= 3 && arrivals[arrivals.len() - 1] - arrivals[0] > Duration::from_millis(400));
}

async fn raw(client: &tidegate::host::HostClient) -> tokio::net::TcpStream {
    let addr = client.status().await.unwrap().public_addr.unwrap();
    tokio::net::TcpStream::connect(addr).await.unwrap()
}

async fn read_until(stream: &mut tokio::net::TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    let mut buffer = [0u8; 1024];
    while !String::from_utf8_lossy(&text).contains(end) {
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn upgrades_and_expect_continue_work() {
    let home = Home::new();
    let client = home.start().await;
    home.ready_slot(&client, "a", "v1").await;
    client.switch(&switch_to("a", None, 0)).await.unwrap();

    let mut stream = raw(&client).await;
    let ask = "GET /iris/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101") && head.to_lowercase().contains("upgrade: echo"), "{head}");
    for word in ["one", "two"] {
        stream.write_all(word.as_bytes()).await.unwrap();
        read_until(&mut stream, &format!("echo:{word}")).await;
    }
    assert_eq!(client.traffic("iris").await.unwrap()[0].in_flight, 1);
    assert_eq!(client.drain("a", 50).await.unwrap(), 1);
    drop(stream);
    assert_eq!(client.drain("a", 10_000).await.unwrap(), 0);

    let mut stream = raw(&client).await;
    let ask = "POST /iris/echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    read_until(&mut stream, "100 Continue\r\n\r\n").await;
    stream.write_all(b"hello").await.unwrap();
    assert!(read_until(&mut stream, "\"bytes\": 5").await.contains("200 OK"));
}

#[tokio::test]
async fn a_switch_is_fenced_and_compared() {
    let home = Home::new();
    let client = home.start().await;
    home.ready_slot(&client, "a", "v1").await;
    let request = switch_to("a", None, 0);
    let first = client.switch(&request).await.unwrap();
    // Its answer was lost: the same again is the same.
    assert_eq!(client.switch(&request).await.unwrap(), first);

    let error = client.switch(&switch_to("a", None, 7)).await.unwrap_err().to_port();
    assert_eq!(error.code, "route_generation_conflict");
    assert!(error.message.contains("generation 1") && error.message.contains('7'), "{}", error.message);

    client.switch(&SwitchRequest { fence: fence(5), ..switch_to("a", None, 1) }).await.unwrap();
    let stale = SwitchRequest { fence: fence(4), ..switch_to("a", None, 2) };
    assert_eq!(code(client.switch(&stale).await.unwrap_err()), "stale_fence");

    assert_eq!(
        code(client.switch(&SwitchRequest { fence: fence(5), ..switch_to("b", None, 2) }).await.unwrap_err()),
        "no_such_slot"
    );
    assert_eq!(code(client.remove_slot("a", 100).await.unwrap_err()), "slot_is_routed");
    let removed = SwitchRequest { live: None, fence: fence(5), ..switch_to("a", None, 2) };
    assert_eq!(client.switch(&removed).await.unwrap().generation, 3);
    assert_eq!(reqwest::get(url(&client, "/version").await).await.unwrap().status(), 404);
    client.remove_slot("a", 1_000).await.unwrap();
    assert_eq!(client.route("iris").await.unwrap().unwrap().generation, 3);
    assert_eq!(client.route("never").await.unwrap(), None);
}

#[tokio::test]
async fn twenty_switches_under_load_fail_nobody() {
    let home = Home::new();
    let client = home.start().await;
    home.ready_slot(&client, "a", "v1").await;
    home.ready_slot(&client, "b", "v2").await;
    client.switch(&switch_to("a", None, 0)).await.unwrap();
    let url = url(&client, "/version").await;
    let stop = Arc::new(AtomicBool::new(false));
    let counts = Arc::new([const { AtomicU64::new(0) }; 3]);
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (stop, counts, url) = (Arc::clone(&stop), Arc::clone(&counts), url.clone());
            tokio::spawn(async move {
                let http = reqwest::Client::new();
                while !stop.load(Ordering::Relaxed) {
                    let text = match http.get(&url).send().await {
                        Ok(response) if response.status() == 200 => response.text().await.unwrap_or_default(),
                        other => format!("{other:?}"),
                    };
                    let which = if text == "v1" {
                        0
                    } else if text == "v2" {
                        1
                    } else {
                        2
                    };
                    if which == 2 {
                        eprintln!("failed: {text}");
                    }
                    counts[which].fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut generation = 1;
    for round in 0..20u64 {
        let (to, from) = if round % 2 == 0 { ("b", "a") } else { ("a", "b") };
        let before = counts[usize::from(to == "b")].load(Ordering::Relaxed);
        generation = client.switch(&switch_to(to, Some(from), generation)).await.unwrap().generation;
        assert_eq!(client.drain(from, 10_000).await.unwrap(), 0);
        home.until("the other version answers", async || {
            (counts[usize::from(to == "b")].load(Ordering::Relaxed) > before + 16).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let [v1, v2, failed] = [0, 1, 2].map(|i| counts[i].load(Ordering::Relaxed));
    eprintln!("v1 {v1}, v2 {v2}, failed {failed}");
    assert_eq!(failed, 0);
    assert!(v1 > 100 && v2 > 100);
}

#[tokio::test]
async fn a_dead_live_slot_is_replaced_by_its_standby_at_once() {
    let home = Home::new();
    let client = home.start().await;
    let live = home.ready_slot(&client, "a", "v1").await;
    home.ready_slot(&client, "b", "v2").await;
    client.switch(&switch_to("a", Some("b"), 0)).await.unwrap();
    let url = url(&client, "/slow?20000").await;
    let held = tokio::spawn(async move { reqwest::get(url).await.unwrap() });
    // Read by the process, that is: one still in its socket's queue would be sent again.
    home.until("it is under way", async || {
        client.slot_log("a", 1).await.unwrap().into_iter().find(|line| line == "slow")
    })
    .await;

    let killed = Instant::now();
    kill9(live.pid.unwrap());
    assert_eq!(get(&client, "/version").await, "v2");
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    // The request that the dead process held fails at once.
    let failed = held.await.unwrap();
    assert_eq!(failed.status(), 502);
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    assert_eq!(failed.json::<serde_json::Value>().await.unwrap()["error"]["code"], "upstream_died");

    let route = client.route("iris").await.unwrap().unwrap();
    assert_eq!((route.generation, route.live.as_deref(), route.standby), (2, Some("b"), None));
    let why = route.changed_by_gateway.unwrap();
    assert!(why.contains("signal 9") || why.contains("refused"), "{why}");
    // The caller's view is old: it must look again.
    assert_eq!(code(client.switch(&switch_to("a", None, 1)).await.unwrap_err()), "route_generation_conflict");
    home.wait_state(&client, "a", SlotState::Ready).await;
}

#[tokio::test]
async fn requests_wait_while_nothing_is_healthy_and_not_for_ever() {
    let home = Home::with_settings(r#"{"hold_timeout_ms": 1500, "hold_max": 2}"#);
    let client = home.start().await;
    let gate = home.path("gate");
    let mut request = home.request("a", "v1");
    request.env.insert("READY_FILE".to_owned(), gate.display().to_string());
    client.start_slot(&request).await.unwrap();
    client.switch(&switch_to("a", None, 0)).await.unwrap();
    let url = url(&client, "/version").await;

    let waiting: Vec<_> = (0..2).map(|_| tokio::spawn(reqwest::get(url.clone()))).collect();
    home.until("two are held", async || client.metrics().await.unwrap().contains("tidegate_held 2").then_some(()))
        .await;
    let third = reqwest::get(&url).await.unwrap();
    assert_eq!((third.status().as_u16(), third.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    assert_eq!(third.json::<serde_json::Value>().await.unwrap()["error"]["code"], "too_many_held");
    for held in waiting {
        let answer = held.await.unwrap().unwrap();
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.json::<serde_json::Value>().await.unwrap()["error"]["code"], "no_healthy_slot");
    }
    let waiting = tokio::spawn(reqwest::get(url));
    home.until("one is held", async || client.metrics().await.unwrap().contains("tidegate_held 1").then_some(())).await;
    std::fs::write(gate, "").unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().text().await.unwrap(), "v1");
}

#[tokio::test]
async fn a_killed_slot_without_a_standby_is_waited_for() {
    let home = Home::new();
    let client = home.start().await;
    let live = home.ready_slot(&client, "a", "v1").await;
    client.switch(&switch_to("a", None, 0)).await.unwrap();
    kill9(live.pid.unwrap());
    assert_eq!(get(&client, "/version").await, "v1");
    let again = client.slot("a").await.unwrap().unwrap();
    assert!(again.restarts == 1 && again.pid != live.pid);
}

#[tokio::test]
async fn of_a_killed_slot_only_the_requests_it_held_fail() {
    let home = Home::new();
    let client = home.start().await;
    let live = home.ready_slot(&client, "a", "v1").await;
    home.ready_slot(&client, "b", "v2").await;
    client.switch(&switch_to("a", Some("b"), 0)).await.unwrap();
    let url = url(&client, "/version").await;
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move {
                let http = reqwest::Client::new();
                let (mut failed, mut after) = (0, 0);
                while after < 50 {
                    // The head of an answer may have come without its body: then there is nothing left but to hang up.
                    let Ok(answer) = http.get(&url).send().await else {
                        failed += 1;
                        continue;
                    };
                    let status = answer.status().as_u16();
                    match (status, answer.text().await.as_deref()) {
                        (200, Ok("v1")) => {}
                        (200, Ok("v2")) => after += 1,
                        // No answer, or one that broke off in the middle.
                        (502, Ok(_)) | (200, Err(_)) => failed += 1,
                        other => panic!("{other:?}"),
                    }
                }
                failed
            })
        })
        .collect();
    home.until("traffic flows", async || (client.traffic("iris").await.unwrap()[0].requests > 100).then_some(())).await;
    kill9(live.pid.unwrap());
    for client in clients {
        assert!(client.await.unwrap() <= 1, "a client failed more than once");
    }
}

#[tokio::test]
async fn a_client_that_breaks_off_is_not_the_slots_fault() {
    let home = Home::new();
    let client = home.start().await;
    home.ready_slot(&client, "a", "v1").await;
    client.switch(&switch_to("a", None, 0)).await.unwrap();
    let mut stream = raw(&client).await;
    let ask = "POST /iris/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nhalf";
    stream.write_all(ask.as_bytes()).await.unwrap();
    home.until("it is under way", async || (client.traffic("iris").await.unwrap()[0].in_flight == 1).then_some(()))
        .await;
    drop(stream);
    home.until("it is over", async || (client.traffic("iris").await.unwrap()[0].requests == 1).then_some(())).await;
    let traffic = &client.traffic("iris").await.unwrap()[0];
    assert_eq!((traffic.errors, traffic.in_flight), (0, 0));
}
