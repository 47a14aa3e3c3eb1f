//! The commands' own manners: what they say when output, arguments, files or the home are not as they should be. Nothing is released here
//! but where a release has to be lost on the way to the terminal.

mod release_support;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use release_support::{Home, Ran};

/// Runs a command whose standard output goes to `stdout`.
fn into(home: &Home, args: &[&str], stdout: impl Into<Stdio>) -> Ran {
    let ended = home.command(args).stdin(Stdio::null()).stdout(stdout).output().unwrap();
    Ran { code: ended.status.code(), stdout: String::new(), stderr: String::from_utf8(ended.stderr).unwrap() }
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let home = Home::bare();
    for args in [&["list"][..], &["list", "--json"], &["schema", "plan"], &["graph", "rollback"], &["--help"]] {
        let ran = into(&home, args, full());
        assert_eq!(ran.code, Some(1), "{args:?}: {ran:?}");
        assert!(
            ran.stderr.contains("(stdout_unwritable)") && ran.stderr.contains("No space left"),
            "{args:?}: {ran:?}"
        );
    }
    // An error keeps its own code, and is told where it can be.
    let ran = into(&home, &["status", "nope", "--json"], full());
    assert!(ran.code == Some(2) && ran.stderr.contains("(model_unknown)"), "{ran:?}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let home = Home::bare();
    for args in [&["schema", "plan"][..], &["list", "--json"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran = into(&home, args, writer);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn a_model_that_nobody_released_is_unknown_to_all_who_ask() {
    let home = Home::bare();
    for command in ["status", "history"] {
        let ran = home.run(&[command, "nope", "--json"]);
        assert_eq!((ran.code, ran.error_code().as_str()), (Some(2), "model_unknown"), "{command}: {ran:?}");
    }
    assert!(home.ok(&["list"]).stdout.contains("no releases yet"));
}

#[test]
fn a_newer_database_is_not_called_damaged() {
    let home = Home::bare();
    home.ok(&["list"]);
    let database = rusqlite::Connection::open(home.path().join("tidegate.db")).unwrap();
    database.pragma_update(None, "user_version", 999).unwrap();
    let ran = home.run(&["list", "--json"]);
    assert_eq!((ran.code, ran.error_code().as_str()), (Some(1), "store_too_new"), "{ran:?}");
    let (message, hint) = (ran.error()["message"].to_string(), ran.error()["hint"].to_string());
    assert!(message.contains("its schema is 999") && hint.contains("the version of Tidegate that wrote it"), "{ran:?}");
    let looked = home.run(&["doctor", "--db"]);
    assert!(
        looked.stdout.contains("MISS database     the store") && looked.stdout.contains("newer version"),
        "{looked:?}"
    );
}

#[test]
fn files_that_are_named_must_be_ordinary_ones() {
    let home = Home::bare();
    let file = |name: &str, bytes: &[u8]| {
        fs::write(home.beside(name), bytes).unwrap();
        name.to_owned()
    };
    nix::unistd::mkfifo(&home.beside("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let cases = [
        ("none.json".to_owned(), "there is no such file"),
        ("./run".to_owned(), "it is a folder"),
        ("./fifo".to_owned(), "it is no ordinary file"),
        ("/dev/zero".to_owned(), "it is no ordinary file"),
        (file("latin.json", b"{\"x\": \"\xe9\"}"), "it is not UTF-8"),
    ];
    let refused = |args: &[&str], why: &str| {
        let ran = home.run(&[args, &["--json"]].concat());
        assert_eq!((ran.code, ran.error_code().as_str()), (Some(2), "file_unreadable"), "{args:?}: {ran:?}");
        assert_eq!(ran.error()["cause"], why, "{args:?}: {ran:?}");
        assert!(ran.error()["hint"].is_string(), "{args:?}: {ran:?}");
    };
    for (name, why) in &cases {
        refused(&["run", "start", "model_deployer", "--input", &format!("@{name}")], why);
        refused(&["run", "replay", name], why);
    }
    let large = file("large.json", &vec![b' '; 1024 * 1024 + 1]);
    refused(&["run", "start", "model_deployer", "--input", &format!("@{large}")], "it has more than 1048576 bytes");
    // An export may be larger; this one is only none.
    let ran = home.run(&["run", "replay", &large, "--json"]);
    assert_eq!(ran.error_code(), "export_damaged", "{ran:?}");
    assert_eq!(home.run(&["run", "replay", "run", "--json"]).error_code(), "no_thread", "a folder is no export");
}

#[test]
fn a_wrong_command_line_says_which_argument_it_is() {
    let home = Home::bare();
    let ran = home.run(&["run", "start", "--recursion-limit", "many", "x", "--json"]);
    assert_eq!((ran.code, ran.error_code().as_str()), (Some(2), "usage"), "{ran:?}");
    assert_eq!(
        ran.error()["message"],
        "invalid value 'many' for '--recursion-limit <N>': invalid digit found in string"
    );
    let ran = home.run(&["reject", "iris", "--json"]);
    assert_eq!(ran.error()["cause"], "--reason <REASON>", "{ran:?}");
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode() & 0o777
}

#[test]
fn a_home_is_closed_to_others_and_a_shared_folder_stays_as_it_is() {
    let home = Home::bare();
    let open = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    // Empty; then in use, with files of a person's own for it.
    for _ in 0..2 {
        open(home.path());
        home.ok(&["list"]);
        assert_eq!((mode(home.path()), mode(&home.path().join("tidegate.db"))), (0o700, 0o600));
        fs::write(home.path().join("config.yaml"), "").unwrap();
    }
    let shared = Home::bare();
    open(shared.path());
    fs::write(shared.path().join("notes.txt"), "mine").unwrap();
    fs::write(shared.path().join("runner.log"), "from before").unwrap();
    fs::set_permissions(shared.path().join("notes.txt"), Permissions::from_mode(0o644)).unwrap();
    shared.ok(&["up"]);
    shared.ok(&["down"]);
    assert_eq!((mode(shared.path()), mode(&shared.path().join("notes.txt"))), (0o755, 0o644));
    for made in fs::read_dir(shared.path()).unwrap().flatten().filter(|made| made.file_name() != "notes.txt") {
        assert_eq!(mode(&made.path()) & 0o077, 0, "{}", made.path().display());
    }
    assert_eq!(mode(&shared.path().join("host/host.log")), 0o600);
}

/// A home in which everything has been made that is made in one counts as a home, and the manual tells of each of its files.
#[test]
fn everything_that_is_made_in_a_home_is_known() {
    let home = Home::new();
    // By the runner, so that it has left its files too.
    home.ok(&["deploy", home.hello("one").unasked().bake("0s").arg(), "--detach"]);
    home.until("it is live", || home.history("hello").first().filter(|row| row["live"] == true).cloned());
    home.ok(&["down"]);
    let names = home.names("");
    for needed in ["down.lock", "runner.lock", "releases", "host"] {
        assert!(names.iter().any(|name| name == needed), "{names:?}");
    }
    let manual = fs::read_to_string(release_support::root().join("docs/operations.md")).unwrap();
    let told = |name: &&String| manual.contains(&format!("`{name}`")) || manual.contains(&format!("`{name}/`"));
    let untold: Vec<&String> = names.iter().filter(|name| !told(name)).collect();
    assert!(untold.is_empty(), "not in docs/operations.md: {untold:?}");
    fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
    home.ok(&["list"]);
    assert_eq!(mode(home.path()), 0o700, "one of these counts as somebody else's: {names:?}");
}

#[test]
fn settings_must_be_an_ordinary_file() {
    let home = Home::bare();
    nix::unistd::mkfifo(&home.path().join("config.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for command in ["list", "down"] {
        let ran = home.run(&[command, "--json"]);
        assert_eq!((ran.code, ran.error_code().as_str()), (Some(2), "settings_invalid"), "{command}: {ran:?}");
        assert_eq!(ran.error()["cause"], "it is no ordinary file", "{ran:?}");
    }
}

#[test]
fn a_release_whose_output_is_lost_says_where_it_is() {
    let home = Home::new();
    let ran = into(&home, &["deploy", home.hello("one").bake("0s").arg(), "--yes"], full());
    let row = &home.history("hello")[0];
    assert!(row["live"] == true && ran.code == Some(1), "{row}: {ran:?}");
    let thread = row["deployment_id"].as_str().unwrap();
    assert!(ran.stderr.contains("(stdout_unwritable") && ran.stderr.contains(thread), "{ran:?}");
    assert!(ran.stderr.contains(&format!("`tidegate run show {thread}` has the result")), "{ran:?}");
}

#[test]
fn a_damaged_database_is_mended_after_a_copy_or_salvaged() {
    let home = Home::bare();
    home.ok(&["list"]);
    let file = home.path().join("tidegate.db");
    assert!(home.ok(&["doctor", "--db"]).stdout.contains("ok   database     sound"));
    let database = rusqlite::Connection::open(&file).unwrap();
    // An index that says something else than its table.
    database
        .execute_batch(
            "INSERT INTO threads (id, status, epoch, committed_seq, undone, created_at, updated_at) VALUES ('t', 'succeeded', 1, 0, 0, 1, 1);
             INSERT INTO thread_origins SELECT n, '{}' FROM threads;
             PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'ml_deployments_newest')
               WHERE name = 'threads_newest';",
        )
        .unwrap();
    drop(database);
    let looked = home.run(&["doctor", "--db"]);
    assert!(looked.code == Some(1) && looked.stdout.contains("only indexes are damaged"), "{looked:?}");
    let salvaged = home.ok(&["doctor", "--db", "--salvage", "new.db"]);
    assert!(salvaged.stdout.contains("threads: 1 rows"), "{salvaged:?}");
    let again = home.run(&["doctor", "--db", "--salvage", "new.db"]);
    assert!(again.code == Some(1) && again.stdout.contains("there already"), "{again:?}");
    let repaired = home.run(&["doctor", "--db", "--repair"]);
    assert!(repaired.stdout.contains("written anew") && repaired.stdout.contains("before-repair"), "{repaired:?}");
    assert!(repaired.stdout.contains("ok   database     sound"), "{repaired:?}");
    assert_eq!(home.run(&["doctor", "--repair"]).code, Some(2));
}
