//! The alerts and the dashboard of a release: Prometheus' own tool takes the rules, they fire on bad series and on no good ones, and every
//! series that they look at is one that a real gateway exports.

mod host_support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use host_support::{Home, fence, url};
use serde_json::{Value, json};
use tidegate::ports::{Leg, Mirror, RouteRequest, TrafficPlan, WHOLE};
use tidegate::release::monitoring::{LATENCY_BOUNDS_S, Watched, alerts, dashboard, rules};
use tidegate::release::{
    DeployRequest, DeploymentPlan, LiveRelease, Machine, ModelName, PlanInput, Policy, Seen, plan,
};

/// A plan with every limit: two replicas beside a standby.
fn full() -> DeploymentPlan {
    let mut request = DeployRequest::for_project(ModelName::new("iris").unwrap(), "/srv/iris");
    request.serving.latency_p99_ms = Some(80.0);
    request.serving.availability = Some(0.999);
    request.infrastructure.resources.insert("replicas".to_owned(), json!(2));
    let live = LiveRelease {
        deployment_id: "d1".to_owned(),
        model_version: "v1".to_owned(),
        slot: Some("blue".to_owned()),
        slot_token: Some("blue-d1".to_owned()),
        content_digest: None,
        replicas: None,
    };
    let input = PlanInput {
        request,
        live: Some(live),
        machine: Machine::default(),
        seen: Seen::default(),
        policy: Policy::default(),
    };
    let mut plan = plan(&input).unwrap();
    (plan.replicas, plan.bake.max_error_rate) = (2, 0.05);
    plan
}

fn bare() -> DeploymentPlan {
    let request = DeployRequest::for_project(ModelName::new("iris").unwrap(), "/srv/iris");
    let (machine, seen, policy) = (Machine::default(), Seen::default(), Policy::default());
    plan(&PlanInput { request, live: None, machine, seen, policy }).unwrap()
}

fn watched<'a>(plan: &'a DeploymentPlan, version: &'a str) -> Watched<'a> {
    Watched::planned("d2", version, "http://127.0.0.1:7311/iris", plan)
}

fn promtool(args: &[&str], file: &Path) -> (bool, String) {
    let ran =
        Command::new("promtool").args(args).arg(file).output().expect("promtool is there: scripts/test installs it");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    (ran.status.success(), said)
}

#[test]
fn promtool_takes_the_rules_of_every_plan() {
    let dir = tempfile::tempdir().unwrap();
    let mut slow = full();
    slow.serving.latency_p99_ms = Some(2_000.0);
    slow.standby_ms = Some(3_600_000);
    for (name, plan, version) in [
        ("full.yml", full(), "v2"),
        ("bare.yml", bare(), "v2"),
        ("slow.yml", slow, "v2"),
        ("odd.yml", full(), "1.0+\"b\\uild\" {{ $value }} 'é"),
    ] {
        let file = dir.path().join(name);
        std::fs::write(&file, rules(&watched(&plan, version)).unwrap()).unwrap();
        let (ok, said) = promtool(&["check", "rules"], &file);
        let count = alerts(&watched(&plan, version)).len();
        assert!(ok && said.contains(&format!("{count} rules found")), "{name}: {said}");
    }
    // The dashboard's queries are looked at as rules, too.
    let plan = full();
    let shown = dashboard(&watched(&plan, "v2"));
    let queries: Vec<Value> = queries(&shown)
        .into_iter()
        .enumerate()
        .map(|(n, expr)| json!({"record": format!("panel:{n}"), "expr": expr.replace("$__rate_interval", "5m")}))
        .collect();
    assert!(queries.len() >= 10, "{shown}");
    let file = dir.path().join("dashboard.yml");
    std::fs::write(&file, json!({"groups": [{"name": "dashboard", "rules": queries}]}).to_string()).unwrap();
    let (ok, said) = promtool(&["check", "rules"], &file);
    assert!(ok, "{said}");
}

fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// Series of the model while all is well, by minutes; a bad case changes some of them.
struct Scraped(Vec<(String, String)>);

impl Scraped {
    fn well() -> Self {
        let mut all = Vec::new();
        for (version, slot, requests) in [("v2", "a", "0+600x90"), ("v2", "a.r2", "0+600x90"), ("v1", "s", "0x90")] {
            let labels = format!("model=\"iris\",version=\"{version}\",slot=\"{slot}\"");
            let mut add = |metric: &str, values: &str| all.push((format!("{metric}{{{labels}}}"), values.to_owned()));
            add("tidegate_requests_total", requests);
            add("tidegate_errors_total", "0x90");
            add("tidegate_ejections_total", "0x90");
            add("tidegate_slot_ready", "1x90");
            add("tidegate_request_duration_seconds_count", requests);
            let bucket = |le: &str| format!("tidegate_request_duration_seconds_bucket{{{labels},le=\"{le}\"}}");
            all.push((bucket("0.1"), requests.to_owned()));
            all.push((bucket("+Inf"), requests.to_owned()));
        }
        Self(all)
    }

