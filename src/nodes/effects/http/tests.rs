use std::sync::Mutex;

use super::*;
use crate::graph::ThreadId;
use crate::ports::PortError;

struct Scripted {
    says: Result<HttpAnswer, PortError>,
    made: Mutex<Vec<(HttpCall, Option<String>)>>,
}

#[async_trait]
impl HttpCaller for Scripted {
    async fn call(&self, call: &HttpCall, key: Option<&str>) -> Result<HttpAnswer, PortError> {
        self.made.lock().unwrap().push((call.clone(), key.map(str::to_owned)));
        self.says.clone()
    }
}

/// Knows names only.
struct NamesOnly;

impl Expressions for NamesOnly {
    fn check(&self, _source: &str, _names: &[&str]) -> Result<(), PortError> {
        Ok(())
    }

    fn value(&self, source: &str, names: &Map<String, Value>) -> Result<Value, PortError> {
        names.get(source).cloned().ok_or_else(|| PortError::new("expression_failed", source))
    }
}

fn world(says: Result<HttpAnswer, PortError>) -> (HttpWorld, Arc<Scripted>) {
    let caller = Arc::new(Scripted { says, made: Mutex::new(Vec::new()) });
    (HttpWorld { caller: caller.clone(), expressions: Arc::new(NamesOnly) }, caller)
}

fn answer(status: u16) -> HttpAnswer {
    HttpAnswer { status, body: json!({"id": 7}), ..HttpAnswer::default() }
}

fn later(method: HttpMethod, absent: Option<Statuses>) -> LaterCall {
    let (url, body) = (None, (method == HttpMethod::Post).then(|| "answer".to_owned()));
    LaterCall { method, url, url_expr: Some("where".into()), query: None, body, expect: Statuses::success(), absent }
}

fn effect(repeat: bool, probe: bool, undo: bool) -> SendHttp {
    let headers =
        BTreeMap::from([("x-a".to_owned(), "1".to_owned()), ("Content-Type".to_owned(), "text/x".to_owned())]);
    SendHttp {
        call: HttpCall { method: HttpMethod::Post, url: "http://h/orders".into(), headers, ..HttpCall::default() },
        expect: Statuses::success(),
        repeat,
        probe: probe.then(|| later(HttpMethod::Get, Some(Statuses::of(&["404"])))),
        undo: undo.then(|| later(HttpMethod::Post, None)),
        seen: Map::from_iter([("where".to_owned(), json!("http://h/there"))]),
    }
}

fn cx(undoing: bool, failed: Option<&str>) -> EffectCx {
    EffectCx {
        token: "c0ffee".into(),
        thread: ThreadId::from("t"),
        epoch: 1,
        reason: undoing.then(|| Failure::new("later", "a later node failed")),
        failed: failed.map(|code| Failure::new(code, "it failed")),
        progress: Arc::new(|_| {}),
    }
}

#[tokio::test]
async fn an_answer_is_judged_by_its_status() {
    for (status, code, retryable) in [
        (201, None, false),
        (302, Some("http_refused"), false),
        (404, Some("http_refused"), false),
        (429, Some("http_refused"), true),
        (503, Some("http_refused"), true),
        (500, Some("http_server_error"), true),
    ] {
        let (world, caller) = world(Ok(answer(status)));
        let done = effect(true, false, false).perform(&world, &cx(false, None)).await;
        assert_eq!(
            done.as_ref().err().map(|f| (f.code.as_str(), f.retryable)),
            code.map(|c| (c, retryable)),
            "{done:?}"
        );
        assert_eq!(caller.made.lock().unwrap()[0].1.as_deref(), Some("c0ffee"));
        let careful = effect(false, false, false).perform(&world, &cx(false, None)).await;
        assert_eq!(careful.err().map(|f| f.retryable), code.map(|c| retryable && c == "http_refused"));
    }
}

#[tokio::test]
async fn who_was_refused_may_try_again_and_who_was_not_heard_of_may_not() {
    let (world, caller) = world(Ok(answer(200)));
    for code in ["http_refused", "http_unreachable", "secret_missing"] {
        let probe = effect(false, false, true).probe(&world, &cx(true, Some(code))).await.unwrap();
        assert_eq!(probe, Probe::NotDone, "{code}");
    }
    for failed in [None, Some("http_broken"), Some("http_server_error")] {
        let probe = async |repeat, undo, undoing| {
            effect(repeat, false, undo).probe(&world, &cx(undoing, failed)).await.unwrap()
        };
        assert_eq!(probe(true, false, false).await, Probe::NotDone);
        assert!(matches!(probe(false, true, false).await, Probe::Unknown(_)));
        assert_eq!(probe(false, false, true).await, Probe::NotDone);
        assert_eq!(probe(false, true, true).await, Probe::Done(HttpAnswer::default()));
    }
    assert!(caller.made.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_probe_is_a_request_of_its_own() {
    for (status, expected) in [
        (200, Probe::Done(answer(200))),
        (404, Probe::NotDone),
        (500, Probe::Unknown("its probe was answered with 500".into())),
    ] {
        let (world, caller) = world(Ok(answer(status)));
        assert_eq!(effect(false, true, false).probe(&world, &cx(false, None)).await.unwrap(), expected);
        let made = caller.made.lock().unwrap();
        assert_eq!((made[0].0.url.as_str(), made[0].0.method, &made[0].1), ("http://h/there", HttpMethod::Get, &None));
        assert_eq!(made[0].0.headers.keys().collect::<Vec<_>>(), ["x-a"]);
    }
}

#[tokio::test]
async fn an_undo_sees_the_answer() {
    let (there, caller) = world(Ok(answer(200)));
    effect(false, false, true).undo(&there, &answer(201), &cx(true, None)).await.unwrap();
    let made = caller.made.lock().unwrap().remove(0);
    assert_eq!(made.0.body, Some(json!({"status": 201, "body": {"id": 7}})));
    assert_eq!(made.1.as_deref(), Some("c0ffee-undo"));
    effect(false, false, true).undo(&there, &HttpAnswer::default(), &cx(true, None)).await.unwrap();
    assert_eq!(caller.made.lock().unwrap()[0].0.body, Some(Value::Null), "nobody saw an answer");
    let (gone, _) = world(Ok(answer(500)));
    let failure = effect(false, false, true).undo(&gone, &answer(201), &cx(true, None)).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("http_server_error", true));
}
