//! `promote`, `pause`, `resume`, `abort`: what a person says to a release whose traffic is under way.

use serde_json::{Value, json};

use super::args::{AbortArgs, Model, PromoteArgs};
use super::out::Out;
use super::run_args::CancelArgs;
use super::{Exit, Failed, plain, prompt, runs};
use crate::app::App;
use crate::graph::{Failure, ThreadId};

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
    let plan = row.and_then(|row| row.plan).unwrap_or_default();
    let on_trial = ["canary", "ab_test", "shadow", "rolling"].into_iter().any(|key| plan[key].is_object());
    if !on_trial || thread.status.is_terminal() {
        let what = format!("no canary, A/B test, shadow or rolling release of {model} is under way");
        let hint = "`tidegate deploy PATH --strategy canary` begins one; `tidegate runs` shows what is under way";
        return Err(plain(Failure::new("no_trial", what).hint(hint)));
    }
    if name == "promote" {
        not_decided(&app, &thread.id, &plan, value["full"] == true).await?;
    }
    let seq = app.signal(&thread.id, name, value, &prompt::user()).await.map_err(|f| (f, Some(thread.id.clone())))?;
    let said = json!({"thread": thread.id, "signal": name, "seq": seq});
    out.data_of(&thread.id, &said, || format!("the new version of {model} {does}"))?;
    Ok(Exit::Done)
}

/// Nothing but a decision leads past a step `approval`.
async fn not_decided(app: &App, thread: &ThreadId, plan: &Value, full: bool) -> Result<(), Failed> {
    let open = app.questions(Some(thread)).await.map_err(plain)?;
    let steps = plan["canary"]["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
    let refused = match open.first() {
        Some(asked) => Failure::new("approval_needed", "it stands at a step that needs a decision")
            .hint(format!("`tidegate approve {}` or `tidegate reject {0} --reason TEXT`", asked.interrupt.id)),
        None if full && steps.iter().any(|step| step == "approval") => {
            Failure::new("approval_needed", "one of its steps needs a decision, which `--full` would pass by")
                .hint("`tidegate promote MODEL` leads on step by step")
        }
        None => return Ok(()),
    };
    Err(plain(refused))
}
