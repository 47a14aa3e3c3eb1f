//! `keys create`, `keys list`, `keys revoke`: who may ask the server.

use chrono::{TimeDelta, Utc};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::out::Out;
use super::show::{ago, table};
use super::{Exit, Failed, plain, prompt};
use crate::app::{App, KeyRow, KeyWanted, key_counts};
use crate::release::{Role, units};

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key and show it, this once; from the first one on nobody is let in without
    #[command(
        after_help = "Examples:\n  tidegate keys create release-agent --role deployer\n  tidegate keys create ann --role approver --group ml-leads --expires 90d"
    )]
    Create(CreateArgs),
    /// All keys, oldest first
    #[command(after_help = "Example:\n  tidegate keys list")]
    List,
    /// Let a key count no more
    #[command(after_help = "Example:\n  tidegate keys revoke 3fa1b2c4d5e6")]
    Revoke(RevokeArgs),
}

/// For whom.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Whose it is: the name that records get
    pub holder: String,
    /// What they may do: viewer, deployer, approver, admin; may be given several times
    #[arg(long = "role", value_name = "ROLE", required = true, value_parser = role)]
    pub roles: Vec<Role>,
    /// A group that they are in; may be given several times
    #[arg(long = "group", value_name = "NAME")]
    pub groups: Vec<String>,
    /// When it ends by itself, e.g. 90d [default: never]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration_ms)]
    pub expires: Option<u64>,
}

/// Which.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// The key's id, or its whole text
    pub key: String,
}

fn role(word: &str) -> Result<Role, String> {
    let words = Role::ALL.map(Role::word).join(", ");
    Role::parse(word).ok_or_else(|| format!("it is one of {words}"))
}

/// Does it.
pub async fn run(app: App, command: KeysCommand, out: &Out) -> Result<Exit, Failed> {
    match command {
        KeysCommand::Create(args) => create(app, args, out).await,
        KeysCommand::List => list(app, out).await,
        KeysCommand::Revoke(args) => {
            let row = app.revoke_key(&args.key, &prompt::user()).await.map_err(plain)?;
            out.data(&told(&row), || format!("key {} of {} counts no more", row.id, row.holder))?;
            Ok(Exit::Done)
        }
    }
}

async fn create(app: App, args: CreateArgs, out: &Out) -> Result<Exit, Failed> {
    let CreateArgs { holder, roles, groups, expires } = args;
    let ends = |ms: u64| Utc::now().checked_add_signed(TimeDelta::milliseconds(i64::try_from(ms).unwrap_or(i64::MAX)));
    let wanted = KeyWanted { holder, roles, groups, expires_at: expires.and_then(ends) };
    let (row, text) = app.create_key(wanted, &prompt::user()).await.map_err(plain)?;
    let mut document = told(&row);
    document["key"] = json!(text);
    out.data(&document, || text.clone())?;
    out.note("it is shown this once: clients send it as the header `x-api-key`, or as a bearer token");
    Ok(Exit::Done)
}

async fn list(app: App, out: &Out) -> Result<Exit, Failed> {
    let keys = app.keys().await.map_err(plain)?;
    out.data(&keys.iter().map(told).collect::<Vec<_>>(), || {
        if keys.is_empty() {
            return "there is no key: the server listens on this machine only, to its user".to_owned();
        }
        let mut lines = table(["key", "holder", "roles", "groups", "made", "state"]);
        for key in &keys {
            let (roles, groups) = (key.roles.join(" "), key.groups.join(" "));
            lines.add_row([
                key.id.clone(),
                key.holder.clone(),
                roles,
                groups,
                ago(key.created_at),
                state(key).to_owned(),
            ]);
        }
        lines.to_string()
    })?;
    Ok(Exit::Done)
}

fn state(key: &KeyRow) -> &'static str {
    match (key.revoked_at, key_counts(key, Utc::now())) {
        (Some(_), _) => "revoked",
        (None, true) => "counts",
        (None, false) => "expired",
    }
}

fn told(key: &KeyRow) -> Value {
    json!({
        "id": key.id, "holder": key.holder, "roles": key.roles, "groups": key.groups, "created_at": key.created_at,
        "created_by": key.created_by, "expires_at": key.expires_at, "revoked_at": key.revoked_at, "state": state(key),
    })
}
