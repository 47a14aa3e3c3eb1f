//! A program that a workflow runs. What it did is known to nobody but itself, so what is not known is asked of it, or of a person.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::graph::{Effect, EffectCx, Failure, Probe};
use crate::nodes::world::{Lines, port};
use crate::ports::{CUT_OFF, CommandRunner, LastRun, Program, ProgramCall, ProgramEnd, Purpose, Stdout};

/// The exit code by which a probe says that it did not happen. Not 1 or 2: a probe that breaks ends with those.
pub const PROBE_NOT_DONE: i32 = 3;

/// Runs a program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunCommand {
    /// The node's name, for the program.
    pub node: String,
    /// The program.
    pub program: Program,
    /// Whether it may be run again when nobody knows whether it ran.
    pub repeat: bool,
    /// The program that knows whether it ran.
    #[serde(default)]
    pub probe: Option<Vec<String>>,
    /// The program that takes it back.
    #[serde(default)]
    pub undo: Option<Vec<String>>,
}

impl RunCommand {
    fn call(&self, cx: &EffectCx, purpose: Purpose, program: Program) -> ProgramCall {
        ProgramCall {
            program,
            thread: cx.thread.to_string(),
            node: self.node.clone(),
            token: cx.token.clone(),
            purpose,
        }
    }

    /// One of its helpers, which has its surroundings.
    fn helper(&self, argv: &[String], stdin: Value, stdout: Stdout, ok_codes: Vec<i32>) -> Program {
        Program { argv: argv.to_vec(), stdin, stdout, ok_codes, ..self.program.clone() }
    }

    /// Asks the probe.
    async fn asked(
        &self,
        argv: &[String],
        world: &dyn CommandRunner,
        cx: &EffectCx,
    ) -> Result<Probe<ProgramEnd>, Failure> {
        let stdin = json!({"input": self.program.stdin, "token": cx.token});
        let helper = self.helper(argv, stdin, self.program.stdout, vec![0, PROBE_NOT_DONE]);
        let said = world.run(&self.call(cx, Purpose::Probe, helper), &Lines(cx.progress.clone())).await;
        Ok(match said {
            Ok(end) if end.code == Some(PROBE_NOT_DONE) => Probe::NotDone,
            Ok(end) => Probe::Done(end),
            Err(error) => Probe::Unknown(match error.cause {
                Some(cause) => format!("its probe could not tell: {}: {cause}", error.message),
                None => format!("its probe could not tell: {}", error.message),
            }),
        })
    }

    /// What follows where nobody knows.
    fn unknown(&self, why: &str, cx: &EffectCx) -> Probe<ProgramEnd> {
        if self.repeat {
            return Probe::NotDone;
        }
        match (&cx.reason, &self.undo) {
            // It is about to be undone, which asks for an undo and not for certainty.
            (Some(_), Some(_)) => Probe::Done(ProgramEnd::cut_off()),
            (Some(_), None) => Probe::NotDone,
            (None, _) => Probe::Unknown(format!(
                "{why}; the node has no `probe`, and does not say `repeat: true`, so it is not run again"
            )),
        }
    }
}

#[async_trait]
impl Effect for RunCommand {
    const KIND: &'static str = "command";
    type World = dyn CommandRunner;
    type Receipt = ProgramEnd;

    async fn perform(&self, world: &Self::World, cx: &EffectCx) -> Result<ProgramEnd, Failure> {
        let call = self.call(cx, Purpose::Run, self.program.clone());
        let mut error = match world.run(&call, &Lines(cx.progress.clone())).await {
            Ok(end) => return Ok(end),
            Err(error) => error,
        };
        if CUT_OFF.contains(&error.code.as_str()) && !self.repeat && self.probe.is_none() {
            // To repeat it would only find that nobody knows.
            error.retryable = false;
        }
        Err(port(error))
    }

    async fn probe(&self, world: &Self::World, cx: &EffectCx) -> Result<Probe<ProgramEnd>, Failure> {
        let last = world.last(cx.thread.as_str(), &cx.token, Purpose::Run).await.map_err(port)?;
        Ok(match (last, &self.probe) {
            (LastRun::Never, _) | (LastRun::Failed, None) => Probe::NotDone,
            (LastRun::Done(end), _) => Probe::Done(end),
            (LastRun::Failed | LastRun::CutOff(_), Some(argv)) => self.asked(argv, world, cx).await?,
            (LastRun::CutOff(why), None) => self.unknown(&why, cx),
        })
    }

