//! `host status|logs|install`, `up`, `down`.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::args::HostCommand;
use super::out::Out;
use super::show::{ago, table};
use super::{Exit, Failed, plain};
use crate::app::{App, Home, Paused, Settings, host_client, host_failure};
use crate::graph::{Failure, ThreadId};
use crate::host::api::HostStatus;
use crate::host::{HostClient, HostConfig, HostError, ensure_started, install, start_everything, stop_everything};
use crate::ports::{Leg, SlotState, first_of};

fn of(error: &HostError) -> Failed {
    plain(host_failure(error))
}

/// Which host daemon. Nothing here opens the database: what serves can be seen, stopped and restored without it.
fn config(home: &Home, public_addr: Option<SocketAddr>) -> Result<HostConfig, Failed> {
    Settings::read(&home.settings()).and_then(|settings| settings.host(home, public_addr)).map_err(plain)
}

/// The host daemon's own commands.
pub async fn run(
    home: &Home,
    public_addr: Option<SocketAddr>,
    command: HostCommand,
    out: &Out,
) -> Result<Exit, Failed> {
    let config = config(home, public_addr)?;
    match command {
        HostCommand::Status => status(home, out).await,
        HostCommand::Logs { lines, slot } => logs(home, lines, slot.as_deref(), out).await,
        HostCommand::Install { dry_run } => install_unit(&config, dry_run, out),
    }
}

/// A client, without starting a daemon that does not run.
pub(super) fn client(home: &Home) -> Result<HostClient, Failed> {
    host_client(home).map_err(plain)
}

async fn status(home: &Home, out: &Out) -> Result<Exit, Failed> {
    let running = client(home)?.status_now(std::time::Duration::from_secs(2)).await;
    let Ok(status) = running else {
        out.data(&json!({"running": false}), || "the host daemon does not run; `tidegate up` starts it".to_owned())?;
        return Ok(Exit::Done);
    };
    out.data(&value_of(&status), || text_of(&status))?;
    Ok(Exit::Done)
}

fn value_of(status: &HostStatus) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or(Value::Null);
    value["running"] = json!(true);
    value
}

/// What a slot is there for; nothing where no route names it.
fn role(status: &HostStatus, token: &str) -> &'static str {
    let named = |leg: &Leg| leg.slots.iter().any(|slot| slot == token);
    let plans = || status.routes.iter().map(|route| &route.traffic);
    if plans().any(|plan| plan.stable().is_some_and(named)) {
        "live"
    } else if plans().any(|plan| plan.candidates().iter().any(named)) {
        "on trial"
    } else if status.routes.iter().any(|route| route.standby.as_deref() == Some(first_of(token))) {
        "standby"
    } else {
        ""
    }
}

fn text_of(status: &HostStatus) -> String {
    let address = status.public_addr.map_or_else(|| "–".to_owned(), |a| format!("http://{a}"));
    let state = if status.down { "down" } else { "up" };
    let mut text = format!("{state}, pid {} since {}, public endpoint {address}\n", status.pid, ago(status.started_at));
    let mut slots = table(["slot", "model", "version", "state", "port", "pid", "restarts", "role"]);
    for slot in &status.slots {
        let role = role(status, &slot.token);
        slots.add_row([
            slot.token.clone(),
            slot.model.clone(),
            slot.version.clone(),
            format!("{:?}", slot.state).to_lowercase(),
            slot.port.to_string(),
            slot.pid.map_or_else(|| "–".to_owned(), |pid| pid.to_string()),
            slot.restarts.to_string(),
            role.to_owned(),
        ]);
    }
    if status.slots.is_empty() {
        text.push_str("no slots");
    } else {
        text.push_str(&slots.to_string());
    }
    text
}

async fn logs(home: &Home, lines: usize, slot: Option<&str>, out: &Out) -> Result<Exit, Failed> {
    let client = client(home)?;
    let read = match slot {
        None => client.logs(lines).await,
        Some(token) => client.slot_log(token, lines).await,
    };
    let read = read.map_err(|e| of(&e))?;
    out.data(&read, || read.join("\n"))?;
    Ok(Exit::Done)
}

