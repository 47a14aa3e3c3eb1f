//! Whether a slot is ready: asked over HTTP, because an open port proves nothing.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::life::{Event, Life};
use super::{log, log_path};
use crate::host::core::Core;

/// While starting: readiness is noticed within a fortieth of a second; a release waits for it.
const EVERY_WHILE_STARTING: Duration = Duration::from_millis(25);
/// Afterwards: cheap enough for fifty slots.
const EVERY: Duration = Duration::from_secs(1);
/// A slot under full load answers late; that is not "not ready".
const TIMEOUT: Duration = Duration::from_secs(2);
/// So many times in a row no answer at all means unready; an answer that says no counts at once.
const SILENCES: u32 = 3;

/// What the readiness path said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    Yes,
    No,
    Silence,
}

/// Follows the slot's readiness for ever; the caller ends it with the process. Looks after the log on the way.
pub(crate) async fn follow(core: &Arc<Core>, token: &str) {
    let mut silences = 0;
    loop {
        let Some(slot) = core.state().slots.get(token).cloned() else { return };
        let probe = ask(slot.port, &slot.request.ready_path).await;
        silences = if probe == Probe::Silence { silences + 1 } else { 0 };
        let event = match probe {
            Probe::Yes => Some(Event::ReadyOk),
            Probe::No => Some(Event::ReadyFailed),
            Probe::Silence if silences >= SILENCES => Some(Event::ReadyFailed),
            Probe::Silence => None,
        };
        if let Some(event) = event.filter(|event| slot.life.after(*event) != slot.life) {
            note(core, token, event).await;
        }
        look_after_log(log_path(&slot.request), core.settings.slot_log_max_bytes).await;
        let starting = matches!(slot.life, Life::Starting { .. }) && probe != Probe::Yes;
        tokio::time::sleep(if starting { EVERY_WHILE_STARTING } else { EVERY }).await;
    }
}

async fn look_after_log(path: std::path::PathBuf, max_bytes: u64) {
    let rotated = tokio::task::spawn_blocking(move || log::rotate(&path, max_bytes)).await;
    if let Err(error) = rotated.map_err(std::io::Error::other).flatten() {
        tracing::warn!(%error, "cannot rotate a slot's log");
    }
}

async fn note(core: &Arc<Core>, token: &str, event: Event) {
    let of = token.to_owned();
    let life = core.update_anyway(move |state| {
        let slot = state.slots.get_mut(&of)?;
        slot.life = slot.life.after(event);
        if slot.life == Life::Ready {
            slot.ready_at.get_or_insert_with(Utc::now);
        }
        Some(slot.life)
    });
    let life = life.await;
    tracing::info!(token, ?life, "readiness");
}

async fn ask(port: u16, path: &str) -> Probe {
    tokio::time::timeout(TIMEOUT, ask_once(port, path)).await.ok().flatten().unwrap_or(Probe::Silence)
}

/// One connection per question: a kept one would tell of the process that was there before.
async fn ask_once(port: u16, path: &str) -> Option<Probe> {
    let stream = TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port)).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::get(path)
        .header(hyper::header::HOST, format!("127.0.0.1:{port}"))
        .header(hyper::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .ok()?;
    let answered = async move { sender.send_request(request).await.ok().map(|response| response.status()) };
    let (_, status) = tokio::join!(connection, answered);
    Some(if status? == StatusCode::OK { Probe::Yes } else { Probe::No })
}
