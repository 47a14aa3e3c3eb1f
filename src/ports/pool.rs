//! Replicas of a version: slots whose tokens are made from the first one's, so that whoever knows one knows them all.

/// What stands between the first replica's token and a further one's number.
const MARK: &str = "-r";

/// The token of the n-th replica, from 1; the first one has `first` itself.
pub fn replica_token(first: &str, nth: u32) -> String {
    if nth <= 1 { first.to_owned() } else { format!("{first}{MARK}{nth}") }
}

/// The token of the first replica of the version that `token` is one of.
pub fn first_of(token: &str) -> &str {
    match token.rsplit_once(MARK) {
        Some((first, nth)) if !first.is_empty() && !nth.is_empty() && nth.bytes().all(|b| b.is_ascii_digit()) => first,
        _ => token,
    }
}

/// Which replica it is, from 1.
pub fn number_of(token: &str) -> u32 {
    let first = first_of(token);
    token.get(first.len() + MARK.len()..).and_then(|nth| nth.parse().ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_from_the_first_one() {
        assert_eq!((replica_token("45ba", 1), replica_token("45ba", 12)), ("45ba".to_owned(), "45ba-r12".to_owned()));
        for token in ["45ba", "45ba-r12"] {
            assert_eq!(first_of(token), "45ba");
        }
        assert_eq!((number_of("45ba"), number_of("45ba-r12")), (1, 12));
        for odd in ["blue-release", "a-r", "-r2", "a-r2x"] {
            assert_eq!((first_of(odd), number_of(odd)), (odd, 1));
        }
    }
}
