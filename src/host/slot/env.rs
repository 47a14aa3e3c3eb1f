//! A slot's environment: a minimal one, the request's, and the lines of a file that is never shown.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use crate::host::HostError;
use crate::host::identity::{HOME_ENV, TOKEN_ENV};
use crate::ports::SlotRequest;

/// What a slot gets of the daemon's own environment; everything else (tokens, keys, proxies) stays out.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];
/// Larger files are no environment. Linux gives arguments and environment together 2 MB by default.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The whole environment of a slot's process. Later ones win: inherited, request, file, and ours last.
pub(crate) fn build(request: &SlotRequest, port: u16, home: &Path) -> Result<BTreeMap<OsString, OsString>, HostError> {
    let mut env: BTreeMap<OsString, OsString> = BTreeMap::new();
    env.extend(INHERITED.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?))));
    for (name, value) in &request.env {
        env.insert(name.into(), with_port(value, port).into());
    }
    if let Some(path) = &request.env_file {
        env.extend(read_file(path)?.into_iter().map(|(name, value)| (name.into(), value.into())));
    }
    env.insert(TOKEN_ENV.into(), request.token.clone().into());
    env.insert(HOME_ENV.into(), home.into());
    Ok(env)
}

/// Puts the port where the request left a place for it.
pub(crate) fn with_port(text: &str, port: u16) -> String {
    text.replace("{port}", &port.to_string())
}

/// Shorter values are words of everyday logs; hiding them would hide the log.
const MIN_SECRET_CHARS: usize = 4;

/// The lines of a log with every value of the slot's environment file replaced by its name: what a service prints of its secrets must not
/// travel into answers, states and exports.
pub(crate) fn redacted(request: &SlotRequest, mut lines: Vec<String>) -> Vec<String> {
    let Some(path) = &request.env_file else { return lines };
    // A file that cannot be read now holds no values that could be known; the slot would not start with it either.
    let Ok(mut secrets) = read_file(path) else { return lines };
    secrets.retain(|(_, value)| value.chars().count() >= MIN_SECRET_CHARS);
    // Longest first: a value may be part of another one.
    secrets.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
    for line in &mut lines {
        for (name, value) in &secrets {
            if line.contains(value.as_str()) {
                *line = line.replace(value.as_str(), &format!("[{name}]"));
            }
        }
    }
    lines
}

fn read_file(path: &Path) -> Result<Vec<(String, String)>, HostError> {
    let wrong = |why: String| HostError::EnvFile { path: path.to_owned(), why };
    let size = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?.len();
    if size > MAX_FILE_BYTES {
        return Err(wrong(format!("{size} bytes are too many")));
    }
    let bytes = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
    parse(&text).map_err(wrong)
}

/// Parses `KEY=value` lines. Errors name the line and never what stands in it: it may be a secret.
fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
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
    use super::*;

    #[test]
    fn reads_comments_quotes_and_exports() {
        let text =
            "# a comment\n\nA=1\nexport B = two words # why\nC=\"x\\n\\\"y\\\"\"\nD='a # b'\nE=\nF=a#b\nG=\"q\" # ok\n";
        let vars = parse(text).unwrap();
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
            let why = parse(bad).unwrap_err();
            assert!(why.starts_with("line 2: ") && !why.contains("hunter2"), "{why}");
        }
    }
}