    /// With other values where metric and labels are these.
    fn but(mut self, metric: &str, labels: &str, values: &str) -> Self {
        let mut changed = 0;
        for (series, old) in &mut self.0 {
            if series.starts_with(metric) && labels.split(' ').all(|label| series.contains(label)) {
                values.clone_into(old);
                changed += 1;
            }
        }
        assert!(changed > 0, "{metric} {labels}");
        self
    }

    fn without(mut self, text: &str) -> Self {
        self.0.retain(|(series, _)| !series.contains(text));
        self
    }
}

/// Which alerts fire after an hour, held against promtool.
fn assert_fires(plan: &DeploymentPlan, case: &str, scraped: &Scraped, firing: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let release = watched(plan, "v2");
    std::fs::write(dir.path().join("rules.yml"), rules(&release).unwrap()).unwrap();
    let known: Vec<String> = alerts(&release).into_iter().map(|alert| alert.name).collect();
    assert!(firing.iter().all(|name| known.contains(&(*name).to_owned())), "{firing:?} of {known:?}");
    let expected: Vec<Value> = alerts(&release)
        .into_iter()
        .map(|alert| {
            let fires = firing.contains(&alert.name.as_str());
            let told = json!({
                "exp_labels": {"model": "iris", "severity": alert.severity.word()},
                "exp_annotations": {
                    "summary": alert.summary, "description": alert.description, "deployment_id": "d2",
                    "endpoint_url": "http://127.0.0.1:7311/iris",
                },
            });
            json!({"eval_time": "60m", "alertname": alert.name, "exp_alerts": if fires { vec![told] } else { vec![] }})
        })
        .collect();
    let series: Vec<Value> =
        scraped.0.iter().map(|(series, values)| json!({"series": series, "values": values})).collect();
    let test = json!({
        "rule_files": ["rules.yml"], "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "alert_rule_test": expected}],
    });
    let file = dir.path().join("test.yml");
    std::fs::write(&file, test.to_string()).unwrap();
    let (ok, said) = promtool(&["test", "rules"], &file);
    assert!(ok, "{case}: {said}");
}

#[test]
fn each_alert_fires_on_its_bad_series_and_on_no_good_ones() {
    let plan = full();
    let well = Scraped::well;
    let (requests, errors, ready) = ("tidegate_requests_total", "tidegate_errors_total", "tidegate_slot_ready");
    assert_fires(&plan, "all is well", &well(), &[]);
    let bad = well().but(errors, "slot=\"a\"", "0+120x90");
    assert_fires(&plan, "a tenth fails", &bad, &["TidegateErrorRate", "TidegateAvailability"]);
    let bad = well().but(errors, "slot=\"a\"", "0+3x90");
    assert_fires(&plan, "a quarter of a percent fails", &bad, &["TidegateAvailability"]);
    // One request that fails in an hour in which nearly nobody asks breaks no promise.
    let few = well().but(requests, "v2", "0x55 1x35").but("tidegate_request_duration_seconds_", "v2", "0x55 1x35").but(
        errors,
        "slot=\"a\"",
        "0x55 1x35",
    );
    assert_fires(&plan, "one of two fails", &few, &[]);
    let bad = well().but("tidegate_request_duration_seconds_bucket", "v2 le=\"0.1\"", "0+588x90");
    assert_fires(&plan, "one in fifty is slow", &bad, &["TidegateLatencyP99"]);
    let fair = well().but("tidegate_request_duration_seconds_bucket", "v2 le=\"0.1\"", "0+597x90");
    assert_fires(&plan, "one in two hundred is slow", &fair, &[]);
    let bad = well().but(ready, "a.r2", "1x30 0x60");
    assert_fires(&plan, "a replica is lost", &bad, &["TidegateReplicasMissing"]);
    let bad = well().but("tidegate_ejections_total", "a.r2", "0x55 1x35");
    assert_fires(&plan, "a replica is put out", &bad, &["TidegateReplicaEjected"]);
    let bad = well().but(requests, "v2", "600x90").but("tidegate_request_duration_seconds_", "v2", "600x90");
    assert_fires(&plan, "nobody asks", &bad, &["TidegateNoTraffic"]);
    let bad = well().but(requests, "v2", "600x90").but(requests, "v1", "0+600x90");
    assert_fires(&plan, "the version before answers", &bad, &["TidegateVersionNotServing"]);
    assert_fires(&plan, "the standby is gone", &well().without("v1"), &["TidegateStandbyLost"]);
    assert_fires(&plan, "the standby is not ready", &well().but(ready, "v1", "1x30 0x60"), &["TidegateStandbyLost"]);
    let down = well().but(ready, "v", "1x30 0x60");
    assert_fires(&plan, "nothing is ready", &down, &["TidegateNothingReady", "TidegateReplicasMissing"]);
    assert_fires(&plan, "nobody scrapes", &Scraped(Vec::new()), &["TidegateNotMeasured"]);
    let next = well().without("v1").but(requests, "v2", "0+600x90");
    let mut alone = plan.clone();
    alone.previous = None;
    assert_fires(&alone, "a first release has no standby", &next, &[]);
}

