use serde_json::json;

use super::gauge::number;
use super::*;
use crate::release::{During, MetricSpec};

fn metric(json: Value) -> Metrics {
    let mut whole = json!({"name": "m", "command": ["true"], "success_condition": "result < 1"});
    for (key, value) in json.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let spec: MetricSpec = serde_json::from_value(whole).unwrap();
    Metrics::of(vec![spec.plan().unwrap()])
}

fn after(mut metrics: Metrics, outcomes: &[Outcome]) -> Metrics {
    for (nth, outcome) in outcomes.iter().enumerate() {
        let measured = Measured { value: json!(nth), live: None, outcome: outcome.clone() };
        metrics.all[0].take(measured, 1000 * nth as u64);
    }
    metrics
}

#[test]
fn what_was_never_measured_is_no_pass() {
    let often = || metric(json!({"interval": "1s"}));
    assert_eq!((often().verdict(), often().are_settled()), (Verdict::Inconclusive, false));
    let one = after(often(), &[Outcome::Success]);
    assert_eq!((one.verdict(), one.are_settled(), one.doubt()), (Verdict::Pass, true, None));
    assert_eq!(one.all[0].next_ms, 1000);
    let bad = after(often(), &[Outcome::Success, Outcome::Failure]);
    assert_eq!(bad.verdict(), Verdict::Fail);
    assert_eq!(bad.failed().as_deref(), Some("m: 1 measurement(s) failed, allowed 0; the newest value is 1"));
    let errors = after(often(), &vec![Outcome::Error("no answer".into()); 5]);
    assert_eq!((errors.verdict(), errors.failed()), (Verdict::Inconclusive, None));
    assert!(errors.doubt().unwrap().contains("5 errors in a row, allowed 4: no answer"));
    let counted = after(metric(json!({"interval": "1s", "count": 3})), &[Outcome::Success, Outcome::Success]);
    assert_eq!((counted.verdict(), counted.are_settled()), (Verdict::Inconclusive, false));
    assert!(counted.doubt().unwrap().contains("measured 2 of 3 times"));
}

#[test]
fn a_dry_run_decides_nothing() {
    let dry = after(metric(json!({"dry_run": true})), &[Outcome::Failure]);
    assert_eq!((dry.verdict(), dry.failed(), dry.doubt(), dry.are_settled()), (Verdict::Pass, None, None, true));
    assert_eq!(Metrics::default().verdict(), Verdict::Pass);
}

#[test]
fn points_are_bounded_and_a_watch_goes_on_where_it_was() {
    let long = after(metric(json!({"interval": "1s", "failure_limit": 9})), &vec![Outcome::Success; 1000]);
    assert!(long.all[0].points.len() <= MOST_POINTS && long.all[0].counted.successful == 1000);
    let held = Held::new(Metrics { watched_ms: 5_000, ..long.clone() });
    assert!(held.now().watched_ms >= 5_000);
    let kept: Metrics = serde_json::from_value(serde_json::to_value(&long).unwrap()).unwrap();
    assert_eq!(kept, long);
    assert_eq!(long.all[0].plan.during, [During::Trial, During::Bake]);
}

#[test]
fn what_is_compared_is_handed_over_once() {
    let held = Held::new(metric(json!({"compare": true, "success_condition": null, "interval": "1s"})));
    let measured = |live: i32| Measured { value: json!(7), live: Some(json!(live)), outcome: Outcome::Success };
    held.take(0, measured(1));
    held.take(0, Measured { live: None, ..measured(0) });
    let pair = |live, candidate| Pair { metric: "m".into(), live, candidate };
    assert_eq!(held.news().1, [pair(Some(1.0), Some(7.0)), pair(None, Some(7.0))]);
    held.take(0, measured(2));
    for _ in 0..10 {
        held.take(0, Measured { value: Value::Null, live: None, outcome: Outcome::Error("no answer".into()) });
    }
    let (metrics, pairs) = held.news();
    assert_eq!((pairs.len(), &pairs[..2]), (11, &[pair(Some(2.0), Some(7.0)), pair(None, None)][..]));
    assert_eq!((held.news().1.len(), metrics.all[0].points[2].live.clone()), (0, Some(json!(2))));
    // By itself it is neither good nor bad, however often it could not be measured.
    assert_eq!(metrics.verdict(), Verdict::Pass);
}

#[test]
fn the_one_number_of_an_answer() {
    let vector = |result: Value| json!({"status": "success", "data": {"resultType": "vector", "result": result}});
    let one = |text: &str| json!({"metric": {}, "value": [1700000000.0, text]});
    assert_eq!(number(&vector(json!([one("0.25")]))), Ok(json!(0.25)));
    assert_eq!(number(&json!({"data": {"resultType": "scalar", "result": [1, "3"]}})), Ok(json!(3.0)));
    for (body, part) in [
        (vector(json!([])), "no series"),
        (vector(json!([one("1"), one("2")])), "2 series"),
        (vector(json!([one("NaN")])), "NaN"),
        (vector(json!([one("+Inf")])), "inf"),
        (json!({"data": {"resultType": "matrix", "result": []}}), "matrix"),
        (json!("<html>"), "none of Prometheus's"),
    ] {
        let error = number(&body).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn values_are_kept_short() {
    assert_eq!(short(json!({"psi": 0.1})), json!({"psi": 0.1}));
    let long = short(Value::String("é".repeat(1000)));
    assert!(long.as_str().unwrap().chars().count() <= VALUE_CHARS + 1);
}
