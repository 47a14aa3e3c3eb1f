//! `promote`, `pause`, `resume`, `abort`: what a person says to a release whose traffic is under way.

use serde_json::{Value, json};

use super::args::{AbortArgs, Model, PromoteArgs};
use super::out::Out;
use super::run_args::CancelArgs;
use super::{Exit, Failed, plain, prompt, runs};
use crate::app::App;
use crate::graph::Failure;

/// The next step now; with `full` all of the traffic, whatever the judge says.
pub async fn promote(app: App, args: PromoteArgs, out: &Out) -> Result<Exit, Failed> {
    let text = if args.full { "gets all of the traffic" } else { "goes on to its next step" };
    tell(app, &args.model, "promote", json!({"full": args.full}), text, out).await
}

/// It stays at its share.
pub async fn pause(app: App, args: Model, out: &Out) -> Result<Exit, Failed> {
    tell(app, &args.model, "pause", Value::Null, "stays at its share of the traffic; the judge goes on looking", out)
        .await
}

/// Its steps go on.
pub async fn resume(app: App, args: Model, out: &Out) -> Result<Exit, Failed> {
    tell(app, &args.model, "resume", Value::Null, "goes on with its steps", out).await
}

/// Undoes the release: all traffic back at once, the new version's slot gone.
pub async fn abort(app: App, args: AbortArgs, out: &Out) -> Result<Exit, Failed> {
    let cancel = CancelArgs { thread: args.model, no_undo: false, reason: args.reason };
    runs::cancel(app, cancel, out).await
}

async fn tell(app: App, model: &str, name: &str, value: Value, does: &str, out: &Out) -> Result<Exit, Failed> {
    let thread = app.find_thread(model).await.map_err(plain)?;
    let row = app.ledger().get(thread.id.as_str()).await.map_err(|e| plain(Failure::new(e.code(), e.to_string())))?;
    let is_canary = row.and_then(|row| row.plan).is_some_and(|plan| plan["canary"].is_object());
    if !is_canary || thread.status.is_terminal() {
        let failure = Failure::new("no_canary", format!("no canary of {model} is under way"));
        return Err(plain(
            failure
                .hint("`tidegate deploy PATH --strategy canary` begins one; `tidegate runs` shows what is under way"),
        ));
    }
    let seq = app.signal(&thread.id, name, value, &prompt::user()).await.map_err(|f| (f, Some(thread.id.clone())))?;
    let said = json!({"thread": thread.id, "signal": name, "seq": seq});
    out.data_of(&thread.id, &said, || format!("the canary of {model} {does}"))?;
    Ok(Exit::Done)
}
