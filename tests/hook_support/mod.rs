//! Somebody who is told by webhooks.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// What one request said.
#[derive(Debug, Clone)]
pub struct Told {
    pub path: String,
    pub id: String,
    pub at: String,
    pub signature: Option<String>,
    pub body: String,
}

/// Takes what it is told; answers 500 as often as it is asked to, and below `/silent` not at all.
pub struct Receiver {
    pub url: String,
    told: Arc<Mutex<Vec<Told>>>,
    pub refuses: Arc<Mutex<u32>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Receiver {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let refuses = Arc::new(Mutex::new(0_u32));
        let (all, no) = (told.clone(), refuses.clone());
        let take = move |uri: axum::http::Uri, headers: axum::http::HeaderMap, body: String| {
            let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            let mut no = no.lock().unwrap();
            let silent = uri.path().starts_with("/silent");
            let refused = *no > 0 && !silent;
            *no -= u32::from(refused);
            let (id, at) = (text("webhook-id").unwrap(), text("webhook-timestamp").unwrap());
            let signature = text("webhook-signature");
            if !refused {
                all.lock().unwrap().push(Told { path: uri.path().to_owned(), id, at, signature, body });
            }
            let status = if refused { 500 } else { 204 };
            async move {
                if silent {
                    std::future::pending::<()>().await;
                }
                axum::http::StatusCode::from_u16(status).unwrap()
            }
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, axum::Router::new().fallback(take)).await.unwrap();
        });
        Self { url, told, refuses, runtime: Some(runtime) }
    }

    /// What it was told at a path, each once.
    pub fn told(&self, path: &str) -> Vec<Told> {
        let mut all: Vec<Told> = self.told.lock().unwrap().iter().filter(|told| told.path == path).cloned().collect();
        // At least once: whoever was killed after it had told tells it again, under the same id.
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|told| seen.insert(told.id.clone()));
        all
    }

    /// The kinds of events that it was told at a path.
    pub fn kinds(&self, path: &str) -> Vec<String> {
        let of = |told: &Told| serde_json::from_str::<Value>(&told.body).unwrap()["type"].as_str().unwrap().to_owned();
        self.told(path).iter().map(of).collect()
    }
}

impl Told {
    /// Its body.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Whether it was signed with this secret.
    pub fn is_signed_with(&self, secret: &[u8]) -> bool {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        let signed = self.signature.as_deref().and_then(|text| text.strip_prefix("v1,"));
        let signed = signed.and_then(|text| STANDARD.decode(text).ok());
        let what = format!("{}.{}.{}", self.id, self.at, self.body);
        signed.is_some_and(|signed| ring::hmac::verify(&key, what.as_bytes(), &signed).is_ok())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // Also in a test that has a runtime of its own, which must not wait for another one's end.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
