//! Back to a version that served before: asked once more, then begun as a run of its own, which the server's runner carries out.

use askama::Template;
use axum::body::Body;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use serde::Deserialize;

use super::Shown;
use super::error::{PageError, Told};
use super::form::{Form, REASON_CHARS};
use super::frame::{Frame, Live, Place, Visitor};
use super::model::history;
use super::words::When;
use crate::release::{ReleaseRow, rollback_target};

/// Where to.
#[derive(Deserialize)]
pub(in crate::server) struct Where {
    to: Option<String>,
}

#[derive(Template)]
#[template(path = "rollback.html")]
struct RollbackPage {
    frame: Frame,
    name: String,
    from: String,
    to: String,
    /// When the version that is gone back to was released.
    released: When,
    content: String,
    token: String,
    reason: String,
    most_chars: usize,
    refused: Option<Told>,
}

struct Way<'r> {
    from: &'r str,
    target: &'r ReleaseRow,
    to: &'r str,
}

fn way<'r>(rows: &'r [ReleaseRow], name: &str, to: Option<&str>) -> Result<Way<'r>, PageError> {
    let live = rows.iter().find(|row| row.live).and_then(|row| row.model_version.as_deref());
    let target = rollback_target(rows, to);
    match (live, target, target.and_then(|row| row.model_version.as_deref())) {
        (Some(from), Some(target), Some(to)) => Ok(Way { from, target, to }),
        _ => Err(PageError::new(StatusCode::CONFLICT, format!("there is no version that {name} could go back to"))
            .hint(
                "only versions that were released and are not live can be gone back to; the model's history has them",
            )),
    }
}

/// Asks once more.
pub(in crate::server) async fn ask(visitor: Visitor, Path(name): Path<String>, Query(to): Query<Where>) -> Shown {
    let rows = history(&visitor, &name).await?;
    let way = way(&rows, &name, to.to.as_deref())?;
    shown(&visitor, &name, &way, "", None).await
}

async fn shown(visitor: &Visitor, name: &str, way: &Way<'_>, reason: &str, refused: Option<PageError>) -> Shown {
    let status = refused.as_ref().map_or(StatusCode::OK, |refused| refused.status);
    let page = RollbackPage {
        frame: visitor.frame(Place::Models, format!("Roll back {name}"), Live::No).await?,
        name: name.to_owned(),
        from: way.from.to_owned(),
        to: way.to.to_owned(),
        released: When::at(way.target.finished_at.unwrap_or(way.target.created_at), visitor.now),
        content: way.target.content_digest.clone().unwrap_or_default(),
        token: visitor.token(&visitor.path),
        reason: reason.to_owned(),
        most_chars: REASON_CHARS,
        refused: refused.map(|refused| refused.told),
    };
    visitor.shown(status, &page)
}

/// Begins it, if what is live is still what was shown.
pub(in crate::server) async fn begin(visitor: Visitor, Path(name): Path<String>, body: Body) -> Shown {
    let form = Form::read(body).await?;
    visitor.check(form.get("token"))?;
    let rows = history(&visitor, &name).await?;
    let way = way(&rows, &name, form.get("to"))?;
    let reason = match form.reason() {
        Ok(reason) => reason,
        Err(refused) => return shown(&visitor, &name, &way, "", Some(refused)).await,
    };
    if form.get("from") != Some(way.from) {
        let refused = PageError::new(StatusCode::CONFLICT, format!("meanwhile {} has become live", way.from))
            .hint("nothing was done: look whether going back is still right, and confirm it again");
        return shown(&visitor, &name, &way, reason.as_deref().unwrap_or_default(), Some(refused)).await;
    }
    let (to, by) = (way.to.to_owned(), visitor.caller.name().to_owned());
    let thread = visitor.server.app.begin_rollback(&name, to, reason, by).await?;
    Ok(visitor.sent_to(&format!("/ui/runs/{thread}")))
}
