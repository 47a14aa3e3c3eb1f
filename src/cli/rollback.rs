//! `rollback`: one command, no build.

use std::sync::Arc;

use super::args::RollbackArgs;
use super::drive::{Answers, drive};
use super::out::Out;
use super::progress::Live;
use super::{Exit, Failed, deploy, plain, prompt};
use crate::app::App;
use crate::graph::{Advance, Failure};
use crate::nodes::RollbackRequest;
use crate::release::ModelName;

/// Back to the version before, or to a named one.
pub async fn run(app: App, args: RollbackArgs, out: &Out) -> Result<Exit, Failed> {
    let model = ModelName::new(&args.model)
        .map_err(|e| plain(Failure::new("usage", e.to_string()).hint("`tidegate status` shows the models")))?;
    let app = Arc::new(app.with_sink(Arc::new(Live::new(out.is_json()))));
    let request = RollbackRequest { model, to: args.to, reason: args.reason, requested_by: Some(prompt::user()) };
    let id = app.start_rollback(&request).await.map_err(plain)?;
    let end = drive(&app, &id, Answers::Ask, Advance::default(), out).await?;
    deploy::finish(&app, &id, end, out).await
}
