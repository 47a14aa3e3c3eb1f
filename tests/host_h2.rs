//! HTTP/2 without TLS (h2c, by prior knowledge), on the same port as HTTP/1.1.

mod host_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use host_support::{Home, switch_to};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::SendRequest;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidegate::host::HostClient;

async fn connect(client: &HostClient) -> SendRequest<Full<Bytes>> {
    let addr = client.status().await.unwrap().public_addr.unwrap();
    let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder().uri(format!("http://models.example/iris{path}")).body(Full::new(body.into())).unwrap()
}

async fn text(response: Response<hyper::body::Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn requests_of_one_connection_go_side_by_side() {
    let home = Home::new();
    let client = home.start().await;
    home.ready_slot(&client, "a", "v1").await;
    client.switch(&switch_to("a", None, 0)).await.unwrap();
    let mut sender = connect(&client).await;
    let slow = tokio::spawn(sender.send_request(request("/slow?1000", "")));
    let answer = sender.send_request(request("/headers", "")).await.unwrap();
    assert!(answer.headers().contains_key("x-request-id"));
    let seen: serde_json::Value = serde_json::from_str(&text(answer).await).unwrap();
    assert_eq!(seen["headers"]["host"], "models.example");
    assert!(!slow.is_finished());
    let mut post = request("/echo", vec![7; 300_000]);
    *post.method_mut() = hyper::Method::POST;
    assert!(text(sender.send_request(post).await.unwrap()).await.contains("\"bytes\": 300000"));
    assert_eq!(text(slow.await.unwrap().unwrap()).await, "v1");
    // A head that is too large ends its stream or its connection, not the gateway.
    let mut large = request("/version", "");
    large.headers_mut().insert("x-long", "x".repeat(100_000).parse().unwrap());
    let refused = sender.send_request(large).await;
    assert!(refused.is_err() || refused.unwrap().status() == 431);
    assert_eq!(text(connect(&client).await.send_request(request("/version", "")).await.unwrap()).await, "v1");
}

#[tokio::test]
async fn switches_under_load_fail_nobody() {
    let home = Home::new();
    let client = home.start().await;
    home.ready_slot(&client, "a", "v1").await;
    home.ready_slot(&client, "b", "v2").await;
    client.switch(&switch_to("a", None, 0)).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let counts = Arc::new([const { AtomicU64::new(0) }; 2]);
    let mut senders = Vec::new();
    for _ in 0..4 {
        let sender = connect(&client).await;
        // Each connection carries several requests at once.
        senders.extend([sender.clone(), sender.clone(), sender]);
    }
    let load = senders.into_iter().map(|mut sender| {
        let (stop, counts) = (Arc::clone(&stop), Arc::clone(&counts));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let answer = sender.send_request(request("/version", "")).await.unwrap();
                assert_eq!(answer.status(), 200);
                let version = text(answer).await;
                counts[usize::from(version == "v2")].fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let load: Vec<_> = load.collect();
    let mut generation = 1;
    for round in 0..20 {
        let (to, from) = if round % 2 == 0 { ("b", "a") } else { ("a", "b") };
        let count = &counts[usize::from(to == "b")];
        let before = count.load(Ordering::Relaxed);
        generation = client.switch(&switch_to(to, Some(from), generation)).await.unwrap().generation;
        assert_eq!(client.drain(from, 10_000).await.unwrap(), 0);
        home.until("the other version answers", async || (count.load(Ordering::Relaxed) > before + 12).then_some(()))
            .await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) > 100));
}
