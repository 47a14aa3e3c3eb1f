//! The one place that makes and checks what a form carries, so that nobody else's page can send it: a token that only this server process
//! can make, for one caller, one browser and one form. And who has shown their key: a browser remembers a number, the server what it stands for.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use super::error::PageError;
use crate::graph::Failure;
use crate::server::authorise::Caller;

/// The cookie that tells browsers apart: a random number, which says nothing of who asks.
const COOKIE: &str = "tidegate_page";
/// The cookie's length in characters: 128 bits in hex.
const NONCE_CHARS: usize = 32;

/// The cookie of whoever has shown a key.
const LOGIN: &str = "tidegate_login";
/// How long a login counts: a day's work.
const LOGIN_COUNTS: Duration = Duration::from_secs(12 * 3_600);
/// Most logins at once.
const MOST_LOGINS: usize = 1_000;
/// Most of one person: browsers and private windows. Another login of theirs ends their oldest.
const MOST_OF_ONE: usize = 20;

/// What a server process knows its pages' visitors by. Nothing of it outlives the process.
pub(in crate::server) struct Session {
    key: hmac::Key,
    /// What was shown, by the login's number. It is asked for again each time, so that a key that was revoked counts no more.
    logins: Mutex<HashMap<String, Login>>,
}

struct Login {
    shown: String,
    /// Whose it is.
    name: String,
    at: Instant,
}

impl Session {
    /// With a fresh key. A page that was shown before a restart must be shown again before its form counts.
    pub fn new() -> Result<Self, Failure> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| no_randomness())?;
        Ok(Self { key, logins: Mutex::default() })
    }

    fn logins(&self) -> MutexGuard<'_, HashMap<String, Login>> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key or token of whoever has logged in with this browser.
    pub fn shown(&self, headers: &HeaderMap) -> Option<String> {
        let number = cookie(headers, LOGIN)?;
        let logins = self.logins();
        logins.get(&number).filter(|login| login.at.elapsed() < LOGIN_COUNTS).map(|login| login.shown.clone())
    }

    /// Remembers who has shown a key that counts; gives the browser's cookie.
    pub(super) fn login(&self, shown: &str, name: &str, headers: &HeaderMap) -> Result<String, Failure> {
        let number = hex(&random::<16>()?);
        let mut logins = self.logins();
        logins.retain(|_, login| login.at.elapsed() < LOGIN_COUNTS);
        make_room(&mut logins, name);
        logins.insert(number.clone(), Login { shown: shown.to_owned(), name: name.to_owned(), at: Instant::now() });
        let (age, secure) = (LOGIN_COUNTS.as_secs(), secure(headers));
        Ok(format!("{LOGIN}={number}; Path=/ui; HttpOnly; SameSite=Strict; Max-Age={age}{secure}"))
    }

    /// Forgets them; gives the cookie that takes the other one back.
    pub(super) fn logout(&self, headers: &HeaderMap) -> String {
        if let Some(number) = cookie(headers, LOGIN) {
            self.logins().remove(&number);
        }
        format!("{LOGIN}=; Path=/ui; HttpOnly; SameSite=Strict; Max-Age=0")
    }

    /// Who looks, by the cookie that came; a new one where none did.
    pub(super) fn visit(&self, headers: &HeaderMap, caller: &Caller) -> Result<Visit, Failure> {
        let known = cookie(headers, COOKIE);
        let fresh = known.is_none();
        let nonce = known.map_or_else(|| random::<16>().map(|bytes| hex(&bytes)), Ok)?;
        let name = caller.name();
        // Each part with its length: no two lists of parts read the same.
        let mut said = format!("{}:{nonce}{}:", nonce.len(), name.len()).into_bytes();
        said.extend_from_slice(name.as_bytes());
        let key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&self.key, &said).as_ref());
        Ok(Visit { key, nonce, fresh, secure: secure(headers) })
    }
}

/// One caller in one browser.
pub(super) struct Visit {
    /// Of this visit alone.
    key: hmac::Key,
    nonce: String,
    fresh: bool,
    secure: &'static str,
}

impl Visit {
    /// What a form that is sent to `path` carries.
    pub fn token(&self, path: &str) -> String {
        hex(hmac::sign(&self.key, path.as_bytes()).as_ref())
    }

    /// Refuses a form that this server did not show this caller in this browser.
    pub fn check(&self, path: &str, given: Option<&str>) -> Result<(), PageError> {
        let given = given.unwrap_or_default();
        if unhex(given).is_some_and(|given| hmac::verify(&self.key, path.as_bytes(), &given).is_ok()) {
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
        let cookie = format!("{COOKIE}={}; Path=/ui; HttpOnly; SameSite=Strict{}", self.nonce, self.secure);
        response.headers_mut().extend(HeaderValue::from_str(&cookie).ok().map(|value| (header::SET_COOKIE, value)));
    }
}

/// One more of `name` fits: where they have too many, their oldest goes; where all together have, the oldest of whoever has most.
fn make_room(logins: &mut HashMap<String, Login>, name: &str) {
    let mut many: HashMap<&str, usize> = HashMap::new();
    for login in logins.values() {
        *many.entry(&login.name).or_default() += 1;
    }
    let whose = match many.get(name).copied().unwrap_or(0) {
        own if own >= MOST_OF_ONE => Some(name),
        _ if logins.len() >= MOST_LOGINS => many.iter().max_by_key(|(_, many)| **many).map(|(name, _)| *name),
        _ => None,
    };
    let Some(whose) = whose else { return };
    let of_them = logins.iter().filter(|(_, login)| login.name == whose);
    let oldest = of_them.max_by_key(|(_, login)| login.at.elapsed()).map(|(number, _)| number.clone());
    oldest.and_then(|oldest| logins.remove(&oldest));
}

/// A cookie's end where the browser came by TLS, which ends before us: then it sends the cookie by nothing else. Whoever says so falsely
/// locks only themselves out, so it is believed from anywhere.
fn secure(headers: &HeaderMap) -> &'static str {
    let says = |name: &str, fits: fn(&str) -> bool| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| fits(&value.to_ascii_lowercase()))
    };
    let tls = says("x-forwarded-proto", |value| value.split(',').any(|proto| proto.trim() == "https"))
        || says("forwarded", |value| {
            value.split([',', ';']).any(|part| ["proto=https", "proto=\"https\""].contains(&part.trim()))
        })
        || says("origin", |value| value.starts_with("https://"));
    if tls { "; Secure" } else { "" }
}

