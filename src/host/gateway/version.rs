//! `x-tidegate-version` with `x-tidegate-token`: a version of one's own choice, for those who hold the route's token.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use crate::ports::VersionHeader;

const VERSION: HeaderName = HeaderName::from_static("x-tidegate-version");
const TOKEN: HeaderName = HeaderName::from_static("x-tidegate-token");

/// How they all begin.
const OURS: &str = "x-tidegate-";

/// Towards a candidate: this request repeats one that another version has answered.
pub(super) const MIRROR: HeaderName = HeaderName::from_static("x-tidegate-mirror");

/// Which token a route knows: its digest only.
#[derive(Debug)]
pub(crate) struct Gate([u8; 32]);

/// What a request asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) version: String,
    token: Option<HeaderValue>,
}

/// Takes the gateway's own headers out of a request: no slot sees them, and nobody outside says what is a mirror.
pub(super) fn take(headers: &mut HeaderMap) -> Option<Asked> {
    // Hardly a request has one, and one look at the names is cheaper than three searches.
    if !headers.keys().any(|name| name.as_str().starts_with(OURS)) {
        return None;
    }
    headers.remove(MIRROR);
    let token = headers.remove(TOKEN);
    let version = headers.remove(VERSION)?;
    Some(Asked { version: String::from_utf8_lossy(version.as_bytes()).into_owned(), token })
}

impl Gate {
    /// `None` where it is no digest: then nobody passes.
    pub(super) fn new(header: &VersionHeader) -> Option<Self> {
        let mut digest = [0; 32];
        if header.token_sha256.len() != 64 {
            return None;
        }
        for (n, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(header.token_sha256.get(2 * n..2 * n + 2)?, 16).ok()?;
        }
        Some(Self(digest))
    }

    /// Whether the token is the right one. Compared over all bytes of the digests, so that time tells nothing.
    pub(super) fn admits(&self, asked: &Asked) -> bool {
        let Some(token) = &asked.token else { return false };
        let digest = Sha256::digest(token.as_bytes());
        self.0.iter().zip(&digest).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_token_passes_and_nothing_is_left_in_the_head() {
        let token_sha256 = Sha256::digest(b"open").iter().map(|b| format!("{b:02x}")).collect();
        let gate = Gate::new(&VersionHeader { token_sha256 }).unwrap();
        for (token, passes) in [(Some("open"), true), (Some("Open"), false), (Some(""), false), (None, false)] {
            let mut headers = HeaderMap::new();
            headers.insert(VERSION, HeaderValue::from_static("v2"));
            headers.insert(MIRROR, HeaderValue::from_static("1"));
            token.map(|token| headers.insert(TOKEN, HeaderValue::from_static(token)));
            let asked = take(&mut headers).unwrap();
            assert_eq!((asked.version.as_str(), gate.admits(&asked)), ("v2", passes));
            assert!(headers.is_empty());
        }
        assert!(take(&mut HeaderMap::new()).is_none());
        assert!(Gate::new(&VersionHeader { token_sha256: "zz".repeat(32) }).is_none());
    }
}
