//! `runs` and `run …`: any thread.

use std::path::Path;
use std::sync::Arc;

use chrono::Utc;
use serde_json::error::Category;
use serde_json::{Map, Value, json};

use super::drive::{Answers, Drove, drive};
use super::out::Out;
use super::path::path_text;
use super::progress::Live;
use super::run_args::{
    CancelArgs, ContinueArgs, HowArgs, ReplayArgs, ResumeArgs, RunCommand, StartArgs, StreamArgs, ThreadArg,
    UndoCommand,
};
use super::show::{ago, event_line, table};
use super::stream::Stream;
use super::timeline::{UnderWay, timeline};
use super::travel::{self, state_text, state_value};
use super::verdicts::verdicts;
use super::{Exit, Failed, answers, deploy, json, plain, prompt};
use crate::app::{App, read_text, spawn_detached};
use crate::graph::{Advance, Export, Failure, Imported, RunEnd, StateSnapshot, ThreadFilter, ThreadId, ThreadStatus};

/// Largest `@FILE`, in bytes: an input is kept in the database with every run.
const MAX_ARGUMENT_BYTES: u64 = 1024 * 1024;
/// Largest export that is replayed, in bytes; it is held in memory a few times over.
pub(super) const MAX_EXPORT_BYTES: u64 = 256 * 1024 * 1024;

/// All runs.
pub async fn list(app: App, out: &Out) -> Result<Exit, Failed> {
    let threads = app.store().threads(&ThreadFilter::default()).await.map_err(|e| plain(e.failure()))?;
    let rows: Vec<Value> = threads
        .iter()
        .map(|t| {
            json!({
                "thread": t.id, "workflow": t.workflow, "status": t.status, "labels": t.labels, "created_at": t.created_at,
                "updated_at": t.updated_at, "owner": t.owner, "error": t.failure, "imported": t.imported,
            })
        })
        .collect();
    out.data(&rows, || {
        if threads.is_empty() {
            return "no runs yet".to_owned();
        }
        let mut lines = table(["thread", "workflow", "model", "status", "when", "why"]);
        for t in &threads {
            let model = t.labels.get("model").cloned().unwrap_or_default();
            let why: String = t.failure.as_ref().map(|f| f.message.chars().take(60).collect()).unwrap_or_default();
            lines.add_row([
                t.id.to_string(),
                t.workflow.clone(),
                model,
                format!("{}{}", t.status.word(), if t.imported.is_some() { ", imported" } else { "" }),
                ago(t.created_at),
                why,
            ]);
        }
        lines.to_string()
    })?;
    Ok(Exit::Done)
}

/// One run.
pub async fn run(app: App, command: RunCommand, out: &Out) -> Result<Exit, Failed> {
    match command {
        RunCommand::Start(args) => start(app, args, out).await,
        RunCommand::Show(args) => show(app, args, out).await,
        RunCommand::Events(args) => events(app, args, out).await,
        RunCommand::Resume(args) => resume(app, args, out).await,
        RunCommand::Continue(args) => go_on(app, args, out).await,
        RunCommand::Stream(args) => stream(app, args, out).await,
        RunCommand::State(args) => travel::state(app, args, out).await,
        RunCommand::History(args) => travel::history(app, args, out).await,
        RunCommand::Update(args) => travel::update(app, args, out).await,
        RunCommand::Fork(args) => travel::fork(app, args, out).await,
        RunCommand::Prune(args) => travel::prune(app, args, out).await,
        RunCommand::Undo { command } => undo(app, command, out).await,
        RunCommand::Signal(args) => travel::signal(app, args, out).await,
        RunCommand::Cancel(args) => cancel(app, args, out).await,
        RunCommand::Export(args) => export(app, args).await,
        RunCommand::Replay(args) => replay(app, args, out).await,
        RunCommand::Import(args) => import(app, &args.file, out).await,
    }
}

