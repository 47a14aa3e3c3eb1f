//! `command` nodes through the binary: real programs, killed with real signals, and what is left of them.

mod release_support;

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use release_support::{Home, Ran, Running, process};
use serde_json::{Value, json};

/// A home with a folder of workflow files and programs.
struct Flows {
    home: Home,
    folder: PathBuf,
}

impl Flows {
    fn new() -> Self {
        let home = Home::bare();
        let folder = home.beside("flows");
        fs::create_dir(&folder).unwrap();
        Self { home, folder }
    }

    /// A file beside the workflow.
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }

    /// A workflow of nodes one after the other.
    fn workflow(&self, channels: &str, nodes: &[(&str, &str)]) -> String {
        let mut text = format!("name: flow\nchannels: {{ {channels} }}\nnodes:\n");
        for (name, node) in nodes {
            text += &format!("  {name}: {node}\n");
        }
        text += "edges:\n";
        let mut from = "START";
        for (name, _) in nodes {
            text += &format!("  - {{ from: {from}, to: {name} }}\n");
            from = name;
        }
        self.file("flow.yaml", &text).to_str().unwrap().to_owned()
    }

    fn start(&self, workflow: &str, input: &Value) -> Ran {
        self.home.run(&["run", "start", workflow, "--input", &input.to_string(), "--json"])
    }

    /// The values of a run that ends well.
    #[track_caller]
    fn values(&self, workflow: &str, input: &Value) -> Value {
        let ran = self.start(workflow, input);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.json()["values"].clone()
    }

    /// The error of a run that fails.
    #[track_caller]
    fn fails(&self, node: &str, channels: &str) -> Value {
        let ran = self.start(&self.workflow(channels, &[("a", node)]), &json!({}));
        assert_eq!(ran.code, Some(1), "{ran:?}");
        ran.error()
    }

    /// Waits for a program's process id, written by itself.
    fn pid(&self, name: &str) -> u32 {
        self.home.until(name, || self.read(name).trim().parse().ok())
    }

    /// Waits until a process is gone.
    fn gone(&self, pid: u32) {
        self.home.until("the process ends", || process::command_line(pid).is_empty().then_some(()));
    }

    fn export(&self, thread: &str) -> Value {
        self.home.json(&["run", "export", thread])
    }
}

/// A program that says that it is at work, alone, and works until there is a file `go`.
const SLOW: &str = "mkdir busy || { echo two at once >> clash; exit 9; }\necho $$ >> pids\necho $TIDEGATE_TOKEN >> tokens\n\
                    trap 'rmdir busy; exit 1' TERM\nwhile [ ! -e go ]; do sleep 0.05; done\nrmdir busy\necho '{\"x\": 7}'\n";

fn slow(flows: &Flows, more: &str) -> String {
    flows.file("slow.sh", SLOW);
    flows.workflow(
        "x: { type: integer }",
        &[("a", &format!("{{ type: command, with: {{ run: [sh, slow.sh]{more} }} }}"))],
    )
}

/// The last process that a slow program says it is.
fn busy(flows: &Flows, times: usize) -> u32 {
    flows.home.until("the program works", || {
        let pids: Vec<u32> = flows.read("pids").lines().filter_map(|line| line.parse().ok()).collect();
        (pids.len() == times).then(|| pids[times - 1])
    })
}

#[test]
fn json_goes_in_and_comes_out_in_the_workflow_s_folder() {
    let flows = Flows::new();
    flows.file("double.py", "import json, sys\nsees = json.load(sys.stdin)\nprint(json.dumps({'y': sees['x'] * 2, 'args': sys.argv[1:]}))\n");
    let double = "{ type: command, with: { run: [python3, double.py, -v], args: \"[x, 'a b; $HOME', true]\" } }";
    let path = flows.workflow("x: { type: integer }, y: { type: integer }, args: { type: array }", &[("a", double)]);
    let values = flows.values(&path, &json!({"x": 21}));
    assert_eq!(values, json!({"x": 21, "y": 42, "args": ["-v", "21", "a b; $HOME", "true"]}));

    let echo = "{ type: command, with: { run: [cat], stdin: \"{'name': s, 'n': [1.5, null]}\", into: r } }";
    let path = flows.workflow("s: { type: string }, r: { type: any }", &[("a", echo)]);
    let odd = "q\"\\ \u{0} 🌊\u{200d} é e\u{301} \u{2028} \u{feff}";
    assert_eq!(flows.values(&path, &json!({"s": odd}))["r"], json!({"name": odd, "n": [1.5, null]}));

    let text = "{ type: command, with: { run: [printf, 'a\\n%s\\n\\n', ü], stdout: text, into: s } }";
    let quiet = "{ type: command, with: { run: [echo, no JSON], stdout: ignore } }";
    let path = flows.workflow(
        "s: { type: string }",
        &[("a", text), ("b", quiet), ("c", "{ type: command, with: { run: ['true'] } }")],
    );
    assert_eq!(flows.values(&path, &json!({})), json!({"s": "a\nü"}));
    assert_eq!(flows.home.names("commands"), Vec::<String>::new(), "nothing is kept of what has ended");
}

