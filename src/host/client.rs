//! How everybody else speaks to the host daemon.

use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::api::{DrainRequest, Drained, ErrorBody, HostStatus, KnownSecrets, SecretsRequest};
use super::config::HostPaths;
use super::{HostError, socket};
use crate::ports::{
    MirrorPage, PortError, RenewRequest, Route, RouteRequest, Secrets, SeriesPage, Slot, SlotRequest, StandbyRequest,
    SwitchRequest, VersionTraffic,
};

/// Every call that does not wait for something longer by its nature ends within this.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A daemon that dies is back within this; what may be repeated is repeated so long.
const REPEAT_FOR: Duration = Duration::from_secs(5);
const REPEAT_EVERY: Duration = Duration::from_millis(50);
/// Who is there answers within this.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Speaks to the host daemon of one home. Cheap to clone; every call is a connection of its own.
#[derive(Debug, Clone)]
pub struct HostClient {
    paths: HostPaths,
}

/// One call.
struct Call {
    method: Method,
    path: String,
    body: Option<Vec<u8>>,
    timeout: Duration,
    /// Whether doing it twice is as good as once.
    repeatable: bool,
}

impl Call {
    fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: None, timeout: TIMEOUT, repeatable: true }
    }

    fn post(path: &str, body: &impl Serialize) -> Result<Self, HostError> {
        let body = serde_json::to_vec(body).map_err(|e| HostError::invalid(e.to_string(), "correct the request"))?;
        Ok(Self { method: Method::POST, path: path.to_owned(), body: Some(body), timeout: TIMEOUT, repeatable: false })
    }

    fn repeatable(self) -> Self {
        Self { repeatable: true, ..self }
    }

    fn within(self, more: Duration) -> Self {
        Self { timeout: TIMEOUT.saturating_add(more), ..self }
    }
}

/// What a call met when it was not answered.
enum Unanswered {
    /// Nobody listens: it was not carried out.
    NoConnection(String),
    /// The connection broke: it may have been carried out.
    Broken(String),
}

impl HostClient {
    /// A client for the daemon with these files; does not look whether it runs.
    pub fn new(paths: HostPaths) -> Self {
        Self { paths }
    }

    /// The files of the home.
    pub fn paths(&self) -> &HostPaths {
        &self.paths
    }

    /// How the daemon, its slots and its routes fare.
    pub async fn status(&self) -> Result<HostStatus, HostError> {
        self.call(Call::get("/v1/status")).await
    }

    /// Asks once, without waiting for a daemon that is just being started again.
    pub async fn status_now(&self, within: Duration) -> Result<HostStatus, HostError> {
        let call = Call { timeout: within, repeatable: false, ..Call::get("/v1/status") };
        self.call(call).await
    }

    /// The last lines of the daemon's own log, oldest first.
    pub async fn logs(&self, lines: usize) -> Result<Vec<String>, HostError> {
        self.call(Call::get(format!("/v1/logs?lines={lines}"))).await
    }

    /// What `/-/metrics` shows, in Prometheus' text format.
    pub async fn metrics(&self) -> Result<String, HostError> {
        self.call(Call::get("/v1/metrics")).await
    }

    /// Starts a slot, or returns the one of this token.
    pub async fn start_slot(&self, request: &SlotRequest) -> Result<Slot, HostError> {
        self.call(Call::post("/v1/slots", request)?.repeatable()).await
    }

    /// The slot of a token, if there is one.
    pub async fn slot(&self, token: &str) -> Result<Option<Slot>, HostError> {
        self.call(Call::get(format!("/v1/slots/{}", segment(token)?))).await
    }

    /// All slots.
    pub async fn slots(&self) -> Result<Vec<Slot>, HostError> {
        self.call(Call::get("/v1/slots")).await
    }

    /// Ends a slot and removes its folder; fine when it is gone, refused while it is a model's live or standby slot.
    pub async fn remove_slot(&self, token: &str, grace_ms: u64) -> Result<(), HostError> {
        let call = Call::get(format!("/v1/slots/{}?grace_ms={grace_ms}", segment(token)?));
        self.call(Call { method: Method::DELETE, ..call.within(Duration::from_millis(grace_ms)) }).await
    }

