//! The one place that makes and checks what a form carries, so that nobody else's page can send it: a token that only this server process
//! can make, for one caller, one browser and one form.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::error::PageError;
use crate::graph::Failure;
use crate::server::authorise::Caller;

/// The cookie that tells browsers apart: a random number, which says nothing of who asks.
const COOKIE: &str = "tidegate_page";
/// The cookie's length in characters: 128 bits in hex.
const NONCE_CHARS: usize = 32;
/// What SHA-256 takes at once, in bytes.
const BLOCK: usize = 64;

/// The key of a server process.
pub(in crate::server) struct Session {
    key: [u8; 32],
}

impl Session {
    /// With a fresh key. A page that was shown before a restart must be shown again before its form counts.
    pub fn new() -> Result<Self, Failure> {
        Ok(Self { key: random()? })
    }

    /// Who looks, by the cookie that came; a new one where none did.
    pub(super) fn visit(&self, headers: &HeaderMap, caller: &Caller) -> Result<Visit, Failure> {
        let known = cookie(headers);
        let fresh = known.is_none();
        let nonce = known.map_or_else(|| random::<16>().map(|bytes| hex(&bytes)), Ok)?;
        let name = caller.name();
        // Each part with its length: no two lists of parts read the same.
        let mut said = format!("{}:{nonce}{}:", nonce.len(), name.len()).into_bytes();
        said.extend_from_slice(name.as_bytes());
        Ok(Visit { key: hmac(&self.key, &said), nonce, fresh })
    }
}

/// One caller in one browser.
pub(super) struct Visit {
    /// Of this visit alone.
    key: [u8; 32],
    nonce: String,
    fresh: bool,
}

impl Visit {
    /// What a form that is sent to `path` carries.
    pub fn token(&self, path: &str) -> String {
        hex(&hmac(&self.key, path.as_bytes()))
    }

    /// Refuses a form that this server did not show this caller in this browser.
    pub fn check(&self, path: &str, given: Option<&str>) -> Result<(), PageError> {
        let given = given.unwrap_or_default();
        if bool::from(self.token(path).as_bytes().ct_eq(given.as_bytes())) {
            return Ok(());
        }
        let refused =
            PageError::new(StatusCode::FORBIDDEN, "this form is not from a page that this server shows you now");
        Err(refused.hint("nothing was done: open the page again and repeat it (the server may have been started anew)"))
    }

    /// Lets the browser keep its cookie.
    pub fn keep(&self, response: &mut Response) {
        if !self.fresh {
            return;
        }
        let cookie = format!("{COOKIE}={}; Path=/ui; HttpOnly; SameSite=Strict", self.nonce);
        response.headers_mut().extend(HeaderValue::from_str(&cookie).ok().map(|value| (header::SET_COOKIE, value)));
    }
}

/// The browser's number, if it sent one that could be ours.
fn cookie(headers: &HeaderMap) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut ours = pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value);
    ours.find(|value| value.len() == NONCE_CHARS && value.bytes().all(|b| b.is_ascii_hexdigit())).map(str::to_owned)
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| {
        Failure::new("no_randomness", "the system gives no random numbers")
            .because(e.to_string())
            .hint("without them no form of the page could be told from a forged one; mend the system")
    })?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// HMAC-SHA256 (RFC 2104) with a key that is no longer than a block.
fn hmac(key: &[u8; 32], said: &[u8]) -> [u8; 32] {
    let pad = |with: u8| {
        let mut block = [with; BLOCK];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(said).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cookie: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(cookie).unwrap())])
    }

    #[test]
    fn the_code_is_the_one_of_the_standard() {
        // RFC 4231, case 1: a key of twenty 0x0b; zeros behind it change nothing.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        assert_eq!(hex(&hmac(&key, b"Hi There")), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    }

    #[test]
    fn a_token_counts_for_one_caller_one_browser_one_form_and_one_server() {
        let session = Session::new().unwrap();
        let one = "tidegate_page=0123456789abcdef0123456789abcdef";
        let visit = |session: &Session, cookie: &str, name: &str| {
            session.visit(&headers(cookie), &Caller::Local(name.into())).unwrap()
        };
        let ann = visit(&session, one, "ann");
        let token = ann.token("/ui/approvals/a");
        assert!(ann.check("/ui/approvals/a", Some(&token)).is_ok());
        assert!(visit(&session, &format!("x=y; {one}"), "ann").check("/ui/approvals/a", Some(&token)).is_ok());
        assert!(ann.check("/ui/approvals/b", Some(&token)).is_err());
        assert!(ann.check("/ui/approvals/a", None).is_err() && ann.check("/ui/approvals/a", Some("")).is_err());
        assert!(visit(&session, one, "bob").check("/ui/approvals/a", Some(&token)).is_err());
        let other = "tidegate_page=1123456789abcdef0123456789abcdef";
        assert!(visit(&session, other, "ann").check("/ui/approvals/a", Some(&token)).is_err());
        assert!(visit(&Session::new().unwrap(), one, "ann").check("/ui/approvals/a", Some(&token)).is_err());
    }

    #[test]
    fn a_cookie_that_is_not_ours_is_replaced() {
        for cookie in ["tidegate_page=", "tidegate_page=zz", "other=0123456789abcdef0123456789abcdef", "tidegate_page"]
        {
            let visit = Session::new().unwrap().visit(&headers(cookie), &Caller::Local("ann".into())).unwrap();
            let mut response = Response::default();
            visit.keep(&mut response);
            let set = response.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
            assert!(set.contains("SameSite=Strict") && set.contains("HttpOnly"), "{cookie}: {set}");
        }
    }
}
