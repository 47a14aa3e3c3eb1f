//! What forms send.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::StatusCode;

use super::error::PageError;
use crate::server::body::read;

/// Longest reason, in characters.
pub(super) const REASON_CHARS: usize = 2_000;

/// The fields of a form. Of a name that comes twice, the first counts.
#[derive(Debug, Default)]
pub(super) struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads a form within the limit that every body has.
    pub async fn read(body: Body) -> Result<Self, PageError> {
        let bytes = read(body).await?;
        let mut fields = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(&bytes) {
            fields.entry(name.into_owned()).or_insert_with(|| value.into_owned());
        }
        Ok(Self(fields))
    }

    /// A field, without white space around it; an empty one is absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// Why somebody decides so.
    pub fn reason(&self) -> Result<Option<String>, PageError> {
        let Some(reason) = self.get("reason") else { return Ok(None) };
        let long = reason.chars().count();
        if long > REASON_CHARS {
            let message = format!("the reason has {long} characters, and at most {REASON_CHARS} are kept");
            return Err(PageError::new(StatusCode::UNPROCESSABLE_ENTITY, message)
                .hint("nothing was recorded: say it shorter, and link to the rest"));
        }
        // Browsers send lines as CRLF.
        Ok(Some(reason.replace("\r\n", "\n")))
    }
}