pub(super) fn read_named(file: &str, most: u64) -> Result<String, Failed> {
    read_text(Path::new(file), most).map_err(|e| {
        let unreadable = Failure::new("file_unreadable", format!("{file} cannot be read"));
        plain(unreadable.because(e.to_string()).hint(e.hint()))
    })
}

pub(super) fn parse(text: &str, what: &str) -> Result<Value, Failed> {
    let (source, text) = match text.strip_prefix('@') {
        None => (what.to_owned(), text.to_owned()),
        Some(file) => (file.to_owned(), read_named(file, MAX_ARGUMENT_BYTES)?),
    };
    json::read(&text).map_err(|e| {
        let (what, hint) = match e.classify() {
            Category::Data => ("cannot be read", "leave out what the cause names"),
            Category::Io | Category::Syntax | Category::Eof => ("is no JSON", "quote it for the shell, or use @FILE"),
        };
        plain(Failure::new("bad_json", format!("{source} {what}")).because(e.to_string()).hint(hint))
    })
}

pub(super) fn object(value: Value, what: &str) -> Result<Map<String, Value>, Failed> {
    match value {
        Value::Object(map) => Ok(map),
        other => Err(plain(Failure::new(
            "bad_json",
            format!("{what} must be a JSON object, not {}", crate::graph::kind(&other)),
        ))),
    }
}

async fn start(app: App, args: StartArgs, out: &Out) -> Result<Exit, Failed> {
    let input = object(parse(&args.input, "--input")?, "--input")?;
    let workflow = app.workflow(&args.workflow).map_err(plain)?;
    let graph = app.build(&workflow).map_err(plain)?;
    if args.strict {
        workflow.refuse_warnings(&graph).map_err(plain)?;
    }
    out.warn(&workflow.warnings(&graph));
    let id = args.thread.map(ThreadId::from);
    if let Some(id) = &id {
        thread_id(id)?;
    }
    let way = Way::new(app, &args.how, out);
    let there = match &id {
        Some(id) => way.app.store().thread(id).await.map_err(|e| plain(e.failure()))?,
        None => None,
    };
    let id = match there {
        Some(thread) => {
            way.app.input(&thread.id, &workflow, input).await.map_err(|f| (f, Some(thread.id.clone())))?;
            thread.id
        }
        None => way.app.accept(id, &workflow, input, std::collections::BTreeMap::new()).await.map_err(plain)?,
    };
    way.go(&id, Answers::Ask, out).await
}

/// Ids are words in commands, addresses and files' names.
fn thread_id(id: &ThreadId) -> Result<(), Failed> {
    let text = id.as_str();
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !text.is_empty() && text.len() <= 100 && text.chars().all(fits) {
        return Ok(());
    }
    let failure = Failure::new("bad_thread_id", format!("`{text}` cannot be the id of a run"));
    Err(plain(failure.hint("use up to 100 letters, digits, `-`, `_` and `.`")))
}

/// How a command takes a run on.
struct Way {
    app: Arc<App>,
    how: Advance,
    detach: bool,
    stream: Option<Arc<Stream>>,
}

impl Way {
    fn new(app: App, args: &HowArgs, out: &Out) -> Self {
        let stream = (!args.stream.is_empty()).then(|| Arc::new(Stream::new(args.stream.clone())));
        let app = match &stream {
            Some(stream) => app.with_sink(stream.clone()),
            None => app.with_sink(Arc::new(Live::new(out.is_json()))),
        };
        let how =
            Advance { recursion_limit: args.recursion_limit, durability: args.durability.into(), ..Advance::default() };
        Self { app: Arc::new(app), how, detach: args.detach, stream }
    }