#[test]
fn every_bad_end_says_what_happened_and_what_to_do() {
    let flows = Flows::new();
    flows.file("plain.txt", "echo 1\n");
    let run = |run: &str| flows.fails(&format!("{{ type: command, with: {{ run: {run} }} }}"), "x: { type: integer }");
    for (argv, code, parts) in [
        ("[sh, -c, 'echo the reason >&2; exit 4']", "command_failed", &["exit code 4", "the reason"][..]),
        ("[sh, -c, 'echo on stdout; exit 4']", "command_failed", &["on stdout"]),
        ("[sh, -c, 'kill -SEGV $$']", "command_killed", &["SIGSEGV"]),
        ("[tidegate-no-such-program]", "command_not_found", &["tidegate-no-such-program", "PATH"]),
        ("[./plain.txt]", "command_not_executable", &["chmod"]),
        ("[echo, hello]", "command_output_invalid", &["hello", "standard error"]),
        ("[echo, '[1]']", "command_output_invalid", &["array", "into"]),
        ("[echo, '{\"x\": \"no integer\"}']", "channel_type", &["x"]),
        ("[echo, '{\"y\": 1}']", "undeclared_channel", &["y"]),
        ("[yes]", "command_output_too_large", &["wrote without end"]),
        ("[sh, -c, 'head -c 1100000 /dev/zero']", "command_output_invalid", &["more than 1048576"]),
    ] {
        let error = run(argv);
        let told = error.to_string();
        assert_eq!(error["code"], code, "{told}");
        assert!(parts.iter().all(|part| told.contains(part)), "{argv}: {told}");
    }
    let nowhere = flows.fails("{ type: command, with: { run: [pwd], cwd: nowhere } }", "x: { type: integer }");
    assert_eq!(nowhere["code"], "command_no_folder");
    let silent = flows.fails("{ type: command, with: { run: ['true'], into: x } }", "x: { type: integer }");
    assert_eq!(silent["code"], "command_output_invalid");
}

#[test]
fn bad_parameters_are_refused_with_their_place() {
    let flows = Flows::new();
    // `§` marks the place that is to be shown.
    for (with, part) in [
        ("run: [a], stdn: §x", "stdn"),
        ("run: §a", "sequence"),
        ("run: §[]", "program"),
        ("run: [a], stdin: §'x +'", "x +"),
        ("run: [a], stdin: §z", "`z`"),
        ("run: [a], stdout: §text", "into"),
        ("run: [a], ok_codes: §[256]", "255"),
        ("run: [a], env: §{ TIDEGATE_X: b }", "TIDEGATE_X"),
        ("run: [a], env_from: { A: §{ env: B, file: c } }", "exactly one"),
        ("run: [a], repeat: true, probe: §[b]", "probe"),
        ("§stdin: x", "run"),
    ] {
        let begin = "nodes: { a: { type: command, with: { ";
        let line = format!("{begin}{} }} }} }}", with.replace('§', ""));
        let text =
            format!("name: w\nchannels: {{ x: {{ type: any }} }}\n{line}\nedges: [ {{ from: START, to: a }} ]\n");
        let path = flows.file("bad.yaml", &text);
        let ran = flows.home.run(&["run", "start", path.to_str().unwrap(), "--json"]);
        let told = ran.error().to_string();
        assert_eq!(ran.code, Some(2), "{with}: {told}");
        // What is missing as a whole is shown at the parameters' beginning.
        let column = begin.len() + 1 + with.find('§').unwrap() - if with.starts_with('§') { 2 } else { 0 };
        assert!(told.contains(&format!("bad.yaml:3:{column}:")) && told.contains(part), "{with}: {told}");
    }
}

