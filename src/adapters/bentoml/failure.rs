//! What BentoML's output means when something failed.

use super::super::process::Finished;
use crate::ports::PortError;

/// Lines shown when there is no traceback.
const SHOWN_LINES: usize = 12;
const TRACEBACK: &str = "Traceback (most recent call last):";

/// The last traceback in a log, from its first line to the line that names the error, without BentoML's prefixes
/// (`2026-11-20T20:05:08+0000 [ERROR] [:1] `) and without the library frames that come before the service's own. A service whose
/// `__init__` fails never exits; this is how one learns why.
pub fn last_traceback(log_lines: &[String]) -> Option<String> {
    let start = log_lines.iter().rposition(|line| line.trim_end().ends_with(TRACEBACK))?;
    let mut rest = log_lines[start + 1..].iter().map(|line| line.trim_end()).peekable();
    let mut frames = Vec::new();
    while let Some(line) = rest.next_if(|line| line.starts_with([' ', '\t']) || line.is_empty()) {
        frames.push(line);
    }
    let mut shown = vec![TRACEBACK.to_owned()];
    shown.extend(without_library_frames(&frames));
    // The error itself, and the further lines of its message until BentoML's next line or a blank one.
    while let Some(line) = rest.next_if(|line| !line.is_empty() && !begins_log_line(line)) {
        shown.push(line.to_owned());
    }
    while shown.last().is_some_and(String::is_empty) {
        shown.pop();
    }
    Some(shown.join("\n"))
}

/// The frames from the first one that is not a library's; all of them when there is none.
fn without_library_frames(lines: &[&str]) -> Vec<String> {
    let begins = |line: &&str| line.starts_with("  File \"");
    let library = |line: &&str| ["/site-packages/", "\"<frozen ", "/lib/python"].iter().any(|part| line.contains(part));
    let own = lines.iter().position(|line| begins(line) && !library(line)).unwrap_or(0);
    let left_out = lines[..own].iter().filter(|line| begins(line)).count();
    let note = (left_out > 0).then(|| format!("  ({left_out} frames of libraries left out)"));
    note.into_iter().chain(lines[own..].iter().map(|line| (*line).to_owned())).collect()
}

/// `2026-11-20T20:05:08+0000 [LEVEL] …`
fn begins_log_line(line: &str) -> bool {
    let bytes = line.as_bytes();
    bytes.len() > 10 && bytes[..4].iter().all(u8::is_ascii_digit) && bytes[4] == b'-' && line.contains(" [")
        || line.starts_with("Error: [")
}

/// Why a command failed, for people: the last traceback, else the last lines.
fn cause(ended: &Finished) -> String {
    last_traceback(&ended.tail).unwrap_or_else(|| ended.last_lines(SHOWN_LINES))
}

/// The error of a failed `bentoml build` of `service` (`module:Class`, where one was named).
pub(super) fn build_failed(service: Option<&str>, ended: &Finished) -> PortError {
    let said = ended.tail.join("\n");
    let has = |signs: &[&str]| signs.iter().any(|sign| said.contains(sign));
    let error = if has(&["SyntaxError:", "IndentationError:", "TabError:"]) {
        PortError::new("service_syntax_error", "the service's code does not parse")
            .hint("correct the line named above, then deploy again")
    } else if has(&["No module named bentoml"]) {
        PortError::new("dependency_missing", "BentoML is not among the project's requirements")
            .hint("add `bentoml` to the requirements and lock them again")
    } else if let Some(module) = missing_module(&said).filter(|module| names(service, module)) {
        PortError::new("service_module_missing", format!("the project has no module `{module}`"))
            .hint("mend `service: module:Class` in the release file, or the module's file name")
    } else if let Some(module) = missing_module(&said) {
        PortError::new("dependency_missing", format!("the service imports `{module}`, which is not installed"))
            .hint(format!("add the package of `{module}` to the requirements and lock them again"))
    } else if has(&["could not be found locally", "not found in BentoML store"]) && said.contains("Model ") {
        PortError::new("model_missing", "a model that the service needs is not in the model store").hint(
            "name it in `needs_models` and how to make it in `train`, or save it with `bentoml.<framework>.save_model`",
        )
    } else if has(&["No space left on device"]) {
        PortError::new("disk_full", "`bentoml build` found the disk full")
            .hint("free some space, then resume")
            .retryable()
    } else if has(&["Failed to lock PyPI packages"]) {
        PortError::new("bento_build_failed", "BentoML could not lock the service's packages")
            .hint("give the image locked requirements and `lock_python_packages=False`: then no network is needed")
            .retryable()
    } else if ended.timed_out {
        PortError::new("bento_build_failed", "`bentoml build` did not end in the time allowed")
    } else {
        PortError::new("bento_build_failed", format!("`bentoml build` failed ({})", ended.words()))
            .hint("run `bentoml build` in the project to see it fail by itself")
    };
    error.because(cause(ended))
}

