//! The user's own figures decide releases: asked of a real Prometheus that scrapes the gateway, and of programs.

mod release_support;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use release_support::{Home, Load, Project, version, web};
use serde_json::{Value, json};

/// A Prometheus that scrapes a home's gateway every second; ended with the home that it has its folder in.
struct Prometheus {
    child: Child,
    url: String,
}

impl Prometheus {
    fn start(home: &Home, output: &Value) -> Self {
        let gateway = output["endpoint_url"].as_str().unwrap().trim_start_matches("http://");
        let gateway = gateway.split('/').next().unwrap();
        let config = home.beside("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 1s }}\nscrape_configs:\n  - job_name: gateway\n    metrics_path: /-/metrics\n    \
             static_configs: [{{ targets: ['{gateway}'] }}]\n"
        );
        std::fs::write(&config, text).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", home.beside("prometheus").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Prometheus is installed (scripts/test does that)");
        let prometheus = Self { child, url: format!("http://127.0.0.1:{port}") };
        home.until("Prometheus has scraped the gateway", || {
            let query = format!("{}/api/v1/query?query=sum(tidegate_requests_total)", prometheus.url);
            let (_, body) = web::get(&query).ok()?;
            let body: Value = serde_json::from_str(&body).ok()?;
            body["data"]["result"][0]["value"][1].as_str()?.parse::<f64>().ok().filter(|requests| *requests > 0.0)
        });
        prometheus
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Judged by errors alone, and by these metrics.
fn judged(project: Project, metrics: &str) -> Project {
    let rule = "bake: 1s\ncanary: { analysis: { window_ms: 4000, min_requests: 20, checks: [{ error_ratio: {} }] } }";
    project.change("tidegate.yaml", "bake: 1s", rule).with(metrics)
}

#[test]
fn prometheus_says_whether_a_canary_goes_on() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one"));
    let load = Load::on(&one);
    let prometheus = Prometheus::start(&home, &one);
    let metric = |condition: &str| {
        format!(
            "metrics:\n  - name: busy\n    interval: 1s\n    {condition}\n    prometheus: {{ url: '{}', query: \
             'sum(tidegate_requests_total{{version=\"{{{{version}}}}\"}}) or vector(0)' }}\n",
            prometheus.url
        )
    };
    // The judge has nothing against it: the figure alone stops it.
    let bad = judged(home.hello("busy"), &metric("failure_condition: result > 20.0"));
    let ran = home.run(&["deploy", bad.arg(), "--yes", "--json", "--steps", "30%,10m"]);
    let error = ran.error();
    assert_eq!((ran.code, &error["code"]), (Some(1), &"canary_failed".into()), "{ran:?}");
    assert!(error["message"].as_str().unwrap().contains("busy: 1 measurement(s) failed, allowed 0"), "{error}");
    assert_eq!(version(&one), "one");
    let shown = home.ok(&["run", "show", "hello"]).stdout;
    assert!(shown.contains("verdict on the canary") && shown.contains("metric busy: 1 measurement(s)"), "{shown}");

    let good = judged(home.hello("two"), &metric("success_condition: result >= 0.0"));
    let two = home.json(&["deploy", good.arg(), "--yes", "--steps", "30%,4s"]);
    assert_eq!(version(&two), "two");
    load.end().assert_unharmed();
    let shown = home.ok(&["run", "show", "hello"]).stdout;
    let whole = ["verdict on the canary", "verdict on the bake", "metric busy:", "measurements were good"];
    assert!(whole.iter().all(|part| shown.contains(part)), "{shown}");
}