#[test]
fn a_timeout_ends_the_whole_group() {
    let flows = Flows::new();
    flows.file("tree.sh", "sh -c 'echo $$ > grandchild; sleep 600' &\necho $$ > child\nwait\n");
    let node = "{ type: command, timeout: 1s, with: { run: [sh, tree.sh] } }";
    let error = flows.fails(node, "x: { type: integer }");
    assert_eq!(error["code"], "node_timeout");
    flows.gone(flows.pid("grandchild"));
    flows.gone(flows.pid("child"));
    flows.home.assert_only(&[]);
}

#[test]
fn retries_are_the_node_s_policy() {
    let flows = Flows::new();
    flows.file("third.sh", "echo x >> tries; [ $(wc -l < tries) -ge 3 ] || exit 1; echo '{\"x\": 3}'\n");
    let node = "{ type: command, retry: { max_attempts: 5, initial: 10ms }, with: { run: [sh, third.sh] } }";
    let values = flows.values(&flows.workflow("x: { type: integer }", &[("a", node)]), &json!({}));
    assert_eq!((values, flows.read("tries").lines().count()), (json!({"x": 3}), 3));

    // A time that is over leaves open how far it came.
    flows.file("slow.sh", "echo x >> slow; [ $(wc -l < slow) -ge 2 ] || sleep 600; echo '{\"x\": 2}'\n");
    let slow = |more: &str| {
        let node = format!(
            "{{ type: command, timeout: 1s, retry: {{ initial: 10ms }}, with: {{ run: [sh, slow.sh]{more} }} }}"
        );
        flows.start(&flows.workflow("x: { type: integer }", &[("a", &node)]), &json!({}))
    };
    let repeated = slow(", repeat: true");
    assert_eq!((repeated.code, &repeated.json()["values"]), (Some(0), &json!({"x": 2})), "{repeated:?}");
    fs::remove_file(flows.folder.join("slow")).unwrap();
    let unknown = slow("");
    assert_eq!((unknown.code, unknown.error_code().as_str()), (Some(6), "effect_unknown"), "{unknown:?}");
}

/// Starts a slow program, kills its owner, and takes the run up again.
fn killed(flows: &Flows, workflow: &str) -> String {
    let running = flows.home.start(&["run", "start", workflow, "--json"]);
    let thread = flows.home.thread_of(&running);
    let first = busy(flows, 1);
    running.kill9();
    flows.gone(first);
    thread
}

#[test]
fn a_killed_owner_s_program_dies_and_is_run_again_alone() {
    let flows = Flows::new();
    let thread = killed(&flows, &slow(&flows, ", repeat: true"));
    let resumed = flows.home.start(&["run", "resume", &thread, "--json"]);
    busy(&flows, 2);
    flows.file("go", "");
    let ran = resumed.end();
    assert_eq!((ran.code, &ran.json()["values"]), (Some(0), &json!({"x": 7})), "{ran:?}");
    let tokens = flows.read("tokens");
    let tokens: Vec<&str> = tokens.lines().collect();
    assert!(tokens.len() == 2 && tokens[0] == tokens[1] && tokens[0].len() == 24, "{tokens:?}");
    assert_eq!(flows.read("clash"), "");
    flows.home.assert_only(&[]);
}

#[test]
fn what_nobody_can_tell_waits_for_a_person() {
    let flows = Flows::new();
    let thread = killed(&flows, &slow(&flows, ""));
    flows.file("go", "");
    let ran = flows.home.run(&["run", "resume", &thread, "--json"]);
    assert_eq!((ran.code, ran.error_code().as_str()), (Some(6), "effect_unknown"), "{ran:?}");
    assert!(ran.error()["cause"].as_str().unwrap().contains("repeat: true"), "{ran:?}");
    assert_eq!(flows.read("pids").lines().count(), 1, "it is not run again");
    let over = flows.home.run(&["run", "cancel", &thread, "--json"]);
    assert_eq!(flows.home.json(&["run", "show", &thread])["status"], "cancelled", "{over:?}");
    assert_eq!(flows.home.names("commands"), Vec::<String>::new());
}