fn install_unit(config: &HostConfig, dry_run: bool, out: &Out) -> Result<Exit, Failed> {
    let unit = install::install_unit(config).map_err(|e| of(&e))?;
    let written = if dry_run { None } else { Some(write(&unit)?) };
    out.data(&json!({"install": unit, "written": written}), || {
        let place = written.as_ref().map_or_else(|| "(not written)".to_owned(), |path| path.display().to_string());
        format!(
            "# {place}\n{}\nswitch it on:\n  {}\n\nwithout systemd, add this line with `crontab -e`:\n  {}",
            unit.unit,
            unit.enable.join("\n  "),
            unit.crontab
        )
    })?;
    Ok(Exit::Done)
}

fn write(unit: &install::Install) -> Result<PathBuf, Failed> {
    let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    let base = base.ok_or_else(|| {
        plain(Failure::new("home_unknown", "HOME is not set").hint("use --dry-run and write the unit yourself"))
    })?;
    install::write_unit(unit, &base).map_err(|e| of(&e))
}

/// Restores what served, and what was under way where the database can be read.
pub async fn up(home: Home, public_addr: Option<SocketAddr>, out: &Out) -> Result<Exit, Failed> {
    home.after_down().await.map_err(plain)?;
    let status = start_everything(&config(&home, public_addr)?).await.map_err(|e| of(&e))?;
    let picked_up = match App::open(home, "up", public_addr).await {
        Ok(app) => app.pick_up_orphans().await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = &picked_up {
        let cause = failure.cause.as_ref().map(|cause| format!(": {}", cause.replace('\n', " "))).unwrap_or_default();
        out.note(&format!("note: runs that were under way are not picked up: {failure}{cause}"));
    }
    let mut value = value_of(&status);
    value["picked_up"] = json!(picked_up.as_ref().ok());
    value["not_picked_up"] = json!(picked_up.err());
    // Last of all: what cannot be printed has happened all the same.
    out.data(&value, || text_of(&status))?;
    Ok(Exit::Done)
}

/// Lets the releases under way pause, where there is a database that tells of them.
async fn pause(home: &Home, public_addr: Option<SocketAddr>) -> Result<Option<Paused>, Failure> {
    if !home.database().exists() {
        return Ok(None);
    }
    App::open(home.clone(), "down", public_addr).await?.pause_releases().await.map(Some)
}

/// Stops everything that serves, and the daemon, whoever of it is left.
pub async fn down(home: Home, public_addr: Option<SocketAddr>, out: &Out) -> Result<Exit, Failed> {
    let config = config(&home, public_addr)?;
    // Held until everything is stopped: nobody takes a release up again that has just let go.
    let paused = pause(&home, public_addr).await;
    match &paused {
        Ok(Some(Paused { not, .. })) => not.iter().for_each(|id| {
            out.note(&format!("note: {id} did not let go in time; after `tidegate up`: `tidegate run resume {id}`"));
        }),
        Ok(None) => {}
        Err(failure) => out.note(&format!("note: releases under way are not paused: {failure}")),
    }
    let ids = |of: fn(&Paused) -> &Vec<ThreadId>| paused.as_ref().ok().and_then(Option::as_ref).map(of);
    let (paused_ids, not_paused) = (ids(|p| &p.paused), ids(|p| &p.not));
    if paused_ids.is_some_and(|ids| !ids.is_empty()) {
        // A release that was still being packaged may be the only thing that runs; the home must be down for it too.
        ensure_started(&HostConfig { public_addr: None, ..config.clone() }).await.map_err(|e| of(&e))?;
    }
    let status = stop_everything(&config).await.map_err(|e| of(&e))?;
    let stopped = |status: &HostStatus| status.slots.iter().filter(|slot| slot.state == SlotState::Stopped).count();
    let slots = status.as_ref().map_or(0, stopped);
    let value = json!({
        "running": false, "stopped_slots": slots, "paused": paused_ids.cloned().unwrap_or_default(),
        "not_paused": not_paused.cloned().unwrap_or_default(), "pause_failed": paused.as_ref().err(),
    });
    out.data(&value, || match status {
        Some(_) => format!("down: {slots} slot(s) stopped; `tidegate up` brings them back"),
        None => "the host daemon does not run; nothing serves".to_owned(),
    })?;
    Ok(Exit::Done)
}
