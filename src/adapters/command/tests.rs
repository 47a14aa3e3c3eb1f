//! Real programs, real signals.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::ports::{Quiet, SecretSource};

struct Bench {
    folder: TempDir,
    commands: LocalCommands,
}

#[derive(Default)]
struct Said(Mutex<Vec<String>>);

impl Progress for Said {
    fn line(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let commands = LocalCommands::new(folder.path());
        Self { folder, commands }
    }

    fn call(&self, argv: &[&str], stdin: Value) -> ProgramCall {
        let program = Program {
            argv: argv.iter().map(|part| (*part).to_owned()).collect(),
            cwd: Some(self.folder.path().to_str().unwrap().to_owned()),
            env: BTreeMap::new(),
            env_from: BTreeMap::new(),
            stdin,
            stdout: Stdout::Json,
            ok_codes: vec![0],
        };
        let (thread, node, token) = ("thread-1".to_owned(), "node".to_owned(), "c0ffee".to_owned());
        ProgramCall { program, thread, node, token, purpose: Purpose::Run }
    }

    fn sh(&self, script: &str) -> ProgramCall {
        self.call(&["sh", "-c", script], json!({"x": "ü 🌊", "n": 1}))
    }

    async fn run(&self, call: &ProgramCall) -> Result<ProgramEnd, PortError> {
        self.commands.run(call, &Quiet).await
    }

    async fn last(&self) -> LastRun {
        self.commands.last("thread-1", "c0ffee", Purpose::Run).await.unwrap()
    }