#[test]
fn a_probe_tells_whether_it_happened() {
    for (says, code, values, runs) in [
        ("echo '{\"x\": 99}'", Some(0), json!({"x": 99}), 1),
        ("exit 3", Some(0), json!({"x": 7}), 2),
        ("echo no idea >&2; exit 1", Some(6), Value::Null, 1),
    ] {
        let flows = Flows::new();
        flows.file("probe.sh", &format!("cat > asked\necho $TIDEGATE_PURPOSE >> asked\n{says}\n"));
        let thread = killed(&flows, &slow(&flows, ", probe: [sh, probe.sh]"));
        flows.file("go", "");
        let ran = flows.home.run(&["run", "resume", &thread, "--json"]);
        assert_eq!(ran.code, code, "{says}: {ran:?}");
        if code == Some(0) {
            assert_eq!(ran.json()["values"], values, "{says}");
        } else {
            assert!(ran.error().to_string().contains("no idea"), "{ran:?}");
        }
        assert_eq!(flows.read("pids").lines().count(), runs, "{says}");
        let asked = flows.read("asked");
        let (input, purpose) = asked.trim().split_once('\n').unwrap();
        let input: Value = serde_json::from_str(input).unwrap();
        assert_eq!((input["token"].as_str(), purpose), (flows.read("tokens").lines().next(), "probe"), "{asked}");
    }
}

#[test]
fn cancelling_ends_the_program() {
    let flows = Flows::new();
    let running = flows.home.start(&["run", "start", &slow(&flows, ""), "--json"]);
    let thread = flows.home.thread_of(&running);
    let pid = busy(&flows, 1);
    let ran = flows.home.run(&["run", "cancel", &thread, "--json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    flows.gone(pid);
    assert_eq!(flows.home.json(&["run", "show", &thread])["status"], "cancelled");
    running.end();
    flows.home.assert_only(&[]);
}

#[test]
fn ctrl_c_ends_the_program_before_we_go() {
    let flows = Flows::new();
    let running = flows.home.start(&["run", "start", &slow(&flows, ""), "--json"]);
    let pid = busy(&flows, 1);
    running.signal(Signal::SIGINT);
    assert_eq!(running.end().code, Some(130));
    flows.gone(pid);
    // It was asked politely, and put its things in order.
    flows.home.until("it has put its things in order", || (!flows.folder.join("busy").exists()).then_some(()));
}

#[test]
fn a_failure_undoes_newest_first() {
    let flows = Flows::new();
    flows.file("do.sh", "echo \"do $1\" >> log; echo \"{\\\"made\\\": \\\"$1\\\"}\"\n");
    flows.file("undo.py", "import json, sys\nd = json.load(sys.stdin)\nprint('undo', d['input'], d['output'], len(d['token']), file=open('log', 'a'))\n");
    let does = |name: &str| {
        format!(
            "{{ type: command, with: {{ run: [sh, do.sh, {name}], stdin: \"'{name}'\", into: r, undo: [python3, undo.py] }} }}"
        )
    };
    let (one, two) = (does("one"), does("two"));
    let bad = "{ type: command, with: { run: ['false'] } }";
    let path = flows.workflow("r: { type: any }", &[("a", &one), ("b", &two), ("c", bad)]);
    let ran = flows.start(&path, &json!({}));
    assert_eq!((ran.code, ran.error_code().as_str()), (Some(1), "command_failed"), "{ran:?}");
    let log = "do one\ndo two\nundo two {'made': 'two'} 24\nundo one {'made': 'one'} 24\n";
    assert_eq!(flows.read("log"), log);

    let stuck = does("three").replace("[python3, undo.py]", "[sh, -c, 'echo cannot >&2; exit 1']");
    let ran = flows.start(&flows.workflow("r: { type: any }", &[("a", &stuck), ("c", bad)]), &json!({}));
    assert_eq!((ran.code, ran.error_code().as_str()), (Some(6), "undo_failed"), "{ran:?}");
    assert!(ran.error()["cause"].as_str().unwrap().contains("cannot"), "{ran:?}");
}

/// Every file below `dir` that holds the secret.
fn holders(dir: &Path, secret: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(holders(&path, secret));
        } else if fs::read(&path).unwrap_or_default().windows(secret.len()).any(|part| part == secret.as_bytes()) {
            found.push(path);
        }
    }
    found
}