/// The browser's number, if it sent one that could be ours.
fn cookie(headers: &HeaderMap, wanted: &str) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut ours = pairs.filter(|(name, _)| *name == wanted).map(|(_, value)| value);
    ours.find(|value| value.len() == NONCE_CHARS && value.bytes().all(|b| b.is_ascii_hexdigit())).map(str::to_owned)
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| no_randomness())?;
    Ok(bytes)
}

fn no_randomness() -> Failure {
    Failure::new("no_randomness", "the system gives no random numbers")
        .hint("without them no form of the page could be told from a forged one; mend the system")
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |place: usize| char::from(*text.as_bytes().get(place)?).to_digit(16);
    let byte = |place: usize| u8::try_from(digit(place)? * 16 + digit(place + 1)?).ok();
    (0..text.len()).step_by(2).map(byte).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::Person;

    fn headers(cookie: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(cookie).unwrap())])
    }

    #[test]
    fn a_token_counts_for_one_caller_one_browser_one_form_and_one_server() {
        let session = Session::new().unwrap();
        let one = "tidegate_page=0123456789abcdef0123456789abcdef";
        let visit = |session: &Session, cookie: &str, name: &str| {
            session.visit(&headers(cookie), &Caller::of(Person::local(name))).unwrap()
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
    fn a_login_counts_until_it_is_taken_back() {
        let session = Session::new().unwrap();
        let set = session.login("tgk_a_b", "ann", &HeaderMap::new()).unwrap();
        let came = headers(set.split(';').next().unwrap());
        assert_eq!(session.shown(&came).as_deref(), Some("tgk_a_b"));
        assert!(session.shown(&headers("tidegate_login=0123456789abcdef0123456789abcdef")).is_none());
        assert!(session.logout(&came).contains("Max-Age=0") && session.shown(&came).is_none());
    }

    #[test]
    fn who_logs_in_often_ends_only_their_own() {
        let session = Session::new().unwrap();
        let login = |name: &str| {
            let set = session.login(&format!("tgk_{name}_b"), name, &HeaderMap::new()).unwrap();
            headers(set.split(';').next().unwrap())
        };
        let ann = login("ann");
        let first = login("bob");
        for _ in 0..MOST_LOGINS {
            login("bob");
        }
        assert!(session.shown(&ann).is_some() && session.shown(&first).is_none());
        assert_eq!(session.logins().len(), 1 + MOST_OF_ONE);
        for n in 0..MOST_LOGINS {
            login(&format!("person {n}"));
        }
        assert_eq!(session.logins().len(), MOST_LOGINS);
        assert!(session.shown(&ann).is_some(), "whoever has most makes room");
    }

    #[test]
    fn a_browser_that_came_by_tls_keeps_its_cookies_for_it() {
        let with = |name: &'static str, value: &str| {
            HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_str(value).unwrap())])
        };
        let secure = [
            with("x-forwarded-proto", "https"),
            with("x-forwarded-proto", "http, HTTPS"),
            with("forwarded", "for=192.0.2.1;proto=https;by=203.0.113.43"),
            with("origin", "https://tidegate.example.org"),
        ];
        let session = Session::new().unwrap();
        for headers in secure {
            assert!(session.login("tgk_a_b", "ann", &headers).unwrap().ends_with("; Secure"), "{headers:?}");
            let visit = session.visit(&headers, &Caller::of(Person::local("ann"))).unwrap();
            let mut response = Response::default();
            visit.keep(&mut response);
            assert!(response.headers()[header::SET_COOKIE].to_str().unwrap().ends_with("; Secure"));
        }
        for headers in [HeaderMap::new(), with("x-forwarded-proto", "http"), with("origin", "http://localhost:7310")] {
            assert!(!session.login("tgk_a_b", "ann", &headers).unwrap().contains("Secure"), "{headers:?}");
        }
    }

    #[test]
    fn a_cookie_that_is_not_ours_is_replaced() {
        for cookie in ["tidegate_page=", "tidegate_page=zz", "other=0123456789abcdef0123456789abcdef", "tidegate_page"]
        {
            let visit = Session::new().unwrap().visit(&headers(cookie), &Caller::of(Person::local("ann"))).unwrap();
            let mut response = Response::default();
            visit.keep(&mut response);
            let set = response.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
            assert!(set.contains("SameSite=Strict") && set.contains("HttpOnly"), "{cookie}: {set}");
        }
    }
}
