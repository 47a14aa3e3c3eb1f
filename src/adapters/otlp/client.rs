//! How traces get to their collector: HTTP over hyper, plain or with TLS.

use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError};

/// Longest wait for a collector to take a batch.
const WITHIN: Duration = Duration::from_secs(10);
/// Most of an answer that is read: it says what was not taken, if anything.
const MAX_ANSWER: usize = 64 * 1024;

type Sender<C> = Client<C, Full<Bytes>>;

/// Sends batches.
#[derive(Debug)]
pub(super) struct Collector {
    plain: Sender<HttpConnector>,
    /// Made when it is first needed: it reads the system's certificates.
    tls: OnceLock<Result<Sender<HttpsConnector<HttpConnector>>, String>>,
}

impl Default for Collector {
    fn default() -> Self {
        let plain = Client::builder(TokioExecutor::new()).build(connector());
        Self { plain, tls: OnceLock::new() }
    }
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(WITHIN));
    connector.enforce_http(false);
    connector
}

fn tls() -> Result<Sender<HttpsConnector<HttpConnector>>, String> {
    let builder = HttpsConnectorBuilder::new().with_native_roots();
    let builder = builder.map_err(|e| format!("the system's certificates cannot be read: {e}"))?;
    let https = builder.https_only().enable_http1().wrap_connector(connector());
    Ok(Client::builder(TokioExecutor::new()).build(https))
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = request.map(Full::new);
        let call = async {
            let answer = match request.uri().scheme_str() {
                Some("https") => self.tls.get_or_init(tls).as_ref().map_err(Clone::clone)?.request(request).await?,
                _ => self.plain.request(request).await?,
            };
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        tokio::time::timeout(WITHIN, call).await.map_err(|_| "it did not answer in time")?
    }
}
