//! Spans to an OpenTelemetry collector, by OTLP over HTTP, as `OTEL_EXPORTER_OTLP_*` say. Whoever hands over a span never waits: what does not
//! fit into the queue is dropped and counted.

mod client;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::sync::{mpsc, oneshot};

use client::Collector;

/// Spans that wait: those of some hundred supersteps of a wide graph, and a few megabytes at most.
const QUEUE: usize = 8_192;
/// Spans of one request.
const BATCH: usize = 512;
/// How long a span waits for others before it is sent.
const LINGER: Duration = Duration::from_secs(1);

/// A span that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// What it belongs to.
    pub trace: u128,
    /// Its own id; not 0.
    pub id: u64,
    /// The span that it is a part of; 0: none.
    pub parent: u64,
    /// What it is.
    pub name: String,
    /// When it began.
    pub start: DateTime<Utc>,
    /// When it ended.
    pub end: DateTime<Utc>,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Word)>,
    /// Why it failed, where it did.
    pub error: Option<String>,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Word {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

/// Whether the environment says something there.
fn says(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// What became of the spans so far.
#[derive(Debug, Default)]
struct Counts {
    added: AtomicU64,
    dropped: AtomicU64,
    sent: AtomicU64,
}

/// Takes spans.
#[derive(Debug)]
pub struct Spans {
    queue: mpsc::Sender<Span>,
    flushes: mpsc::Sender<oneshot::Sender<()>>,
    counts: Arc<Counts>,
}

impl Spans {
    /// The collector that the environment names; `None`: it names none. Must be called inside a runtime.
    ///
    /// # Errors
    /// When what it says makes no sense.
    pub fn configured() -> Option<Result<Self, String>> {
        let disabled = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
        let named = says("OTEL_EXPORTER_OTLP_ENDPOINT") || says("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        (named && !disabled).then(Self::start)
    }

    fn start() -> Result<Self, String> {
        let builder = SpanExporter::builder().with_http().with_http_client(Collector::default());
        // The standard's default; the exporter's own depends on how it was built.
        let builder = match says("OTEL_EXPORTER_OTLP_PROTOCOL") || says("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") {
            true => builder,
            false => builder.with_protocol(Protocol::HttpBinary),
        };
        let mut exporter = builder.build().map_err(|e| e.to_string())?;
        // The resource has what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say.
        let resource = Resource::builder();
        let named =
            ["OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"].map(|name| std::env::var(name).unwrap_or_default());
        let resource = match named {
            [service, attributes] if service.is_empty() && !attributes.contains("service.name=") => {
                resource.with_service_name("tidegate")
            }
            _ => resource,
        };
        exporter.set_resource(&resource.build());
        let (queue, spans) = mpsc::channel(QUEUE);
        let (flushes, asked) = mpsc::channel(1);
        let counts = Arc::new(Counts::default());
        tokio::spawn(carry(exporter, spans, asked, counts.clone()));
        Ok(Self { queue, flushes, counts })
    }

    /// Hands over a span; at once, whatever the collector does.
    pub fn add(&self, span: Span) {
        self.counts.added.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(span).is_err() && self.counts.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("the queue of traces is full: spans are dropped");
        }
    }

    /// Waits until what was handed over has been sent, or could not be; no longer than `within`. How many spans never got there.
    pub async fn flush(&self, within: Duration) -> u64 {
        let sent = async {
            let (reply, done) = oneshot::channel();
            if self.flushes.send(reply).await.is_ok() {
                let _ = done.await;
            }
        };
        // What has not arrived by then will not: the process ends.
        let _ = tokio::time::timeout(within, sent).await;
        self.counts.added.load(Ordering::Relaxed) - self.counts.sent.load(Ordering::Relaxed)
    }
}

/// Sends what comes, until nobody can hand over any more.
async fn carry(
    exporter: SpanExporter,
    mut spans: mpsc::Receiver<Span>,
    mut flushes: mpsc::Receiver<oneshot::Sender<()>>,
    counts: Arc<Counts>,
) {
    let mut carrier = Carrier { exporter, counts, failing: false };
    loop {
        let mut batch = Vec::with_capacity(BATCH);
        let first = tokio::select! {
            // Before a flush is answered all that lies in the queue is taken.
            biased;
            first = spans.recv() => first,
            Some(reply) = flushes.recv() => {
                let _ = reply.send(());
                continue;
            }
        };
        let Some(first) = first else { return };
        batch.push(first);
        let linger = tokio::time::sleep(LINGER);
        tokio::pin!(linger);
        let mut asked = None;
        while batch.len() < BATCH {
            tokio::select! {
                biased;
                next = spans.recv() => match next {
                    Some(span) => batch.push(span),
                    None => break,
                },
                Some(reply) = flushes.recv(), if asked.is_none() => {
                    asked = Some(reply);
                    break;
                }
                () = &mut linger => break,
            }
        }
        carrier.send(batch).await;
        while asked.is_some() && !spans.is_empty() {
            let mut rest = Vec::with_capacity(BATCH);
            spans.recv_many(&mut rest, BATCH).await;
            carrier.send(rest).await;
        }
        if let Some(reply) = asked {
            let _ = reply.send(());
        }
    }
}

struct Carrier {
    exporter: SpanExporter,
    counts: Arc<Counts>,
    failing: bool,
}

impl Carrier {
    async fn send(&mut self, batch: Vec<Span>) {
        let many = batch.len() as u64;
        match self.exporter.export(batch.into_iter().map(told).collect()).await {
            Ok(()) => {
                self.counts.sent.fetch_add(many, Ordering::Relaxed);
                self.failing = false;
            }
            Err(error) => {
                // Once, until it is well again: a collector that is down is no reason to fill a log.
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "traces do not get to their collector; runs go on without");
                }
            }
        }
    }
}

/// A span as the SDK has it.
fn told(span: Span) -> SpanData {
    let trace = TraceId::from_bytes(span.trace.to_be_bytes());
    let id = |id: u64| SpanId::from_bytes(id.to_be_bytes());
    let attribute = |(name, word): (&'static str, Word)| {
        let value: Value = match word {
            Word::Text(text) => text.into(),
            Word::Number(number) => number.into(),
            Word::Flag(flag) => flag.into(),
        };
        KeyValue::new(name, value)
    };
    SpanData {
        span_context: SpanContext::new(trace, id(span.id), TraceFlags::SAMPLED, false, TraceState::default()),
        parent_span_id: id(span.parent),
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: span.name.into(),
        start_time: span.start.into(),
        end_time: span.end.into(),
        attributes: span.attributes.into_iter().map(attribute).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder("tidegate")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}