    /// The last lines of a slot's log, oldest first.
    pub async fn slot_log(&self, token: &str, lines: usize) -> Result<Vec<String>, HostError> {
        self.call(Call::get(format!("/v1/slots/{}/log?lines={lines}", segment(token)?))).await
    }

    /// What slots were given from a file of variables, also before it was written anew.
    pub async fn secrets(&self, env_file: &Path) -> Result<Secrets, HostError> {
        let request = SecretsRequest { env_file: env_file.to_owned() };
        let known: KnownSecrets = self.call(Call::post("/v1/secrets", &request)?.repeatable()).await?;
        Ok(Secrets::new(known.vars))
    }

    /// A model's route; `None` when it never had one.
    pub async fn route(&self, model: &str) -> Result<Option<Route>, HostError> {
        self.call(Call::get(format!("/v1/routes/{}", segment(model)?))).await
    }

    /// All routes.
    pub async fn routes(&self) -> Result<Vec<Route>, HostError> {
        self.call(Call::get("/v1/routes")).await
    }

    /// Changes a route atomically. The same request again returns the same route, if nothing changed in between.
    pub async fn switch(&self, request: &SwitchRequest) -> Result<Route, HostError> {
        self.call(Call::post("/v1/switch", request)?.repeatable()).await
    }

    /// Divides a model's traffic anew, atomically. The same request again returns the same route, if nothing changed in between.
    pub async fn put_route(&self, request: &RouteRequest) -> Result<Route, HostError> {
        self.call(Call::post("/v1/route", request)?.repeatable()).await
    }

    /// Renews the lease of a route.
    pub async fn renew(&self, request: &RenewRequest) -> Result<Route, HostError> {
        self.call(Call::post("/v1/renew", request)?.repeatable()).await
    }

    /// Says how long the standby of a route is kept.
    pub async fn keep_standby(&self, request: &StandbyRequest) -> Result<(), HostError> {
        self.call(Call::post("/v1/standby", request)?.repeatable()).await
    }

    /// Waits until no request is under way at a slot; returns how many still are after `timeout_ms`.
    pub async fn drain(&self, token: &str, timeout_ms: u64) -> Result<u64, HostError> {
        let request = DrainRequest { token: token.to_owned(), timeout_ms };
        let call = Call::post("/v1/drain", &request)?.repeatable().within(Duration::from_millis(timeout_ms));
        let drained: Drained = self.call(call).await?;
        Ok(drained.in_flight)
    }

    /// What was measured of each slot of a model.
    pub async fn traffic(&self, model: &str) -> Result<Vec<VersionTraffic>, HostError> {
        self.call(Call::get(format!("/v1/traffic/{}", segment(model)?))).await
    }

    /// What each slot of a model did in the complete seconds after this one.
    pub async fn series(&self, model: &str, after: u64) -> Result<SeriesPage, HostError> {
        self.call(Call::get(format!("/v1/series/{}?after={after}", segment(model)?))).await
    }

    /// The answers to mirrored requests of a model after the pair of this number.
    pub async fn mirrored(&self, model: &str, after: u64) -> Result<MirrorPage, HostError> {
        self.call(Call::get(format!("/v1/mirror/{}?after={after}", segment(model)?))).await
    }

    /// The URL that a model has or would have.
    pub async fn endpoint_url(&self, model: &str) -> Result<String, HostError> {
        self.call(Call::get(format!("/v1/endpoint/{}", segment(model)?))).await
    }

    /// Closes the public endpoint and stops all slots; `up` brings back what ran.
    pub async fn down(&self) -> Result<HostStatus, HostError> {
        self.call(Call::post("/v1/down", &())?.repeatable().within(Duration::from_secs(60))).await
    }

    /// The same, and ends the daemon and its keeper, in one step.
    pub async fn down_and_end(&self) -> Result<HostStatus, HostError> {
        let call = Call::post("/v1/down?end=true", &())?.repeatable();
        let status: HostStatus = self.call(call.within(Duration::from_secs(60))).await?;
        self.wait_for_end(Some(&status)).await?;
        Ok(status)
    }

    /// Opens the public endpoint and starts what ran before `down`.
    pub async fn up(&self) -> Result<HostStatus, HostError> {
        // A `down` that is still being carried out comes first.
        self.call(Call::post("/v1/up", &())?.repeatable().within(Duration::from_secs(60))).await
    }

