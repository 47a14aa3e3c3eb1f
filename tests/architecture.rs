//! Style as a test: which room knows which (ARCHITECTURE.md, "The map"), sizes, no dead files, no hidden ways out. Compiler and clippy hold the
//! rest: docs on everything public, functions of at most 70 lines, no `unwrap()`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each room with those that it may use. `app` wires and may use all.
const ROOMS: [(&str, &[&str]); 12] = [
    ("graph", &[]),
    ("release", &["judge"]),
    ("judge", &["release"]),
    ("store", &["graph", "release"]),
    ("ports", &["release", "judge"]),
    ("host", &["ports"]),
    ("nodes", &["graph", "judge", "ports", "release"]),
    ("adapters", &["ports", "release", "host"]),
    ("workflow", &["graph", "nodes", "ports"]),
    ("bench", &["graph", "store"]),
    ("cli", &["app", "bench", "graph", "judge", "release", "host", "nodes", "ports", "server", "workflow"]),
    ("server", &["app", "graph", "release"]),
];

/// What a room must not touch outside of the crate.
const NEVER: [(&str, &[&str]); 12] = [
    ("graph", &["rusqlite", "reqwest", "hyper", "axum", "nix", "std::fs", "std::net", "std::process"]),
    ("release", &["tokio", "rusqlite", "reqwest", "hyper", "axum", "nix", "std::fs", "std::net", "std::process"]),
    (
        "judge",
        &[
            "tokio",
            "rusqlite",
            "reqwest",
            "hyper",
            "axum",
            "nix",
            "chrono",
            "std::fs",
            "std::net",
            "std::process",
            "std::time",
        ],
    ),
    ("store", &["reqwest", "hyper", "axum", "std::net"]),
    ("ports", &["rusqlite", "reqwest", "hyper", "axum", "nix", "std::fs", "std::net", "std::process"]),
    ("host", &["rusqlite", "reqwest"]),
    ("adapters", &["rusqlite", "axum"]),
    ("nodes", &["rusqlite", "reqwest", "hyper", "axum", "nix", "std::fs", "std::net", "std::process"]),
    ("workflow", &["rusqlite", "reqwest", "hyper", "axum", "nix", "std::fs", "std::net", "std::process"]),
    ("bench", &["rusqlite", "reqwest", "hyper", "axum", "std::net", "std::process"]),
    ("cli", &["rusqlite", "reqwest", "hyper", "axum"]),
    ("server", &["rusqlite", "reqwest", "std::fs", "std::process"]),
];

/// Everything that the engine may use of others' crates.
const GRAPH_CRATES: [&str; 14] = [
    "std",
    "core",
    "serde",
    "serde_json",
    "schemars",
    "petgraph",
    "tokio",
    "async_trait",
    "tracing",
    "chrono",
    "uuid",
    "thiserror",
    "sha2",
    "futures_util",
];

const MOST_LINES: usize = 500;

struct File {
    /// Below `src`, with `/`.
    name: String,
    text: String,
    /// Compiled for tests only.
    test_only: bool,
}

impl File {
    fn room(&self) -> Option<&str> {
        self.name.split_once('/').map(|(room, _)| room)
    }

    /// Lines of code with their numbers, without comments and without the test module at the end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let in_tests = self.text.find("#[cfg(test)]\nmod tests").unwrap_or(self.text.len());
        let text = if self.test_only { "" } else { &self.text[..in_tests] };
        text.lines().enumerate().map(|(n, line)| (n + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn sources() -> Vec<File> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![src.clone()];
    let mut paths: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { paths.push(path) }
        }
    }
    paths.retain(|path| path.extension().is_some_and(|e| e == "rs"));
    paths.sort();
    let file = |path: &PathBuf| {
        let name = path.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
        File { name, text: std::fs::read_to_string(path).unwrap(), test_only: false }
    };
    let mut files: Vec<File> = paths.iter().map(file).collect();
    let for_tests: BTreeSet<String> = files.iter().flat_map(test_modules).collect();
    files.iter_mut().for_each(|f| f.test_only = for_tests.contains(&f.name));
    assert!(files.len() > 100, "the sources are where they are looked for");
    files
}

/// Files that a file declares for tests only.
fn test_modules(file: &File) -> Vec<String> {
    let (folder, own) = file.name.rsplit_once('/').unwrap_or(("", &file.name));
    let below = if own == "mod.rs" || own == "lib.rs" { String::new() } else { own.replace(".rs", "/") };
    let declared =
        file.text.split("#[cfg(test)]\n").skip(1).filter_map(|rest| rest.strip_prefix("mod ")?.lines().next());
    let modules = declared.filter_map(|line| line.strip_suffix(';'));
    modules.map(|module| format!("{folder}/{below}{module}.rs")).collect()
}

/// The identifier at the beginning of a text.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// Whether a line uses a crate, or a module of one: `name::…` wherever a path may begin, or `use name`.
fn uses(line: &str, name: &str) -> bool {
    let begins =
        |at: usize| !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':' || c == '"');
    let whole = line.match_indices(name).filter(|(at, _)| begins(*at)).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + name.len()..]);
        after.starts_with("::") || (before.ends_with("use ") && after.starts_with([';', ' ']))
    });
    let (parent, module) = name.rsplit_once("::").unwrap_or(("", name));
    // `use std::{fs, io}`
    let among = line.split_once(&format!("use {parent}::{{")).is_some_and(|(_, rest)| {
        rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == module)
    });
    whole || (!parent.is_empty() && among)
}

