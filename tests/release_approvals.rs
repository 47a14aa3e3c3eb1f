//! Decisions: at the terminal, from another one, and for a release that nobody attends.

mod release_support;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use release_support::{Home, process, version};
use serde_json::{Value, json};

/// A command at a terminal of its own.
struct Terminal {
    child: Child,
    keyboard: std::fs::File,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let pty = nix::pty::openpty(None, None).unwrap();
        let end = |fd: &OwnedFd| fd.try_clone().unwrap();
        command.stdin(end(&pty.slave)).stdout(end(&pty.slave)).stderr(end(&pty.slave));
        // SAFETY: setsid and ioctl are async-signal-safe and touch nothing of the parent.
        unsafe {
            // In a session of its own, whose terminal this is: only then is ctrl-C more than a letter.
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                nix::errno::Errno::result(nix::libc::ioctl(0, nix::libc::TIOCSCTTY, 0))?;
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        // The ends that the command was given would keep the terminal open after its end.
        drop((command, pty.slave));
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut reader, into) = (std::fs::File::from(end(&pty.master)), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        Self { child, keyboard: pty.master.into(), screen }
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    fn shows(&self, home: &Home, text: &str) {
        home.until(&format!("the terminal shows `{text}`"), || self.text().contains(text).then_some(()));
    }

    fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    fn end(mut self, home: &Home) -> (Option<i32>, String) {
        let status = home.until("the command at the terminal ends", || self.child.try_wait().unwrap());
        (status.code(), self.text())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn deploy_at_terminal(home: &Home, says: &str) -> Terminal {
    let terminal = Terminal::start(home.command(&["deploy", home.hello(says).bake("0s").arg()]));
    terminal.shows(home, "Release it? [yes/no]");
    terminal
}

/// The answer to the one question of the newest release.
fn answer(home: &Home) -> Value {
    home.json(&["run", "export", "hello"])["interrupts"][0]["answer"].clone()
}

#[test]
fn decisions_at_the_terminal_and_from_another_one() {
    let home = Home::new();
    let terminal = deploy_at_terminal(&home, "one");
    assert!(terminal.text().contains("nothing that users see has changed"), "{}", terminal.text());
    let open = home.json(&["approvals"]);
    let question = open[0]["id"].as_str().unwrap();
    assert!(terminal.text().contains(&format!("tidegate approve {question}")), "{}", terminal.text());
    let decided = home.json(&["approve", question, "--reason", "looks good"]);
    assert!(decided["goes_on_in"].as_str().unwrap().contains("tidegate deploy"), "{decided}");
    let (code, text) = terminal.end(&home);
    assert!(
        code == Some(0) && text.contains("through approve") && text.contains("\"endpoint_url\""),
        "{code:?} {text}"
    );
    assert_eq!(answer(&home)["via"], "approve");
    assert_eq!(answer(&home)["value"]["reason"], "looks good");

    let mut terminal = deploy_at_terminal(&home, "two");
    terminal.types("perhaps\n");
    terminal.shows(&home, "please write yes or no");
    terminal.types("yes\n");
    let (code, text) = terminal.end(&home);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(answer(&home)["via"], "terminal");
    let live = &home.history("hello")[0];
    assert_eq!(version(live), "two");

    let mut terminal = deploy_at_terminal(&home, "three");
    terminal.types("no\n\n");
    terminal.shows(&home, "a rejection says why");
    terminal.types("labels are old\n");
    let (code, text) = terminal.end(&home);
    assert!(code == Some(1) && text.contains("labels are old"), "{code:?} {text}");
    let rows = home.history("hello");
    assert_eq!((&rows[0]["status"], rows[0]["live"].as_bool()), (&json!("FAILED"), Some(false)));
    assert!(rows[0]["reason"].as_str().unwrap().contains("labels are old"), "{}", rows[0]);
    assert_eq!(version(live), "two");
    assert_eq!(home.slots().len(), 2);
}

#[test]
fn ctrl_c_at_the_question_leaves_it_open_for_somebody_else() {
    let home = Home::new();
    let mut terminal = deploy_at_terminal(&home, "one");
    terminal.types("\u{3}");
    let (code, text) = terminal.end(&home);
    let open = home.json(&["approvals"]);
    let thread = open[0]["thread"].as_str().unwrap();
    let says = format!("; go on with `tidegate run resume {thread}`, or undo with `tidegate run cancel {thread}`");
    assert!(code == Some(130) && text.contains(&says), "{code:?} {text}");
    let row = &home.history("hello")[0];
    assert!(row["status"] != "FAILED" && row["live"] == false, "{row}");
    // Nobody at this terminal attends it any more; who approves it, or the runner, carries it to its end.
    home.ok(&["approve", open[0]["id"].as_str().unwrap(), "--json"]);
    assert_eq!(version(&completed(&home, thread)), "one");
    assert_eq!((answer(&home)["via"].as_str(), home.json(&["approvals"])), (Some("approve"), json!([])));
}

#[test]
fn a_rejection_from_elsewhere_needs_a_reason_and_undoes() {
    let home = Home::new();
    let waits = home.run(&["deploy", home.hello("one").arg(), "--json"]);
    assert_eq!((waits.code, waits.error_code().as_str()), (Some(3), "waiting"), "{waits:?}");
    let silent = home.run(&["reject", &waits.thread(), "--json"]);
    assert_eq!((silent.code, silent.error_code().as_str()), (Some(2), "usage"), "{silent:?}");
    home.ok(&["reject", &waits.thread(), "--reason", "labels are old", "--json"]);
    let row = &home.history("hello")[0];
    assert!(row["status"] == "FAILED" && row["reason"].as_str().unwrap().contains("labels are old"), "{row}");
    home.assert_clean();
    assert_eq!((home.builds(), home.releases()), (vec![], vec![]));
}

/// The detached runner's process.
fn runner(home: &Home) -> u32 {
    home.until("there is a runner", || {
        home.processes().into_iter().find(|pid| process::command_line(*pid).trim_end().ends_with(" runner"))
    })
}

fn completed(home: &Home, thread: &str) -> Value {
    home.until("the release is complete", || {
        let row = home.history("hello").into_iter().find(|row| row["deployment_id"] == thread)?;
        assert_ne!(row["status"], "FAILED", "{row}\n{}", home.logs());
        (row["status"] == "COMPLETED" && row["live"] == true).then_some(row)
    })
}

#[test]
fn a_detached_release_goes_on_by_itself_and_with_a_decision_from_outside() {
    let home = Home::new();
    let detached = home.json(&["deploy", home.hello("one").unasked().bake("0s").arg(), "--detach"]);
    let thread = detached["thread"].as_str().unwrap();
    assert!(home.history("hello").iter().all(|row| row["status"] != "COMPLETED"), "it waited for the release");
    assert_eq!(version(&completed(&home, thread)), "one");

    let detached = home.json(&["deploy", home.hello("two").bake("0s").arg(), "--detach"]);
    let thread = detached["thread"].as_str().unwrap();
    home.until("it asks", || home.json(&["approvals"]).as_array().unwrap().first().cloned());
    home.ok(&["approve", thread, "--json"]);
    assert_eq!(version(&completed(&home, thread)), "two");
    home.until("the runner ends when nothing is due", || {
        home.processes().iter().all(|pid| !process::command_line(*pid).trim_end().ends_with(" runner")).then_some(())
    });
}

#[test]
fn a_killed_runner_s_release_is_picked_up_by_the_next_command_that_advances() {
    let home = Home::new();
    let detached = home.json(&["deploy", home.hello("one").unasked().bake("0s").arg(), "--detach"]);
    let thread = detached["thread"].as_str().unwrap();
    home.intended(thread, "build_model");
    kill(Pid::from_raw(runner(&home).cast_signed()), Signal::SIGKILL).unwrap();
    let other = home.hello("other").unasked().bake("0s").model("other");
    assert_eq!(version(&home.json(&["deploy", other.arg()])), "other");
    assert_eq!(version(&completed(&home, thread)), "one");
    assert_eq!((home.builds().len(), home.slots().len()), (2, 2));
}