    async fn undo(&self, world: &Self::World, receipt: &ProgramEnd, cx: &EffectCx) -> Result<(), Failure> {
        let Some(argv) = &self.undo else { return Ok(()) };
        let stdin = json!({"input": self.program.stdin, "output": receipt.output, "token": cx.token});
        let helper = self.helper(argv, stdin, Stdout::Ignore, vec![0]);
        let done = world.run(&self.call(cx, Purpose::Undo, helper), &Lines(cx.progress.clone())).await;
        done.map(drop).map_err(port)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::graph::ThreadId;
    use crate::ports::{PortError, Progress};

    /// Knows what it is told to know, and remembers who was run.
    struct Scripted {
        last: LastRun,
        says: Result<ProgramEnd, PortError>,
        ran: Mutex<Vec<ProgramCall>>,
    }

    #[async_trait]
    impl CommandRunner for Scripted {
        async fn run(&self, call: &ProgramCall, _: &dyn Progress) -> Result<ProgramEnd, PortError> {
            self.ran.lock().unwrap().push(call.clone());
            self.says.clone()
        }

        async fn last(&self, _: &str, _: &str, _: Purpose) -> Result<LastRun, PortError> {
            Ok(self.last.clone())
        }

        async fn forget(&self, _: &str) -> Result<(), PortError> {
            Ok(())
        }
    }

    fn effect(repeat: bool, probe: bool, undo: bool) -> RunCommand {
        let program = Program {
            argv: vec!["do".into()],
            cwd: None,
            env: BTreeMap::new(),
            env_from: BTreeMap::new(),
            stdin: json!({"x": 1}),
            stdout: Stdout::Json,
            ok_codes: vec![0],
        };
        let helper = |wanted: bool, name: &str| wanted.then(|| vec![name.to_owned()]);
        RunCommand { node: "n".into(), program, repeat, probe: helper(probe, "ask"), undo: helper(undo, "back") }
    }

    fn cx(undoing: bool) -> EffectCx {
        EffectCx {
            token: "c0ffee".into(),
            thread: ThreadId::from("t"),
            epoch: 1,
            reason: undoing.then(|| Failure::new("later", "a later node failed")),
            failed: None,
            progress: Arc::new(|_| {}),
        }
    }

    fn end(code: i32) -> ProgramEnd {
        ProgramEnd { code: Some(code), output: json!({"y": 2}), unreadable: None }
    }

    fn world(last: LastRun, says: Result<ProgramEnd, PortError>) -> Scripted {
        Scripted { last, says, ran: Mutex::new(Vec::new()) }
    }

    #[tokio::test]
    async fn what_is_known_needs_no_question() {
        for (last, expected) in [
            (LastRun::Never, Probe::NotDone),
            (LastRun::Failed, Probe::NotDone),
            (LastRun::Done(end(0)), Probe::Done(end(0))),
        ] {
            let world = world(last, Ok(end(0)));
            assert_eq!(effect(false, false, true).probe(&world, &cx(false)).await.unwrap(), expected);
            assert!(world.ran.lock().unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn what_is_not_known_is_told_by_repeat_and_undo() {
        let world = world(LastRun::CutOff("killed".into()), Ok(end(0)));
        let probe =
            async |repeat, undo, undoing| effect(repeat, false, undo).probe(&world, &cx(undoing)).await.unwrap();
        assert_eq!(probe(true, false, false).await, Probe::NotDone);
        assert!(matches!(probe(false, true, false).await, Probe::Unknown(why) if why.contains("killed")));
        assert_eq!(probe(false, false, true).await, Probe::NotDone);
        assert_eq!(probe(false, true, true).await, Probe::Done(ProgramEnd::cut_off()));
    }

    #[tokio::test]
    async fn a_probe_is_asked_and_may_not_know() {
        for last in [LastRun::Failed, LastRun::CutOff("killed".into())] {
            let broken = PortError::new("command_failed", "exit code 1").because("no route");
            for (says, expected) in [
                (Ok(end(0)), Probe::Done(end(0))),
                (Ok(end(PROBE_NOT_DONE)), Probe::NotDone),
                (Err(broken), Probe::Unknown("its probe could not tell: exit code 1: no route".into())),
            ] {
                let world = world(last.clone(), says);
                assert_eq!(effect(false, true, true).probe(&world, &cx(true)).await.unwrap(), expected);
                let ran = world.ran.lock().unwrap();
                assert_eq!((ran[0].purpose, &ran[0].program.argv), (Purpose::Probe, &vec!["ask".to_owned()]));
                assert_eq!(ran[0].program.stdin, json!({"input": {"x": 1}, "token": "c0ffee"}));
            }
        }
    }

    #[tokio::test]
    async fn an_undo_is_told_input_and_output() {
        let world = world(LastRun::Never, Ok(end(0)));
        effect(false, false, false).undo(&world, &end(0), &cx(true)).await.unwrap();
        assert!(world.ran.lock().unwrap().is_empty(), "there is nothing to take back");
        effect(false, false, true).undo(&world, &end(0), &cx(true)).await.unwrap();
        let ran = world.ran.lock().unwrap();
        assert_eq!(ran[0].program.stdin, json!({"input": {"x": 1}, "output": {"y": 2}, "token": "c0ffee"}));
        assert_eq!((ran[0].purpose, ran[0].program.stdout), (Purpose::Undo, Stdout::Ignore));
    }

    #[tokio::test]
    async fn only_what_may_be_repeated_is_worth_repeating() {
        let killed = || world(LastRun::Never, Err(PortError::new("command_killed", "signal 9").retryable()));
        assert!(effect(true, false, false).perform(&killed(), &cx(false)).await.unwrap_err().retryable);
        assert!(!effect(false, false, false).perform(&killed(), &cx(false)).await.unwrap_err().retryable);
        let failed = world(LastRun::Never, Err(PortError::new("command_failed", "exit code 1").retryable()));
        assert!(effect(false, false, false).perform(&failed, &cx(false)).await.unwrap_err().retryable);
    }
}