    fn pid(&self, name: &str) -> u32 {
        let path = self.folder.path().join(name);
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(pid) = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()) {
                return pid;
            }
            assert!(Instant::now() < end, "{name} is never written");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn assert_gone(pid: u32) {
    let gone = || !fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"));
    let end = Instant::now() + Duration::from_secs(20);
    while !gone() {
        assert!(Instant::now() < end, "process {pid} still runs");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn json_goes_in_and_comes_out() {
    let bench = Bench::new();
    assert_eq!(bench.last().await, LastRun::Never);
    let end = bench.run(&bench.sh("cat")).await.unwrap();
    assert_eq!(end, ProgramEnd { code: Some(0), output: json!({"x": "ü 🌊", "n": 1}), unreadable: None });
    assert_eq!(bench.last().await, LastRun::Done(end));
    let large = json!("y".repeat(900_000));
    assert_eq!(bench.run(&bench.call(&["cat"], large.clone())).await.unwrap().output, large);
    let unread = bench.run(&bench.call(&["true"], large)).await.unwrap();
    assert_eq!(unread.output, Value::Null, "a program need not read its input");
    bench.commands.forget("thread-1").await.unwrap();
    assert_eq!(bench.last().await, LastRun::Never);
}

#[tokio::test]
async fn it_is_told_for_whom_it_works() {
    let bench = Bench::new();
    let script =
        "printf '[\"%s\",\"%s\",\"%s\",\"%s\"]' $TIDEGATE_THREAD $TIDEGATE_NODE $TIDEGATE_TOKEN $TIDEGATE_PURPOSE";
    let end = bench.run(&bench.sh(script)).await.unwrap();
    assert_eq!(end.output, json!(["thread-1", "node", "c0ffee", "run"]));
}

#[tokio::test]
async fn bad_ends_say_what_happened() {
    let bench = Bench::new();
    fs::write(bench.folder.path().join("plain"), "echo 1\n").unwrap();
    fs::write(bench.folder.path().join("orphan"), "#!/no/such/interpreter\n").unwrap();
    for name in ["plain", "orphan"] {
        let path = bench.folder.path().join(name);
        let mode = if name == "orphan" { 0o755 } else { 0o644 };
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    for (call, code, part, retryable) in [
        (bench.sh("echo why >&2; exit 7"), "command_failed", "why", true),
        (bench.sh("echo on stdout; exit 7"), "command_failed", "on stdout", true),
        (bench.sh("kill -9 $$"), "command_killed", "", true),
        (bench.call(&["no-such-program"], Value::Null), "command_not_found", "PATH", false),
        (bench.call(&["./none"], Value::Null), "command_not_found", "no file", false),
        (bench.call(&["./orphan"], Value::Null), "command_not_found", "interpreter", false),
        (bench.call(&["./plain"], Value::Null), "command_not_executable", "denied", false),
        (bench.call(&["a\0b"], Value::Null), "command_start_failed", "nul", true),
        (bench.call(&["yes"], Value::Null), "command_output_too_large", "bytes", false),
    ] {
        let error = bench.run(&call).await.unwrap_err();
        let told = (error.code.as_str(), error.retryable);
        assert_eq!(told, (code, retryable), "{error:?}");
        assert!(error.cause.clone().unwrap_or_default().contains(part), "{error:?}");
        let cut_off = crate::ports::CUT_OFF.contains(&code);
        assert_eq!(matches!(bench.last().await, LastRun::CutOff(_)), cut_off, "{code}");
        assert_eq!(bench.last().await == LastRun::Failed, !cut_off, "{code}");
    }
    let mut elsewhere = bench.sh("true");
    elsewhere.program.cwd = Some("/no/such/folder".into());
    assert_eq!(bench.run(&elsewhere).await.unwrap_err().code, "command_no_folder");
    let mut fine = bench.sh("exit 7");
    fine.program.ok_codes = vec![0, 7];
    assert_eq!(bench.run(&fine).await.unwrap().code, Some(7));
}

#[tokio::test]
async fn what_cannot_be_read_is_shown() {
    let bench = Bench::new();
    for (script, part) in [
        ("echo hello", "hello"),
        ("echo '{\"a\": 1} 2'", "trailing"),
        ("printf '\\377'", "expected value"),
        ("echo '\"\\ud800\"'", "hex escape"),
        ("head -c 1100000 /dev/zero | tr '\\0' ' '", "more than"),
    ] {
        let end = bench.run(&bench.sh(script)).await.unwrap();
        assert_eq!((end.code, &end.output), (Some(0), &Value::Null));
        assert!(end.unreadable.clone().unwrap().contains(part), "{script}: {end:?}");
    }
    let mut text = bench.sh("printf 'a\\nb ü\\n\\n'");
    text.program.stdout = Stdout::Text;
    assert_eq!(bench.run(&text).await.unwrap().output, json!("a\nb ü"));
    text.program.argv = vec!["printf".into(), "\\377".into()];
    assert!(bench.run(&text).await.unwrap().unreadable.is_some());
}

#[tokio::test]
async fn secrets_are_given_and_never_shown() {
    let bench = Bench::new();
    fs::write(bench.folder.path().join("key"), "sekrit-value\n").unwrap();
    let file = bench.folder.path().join("key").to_str().unwrap().to_owned();
    let source = SecretSource { env: None, file: Some(file), prefix: Some("k:".into()) };
    let with = |script: &str| {
        let mut call = bench.sh(script);
        call.program.env_from = BTreeMap::from([("KEY".to_owned(), source.clone())]);
        call
    };
    let said = Said::default();
    let call = with("echo said $KEY >&2; printf '{\"it\": \"%s\"}' \"$KEY\"");
    let end = bench.commands.run(&call, &said).await.unwrap();
    assert_eq!(end.output, json!({"it": "k:[KEY]"}));
    assert_eq!(*said.0.lock().unwrap(), ["said k:[KEY]"]);
    for script in ["echo not json $KEY", "echo $KEY >&2; exit 1", "echo $KEY; exit 1", "echo $KEY; kill -9 $$"] {
        let told = format!("{:?}", bench.run(&with(script)).await);
        assert!(told.contains("[KEY]") && !told.contains("sekrit"), "{told}");
    }
    let records = bench.folder.path().join("commands/thread-1");
    for entry in fs::read_dir(records).unwrap().flatten() {
        assert!(!fs::read_to_string(entry.path()).unwrap().contains("sekrit"));
    }
}

#[tokio::test]
async fn giving_it_up_ends_grandchildren_too() {
    let bench = Bench::new();
    let call = bench.sh("sh -c 'echo $$ > grandchild; sleep 60' & echo $$ > child; wait");
    let running = bench.commands.run(&call, &Quiet);
    let (child, grandchild) = tokio::select! {
        ended = running => panic!("{ended:?}"),
        pids = async {
            let pids = async || bench.folder.path().join("grandchild").exists() && bench.folder.path().join("child").exists();
            while !pids().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (bench.pid("child"), bench.pid("grandchild"))
        } => pids,
    };
    assert_gone(child);
    assert_gone(grandchild);
    assert!(matches!(bench.last().await, LastRun::CutOff(_)));
}

#[tokio::test]
async fn who_does_not_listen_is_killed() {
    let bench = Bench::new();
    let call = bench.sh("trap '' TERM; echo $$ > child; while :; do sleep 0.1; done");
    let running = tokio::time::timeout(Duration::from_millis(500), bench.commands.run(&call, &Quiet));
    assert!(running.await.is_err());
    let child = bench.pid("child");
    // Who comes next ends what is left, and finds nobody at work.
    assert!(matches!(bench.last().await, LastRun::CutOff(_)));
    assert_gone(child);
}

#[tokio::test]
async fn what_it_leaves_behind_does_not_hold_us() {
    let bench = Bench::new();
    let began = Instant::now();
    let end = bench.run(&bench.sh("sleep 60 & echo $!")).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(4));
    assert_gone(end.output.as_u64().unwrap().try_into().unwrap());
}