    async fn go(self, id: &ThreadId, answers: Answers, out: &Out) -> Result<Exit, Failed> {
        let of = |failure: Failure| (failure, Some(id.clone()));
        if self.detach {
            self.app.leave(id).await.map_err(of)?;
            spawn_detached(self.app.home()).map_err(of)?;
            out.data_of(id, &json!({"thread": id}), || format!("{id}\nfollow it: tidegate run show {id}"))?;
            return Ok(Exit::Done);
        }
        let values = |state: &StateSnapshot| json!(state.values);
        if let Some(stream) = &self.stream {
            stream.stands(&values(&self.app.state(id, None).await.map_err(of)?));
        }
        let end = drive(&self.app, id, answers, self.how, out).await?;
        let thread = self.app.thread(id).await.map_err(of)?;
        if thread.labels.contains_key("model") {
            return deploy::finish(&self.app, id, end, out).await;
        }
        let Some(stream) = &self.stream else { return ended(&self.app, id, end, out).await };
        let questions = state_value(&self.app.state(id, None).await.map_err(of)?)["interrupts"].take();
        stream.asks(questions.as_array().map(Vec::as_slice).unwrap_or_default());
        Ok(match end {
            Drove::Succeeded => Exit::Done,
            Drove::Waiting(_) => Exit::Waiting,
            Drove::Ended(exit) => exit,
            Drove::Failed(failure, exit) => out.failed_as(&failure, Some(id), exit),
        })
    }
}

async fn resume(app: App, args: ResumeArgs, out: &Out) -> Result<Exit, Failed> {
    let id = app.find_thread(&args.thread).await.map_err(plain)?.id;
    let of = |failure: Failure| (failure, Some(id.clone()));
    let asked = app.store().interrupts(Some(&id), false).await.map_err(|e| of(e.failure()))?;
    let given = answers::given(&args, &asked).map_err(|failure| of(failure.0))?;
    let claims = app.claims(given, &prompt::user(), "run resume").await.map_err(of)?;
    // Before they are recorded: no runner must take the thread from here then.
    app.attend(&id).await.map_err(of)?;
    app.answer_all(claims).await.map_err(of)?;
    let answers = if args.yes { Answers::Yes } else { Answers::Ask };
    Way::new(app, &args.how, out).go(&id, answers, out).await
}

/// Goes on with a run as it stands (LangGraph's invoke without input).
async fn go_on(app: App, args: ContinueArgs, out: &Out) -> Result<Exit, Failed> {
    let id = app.find_thread(&args.thread).await.map_err(plain)?.id;
    app.attend(&id).await.map_err(|f| (f, Some(id.clone())))?;
    Way::new(app, &args.how, out).go(&id, Answers::Ask, out).await
}

/// The same, shown as it runs.
async fn stream(app: App, args: StreamArgs, out: &Out) -> Result<Exit, Failed> {
    let StreamArgs { thread, mode, recursion_limit, durability } = args;
    let how = HowArgs { recursion_limit, durability, detach: false, stream: mode };
    go_on(app, ContinueArgs { thread, how }, out).await
}

/// The end of a run that is no release: its state.
async fn ended(app: &App, id: &ThreadId, end: Drove, out: &Out) -> Result<Exit, Failed> {
    deploy::pick_up(app, out).await;
    match end {
        Drove::Ended(exit) => Ok(exit),
        Drove::Failed(failure, exit) => Ok(out.failed_as(&failure, Some(id), exit)),
        Drove::Waiting(open) if out.is_json() => deploy::waiting(id, &open, out),
        Drove::Waiting(_) | Drove::Succeeded => {
            let waits = matches!(end, Drove::Waiting(_));
            let state = app.state(id, None).await.map_err(|f| (f, Some(id.clone())))?;
            out.data_of(id, &state_value(&state), || state_text(&state))?;
            Ok(if waits { Exit::Waiting } else { Exit::Done })
        }
    }
}

