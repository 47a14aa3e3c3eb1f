//! `audit verify`, `audit export`: proving that nobody has changed what happened.

use clap::{Args, Subcommand};
use serde_json::json;

use super::out::Out;
use super::runs::{MAX_EXPORT_BYTES, read_named};
use super::{Exit, Failed, plain};
use crate::app::{App, AuditExport, AuditHead, verify_audit_export};
use crate::graph::Failure;

/// What to do with the audit.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Hold every row against its hash and the row before it: in the home, or in an export without any home
    #[command(after_help = "Examples:\n  tidegate audit verify\n  tidegate audit verify audit.json --head 3b0c…")]
    Verify(VerifyArgs),
    /// Print the audit as JSON, whole or of one run
    #[command(after_help = "Examples:\n  tidegate audit export > audit.json\n  tidegate audit export iris > iris.json")]
    Export(ExportArgs),
}

/// What is proven.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// An export; without it the home's own audit
    pub export: Option<String>,
    /// A hash that was noted earlier: the row must still be there
    #[arg(long, value_name = "HASH")]
    pub head: Option<String>,
}

/// Whose rows.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A run's id, the beginning of it, or a model's name; without it all rows
    pub thread: Option<String>,
}

/// Proves an export: nothing but the file is needed.
pub fn verify_export(file: &str, head: Option<&str>, out: &Out) -> Result<Exit, Failed> {
    let text = read_named(file, MAX_EXPORT_BYTES)?;
    let damaged = |e: serde_json::Error| {
        let hint = "`tidegate audit export` writes one; `tidegate run export` is another kind";
        Failure::new("export_damaged", format!("{file} is no export of an audit")).because(e.to_string()).hint(hint)
    };
    let export: AuditExport = serde_json::from_str(&text).map_err(|e| plain(damaged(e)))?;
    let found = verify_audit_export(&export, head).map_err(plain)?;
    told(&found, export.thread.as_deref(), out)
}

/// What needs the home.
pub async fn run(app: App, command: AuditCommand, out: &Out) -> Result<Exit, Failed> {
    match command {
        AuditCommand::Verify(args) => verify(app, args.head.as_deref(), out).await,
        AuditCommand::Export(args) => export(app, args).await,
    }
}

async fn verify(app: App, head: Option<&str>, out: &Out) -> Result<Exit, Failed> {
    let found = app.verify_audit().await.map_err(plain)?;
    if head.is_some() {
        let export = app.audit_export(None).await.map_err(plain)?;
        verify_audit_export(&export, head).map_err(plain)?;
    }
    told(&found, None, out)
}

/// An export is JSON whoever reads it.
async fn export(app: App, args: ExportArgs) -> Result<Exit, Failed> {
    let thread = match &args.thread {
        Some(meant) => Some(app.find_thread(meant).await.map_err(plain)?.id),
        None => None,
    };
    let export = app.audit_export(thread.as_ref()).await.map_err(plain)?;
    Out::new(true).data(&export, String::new)?;
    Ok(Exit::Done)
}

/// The file and the noted hash of a command that needs no home.
pub fn is_offline(command: &AuditCommand) -> Option<(&str, Option<&str>)> {
    match command {
        AuditCommand::Verify(VerifyArgs { export: Some(file), head }) => Some((file.as_str(), head.as_deref())),
        AuditCommand::Verify(_) | AuditCommand::Export(_) => None,
    }
}

fn told(found: &AuditHead, thread: Option<&str>, out: &Out) -> Result<Exit, Failed> {
    let AuditHead { rows, seq, hash } = found;
    out.data(&json!({"rows": rows, "seq": seq, "hash": hash, "thread": thread}), || {
        let whose = thread.map_or("all rows".to_owned(), |thread| format!("rows of {thread}"));
        format!("{rows} rows ({whose}), each as it was written\nhead  {seq} {hash}")
    })?;
    Ok(Exit::Done)
}
