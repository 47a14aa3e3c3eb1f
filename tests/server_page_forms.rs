//! The page's answers without a browser: what guards its forms, what is escaped, what is refused.

mod page_support;
mod server_support;

use page_support::{Answer, api, request};
use serde_json::{Value, json};
use server_support::Serve;

/// A thread that stands at its question, and the path of the question's page.
fn asked(server: &Serve, input: Value) -> (String, String) {
    let thread =
        api("POST", &format!("{}/threads", server.url), Some(json!({}))).1["thread_id"].as_str().unwrap().to_owned();
    asked_in(server, &thread, input)
}

fn asked_in(server: &Serve, thread: &str, input: Value) -> (String, String) {
    let body = json!({"assistant_id": "approval", "input": input});
    let values = api("POST", &format!("{}/threads/{thread}/runs/wait", server.url), Some(body)).1;
    let question = values["__interrupt__"][0]["id"].as_str().unwrap_or_else(|| panic!("{values}")).to_owned();
    (thread.to_owned(), format!("/ui/approvals/{question}"))
}

fn get(server: &Serve, path: &str) -> Answer {
    request("GET", &format!("{}{path}", server.url), &[], None)
}

fn post(server: &Serve, path: &str, headers: &[(&str, &str)], form: &[(&str, &str)]) -> Answer {
    request("POST", &format!("{}{path}", server.url), headers, Some(form))
}

