//! The style sheet, the script and the icon: embedded, named by their content, kept by browsers for as long as they like.

use std::sync::OnceLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::Shown;
use super::error::PageError;
use crate::graph::Picture;

const CSS: &str = include_str!("assets/page.css");
const JS: &str = include_str!("assets/page.js");
const ICON: &str = include_str!("assets/icon.svg");

/// Where they are.
#[derive(Debug)]
pub(super) struct Assets {
    /// Path of the style sheet.
    pub css: String,
    /// Path of the script.
    pub js: String,
    /// Path of the icon.
    pub icon: String,
    style: String,
}

/// The files with their names.
pub(super) fn assets() -> &'static Assets {
    static MADE: OnceLock<Assets> = OnceLock::new();
    MADE.get_or_init(|| {
        // A run's picture has classes of its own, which count in its frame only.
        let style = format!("{CSS}\n.picture{{{}}}\n", Picture::STYLES);
        let css = named("page", &style, "css");
        Assets { css, js: named("page", JS, "js"), icon: named("icon", ICON, "svg"), style }
    })
}

fn named(name: &str, text: &str, kind: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let short: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("/ui/assets/{name}-{short}.{kind}")
}

/// One of them.
pub(in crate::server) async fn get(Path(name): Path<String>) -> Shown {
    let (path, all) = (format!("/ui/assets/{name}"), assets());
    let (kind, text): (_, &'static str) = match path {
        path if path == all.css => ("text/css; charset=utf-8", &all.style),
        path if path == all.js => ("text/javascript; charset=utf-8", JS),
        path if path == all.icon => ("image/svg+xml", ICON),
        _ => return Err(PageError::not_found(format!("there is no file {name}"))),
    };
    Ok(found(kind, text))
}

fn found(kind: &'static str, text: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    (StatusCode::OK, headers, text).into_response()
}
