//! `approvals link`, `approvals unlink`: letting somebody decide by a link.

use clap::{Args, Subcommand};
use serde_json::json;

use super::out::Out;
use super::{Exit, Failed, plain, prompt};
use crate::app::{App, LINK_TTL_MS, LinkWanted, link_url};
use crate::release::units;

/// Where the server listens where nobody says otherwise, and none has run yet.
const USUAL_SERVER: &str = "http://127.0.0.1:7310";

/// What to do about open questions.
#[derive(Debug, Subcommand)]
pub enum ApprovalsCommand {
    /// Make a link with which one person decides one release, once, without a login; it is shown this once
    #[command(after_help = "Example:\n  tidegate approvals link iris --for ann --ttl 4h")]
    Link(LinkArgs),
    /// Let a link count no more
    #[command(after_help = "Example:\n  tidegate approvals unlink 3fa1b2c4d5e6")]
    Unlink(UnlinkArgs),
}

/// Which link.
#[derive(Debug, Args)]
pub struct UnlinkArgs {
    /// The link's id, or all of it
    pub link: String,
}

/// Which question, and as whom.
#[derive(Debug, Args)]
pub struct LinkArgs {
    /// The question's id, its thread's, or the model
    pub id: String,
    /// As whom it decides: a holder of a key that may decide
    #[arg(long = "for", value_name = "HOLDER")]
    pub holder: String,
    /// How long it counts, e.g. 4h; at most 30d, and no longer than the question stands [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration_ms)]
    pub ttl: Option<u64>,
}

/// Does it.
pub async fn run(app: App, command: ApprovalsCommand, out: &Out) -> Result<Exit, Failed> {
    match command {
        ApprovalsCommand::Link(args) => link(app, args, out).await,
        ApprovalsCommand::Unlink(args) => unlink(app, &args, out).await,
    }
}

/// A link for somebody. Whoever has the home may make one for anybody, as they may make keys.
async fn link(app: App, args: LinkArgs, out: &Out) -> Result<Exit, Failed> {
    let LinkArgs { id, holder, ttl } = args;
    let question = app.find_question(&id).await.map_err(plain)?;
    let wanted = LinkWanted { holder, ttl_ms: ttl.unwrap_or(LINK_TTL_MS), by: prompt::user(), within: None };
    let (made, token) = app.make_link(&question, wanted).await.map_err(plain)?;
    let listens_at = app.home().server_url();
    let url = link_url(&app.base_url(listens_at.as_deref().unwrap_or(USUAL_SERVER)), &token);
    let digest = question.approval.as_ref().map(|about| &about.digest);
    let told = json!({
        "id": made.id, "question": made.question, "for": made.holder, "expires_at": made.expires_at, "digest": digest,
        "url": url,
    });
    out.data(&told, || url.clone())?;
    out.note(&format!(
        "it is shown this once, counts once, as {}, until {}; whoever has it decides in that name",
        made.holder,
        made.expires_at.format("%Y-%m-%d %H:%M UTC")
    ));
    Ok(Exit::Done)
}

/// Lets a link count no more.
async fn unlink(app: App, args: &UnlinkArgs, out: &Out) -> Result<Exit, Failed> {
    let found = app.find_link(&args.link).await.map_err(plain)?;
    let ended = app.revoke_link(&found, &prompt::user()).await.map_err(plain)?;
    let used = ended.used.as_ref().map(|(at, _)| at);
    let told = json!({
        "id": ended.id, "question": ended.question, "for": ended.holder, "expires_at": ended.expires_at, "used_at": used,
    });
    out.data(&told, || match used {
        Some(_) => format!("link {} of {} was used already", ended.id, ended.holder),
        None => format!("link {} of {} counts no more", ended.id, ended.holder),
    })?;
    Ok(Exit::Done)
}