/// Kayenta's rule on the values of a query, asked for both versions each time: at 30 % the canary gets fewer requests, which is bad or is not.
#[test]
fn kayenta_compares_what_prometheus_says_of_both_versions() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one"));
    let load = Load::on(&one);
    let prometheus = Prometheus::start(&home, &one);
    let compared = |version: &str, direction: &str| {
        let kayenta = format!(
            "{{ min_points: 10, metrics: [{{ name: share, own: true, direction: {direction}, critical: true }}] }}"
        );
        let rule = format!(
            "bake: 1s\ncanary: {{ analysis: {{ window_ms: 8000, min_requests: 20, checks: [{{ kayenta: {kayenta} }}] }} }}"
        );
        let metric = format!(
            "metrics:\n  - name: share\n    compare: true\n    interval: 300ms\n    consecutive_error_limit: 100\n    \
             prometheus: {{ url: '{}', query: 'sum(increase(tidegate_requests_total{{version=\"{{{{version}}}}\"}}[4s]))' }}\n",
            prometheus.url
        );
        home.hello(version).change("tidegate.yaml", "bake: 1s", &rule).with(&metric)
    };
    let ran = home.run(&["deploy", compared("fewer", "decrease").arg(), "--yes", "--json", "--steps", "30%,10m"]);
    let error = ran.error();
    assert_eq!((ran.code, &error["code"]), (Some(1), &"canary_failed".into()), "{ran:?}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("a critical metric failed: share is lower"), "{message}");
    assert_eq!(version(&one), "one");

    let two = home.json(&["deploy", compared("two", "increase").arg(), "--yes", "--steps", "30%,10s"]);
    assert_eq!(version(&two), "two");
    load.end().assert_unharmed();
    let shown = home.ok(&["run", "show", "hello"]).stdout;
    assert!(shown.contains("verdict on the canary") && shown.contains("metric share: "), "{shown}");
}

/// A metric whose value a program makes of what it is told on standard input.
fn program(name: &str, code: &str, more: &str) -> String {
    format!(
        "  - {{ name: {name}, command: [python3, -c, 'import json, sys; t = json.load(sys.stdin); {code}'], {more} }}\n"
    )
}

#[test]
fn a_program_measures_in_the_slot_and_while_users_see_the_version() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one"));
    let told = "print(json.dumps(t))";
    let drift = "print(json.dumps({\"psi\": 0.4}))";
    let in_slot = |more: &str| format!("during: [validation], {more}");
    let metrics = ["metrics:\n".to_owned()]
        .into_iter()
        .chain([
            program(
                "told",
                told,
                &in_slot("success_condition: result.model == \"hello\" && result.live_version != \"\""),
            ),
            program("address", told, &in_slot("success_condition: result.endpoint.startsWith(\"http://127.0.0.1\")")),
            program("noted", drift, &in_slot("dry_run: true, failure_condition: result.psi > 0.2")),
            program("drift", drift, &in_slot("failure_condition: result.psi > 0.2")),
        ])
        .collect::<String>();
    let refused = home.run(&["deploy", home.hello("two").with(&metrics).arg(), "--yes", "--json"]);
    let error = refused.error();
    assert_eq!(error["code"], "validation_failed", "{refused:?}");
    let cause = error["cause"].as_str().unwrap();
    assert!(cause.starts_with("metric:drift: drift: 1 measurement(s) failed"), "{cause}");
    assert!(cause.lines().count() == 1, "only that one fails: {cause}");

    // Good for two looks, then bad: after all of the traffic had moved.
    let count = home.beside("count");
    let code = format!(
        "n = len(open(\"{0}\").read()) if __import__(\"os\").path.exists(\"{0}\") else 0; open(\"{0}\", \"a\").write(\"x\"); print(n)",
        count.display()
    );
    let metrics = format!("metrics:\n{}", program("wear", &code, "interval: 300ms, success_condition: result < 2"));
    let project = home.hello("two").bake("60s").with(&metrics);
    let failed = home.run(&["deploy", project.arg(), "--yes", "--json"]);
    let error = failed.error();
    assert_eq!(error["code"], "bake_failed", "{failed:?}");
    assert!(error["message"].as_str().unwrap().contains("wear: 1 measurement(s) failed"), "{error}");
    assert_eq!(version(&one), "one");
    assert_eq!(home.slots().len(), 1);

    // What cannot be measured is no pass.
    let metrics = format!(
        "metrics:\n{}",
        program("lost", "sys.exit(3)", "consecutive_error_limit: 0, success_condition: result < 2")
    );
    let failed = home.run(&["deploy", home.hello("two").with(&metrics).arg(), "--yes", "--json"]);
    let error = failed.error();
    assert_eq!(error["code"], "bake_failed", "{failed:?}");
    assert!(error["message"].as_str().unwrap().contains("lost: 1 errors in a row"), "{error}");
    assert_eq!(version(&one), "one");
}

