//! By what a caller is known, so that it gets the same version again.

use std::net::IpAddr;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::draw;
use crate::ports::Sticky;

/// Read from a plan once.
#[derive(Debug)]
pub(crate) enum Key {
    Header(HeaderName),
    Cookie { name: String, max_age_s: u64 },
    ClientIp,
}

/// Who asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Known by these bytes.
    Known(Vec<u8>),
    /// Known from now on, by a cookie with this value.
    New(String),
    /// Not known: drawn.
    Unknown,
}

impl Key {
    /// `None` only for names that [`crate::host`] has let through by mistake.
    pub(super) fn new(sticky: &Sticky) -> Option<Self> {
        Some(match sticky {
            Sticky::Header { name } => Self::Header(name.parse().ok()?),
            Sticky::Cookie { name, max_age_s } => Self::Cookie { name: name.clone(), max_age_s: *max_age_s },
            Sticky::ClientIp => Self::ClientIp,
        })
    }

    /// Who asks, as far as this key tells.
    pub(super) fn caller(&self, headers: &HeaderMap, peer: IpAddr) -> Caller {
        match self {
            Self::Header(name) => match headers.get(name) {
                Some(value) => Caller::Known(value.as_bytes().to_vec()),
                None => Caller::Unknown,
            },
            Self::ClientIp => match peer.to_canonical() {
                IpAddr::V4(ip) => Caller::Known(ip.octets().to_vec()),
                IpAddr::V6(ip) => Caller::Known(ip.octets().to_vec()),
            },
            Self::Cookie { name, .. } => match cookie(headers, name) {
                Some(value) => Caller::Known(value.as_bytes().to_vec()),
                None => Caller::New(format!("{:016x}", draw::random())),
            },
        }
    }

    /// The header that makes a new caller known, at the model's own path. `Secure` where the caller came by TLS, be it to a proxy in front of us.
    pub(super) fn set_cookie(&self, value: &str, prefix: &str, secure: bool) -> Option<HeaderValue> {
        let Self::Cookie { name, max_age_s } = self else { return None };
        let path = if prefix.is_empty() { "/" } else { prefix };
        let secure = if secure { "; Secure" } else { "" };
        let text = format!("{name}={value}; Path={path}; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{secure}");
        HeaderValue::from_str(&text).ok()
    }
}

/// The value that the gateway has given: sixteen hex digits; anything else is not ours.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let ours = |value: &&str| value.len() == 16 && value.bytes().all(|b| b.is_ascii_hexdigit());
    pairs.filter(|(found, _)| *found == name).map(|(_, value)| value).find(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers = HeaderMap::new();
        headers.extend(pairs.iter().map(pair));
        headers
    }

    #[test]
    fn callers_are_known_by_header_cookie_or_address() {
        let peer: IpAddr = "::ffff:10.0.0.7".parse().unwrap();
        let by = |sticky: Sticky, pairs: &[(&'static str, &'static str)]| {
            Key::new(&sticky).unwrap().caller(&headers(pairs), peer)
        };
        let header = || Sticky::Header { name: "X-User".to_owned() };
        assert_eq!(by(header(), &[("x-user", "ada")]), Caller::Known(b"ada".to_vec()));
        assert_eq!(by(header(), &[]), Caller::Unknown);
        assert_eq!(by(Sticky::ClientIp, &[]), Caller::Known(vec![10, 0, 0, 7]));
        let cookie = || Sticky::Cookie { name: "split".to_owned(), max_age_s: 60 };
        let known = Caller::Known(b"0123456789abcdef".to_vec());
        assert_eq!(by(cookie(), &[("cookie", "a=b; split=0123456789abcdef; c=d")]), known);
        assert_eq!(by(cookie(), &[("cookie", "a=b"), ("cookie", "split=0123456789abcdef")]), known);
        for bad in ["split=", "split=0123456789abcdeg", "xsplit=0123456789abcdef", "split"] {
            let caller = Key::new(&cookie()).unwrap().caller(&headers(&[("cookie", bad)]), peer);
            assert!(matches!(caller, Caller::New(value) if value.len() == 16), "{bad}");
        }
    }

    #[test]
    fn the_cookie_is_the_models_own_and_out_of_scripts_reach() {
        let key = Key::new(&Sticky::Cookie { name: "split".to_owned(), max_age_s: 60 }).unwrap();
        let set = key.set_cookie("0123456789abcdef", "/iris", false).unwrap();
        assert_eq!(set, "split=0123456789abcdef; Path=/iris; Max-Age=60; HttpOnly; SameSite=Lax");
        assert!(
            key.set_cookie("x", "", true)
                .unwrap()
                .to_str()
                .unwrap()
                .ends_with("; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure")
        );
        assert_eq!(Key::ClientIp.set_cookie("x", "/iris", false), None);
    }
}
