//! Reads secrets where they are used: out of the environment of this process, or out of a file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use crate::ports::{PortError, SecretSource, Secrets};

/// Longest secret: a chain of certificates fits.
const MAX_BYTES: u64 = 64 * 1024;

/// The values of named secrets, and what takes them out of texts.
pub(crate) fn read_all(
    sources: &BTreeMap<String, SecretSource>,
) -> Result<(BTreeMap<String, String>, Secrets), PortError> {
    let mut values = BTreeMap::new();
    let mut plain = Vec::new();
    for (name, source) in sources {
        let secret = read(name, source)?;
        values.insert(name.clone(), format!("{}{secret}", source.prefix.as_deref().unwrap_or_default()));
        plain.push((name.clone(), secret));
    }
    Ok((values, Secrets::new(plain)))
}

/// One secret's value, with what is put before it.
pub fn secret_of(name: &str, source: &SecretSource) -> Result<String, PortError> {
    let secret = read(name, source)?;
    Ok(format!("{}{secret}", source.prefix.as_deref().unwrap_or_default()))
}

fn read(name: &str, source: &SecretSource) -> Result<String, PortError> {
    let missing =
        |what: String| PortError::new("secret_missing", format!("the secret for `{name}` is missing: {what}"));
    let secret = match (&source.env, &source.file) {
        (Some(variable), _) => std::env::var(variable).map_err(|_| {
            missing(format!("the environment has no `{variable}`"))
                .hint("set it for whoever runs the node: this command, or the one that starts the runner")
        })?,
        (None, Some(path)) => {
            let mut text = String::new();
            let opened = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
            opened.map_err(|error| missing(format!("{path} cannot be read")).because(error.to_string()))?;
            if text.len() as u64 > MAX_BYTES {
                return Err(missing(format!("{path} has more than {MAX_BYTES} bytes")));
            }
            text.truncate(text.trim_end_matches(['\r', '\n']).len());
            text
        }
        (None, None) => return Err(missing("neither `env` nor `file` is named".to_owned())),
    };
    if secret.is_empty() {
        return Err(missing("it is empty".to_owned()));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &std::path::Path, prefix: Option<&str>) -> SecretSource {
        let path = path.to_str().unwrap().to_owned();
        SecretSource { env: None, file: Some(path), prefix: prefix.map(str::to_owned) }
    }

    #[test]
    fn values_come_with_their_prefix_and_are_taken_out_without() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "sekrit-1\r\n").unwrap();
        let sources = BTreeMap::from([("authorization".to_owned(), file(&path, Some("Bearer ")))]);
        let (values, secrets) = read_all(&sources).unwrap();
        assert_eq!(values["authorization"], "Bearer sekrit-1");
        let mut text = "it was sekrit-1".to_owned();
        secrets.clean(&mut text);
        assert_eq!(text, "it was [authorization]");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty");
        std::fs::write(&empty, "\n").unwrap();
        let unset = SecretSource { env: Some("TIDEGATE_NO_SUCH_VARIABLE".into()), ..SecretSource::default() };
        for (source, word) in [
            (unset, "TIDEGATE_NO_SUCH_VARIABLE"),
            (file(&folder.path().join("none"), None), "none"),
            (file(&empty, None), "empty"),
        ] {
            let error = read_all(&BTreeMap::from([("KEY".to_owned(), source)])).unwrap_err();
            assert_eq!(error.code, "secret_missing");
            assert!(error.message.contains("`KEY`") && error.message.contains(word), "{error}");
        }
    }
}
