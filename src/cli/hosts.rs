//! `host status|logs|install`, `up`, `down`.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::args::HostCommand;
use super::out::Out;
use super::show::{ago, table};
use super::{Exit, Failed, plain};
use crate::app::{App, host_failure};
use crate::graph::Failure;
use crate::host::api::HostStatus;
use crate::host::{HostClient, HostConfig, HostError, install};

fn of(error: &HostError) -> Failed {
    plain(host_failure(error))
}

/// The host daemon's own commands.
pub async fn run(app: App, command: HostCommand, out: &Out) -> Result<Exit, Failed> {
    match command {
        HostCommand::Status => status(&app, out).await,
        HostCommand::Logs { lines, slot } => logs(&app, lines, slot.as_deref(), out).await,
        HostCommand::Install { dry_run } => install_unit(&app, dry_run, out),
    }
}

/// A client, without starting a daemon that does not run.
pub(super) fn client(app: &App) -> Result<HostClient, Failed> {
    let paths = HostConfig::new(app.home().dir()).and_then(|c| c.paths()).map_err(|e| of(&e))?;
    Ok(HostClient::new(paths))
}

async fn status(app: &App, out: &Out) -> Result<Exit, Failed> {
    let running = client(app)?.status_now(std::time::Duration::from_secs(2)).await;
    let Ok(status) = running else {
        out.data(&json!({"running": false}), || "the host daemon does not run; `tidegate up` starts it".to_owned());
        return Ok(Exit::Done);
    };
    shown(&status, out);
    Ok(Exit::Done)
}

fn shown(status: &HostStatus, out: &Out) {
    let mut value = serde_json::to_value(status).unwrap_or(Value::Null);
    value["running"] = json!(true);
    out.data(&value, || {
        let address = status.public_addr.map_or_else(|| "–".to_owned(), |a| format!("http://{a}"));
        let state = if status.down { "down" } else { "up" };
        let mut text =
            format!("{state}, pid {} since {}, public endpoint {address}\n", status.pid, ago(status.started_at));
        let mut slots = table(["slot", "model", "version", "state", "port", "pid", "restarts", "role"]);
        for slot in &status.slots {
            let is = |token: &Option<String>| token.as_deref() == Some(slot.token.as_str());
            let role = if status.routes.iter().any(|r| is(&r.live)) {
                "live"
            } else if status.routes.iter().any(|r| is(&r.standby)) {
                "standby"
            } else {
                ""
            };
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
    });
}

async fn logs(app: &App, lines: usize, slot: Option<&str>, out: &Out) -> Result<Exit, Failed> {
    let client = client(app)?;
    let read = match slot {
        None => client.logs(lines).await,
        Some(token) => client.slot_log(token, lines).await,
    };
    let read = read.map_err(|e| of(&e))?;
    out.data(&read, || read.join("\n"));
    Ok(Exit::Done)
}

fn install_unit(app: &App, dry_run: bool, out: &Out) -> Result<Exit, Failed> {
    let config = HostConfig::new(app.home().dir()).map_err(|e| of(&e))?;
    let unit = install::install_unit(&config).map_err(|e| of(&e))?;
    let written = if dry_run { None } else { Some(write(&unit)?) };
    out.data(&json!({"install": unit, "written": written}), || {
        let place = written.as_ref().map_or_else(|| "(not written)".to_owned(), |path| path.display().to_string());
        format!(
            "# {place}\n{}\nswitch it on:\n  {}\n\nwithout systemd, add this line with `crontab -e`:\n  {}",
            unit.unit,
            unit.enable.join("\n  "),
            unit.crontab
        )
    });
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

/// Restores what served.
pub async fn up(app: App, out: &Out) -> Result<Exit, Failed> {
    let client = app.host().client().await.map_err(|e| of(&e))?;
    let status = client.up().await.map_err(|e| of(&e))?;
    shown(&status, out);
    if let Err(failure) = app.pick_up_orphans().await {
        out.note(&format!("note: {failure}"));
    }
    Ok(Exit::Done)
}

/// Stops everything that serves, and the daemon.
pub async fn down(app: App, out: &Out) -> Result<Exit, Failed> {
    let client = client(&app)?;
    if client.status_now(std::time::Duration::from_secs(2)).await.is_err() {
        out.data(&json!({"running": false}), || "the host daemon does not run; nothing serves".to_owned());
        return Ok(Exit::Done);
    }
    let status = client.down().await.map_err(|e| of(&e))?;
    client.shutdown().await.map_err(|e| of(&e))?;
    let slots = status.slots.len();
    out.data(&json!({"running": false, "stopped_slots": slots}), || {
        format!("down: {slots} slot(s) stopped; `tidegate up` brings them back")
    });
    Ok(Exit::Done)
}
