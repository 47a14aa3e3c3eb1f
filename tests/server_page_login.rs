//! The page where keys are required: a login, what each role sees, a key that is revoked meanwhile.

mod page_support;
mod server_support;

use std::sync::Arc;

use page_support::{Browser, ENTER, request};
use serde_json::{Value, json};
use server_support::{Serve, tidegate, workflows};

fn key(server: &Serve, holder: &str, roles: &[&str]) -> Value {
    let mut command = tidegate(server.home.path());
    command.args(["--json", "keys", "create", holder]);
    for role in roles {
        command.args(["--role", role]);
    }
    serde_json::from_slice(&command.output().unwrap().stdout).unwrap()
}

/// A question of a workflow, asked by whoever has the key.
fn asked(server: &Serve, key: &str) -> String {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let body = json!({"assistant_id": "approval", "input": {"model": "iris"}, "on_completion": "keep"});
    let values: Value = runtime.block_on(async {
        let post =
            reqwest::Client::new().post(format!("{}/runs/wait", server.url)).header("x-api-key", key).json(&body);
        post.send().await.unwrap().json().await.unwrap()
    });
    values["__interrupt__"][0]["id"].as_str().unwrap_or_else(|| panic!("{values}")).to_owned()
}

#[test]
fn a_login_shows_what_its_key_may() {
    let home = Arc::new(tempfile::Builder::new().prefix("tidegate-login-").tempdir().unwrap());
    let first =
        tidegate(home.path()).args(["--json", "keys", "create", "agent", "--role", "deployer"]).output().unwrap();
    let agent: Value = serde_json::from_slice(&first.stdout).unwrap();
    let server = Serve::start_in(home, &workflows(), "127.0.0.1:0");
    let question = asked(&server, agent["key"].as_str().unwrap());
    let path = format!("/ui/approvals/{question}");
    let (viewer, ann) = (key(&server, "vera", &["viewer"]), key(&server, "ann", &["approver"]));

    // Nobody is shown anything; after the login one is where one wanted to go.
    let refused = request("GET", &format!("{}{path}", server.url), &[], None);
    assert!(refused.status == 303 && refused.header("location").starts_with("/ui/login?to="), "{}", refused.status);
    let browser = Browser::start(&server.url);
    browser.open(&path);
    browser.until("the login", || browser.has("#key").then_some(()));
    browser.write("#key", "tgk_none_none");
    browser.click("#log-in");
    browser.says(".note", "does not count");
    browser.write("#key", ann["key"].as_str().unwrap());
    browser.press(ENTER);
    browser.until("the question", || (browser.path() == path).then_some(()));
    browser.says(".who", "ann");
    browser.write("#answer", "\"yes\"");
    browser.click("#send");
    browser.says("#outcome", "answered by ann");

    // Who only looks has no form, and one that was made up is refused.
    let second = asked(&server, agent["key"].as_str().unwrap());
    browser.click(".leave button");
    browser.until("the login again", || browser.has("#key").then_some(()));
    browser.write("#key", viewer["key"].as_str().unwrap());
    browser.press(ENTER);
    browser.until("the models", || (browser.path() == "/ui/").then_some(()));
    browser.open(&format!("/ui/approvals/{second}"));
    browser.says("#decide", "not decide it");
    // A key that was revoked counts no more, for whoever is logged in too.
    let revoked =
        tidegate(server.home.path()).args(["keys", "revoke", viewer["id"].as_str().unwrap()]).status().unwrap();
    assert!(revoked.success());
    browser.until("the login is over", || {
        browser.open("/ui/runs");
        browser.has("#key").then_some(())
    });

    // A form that another page sends logs nobody in.
    let form = [("key", ann["key"].as_str().unwrap())];
    let elsewhere = [("origin", "http://127.0.0.1:1"), ("sec-fetch-site", "cross-site")];
    let forged = request("POST", &format!("{}/ui/login", server.url), &elsewhere, Some(&form));
    assert!(forged.status == 403 && forged.header("set-cookie").is_empty(), "{}", forged.status);
    // The API knows no cookies: nothing but the page's forms is sent by a browser by itself.
    let login = request("POST", &format!("{}/ui/login", server.url), &[], Some(&form));
    let cookie = login.cookie();
    assert_eq!(request("GET", &format!("{}/approvals", server.url), &[("cookie", &cookie)], None).status, 401);
    assert_eq!(request("GET", &format!("{}/ui/runs", server.url), &[("cookie", &cookie)], None).status, 200);
}
