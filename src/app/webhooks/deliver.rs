//! One message on its way: signed, answered in time, tried again later and later.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Url;
use ring::hmac;
use serde_json::Value;

use crate::adapters::secret_of;
use crate::app::App;
use crate::ports::{HttpCall, HttpMethod, SecretSource};

/// How long a receiver has for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Pauses after failed attempts, in seconds; after the last one it is given up.
const PAUSES: [i64; 10] = [2, 5, 15, 60, 300, 900, 3_600, 7_200, 14_400, 28_800];
/// Keys of Standard Webhooks begin so, and are base64 behind it.
const SECRET_PREFIX: &str = "whsec_";

/// A message.
pub(super) struct Message<'m> {
    /// What the secret is called where it cannot be read.
    pub name: &'m str,
    /// The same whenever it is told again.
    pub id: String,
    /// Where to.
    pub url: &'m str,
    /// What signs it.
    pub secret: Option<&'m SecretSource>,
    /// What is told.
    pub body: Value,
}

/// When to try again after so many failed attempts; `None`: never.
pub(super) fn next_attempt(failed: u32, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    PAUSES.get(failed as usize).map(|pause| now + TimeDelta::seconds(*pause))
}

/// Whether nobody on the way reads what is sent there.
pub(super) fn is_private(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    url.scheme() == "https" || url.scheme() == "http" && local
}

impl App {
    /// Sends a message once. `Err`: why it did not arrive, without the address, which may be a secret.
    pub(super) async fn deliver(&self, message: Message<'_>) -> Result<(), String> {
        let Message { name, id, url, secret, body } = message;
        let at = Utc::now();
        let mut headers = BTreeMap::from([
            ("webhook-id".to_owned(), id.clone()),
            ("webhook-timestamp".to_owned(), at.timestamp().to_string()),
        ]);
        if let Some(source) = secret {
            let secret = secret_of(name, source).map_err(|e| e.message)?;
            headers.insert("webhook-signature".to_owned(), signature(&secret, &id, at, &body.to_string()));
        }
        let call = HttpCall { method: HttpMethod::Post, headers, body: Some(body), ..HttpCall::get(url) };
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.tools.http.caller.call(&call, None)).await;
        let answer = answer.map_err(|_| "it does not answer in time".to_owned())?;
        match answer.map_err(|e| e.code)?.status {
            200..300 => Ok(()),
            // It asks not to be told any more of this.
            410 => Ok(()),
            status => Err(format!("it answers {status}")),
        }
    }
}

/// `v1,` and the base64 of HMAC-SHA256 over id, time and body.
fn signature(secret: &str, id: &str, at: DateTime<Utc>, body: &str) -> String {
    let plain = secret.strip_prefix(SECRET_PREFIX).and_then(|text| BASE64.decode(text).ok());
    let key = hmac::Key::new(hmac::HMAC_SHA256, &plain.unwrap_or_else(|| secret.as_bytes().to_vec()));
    let signed = hmac::sign(&key, format!("{id}.{}.{body}", at.timestamp()).as_bytes());
    format!("v1,{}", BASE64.encode(signed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_standard() {
        // The specification's own example.
        let at = DateTime::from_timestamp(1_614_265_330, 0).unwrap();
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", at, "{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn it_is_tried_ten_times_more_and_then_never() {
        let now = Utc::now();
        assert_eq!(next_attempt(0, now), Some(now + TimeDelta::seconds(2)));
        assert_eq!(next_attempt(9, now), Some(now + TimeDelta::hours(8)));
        assert_eq!(next_attempt(10, now), None);
    }

    #[test]
    fn what_others_could_read_is_not_private() {
        for url in ["https://chat.example.org/x", "http://127.0.0.1:8080/x", "http://[::1]/x", "http://localhost"] {
            assert!(is_private(url), "{url}");
        }
        for url in ["http://chat.example.org/x", "http://127.0.0.1.example.org", "ftp://localhost", "x"] {
            assert!(!is_private(url), "{url}");
        }
    }
}