#[test]
fn a_form_counts_only_where_it_was_shown() {
    let server = Serve::start();
    let (thread, path) = asked(&server, json!({}));
    let (_, other) = asked(&server, json!({}));
    let shown = get(&server, &path);
    let (token, digest, cookie) = (shown.field("token"), shown.field("digest"), shown.cookie());
    assert!(shown.header("set-cookie").contains("SameSite=Strict"), "{}", shown.header("set-cookie"));
    let form = [("digest", digest.as_str()), ("answer", "\"yes\""), ("token", token.as_str())];
    let with = |cookie: &str, form: &[(&str, &str)]| post(&server, &path, &[("cookie", cookie)], form);
    let foreign = get(&server, &path).cookie();
    let other_form = get(&server, &other).field("token");
    for (what, answer) in [
        ("no token", with(&cookie, &form[..2])),
        ("no cookie", post(&server, &path, &[], &form)),
        ("another browser's cookie", with(&foreign, &form)),
        ("another form's token", with(&cookie, &[form[0], form[1], ("token", other_form.as_str())])),
        ("another question", post(&server, &other, &[("cookie", &cookie)], &form)),
        ("another page", post(&server, &path, &[("cookie", &cookie), ("origin", "http://127.0.0.1:1")], &form)),
        ("another site", post(&server, &path, &[("cookie", &cookie), ("sec-fetch-site", "cross-site")], &form)),
        ("another port", post(&server, &path, &[("cookie", &cookie), ("sec-fetch-site", "same-site")], &form)),
    ] {
        assert_eq!(answer.status, 403, "{what}: {}", answer.body);
        assert!(answer.body.contains("nothing was done"), "{what}: {}", answer.body);
    }
    let still = api("GET", &format!("{}/threads/{thread}", server.url), None).1;
    assert_eq!(still["status"], "interrupted");
    let here = [("cookie", cookie.as_str()), ("origin", server.url.as_str()), ("sec-fetch-site", "same-origin")];
    let done = post(&server, &path, &here, &form);
    assert_eq!((done.status, done.header("location")), (303, path.as_str()), "{}", done.body);
    // Once.
    let again = post(&server, &path, &here, &form);
    assert!(again.status == 409 && again.body.contains("answered by"), "{}", again.body);
    // What is asked in the same thread later is another question.
    let rests = || api("GET", &format!("{}/threads/{thread}", server.url), None).1["status"] == "idle";
    let began = std::time::Instant::now();
    while !rests() {
        assert!(began.elapsed() < page_support::WITHIN, "it goes on");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let (_, later) = asked_in(&server, &thread, json!({}));
    assert_ne!(later, path);
    let shown = request("GET", &format!("{}{later}", server.url), &[("cookie", &cookie)], None);
    let (token, digest) = (shown.field("token"), shown.field("digest"));
    let form = [("digest", digest.as_str()), ("answer", "\"no\""), ("token", token.as_str())];
    assert_eq!(post(&server, &later, &here, &form).status, 303);
    let question = later.replace("/ui", "");
    assert_eq!(api("GET", &format!("{}{question}", server.url), None).1["answer"]["value"], "no");
}

#[test]
fn a_form_does_not_outlive_its_server() {
    let mut server = Serve::start();
    let (_, path) = asked(&server, json!({}));
    let shown = get(&server, &path);
    let (token, digest, cookie) = (shown.field("token"), shown.field("digest"), shown.cookie());
    server.kill();
    let server = Serve::start_in(server.home.clone(), &server_support::workflows(), "127.0.0.1:0");
    let form = [("digest", digest.as_str()), ("answer", "1"), ("token", token.as_str())];
    let refused = post(&server, &path, &[("cookie", &cookie)], &form);
    assert_eq!(refused.status, 403, "{}", refused.body);
    let fresh = request("GET", &format!("{}{path}", server.url), &[("cookie", &cookie)], None).field("token");
    let form = [("digest", digest.as_str()), ("answer", "1"), ("token", fresh.as_str())];
    assert_eq!(post(&server, &path, &[("cookie", &cookie)], &form).status, 303);
}

#[test]
fn what_people_write_is_text() {
    let server = Serve::start();
    let odd = "</pre><script>alert(1)</script>\" onload=\"x & \u{202e}\u{0}模型 🌊";
    let (thread, path) = asked(&server, json!({"model": odd}));
    for page in [path.as_str(), "/ui/approvals", "/ui/runs", "/ui/", &format!("/ui/runs/{thread}")] {
        let shown = get(&server, page);
        assert_eq!(shown.status, 200, "{page}: {}", shown.body);
        assert!(
            !shown.body.contains("<script>alert") && !shown.body.contains("\" onload=\""),
            "{page}: {}",
            shown.body
        );
    }
    assert!(get(&server, &path).body.contains("模型 🌊"));
    // What stands in a path too.
    for (page, status) in [
        ("/ui/models/%3Cscript%3Ealert(1)%3C%2Fscript%3E", 404),
        ("/ui/models/%E6%A8%A1%E5%9E%8B%20%F0%9F%8C%8A/rollback", 404),
        ("/ui/runs/%3Cscript%3Ealert(1)%3C%2Fscript%3E", 404),
        ("/ui/approvals/%3Cscript%3Ealert(1)%3C%2Fscript%3E", 404),
        ("/ui/runs/01a00000-0000-7000-8000-000000000000", 404),
        ("/ui/runs/01a00000-0000-7000-8000-000000000000/live", 404),
        ("/ui/models/%ff", 400),
        ("/ui/assets/page.css", 404),
        ("/ui/nothing", 404),
    ] {
        let told = get(&server, page);
        assert_eq!(told.status, status, "{page}: {}", told.body);
        assert!(told.header("content-type").starts_with("text/html"), "{page}: {:?}", told.headers);
        assert!(!told.body.contains("<script>alert") && told.body.contains("role=\"alert\""), "{page}: {}", told.body);
    }
}

#[test]
fn what_is_too_long_or_no_answer_is_refused_and_nothing_is_recorded() {
    let server = Serve::start();
    let (thread, path) = asked(&server, json!({}));
    let shown = get(&server, &path);
    let (token, digest, cookie) = (shown.field("token"), shown.field("digest"), shown.cookie());
    let send = |digest: &str, answer: &str| {
        let form = [("digest", digest), ("answer", answer), ("token", token.as_str())];
        post(&server, &path, &[("cookie", &cookie)], &form)
    };
    let long = format!("\"{}\"", "x".repeat(70_000));
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    for (what, answer, status) in [
        ("nothing", send(&digest, "  "), 422),
        ("no JSON", send(&digest, "yes"), 422),
        ("too long", send(&digest, &long), 422),
        ("too deep", send(&digest, &deep), 422),
        ("another question's digest", send("sha256:0", "1"), 409),
        ("more than any body may have", send(&digest, &"y".repeat(5 << 20)), 413),
    ] {
        assert_eq!(answer.status, status, "{what}: {}", &answer.body[..answer.body.len().min(2_000)]);
        assert!(answer.body.contains("role=\"alert\""), "{what}");
    }
    let still = api("GET", &format!("{}/threads/{thread}", server.url), None).1;
    assert_eq!(still["status"], "interrupted");
    // A form that is no form.
    let body = request("POST", &format!("{}{path}", server.url), &[("content-type", "application/json")], None);
    assert_eq!(body.status, 403);
}

#[test]
fn every_answer_has_its_guards_and_nothing_is_inline() {
    let server = Serve::start();
    let (thread, path) = asked(&server, json!({}));
    let home = request("GET", &format!("{}/", server.url), &[], None);
    assert_eq!((home.status, home.header("location")), (303, "/ui/"));
    let run = format!("/ui/runs/{thread}");
    for page in ["/ui/", "/ui/runs", &run, "/ui/approvals", &path, "/ui/nothing"] {
        let shown = get(&server, page);
        let policy = shown.header("content-security-policy");
        assert!(policy.contains("default-src 'self'") && !policy.contains("unsafe"), "{page}: {policy}");
        assert_eq!(shown.header("x-frame-options"), "DENY", "{page}");
        assert_eq!(shown.header("cache-control"), "no-store", "{page}");
        assert_eq!(shown.header("x-content-type-options"), "nosniff", "{page}");
        for inline in ["<style", " style=", "<script>", " onclick", "javascript:", "http://", "https://"] {
            let links = shown.body.replace("http://www.w3.org/2000/svg", "");
            assert!(!links.contains(inline), "{page} has {inline}");
        }
        let assets = shown.body.split('"').filter(|part| part.starts_with("/ui/assets/")).collect::<Vec<_>>();
        assert!(assets.len() >= 2, "{page}");
        for asset in assets {
            let file = get(&server, asset);
            assert_eq!(file.status, 200, "{asset}");
            assert!(file.header("cache-control").contains("immutable"), "{asset}");
        }
    }
    // The API's document is the API's, and its refusals are JSON.
    let document = api("GET", &format!("{}/openapi.json", server.url), None).1;
    assert!(document["paths"].as_object().unwrap().keys().all(|path| !path.starts_with("/ui")), "{document}");
    assert_eq!(api("GET", &format!("{}/nothing", server.url), None), (404, json!({"detail": "Not Found"})));
}