/// Others' crates that this one depends on, as they are named in code.
fn dependencies() -> Vec<String> {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let (_, rest) = manifest.split_once("\n[dependencies]\n").unwrap();
    let lines = rest.lines().take_while(|line| !line.starts_with('['));
    let names: Vec<String> = lines.filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_"))).collect();
    assert!(names.len() > 20, "the dependencies are where they are looked for");
    names
}

fn told(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} place(s):\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn arrows_point_down_only() {
    let mut wrong = Vec::new();
    let known: BTreeSet<&str> = ROOMS.iter().map(|(room, _)| *room).chain(["app"]).collect();
    for file in sources() {
        let Some(room) = file.room() else { continue };
        assert!(known.contains(room), "room `{room}` is not in the table");
        let Some((_, may)) = ROOMS.iter().find(|(name, _)| *name == room) else { continue };
        // Tests inside a room keep to it as well.
        for (number, line) in file.text.lines().enumerate() {
            for (at, _) in line.match_indices("crate::") {
                let to = word(&line[at + "crate::".len()..]);
                if to != room && !may.contains(&to) {
                    wrong.push(format!("src/{}:{}: {room} must not use `crate::{to}`", file.name, number + 1));
                }
            }
        }
    }
    told(&wrong);
}

#[test]
fn rooms_keep_to_their_crates() {
    let mut wrong = Vec::new();
    let dependencies = dependencies();
    for file in sources() {
        let never = NEVER.iter().find(|(name, _)| Some(*name) == file.room()).map_or(&[][..], |(_, never)| never);
        let is_graph = file.room() == Some("graph");
        for (number, line) in file.code() {
            if let Some(name) = never.iter().find(|name| uses(line, name)) {
                wrong.push(format!("src/{}:{number}: must not use `{name}`", file.name));
            }
            let foreign = |name: &&String| is_graph && !GRAPH_CRATES.contains(&name.as_str()) && uses(line, name);
            if let Some(name) = dependencies.iter().find(foreign) {
                wrong.push(format!("src/{}:{number}: the engine must not use `{name}`", file.name));
            }
        }
    }
    told(&wrong);
}

#[test]
fn a_use_is_seen_wherever_it_stands() {
    for line in [
        "use nix::fcntl::OFlag;",
        "        pub(crate) use nix::unistd;",
        "use nix;",
        "    use nix as unix;",
        "let pid = nix::unistd::getpid();",
        "fn f(file: &std::fs::File) {}",
        "use std::fs;",
        "use std::{fmt, fs::File};",
        "    use std::{io, fs};",
    ] {
        assert!(["nix", "std::fs"].iter().any(|name| uses(line, name)), "{line}");
    }
    for line in ["use crate::nix::x;", "let unix::A = b;", "// no", "use std::{fmt, io};", "state.nix.push(fs);"] {
        assert!(!["nix", "std::fs"].iter().any(|name| uses(line, name)), "{line}");
    }
}

#[test]
fn the_map_says_the_same() {
    let map = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    for (room, may) in ROOMS {
        let row = map.lines().find_map(|line| line.strip_prefix(&format!("| `{room}` | ")));
        let cell = row.and_then(|row| row.split(" | ").next()).unwrap_or_else(|| panic!("no row for `{room}`"));
        let words: BTreeSet<&str> = cell.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        let said = ROOMS.iter().map(|(name, _)| *name).chain(["app"]).filter(|name| *name != room);
        let said: BTreeSet<&str> = said.filter(|name| words.contains(name)).collect();
        assert_eq!(said, may.iter().copied().collect(), "what ARCHITECTURE.md says of `{room}`: {cell}");
    }
}

#[test]
fn only_those_who_must_start_programs() {
    let mut wrong = Vec::new();
    for file in sources() {
        // The detached runner is this very program.
        let may = matches!(file.room(), Some("adapters" | "host")) || file.name == "app/runner.rs";
        let starts = file.code().filter(|(_, line)| line.contains("Command::new(") && !may);
        wrong.extend(starts.map(|(number, _)| format!("src/{}:{number}: starts a program", file.name)));
    }
    told(&wrong);
}

#[test]
fn files_stay_readable() {
    let long = |f: &File| f.text.lines().count() > MOST_LINES;
    let wrong: Vec<String> = sources().into_iter().filter(long).map(|f| f.name).collect();
    told(&wrong);
}

#[test]
fn what_cannot_fail_says_why() {
    let mut wrong = Vec::new();
    for file in sources() {
        for (number, line) in file.code() {
            let proven = line.contains("invariant:") || line.contains("proof");
            let panics = [".expect(", ".unwrap()", "todo!(", "unimplemented!("].iter().any(|p| line.contains(p));
            if panics && !proven {
                wrong.push(format!("src/{}:{number}: {}", file.name, line.trim()));
            }
        }
    }
    told(&wrong);
}

#[test]
fn no_file_is_dead() {
    let files = sources();
    let mut wrong = Vec::new();
    for file in &files {
        let (folder, own) = file.name.rsplit_once('/').unwrap_or(("", &file.name));
        let (folder, module) = match own {
            "main.rs" | "lib.rs" => continue,
            "mod.rs" => folder.rsplit_once('/').unwrap_or(("", folder)),
            _ => (folder, own.trim_end_matches(".rs")),
        };
        let parents = match folder {
            "" => vec!["lib.rs".to_owned(), "main.rs".to_owned()],
            _ => vec![format!("{folder}/mod.rs"), format!("{folder}.rs")],
        };
        let declares = |f: &&File| {
            parents.contains(&f.name) && f.text.lines().any(|l| l.trim_end().ends_with(&format!("mod {module};")))
        };
        if !files.iter().any(|f| declares(&f)) {
            wrong.push(format!("src/{}: nobody declares it", file.name));
        }
    }
    told(&wrong);
}
