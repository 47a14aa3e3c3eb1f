//! A service's secrets: the `KEY=value` lines of its `env_file`, and how what it says is kept clean of them.

use std::path::Path;

use async_trait::async_trait;
use serde_json::Value;

use super::PortError;

/// Shorter values are words of everyday logs and answers; hiding them would hide the rest.
const MIN_SECRET_CHARS: usize = 4;

/// The values of an `env_file`, for one purpose: to take them out of what a service said. It shows none of them.
#[derive(Clone, Default)]
pub struct Secrets {
    /// Name and value, longest value first: one may be part of another.
    vars: Vec<(String, String)>,
}

impl Secrets {
    /// The secrets among a file's variables.
    pub fn new(vars: Vec<(String, String)>) -> Self {
        // A key of several lines is printed line by line, or with its line breaks escaped.
        let lines = |(name, value): &(String, String)| {
            value.lines().map(|line| (name.clone(), line.trim().to_owned())).collect::<Vec<_>>()
        };
        let mut all: Vec<(String, String)> = vars.iter().flat_map(lines).chain(vars.iter().cloned()).collect();
        all.retain(|(_, value)| value.chars().count() >= MIN_SECRET_CHARS);
        let mut secrets = Self::default();
        secrets.join(Self { vars: all });
        secrets
    }

    /// Adds those that it does not know.
    pub fn join(&mut self, other: Self) {
        self.vars.extend(other.vars);
        self.vars.sort_by(|(_, a), (_, b)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        self.vars.dedup_by(|(_, a), (_, b)| a == b);
    }

    /// The names and values themselves, for who passes them on to where they are taken out.
    pub fn into_vars(self) -> Vec<(String, String)> {
        self.vars
    }

    /// Puts `[NAME]` in the place of every value.
    pub fn clean(&self, text: &mut String) {
        for (name, value) in &self.vars {
            if text.contains(value.as_str()) {
                *text = text.replace(value.as_str(), &format!("[{name}]"));
            }
        }
    }

    /// The same for all texts of a document, its keys, and numbers that are a secret.
    pub fn clean_json(&self, value: &mut Value) {
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(number) => {
                let text = number.to_string();
                if let Some((name, _)) = self.vars.iter().find(|(_, value)| *value == text) {
                    *value = Value::String(format!("[{name}]"));
                }
            }
            Value::String(text) => self.clean(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.clean_json(item)),
            Value::Object(map) => {
                let cleaned = std::mem::take(map).into_iter().map(|(mut key, mut item)| {
                    self.clean(&mut key);
                    self.clean_json(&mut item);
                    (key, item)
                });
                map.extend(cleaned);
            }
        }
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.vars.len())
    }
}

/// Reads secrets where a release names their file.
#[async_trait]
pub trait SecretFiles: Send + Sync {
    /// The secrets in `env_file`, absolute, and those that running services were given from it before it was written anew. Kept by
    /// nobody.
    async fn read(&self, env_file: &Path) -> Result<Secrets, PortError>;
}

/// Parses `KEY=value` lines. Errors name the line and never what stands in it: it may be a secret.
pub fn parse_env_file(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut vars = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let var = parse_line(line).map_err(|why| format!("line {}: {why}", index + 1))?;
        vars.push(var);
    }
    Ok(vars)
}

fn parse_line(line: &str) -> Result<(String, String), &'static str> {
    let (name, value) = line.split_once('=').ok_or("there is no `=`")?;
    let name = name.trim();
    let valid = |(i, b): (usize, u8)| b == b'_' || b.is_ascii_alphabetic() || (i > 0 && b.is_ascii_digit());
    if name.is_empty() || !name.bytes().enumerate().all(valid) {
        return Err("the name before `=` is not a variable's name");
    }
    if value.contains('\0') {
        return Err("the value has a NUL character");
    }
    Ok((name.to_owned(), unquote(value.trim())?))
}

/// `"…"` with \n, \t, \", \\ and \$; `'…'` literally; otherwise up to a ` #` comment.
fn unquote(value: &str) -> Result<String, &'static str> {
    let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        return Ok(value.split(" #").next().unwrap_or_default().trim_end().to_owned());
    };
    let mut out = String::new();
    let mut chars = value.chars();
    chars.next();
    loop {
        match chars.next().ok_or("the quote is not closed")? {
            c if c == quote => break,
            '\\' if quote == '"' => match chars.next().ok_or("the quote is not closed")? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                c @ ('"' | '\\' | '$') => out.push(c),
                c => out.extend(['\\', c]),
            },
            c => out.push(c),
        }
    }
    let rest = chars.as_str().trim();
    if rest.is_empty() || rest.starts_with('#') { Ok(out) } else { Err("there is text after the closing quote") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_comments_quotes_and_exports() {
        let text =
            "# a comment\n\nA=1\nexport B = two words # why\nC=\"x\\n\\\"y\\\"\"\nD='a # b'\nE=\nF=a#b\nG=\"q\" # ok\n";
        let vars = parse_env_file(text).unwrap();
        let get = |name: &str| vars.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(get("A"), Some("1"));
        assert_eq!(get("B"), Some("two words"));
        assert_eq!(get("C"), Some("x\n\"y\""));
        assert_eq!(get("D"), Some("a # b"));
        assert_eq!(get("E"), Some(""));
        assert_eq!(get("F"), Some("a#b"));
        assert_eq!(get("G"), Some("q"));
    }

    #[test]
    fn errors_name_the_line_and_not_the_secret() {
        for bad in ["A=1\nhunter2", "A=1\n2X=hunter2", "A=1\nX=\"hunter2", "A=1\nX='a' hunter2", "A=1\n=hunter2"] {
            let why = parse_env_file(bad).unwrap_err();
            assert!(why.starts_with("line 2: ") && !why.contains("hunter2"), "{why}");
        }
    }

    fn secrets(vars: &[(&str, &str)]) -> Secrets {
        Secrets::new(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn values_give_way_to_their_names() {
        let secrets =
            secrets(&[("A", "sekrit"), ("B", "sekrit-long"), ("SHORT", "no"), ("PEM", "first line\nsecond\n")]);
        let mut text = "no: sekrit-long, sekrit; 'first line\\nsecond'".to_owned();
        secrets.clean(&mut text);
        assert_eq!(text, "no: [B], [A]; '[PEM]\\n[PEM]'");
        assert_eq!(format!("{secrets:?}"), "Secrets(5)");
    }

    #[test]
    fn a_file_that_was_written_anew_has_old_and_new_values() {
        let mut all = secrets(&[("KEY", "before"), ("SAME", "same-value")]);
        all.join(secrets(&[("KEY", "before-and-after"), ("SAME", "same-value")]));
        let mut text = "before, before-and-after, same-value".to_owned();
        all.clean(&mut text);
        assert_eq!((text.as_str(), format!("{all:?}").as_str()), ("[KEY], [KEY], [SAME]", "Secrets(3)"));
    }

    #[test]
    fn documents_are_cleaned_all_over() {
        let secrets = secrets(&[("KEY", "sek\"rit"), ("PIN", "12345")]);
        let mut value = json!({"sek\"rit": [1, true, null, "is sek\"rit"], "n": {"pin": 12345, "other": 123_456}});
        secrets.clean_json(&mut value);
        assert_eq!(value, json!({"[KEY]": [1, true, null, "is [KEY]"], "n": {"pin": "[PIN]", "other": 123_456}}));
    }
}