/// Whether this is the module of the service itself, or the package around it.
fn names(service: Option<&str>, module: &str) -> bool {
    let own =
        service.and_then(|service| service.split(':').next()).map(|own| own.trim_end_matches(".py").replace('/', "."));
    own.is_some_and(|own| own == module || own.starts_with(&format!("{module}.")))
}

/// The module in Python's `No module named 'x'`.
fn missing_module(said: &str) -> Option<&str> {
    said.rsplit_once("No module named '")?.1.split('\'').next()
}

/// The error of a failed training command.
pub(super) fn train_failed(argv: &[String], ended: &Finished) -> PortError {
    PortError::new("train_failed", format!("`{}` failed ({})", argv.join(" "), ended.words()))
        .because(cause(ended))
        .hint("run it in the project's folder until it works, then deploy again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    /// As a worker of BentoML 1.4.39 logs a failing `__init__`.
    const INIT: &str = "\
2026-11-20T20:05:07+0000 [INFO] [:1] Service loaded from Bento directory: <Service name='Hello'>
2026-11-20T20:05:08+0000 [ERROR] [:1] Initializing service error
Traceback (most recent call last):
  File \"/e/factory.py\", line 409, in __call__
    instance = self.inner()
               ^^^^^^^^^^^^
  File \"/r/src/service.py\", line 13, in __init__
    raise RuntimeError(\"first\")
RuntimeError: first
2026-11-20T20:05:08+0000 [ERROR] [:1] Traceback (most recent call last):
  File \"/r/src/service.py\", line 13, in __init__
    raise RuntimeError(\"the weights file is damaged\")
RuntimeError: the weights file is damaged
in two lines

2026-11-20T20:05:08+0000 [ERROR] [:1] Application startup failed. Exiting.
";

    #[test]
    fn the_last_traceback_is_found_whole_and_without_prefixes() {
        let found = last_traceback(&lines(INIT)).unwrap();
        assert_eq!(
            found,
            "Traceback (most recent call last):\n  File \"/r/src/service.py\", line 13, in __init__\n    \
             raise RuntimeError(\"the weights file is damaged\")\nRuntimeError: the weights file is damaged\nin two lines"
        );
        assert_eq!(last_traceback(&lines("all is well")), None);
        assert_eq!(last_traceback(&lines(TRACEBACK)).unwrap(), TRACEBACK);
    }

    #[test]
    fn library_frames_before_the_services_own_are_left_out() {
        let frame = |path: &str| format!("  File \"{path}\", line 1, in f\n    f()\n");
        let all = [
            "/e/lib/python3.11/site-packages/click/core.py",
            "<frozen runpy>",
            "/p/service.py",
            "/e/lib/python3.11/x.py",
        ];
        let text = format!("{TRACEBACK}\n{}ValueError: no", all.map(frame).concat());
        let expected = format!(
            "{TRACEBACK}\n  (2 frames of libraries left out)\n{}{}ValueError: no",
            frame(all[2]),
            frame(all[3])
        );
        assert_eq!(last_traceback(&lines(&text)).unwrap(), expected);
        let text = format!("{TRACEBACK}\n{}ValueError: no", frame(all[0]));
        assert_eq!(last_traceback(&lines(&text)).unwrap(), text);
    }

    fn failed(text: &str) -> PortError {
        build_failed(
            Some("svc.main:Nope"),
            &Finished { code: Some(1), signal: None, timed_out: false, tail: lines(text) },
        )
    }

    #[test]
    fn bentomls_words_become_codes() {
        let missing =
            failed("Error: [bentos] `build` failed: Failed to import module \"service\": No module named 'torch'");
        assert_eq!(missing.code, "dependency_missing");
        assert!(missing.message.contains("`torch`"));
        assert_eq!(failed("  File \"service.py\", line 9\nSyntaxError: expected ':'").code, "service_syntax_error");
        let model = failed("Error: [bentos] `build` failed: Model iris_clf:latest could not be found locally and …");
        assert_eq!(model.code, "model_missing");
        assert_eq!(failed("ModuleNotFoundError: No module named 'svc'").code, "service_module_missing");
        assert_eq!(failed("/e/bin/python: No module named bentoml").code, "dependency_missing");
        assert_eq!(failed("something else").code, "bento_build_failed");
    }
}