#[test]
fn a_bound_that_is_a_whole_number_is_found_however_it_is_written() {
    let mut plan = full();
    plan.serving.latency_p99_ms = Some(900.0);
    for le in ["1.0", "1"] {
        let told = |values: &str| {
            let mut well = Scraped::well();
            for (series, _) in &mut well.0 {
                *series = series.replace("le=\"0.1\"", &format!("le=\"{le}\""));
            }
            well.but("tidegate_request_duration_seconds_bucket", &format!("v2 le=\"{le}\""), values)
        };
        assert_fires(&plan, le, &told("0+570x90"), &["TidegateLatencyP99"]);
        assert_fires(&plan, le, &told("0+599x90"), &[]);
    }
}

/// Names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let found = text.match_indices("tidegate_").map(|(at, _)| text[at..].chars().take_while(|c| part(*c)).collect());
    found.collect()
}

#[tokio::test]
async fn what_is_looked_at_is_what_a_real_gateway_exports() {
    let home = Home::with_settings("{\"max_connections\": 8}");
    let client = home.start().await;
    home.ready_slot(&client, "a", "v2").await;
    home.ready_slot(&client, "b", "v1").await;
    let leg = |version: &str, slot: &str, weight| Leg { version: version.into(), slots: vec![slot.into()], weight };
    let mirror =
        Mirror { to: "v1".to_owned(), share: WHOLE, methods: vec!["GET".to_owned()], paths: vec!["/".to_owned()] };
    let legs = vec![leg("v2", "a", WHOLE), leg("v1", "b", 0)];
    let traffic = TrafficPlan { legs, mirror: Some(mirror), ..TrafficPlan::default() };
    let route = RouteRequest { model: "iris".into(), traffic, expected_generation: 0, fence: fence(1) };
    client.put_route(&route).await.unwrap();
    let asked = url(&client, "/version").await;
    let base = asked.trim_end_matches("/iris/version").to_owned();
    reqwest::get(&asked).await.unwrap().error_for_status().unwrap();
    // More connections than there may be: the last ones are refused.
    let address = base.trim_start_matches("http://");
    let mut idle = Vec::new();
    for _ in 0..24 {
        idle.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let mut answer = [0; 12];
    tokio::io::AsyncReadExt::read_exact(idle.last_mut().unwrap(), &mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
    drop(idle);
    let scrape = async || reqwest::get(format!("{base}/-/metrics")).await.ok()?.text().await.ok();
    let text = home
        .until("everything was counted", async || {
            scrape().await.filter(|text| text.contains("tidegate_refused_total{") && text.contains("repeated"))
        })
        .await;
    let exported: BTreeSet<String> = names(&text);
    let plan = full();
    let release = watched(&plan, "v2");
    let looked = names(&(rules(&release).unwrap() + &queries(&dashboard(&release)).join("\n")));
    assert!(looked.len() >= 10, "{looked:?}");
    let unknown: Vec<&String> = looked.difference(&exported).collect();
    assert!(unknown.is_empty(), "{unknown:?} of {exported:?}");
    let ready = |slot: &str| text.contains(&format!("tidegate_slot_ready{{model=\"iris\",version=\"v{slot}\"}} 1"));
    assert!(ready("2\",slot=\"a") && ready("1\",slot=\"b"), "{text}");
    let bounds: BTreeSet<String> = text
        .lines()
        .filter(|line| line.starts_with("tidegate_request_duration_seconds_bucket{"))
        .filter_map(|line| line.split_once("le=\"")?.1.split('"').next().map(str::to_owned))
        .collect();
    let known = LATENCY_BOUNDS_S.iter().map(|bound| format!("{bound:?}")).chain(["+Inf".to_owned()]);
    assert_eq!(bounds, known.collect(), "the buckets are those that the alerts know");
}