async fn show(app: App, args: ThreadArg, out: &Out) -> Result<Exit, Failed> {
    let thread = app.find_thread(&args.thread).await.map_err(plain)?;
    let id = thread.id.clone();
    let snapshot = app.state(&id, None).await.map_err(|f| (f, Some(id.clone())))?;
    let events = app.store().events(&id, 0, usize::MAX).await.map_err(|e| plain(e.failure()))?;
    let path = app.path(&thread).await.map_err(|f| (f, Some(id.clone())))?;
    let row = app.ledger().get(id.as_str()).await.ok().flatten();
    let mut value = state_value(&snapshot);
    value["release"] = serde_json::to_value(&row).unwrap_or_default();
    value["created_at"] = json!(thread.created_at);
    value["path"] = json!(path);
    if let Some(imported) = &thread.imported {
        value["imported"] = json!(imported);
    }
    out.data(&value, || {
        let mut text = format!("thread    {id}\nworkflow  {}\nstatus    {}\n", thread.workflow, thread.status.word());
        if let Some(Imported { at, by }) = &thread.imported {
            text.push_str(&format!(
                "imported  by {by} {}: a record from elsewhere, which is not advanced here\n",
                ago(*at)
            ));
        }
        if let Some(row) = &row {
            let version = row.model_version.as_deref().unwrap_or("–");
            text.push_str(&format!("release   {} {version}: {}\n", row.model_name, row.status.as_str()));
        }
        if !snapshot.next.is_empty() && !thread.status.is_terminal() {
            text.push_str(&format!("next      {}\n", snapshot.next.join(", ")));
        }
        if let Some(failure) = &thread.failure {
            text.push_str(&format!("why       {}\n", failure.message));
            text.push_str(
                &failure
                    .cause
                    .as_ref()
                    .map(|c| format!("          {}\n", c.replace('\n', "\n          ")))
                    .unwrap_or_default(),
            );
        }
        for asked in &snapshot.interrupts {
            text.push_str(&format!("asks      {} in {}\n", asked.id, answers::place(asked)));
        }
        text.push_str(&checks(&snapshot));
        text.push_str(&format!("path\n{}\n", path_text(&path)));
        if let Some(reason) = snapshot.values.get("bake").and_then(|bake| bake["reason"].as_str()) {
            text.push_str(&format!("watched   {reason}\n"));
        }
        format!("{text}\n{}{}", timeline(&events, UnderWay::of(&thread, Utc::now())), verdicts(&events))
    })?;
    Ok(Exit::Done)
}

/// The checks of a release, with what was seen.
fn checks(state: &StateSnapshot) -> String {
    let Some(checks) = state.values.get("validated").and_then(|v| v["checks"].as_array()) else { return String::new() };
    let mut text = String::from("checks\n");
    for check in checks {
        let mark = if check["passed"] == true { "pass" } else { "FAIL" };
        let (name, detail) = (check["name"].as_str().unwrap_or_default(), check["detail"].as_str().unwrap_or_default());
        text.push_str(&format!("  {mark} {name}: {detail}\n"));
    }
    if let Some(bake) = state.values.get("bake") {
        let mark = if bake["passed"] == true { "pass" } else { "FAIL" };
        text.push_str(&format!("  {mark} bake: {}\n", bake["reason"].as_str().unwrap_or_default()));
    }
    text
}

async fn events(app: App, args: ThreadArg, out: &Out) -> Result<Exit, Failed> {
    let thread = app.find_thread(&args.thread).await.map_err(plain)?;
    let events = app.store().events(&thread.id, 0, usize::MAX).await.map_err(|e| plain(e.failure()))?;
    out.data(&events, || events.iter().map(event_line).collect::<Vec<_>>().join("\n"))?;
    Ok(Exit::Done)
}

pub(super) async fn cancel(app: App, args: CancelArgs, out: &Out) -> Result<Exit, Failed> {
    let thread = app.find_thread(&args.thread).await.map_err(plain)?;
    let id = thread.id;
    let app = app.with_sink(Arc::new(Live::new(out.is_json())));
    let reason = args.reason.map(|r| format!(": {r}")).unwrap_or_default();
    if let Some(owner) = thread.owner.as_ref().filter(|owner| app.is_alive(owner)) {
        out.note(&format!("{owner} advances it; asking it to let go …"));
    }
    let why = Failure::new("cancelled", format!("cancelled by {}{reason}", prompt::user()));
    let end = app.cancel(&id, !args.no_undo, why).await.map_err(|f| (f, Some(id.clone())))?;
    undone(&id, end, out)
}