    /// Ends the daemon and its keeper. Slots go on, without traffic, and are adopted by the next start.
    pub async fn shutdown(&self) -> Result<(), HostError> {
        match self.call::<()>(Call::post("/v1/shutdown", &())?).await {
            // Gone already, or about to go: somebody else asked for it too.
            Ok(()) | Err(HostError::Unreachable { .. }) => {}
            Err(error) => return Err(error),
        }
        self.wait_for_end(None).await
    }

    /// Waits until no keeper and no daemon lives, or another daemon than `ended`: somebody has started it since.
    async fn wait_for_end(&self, ended: Option<&HostStatus>) -> Result<(), HostError> {
        let until = tokio::time::Instant::now() + TIMEOUT;
        while self.is_held() {
            if let Some(ended) = ended
                && let Ok(now) = self.status_now(ANSWERS_WITHIN).await
                && (now.pid, now.started_at) != (ended.pid, ended.started_at)
            {
                return Ok(());
            }
            if tokio::time::Instant::now() > until {
                return Err(HostError::io("waiting for the daemon's end")(std::io::ErrorKind::TimedOut.into()));
            }
            tokio::time::sleep(REPEAT_EVERY).await;
        }
        Ok(())
    }

    /// Whether a keeper or a daemon lives.
    fn is_held(&self) -> bool {
        let held = |path: std::path::PathBuf| {
            let file = std::fs::File::open(path);
            file.is_ok_and(|file| matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)))
        };
        held(self.paths.keeper_lock()) || held(self.paths.daemon_lock())
    }

    async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, HostError> {
        let repeat_until = tokio::time::Instant::now() + REPEAT_FOR;
        loop {
            let sent = tokio::time::timeout(call.timeout, self.send(&call)).await;
            let failed = match sent {
                Ok(Ok(response)) => return read(response).await,
                Ok(Err(failed)) => failed,
                Err(_) => Unanswered::Broken(format!("no answer within {} ms", call.timeout.as_millis())),
            };
            let (again, cause) = match failed {
                Unanswered::NoConnection(cause) => (false, cause),
                Unanswered::Broken(cause) => (call.repeatable, cause),
            };
            if !again || tokio::time::Instant::now() > repeat_until {
                return Err(HostError::Unreachable { home: self.paths.home.clone(), cause });
            }
            tokio::time::sleep(REPEAT_EVERY).await;
        }
    }

    async fn send(&self, call: &Call) -> Result<Response<Bytes>, Unanswered> {
        let path = socket::find(&self.paths);
        let no_connection = |e: std::io::Error| Unanswered::NoConnection(format!("{}: {e}", path.display()));
        let broken = |e: hyper::Error| Unanswered::Broken(e.to_string());
        let stream = UnixStream::connect(&path).await.map_err(no_connection)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let request = Request::builder()
            .method(call.method.clone())
            .uri(&call.path)
            .header(hyper::header::HOST, "tidegate")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .header(hyper::header::CONNECTION, "close")
            .body(Full::new(Bytes::from(call.body.clone().unwrap_or_default())))
            .map_err(|e| Unanswered::NoConnection(e.to_string()))?;
        let answer = async move {
            let (head, body) = sender.send_request(request).await?.into_parts();
            Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
        };
        let (_, answer) = tokio::join!(connection, answer);
        answer.map_err(broken)
    }
}

/// Reads an answer, or the error in it.
async fn read<T: DeserializeOwned>(response: Response<Bytes>) -> Result<T, HostError> {
    let (head, body) = response.into_parts();
    let unclear = |why: String| {
        let text = String::from_utf8_lossy(&body).chars().take(500).collect::<String>();
        HostError::Remote(PortError::new("host_answer_unclear", why).because(text))
    };
    if head.status.is_success() {
        return serde_json::from_slice(&body)
            .map_err(|e| unclear(format!("the host daemon's answer is not clear: {e}")));
    }
    match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(body) => Err(HostError::Remote(body.error)),
        Err(_) => Err(unclear(format!("the host daemon answered {}", head.status))),
    }
}

/// A name as one segment of a path; anything that would be more is refused here.
fn segment(name: &str) -> Result<&str, HostError> {
    let fine = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if fine {
        Ok(name)
    } else {
        Err(HostError::invalid(format!("{name:?} is not a name"), "check it for typing errors"))
    }
}
