//! A client for single calls.

use std::time::Duration;

use serde_json::Value;

/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Posts JSON; status and body, or why there was no answer.
pub fn post(url: &str, body: &Value) -> Result<(u16, String), String> {
    post_with(url, body, &[])
}

/// Posts JSON with further headers.
pub fn post_with(url: &str, body: &Value, headers: &[(&str, &str)]) -> Result<(u16, String), String> {
    block_on(async {
        let call = headers.iter().fold(client().post(url).json(body), |call, (name, value)| call.header(*name, *value));
        let answer = call.send().await.map_err(|e| format!("{e:?}"))?;
        let status = answer.status().as_u16();
        Ok((status, answer.text().await.map_err(|e| format!("{e:?}"))?))
    })
}

/// Gets; status and body, or why there was no answer.
pub fn get(url: &str) -> Result<(u16, String), String> {
    block_on(async {
        let answer = client().get(url).send().await.map_err(|e| format!("{e:?}"))?;
        let status = answer.status().as_u16();
        Ok((status, answer.text().await.map_err(|e| format!("{e:?}"))?))
    })
}

/// A client that goes through no proxy.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().unwrap()
}

/// Runs a future on a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