async fn undo(app: App, command: UndoCommand, out: &Out) -> Result<Exit, Failed> {
    let (UndoCommand::Retry(ThreadArg { thread }) | UndoCommand::Accept(ThreadArg { thread })) = &command;
    let id = app.find_thread(thread).await.map_err(plain)?.id;
    let app = app.with_sink(Arc::new(Live::new(out.is_json())));
    let end = match command {
        UndoCommand::Retry(_) => app.retry_undo(&id).await,
        UndoCommand::Accept(_) => app.accept_undo(&id, &prompt::user()).await,
    };
    undone(&id, end.map_err(|f| (f, Some(id.clone())))?, out)
}

fn undone(id: &ThreadId, end: RunEnd, out: &Out) -> Result<Exit, Failed> {
    if end.status == ThreadStatus::Stuck {
        let failure = end.failure.unwrap_or_else(|| Failure::new("stuck", "an undo failed"));
        return Ok(out.failed_as(&failure, Some(id), Exit::Stuck));
    }
    out.data_of(id, &json!({"thread": id, "status": end.status}), || format!("{id} is {}", end.status.word()))?;
    Ok(Exit::Done)
}

async fn export(app: App, args: ThreadArg) -> Result<Exit, Failed> {
    let thread = app.find_thread(&args.thread).await.map_err(plain)?;
    let export = app.export(&thread.id).await.map_err(|f| (f, Some(thread.id)))?;
    // An export is JSON whoever reads it.
    Out::new(true).data(&export, String::new)?;
    Ok(Exit::Done)
}

/// Brings a record from elsewhere.
async fn import(app: App, file: &str, out: &Out) -> Result<Exit, Failed> {
    let export = {
        let text = read_named(file, MAX_EXPORT_BYTES)?;
        Export::read(&text).map_err(plain)?
    };
    let (id, events) = (export.thread.id.clone(), export.events.len());
    let (status, steps) = (export.thread.status, export.checkpoints.len());
    app.import(export, &prompt::user()).await.map_err(plain)?;
    out.data_of(&id, &json!({"thread": id, "imported": true, "status": status, "checkpoints": steps, "events": events}), || {
        format!("{id}: a record of {steps} checkpoints and {events} events of a run that was {}\nlook at it: tidegate run show {id}", status.word())
    })?;
    Ok(Exit::Done)
}

async fn replay(app: App, args: ReplayArgs, out: &Out) -> Result<Exit, Failed> {
    let path = Path::new(&args.thread);
    // No thread and no model is called like that, so a mistake in a path is told as one.
    let names_a_file = args.thread.contains('/') || path.extension().is_some_and(|e| e == "json");
    let export = if names_a_file || path.is_file() {
        let text = read_named(&args.thread, MAX_EXPORT_BYTES)?;
        serde_json::from_str::<Export>(&text).map_err(|e| {
            plain(Failure::new("export_damaged", format!("{} is no export", args.thread)).because(e.to_string()))
        })?
    } else {
        let thread = app.find_thread(&args.thread).await.map_err(plain)?;
        app.export(&thread.id).await.map_err(plain)?
    };
    let id = export.thread.id.clone();
    let end = app.replay(&export, args.workflow.as_deref()).await.map_err(|f| (f, Some(id.clone())))?;
    let steps = export.checkpoints.len();
    out.data(&json!({"thread": id, "replayed": true, "status": export.thread.status, "checkpoints": steps}), || {
        format!("{id}: {steps} checkpoints came out as recorded; it ended {}", end.status.word())
    })?;
    Ok(Exit::Done)
}