#[test]
fn a_metric_that_makes_no_sense_is_refused_before_anything_is_built() {
    let home = Home::new();
    for (metric, part) in [
        (program("m", "print(1)", "success_condition: resutl < 1"), "no `resutl`"),
        (program("m", "print(1)", "success_condition: result <"), "metrics.m"),
        (program("m", "print(\"{{verison}}\")", "success_condition: result < 1"), "`{{verison}}` is not known"),
        (program("m", "print(1)", "interval: 1s"), "dry_run"),
        ("  - { name: m, success_condition: result < 1 }\n".to_owned(), "exactly one"),
    ] {
        let project = home.hello("one").with(&format!("metrics:\n{metric}"));
        for command in [["plan", project.arg(), "--json"].as_slice(), &["deploy", project.arg(), "--yes", "--json"]] {
            let error = home.run(command).error();
            assert_eq!(error["code"], "metric_invalid", "{error}");
            assert!(error["message"].as_str().unwrap().contains(part), "{error}");
        }
    }
    assert!(home.builds().is_empty());
}

#[test]
fn requirements_are_measured_by_a_short_load_that_later_plans_size_replicas_by() {
    let home = Home::new();
    let asks = |project: Project, serving: &str| project.with(&format!("serving: {serving}"));
    let too_much = asks(home.hello("one"), "{ throughput: 100000 rps, latency_p99: 0.01ms, availability: 99% }");
    let refused = home.run(&["deploy", too_much.arg(), "--yes", "--json"]);
    let error = refused.error();
    assert_eq!(error["code"], "validation_failed", "{refused:?}");
    let cause = error["cause"].as_str().unwrap();
    assert!(cause.contains("latency_p99: ") && cause.contains("at 100000 requests/s"), "{cause}");
    assert!(cause.contains("throughput: ") && cause.contains("1 of 1 replica(s) measured"), "{cause}");

    let enough = asks(home.hello("one"), "{ throughput: 5 rps, latency_p99: 5s, availability: 99% }");
    let one = home.deploy(&enough);
    let figures = &one["metrics_baseline"];
    assert_eq!(figures["availability"], 1.0, "{figures}");
    let replica = figures["throughput_rps"].as_f64().unwrap();
    assert!(replica >= 5.0 && figures["latency_p99_ms"].as_f64().unwrap() > 0.0, "{figures}");

    let more = asks(home.hello("two"), &format!("{{ throughput: {} rps }}", replica.mul_add(1.2, 1.0)));
    let plan = home.json(&["plan", more.arg()]);
    assert_eq!(plan["replicas"], 2, "{plan}");
    // What the version takes that serves counts for each of them.
    let memory = plan["memory_mb"].as_u64().unwrap();
    assert!(memory >= 2 * 64 && memory.is_multiple_of(32), "{plan}");
    let because = plan["reasons"].as_array().unwrap().iter().find(|reason| reason["rule"] == "memory").unwrap();
    assert!(because["because"].as_str().unwrap().contains("what a replica takes now"), "{because}");

    // In the one replica that was asked for there is a second worker, where there is a processor for it.
    let dense = more.change("tidegate.yaml", "bake: 1s", "bake: 1s\nreplicas: 1");
    let plan = home.json(&["plan", dense.arg()]);
    let workers = if std::thread::available_parallelism().unwrap().get() > 1 { json!(2) } else { Value::Null };
    assert_eq!((&plan["replicas"], &plan["workers"]), (&json!(1), &workers), "{plan}");
}