#[test]
fn secrets_reach_the_program_and_nothing_else() {
    const SECRET: &str = "hunter2-sekrit-xyz";
    let flows = Flows::new();
    let file = flows.file("key.txt", &format!("{SECRET}\n"));
    let with = "env_from: { KEY: { file: key.txt }, TOKEN: { env: MY_TOKEN, prefix: 'Bearer ' } }";
    let good = format!(
        "{{ type: command, with: {{ run: [sh, -c, 'echo said $KEY >&2; printf \"{{\\\"n\\\": %s, \\\"it\\\": \\\"%s\\\"}}\" ${{#KEY}} \"$TOKEN\"'], into: r, {with} }} }}"
    );
    let bad = format!("{{ type: command, with: {{ run: [sh, -c, 'echo $TOKEN >&2; exit 1'], {with} }} }}");
    let path = flows.workflow("r: { type: any }", &[("a", &good), ("b", &bad)]);
    let missing = flows.start(&path, &json!({}));
    assert_eq!((missing.code, missing.error_code().as_str()), (Some(1), "secret_missing"), "{missing:?}");

    let mut command = flows.home.command(&["run", "start", &path, "--json"]);
    command.env("MY_TOKEN", format!("{SECRET}-2"));
    let ran = Running::start(command).end();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(ran.error()["cause"], "Bearer [TOKEN]");
    assert!(!format!("{ran:?}").contains(SECRET), "{ran:?}");
    let export = flows.export(&ran.thread());
    let state = export["checkpoints"].to_string();
    assert!(state.contains("Bearer [TOKEN]") && state.contains(&format!("\"n\":{}", SECRET.len())), "{state}");
    assert!(!export.to_string().contains(SECRET));
    assert_eq!(holders(&flows.home.beside(""), SECRET), [file]);
}

#[test]
fn a_replay_runs_nothing() {
    let flows = Flows::new();
    flows.file("once.sh", "echo x >> ran; echo '{\"x\": 1}'\n");
    let path = flows.workflow("x: { type: integer }", &[("a", "{ type: command, with: { run: [sh, once.sh] } }")]);
    let thread = flows.start(&path, &json!({})).thread();
    let export = flows.file("export.json", &flows.export(&thread).to_string());
    let other = Home::bare();
    for ran in [
        other.run(&["run", "replay", export.to_str().unwrap(), "--json"]),
        flows.home.run(&["run", "replay", &thread, "--json"]),
    ] {
        assert_eq!((ran.code, &ran.json()["replayed"]), (Some(0), &json!(true)), "{ran:?}");
    }
    assert_eq!(flows.read("ran"), "x\n");
}

#[test]
fn without_its_guard_a_program_does_not_go_on() {
    let flows = Flows::new();
    let running = flows.home.start(&["run", "start", &slow(&flows, ""), "--json"]);
    let pid = busy(&flows, 1);
    let guards =
        flows.home.processes().into_iter().filter(|pid| process::command_line(*pid).contains("tidegate-guard"));
    guards.for_each(|guard| kill(Pid::from_raw(guard.cast_signed()), Signal::SIGKILL).unwrap());
    let ran = running.end();
    assert_eq!((ran.code, ran.error_code().as_str()), (Some(1), "command_killed"), "{ran:?}");
    assert!(ran.error()["cause"].as_str().unwrap().contains("guard"), "{ran:?}");
    flows.gone(pid);
}

/// The fenced parts of a page in a language.
fn fenced(page: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(release_support::root().join(page)).unwrap();
    let begin = format!("```{language}\n");
    text.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_examples_of_the_page_work() {
    let flows = Flows::new();
    let whole: Vec<String> =
        fenced("docs/workflows.md", "yaml").into_iter().filter(|example| example.starts_with("name: ")).collect();
    assert!(whole.len() >= 3, "{whole:?}");
    for example in &whole {
        let path = flows.file("example.yaml", example);
        flows.home.ok(&["graph", path.to_str().unwrap()]);
    }
    let train = whole.iter().find(|example| example.starts_with("name: train")).unwrap();
    let path = flows.file("train.yaml", train);
    flows.file("train.py", &fenced("docs/workflows.md", "python")[0]);
    let mut command =
        flows.home.command(&["run", "start", path.to_str().unwrap(), "--input", "{\"rows\": 3}", "--json"]);
    command.env("HUB_TOKEN", "a-token");
    let ran = Running::start(command).end();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.json()["values"]["model"], json!({"accuracy": 0.9, "rows": 3}));
    for kind in ["command", "http"] {
        assert!(flows.home.json(&["schema", kind])["properties"].is_object());
    }
}

#[test]
fn a_fan_out_runs_one_program_for_each_item() {
    let flows = Flows::new();
    let path = flows.file(
        "fan.yaml",
        "name: fan\nchannels: { items: { type: array }, sum: { type: integer, reducer: add } }\nnodes:\n  one:\n    type: \
         command\n    with: { run: [sh, -c, 'read n; echo $n'], stdin: i, into: sum }\nedges:\n  - { from: START, send: { \
         to: one, each: items, as: i } }\n",
    );
    let items: Vec<u32> = (1..=100).collect();
    assert_eq!(flows.values(path.to_str().unwrap(), &json!({"items": items}))["sum"], 5050);
}
