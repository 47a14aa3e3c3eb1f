//! `x-request-id`: kept where the client sent one, made where not; the slot gets it, and so does the client.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::draw;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longer ones are no ids.
const LONGEST: usize = 128;

/// The id of a request, which its head has from now on.
pub(super) fn ensure(headers: &mut HeaderMap) -> HeaderValue {
    let fine = |id: &&HeaderValue| (1..=LONGEST).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    if let Some(id) = headers.get(REQUEST_ID).filter(fine) {
        let id = id.clone();
        if headers.get_all(REQUEST_ID).iter().nth(1).is_some() {
            headers.insert(REQUEST_ID, id.clone());
        }
        return id;
    }
    // Hex digits are always a value.
    let id = HeaderValue::from_bytes(&made()).unwrap_or_else(|_| HeaderValue::from_static("0"));
    headers.insert(REQUEST_ID, id.clone());
    id
}

/// Thirty-two hex digits. By hand: every request needs one, and formatting takes ten times as long.
fn made() -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bits = (u128::from(draw::random()) << 64) | u128::from(draw::random());
    std::array::from_fn(|n| DIGITS[(bits >> (4 * n)) as usize & 0xf])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_kept_or_made() {
        let with = |value: &str| HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(value).unwrap())]);
        assert_eq!(ensure(&mut with("abc-1")), "abc-1");
        for bad in ["", "a b", &"x".repeat(129)] {
            let mut headers = with(bad);
            let made = ensure(&mut headers);
            assert!(made.len() == 32 && headers[REQUEST_ID] == made, "{bad:?}");
        }
        let mut twice = with("one");
        twice.append(REQUEST_ID, HeaderValue::from_static("two"));
        assert_eq!(ensure(&mut twice), "one");
        assert_eq!(twice.get_all(REQUEST_ID).iter().count(), 1);
        assert_ne!(ensure(&mut HeaderMap::new()), ensure(&mut HeaderMap::new()));
    }
}
