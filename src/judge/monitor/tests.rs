use super::*;
use crate::judge::{
    AvailabilityLimit, Check, ErrorLimit, ErrorRatio, Histogram, LatencyLimit, LatencyRatio, ThroughputLimit,
};

fn rule(checks: Vec<Check>) -> Rule {
    Rule { checks, ..Rule::default() }
}

fn errors(tolerated: f64) -> Rule {
    rule(vec![Check::ErrorRatio(ErrorRatio { tolerated, ..ErrorRatio::default() })])
}

/// Second `s`: so many requests and errors of baseline and candidate.
fn second(s: u64, baseline: (u64, u64), candidate: (u64, u64)) -> Sample {
    let arm = |(requests, errors)| Arm::of(requests, errors);
    Sample { at_ms: s * 1000, baseline: arm(baseline), candidate: arm(candidate) }
}

/// Seconds 1 to `n` of the same kind.
fn seconds(n: u64, of: impl Fn(u64) -> Sample) -> Vec<Sample> {
    (1..=n).map(of).collect()
}

fn with_latency(s: u64, baseline_us: u64, candidate_us: u64) -> Sample {
    // Of ten answers one is ten times as slow.
    let arm = |us: u64| {
        let latencies: Histogram = (0..10).map(|i| if i == 0 { 10 * us } else { us + i * us / 50 }).collect();
        Arm { requests: 10, errors: 0, latencies }
    };
    Sample { at_ms: s * 1000, baseline: arm(baseline_us), candidate: arm(candidate_us) }
}

fn judged(rule: &Rule, samples: &[Sample]) -> Judgement {
    judge(rule, samples).expect("it can be judged").judgement
}

#[test]
fn no_data_is_no_pass() {
    let silent = Monitor::new(Rule::default()).expect("a rule").end(3_600_000);
    assert_eq!((silent.verdict, silent.decided), (Verdict::Inconclusive, true));
    assert!(silent.reason.contains("the candidate had no requests"), "{}", silent.reason);

    let little = judged(&errors(1.0), &seconds(600, |s| second(s, (1, 0), (u64::from(s % 10 == 0), 0))));
    assert_eq!(little.verdict, Verdict::Inconclusive);
    assert!(little.reason.contains("the candidate had 60 requests, a pass needs 100"), "{}", little.reason);

    let alone = judged(&errors(1.0), &seconds(600, |s| second(s, (0, 0), (1, 0))));
    assert_eq!(alone.verdict, Verdict::Inconclusive);
    assert!(alone.reason.contains("the baseline had 0 requests"), "{}", alone.reason);

    let ended = judged(&errors(1.0), &seconds(300, |s| second(s, (1, 0), (1, 0))));
    assert_eq!(ended.verdict, Verdict::Inconclusive);
    assert!(ended.reason.contains("the watch ended after 5 min of 10 min"), "{}", ended.reason);

    let gone = judged(&errors(1.0), &seconds(600, |s| second(s, (1, 0), (u64::from(s < 500), 0))));
    assert_eq!(gone.verdict, Verdict::Inconclusive);
    assert!(gone.reason.contains("the candidate had no request in the last 101 s"), "{}", gone.reason);
}

#[test]
fn a_pass_says_what_would_have_shown() {
    let samples = seconds(600, |s| second(s, (10, u64::from(s % 100 == 0)), (10, u64::from(s % 100 == 50))));
    let judgement = judged(&errors(1.0), &samples);
    assert_eq!((judgement.verdict, judgement.decided), (Verdict::Pass, true));
    let finding = &judgement.findings[0];
    let from = finding.shows_from.expect("known");
    assert!((0.003..0.02).contains(&from), "{from}");
    let begins = "the candidate's error rate is 0.10 % against 0.10 % of the baseline (6 of 6,000 and 6 of 6,000 requests); no sign of harm";
    assert!(judgement.reason.starts_with(begins), "{}", judgement.reason);
    assert!(judgement.reason.ends_with("would have shown in nine of ten such watches"), "{}", judgement.reason);
}

#[test]
fn a_fail_has_its_numbers() {
    let samples = seconds(600, |s| second(s, (10, u64::from(s % 100 == 0)), (10, u64::from(s % 15 == 0))));
    let judgement = judged(&errors(1.5), &samples);
    assert_eq!((judgement.verdict, judgement.decided), (Verdict::Fail, true));
    let reason = &judgement.reason;
    for part in [
        "the candidate's error rate is 0.64 % against 0.09 % of the baseline (15 of 2,350 and 2 of 2,350",
        " requests); evidence 1:1",
        "against \"at most 1.5 times\", needed 1:100",
    ] {
        assert!(reason.contains(part), "{reason}");
    }
}

#[test]
fn a_dead_candidate_is_seen_within_ten_seconds() {
    let mut monitor = Monitor::new(Rule::default()).expect("a rule");
    let seconds = (1..=60).find(|s| {
        let judgement = monitor.look(&second(*s, (1, 0), (1, 1))).expect("a sample");
        judgement.verdict == Verdict::Fail && judgement.reason.starts_with("the candidate answers nothing: ")
    });
    assert!(seconds.is_some_and(|s| s <= 10), "{seconds:?}");
    let both = judged(&errors(1.0), &seconds_of_outage());
    assert_eq!(both.verdict, Verdict::Pass, "both were down: {}", both.reason);
}

/// Ten minutes; during one of them neither side answers.
fn seconds_of_outage() -> Vec<Sample> {
    seconds(600, |s| second(s, (1, u64::from(s / 60 == 5)), (1, u64::from(s / 60 == 5))))
}

#[test]
fn suspicion_is_no_pass() {
    let samples = seconds(600, |s| second(s, (10, 0), (10, u64::from(s % 90 == 0))));
    let judgement = judged(&errors(1.0), &samples);
    assert_eq!(judgement.verdict, Verdict::Inconclusive, "{}", judgement.reason);
    assert!(judgement.reason.contains("too much for a pass, too little for an alarm"), "{}", judgement.reason);
    let ignoring = rule(vec![Check::ErrorRatio(ErrorRatio { ignore_below: 0.01, ..ErrorRatio::default() })]);
    assert_eq!(judged(&ignoring, &samples).verdict, Verdict::Pass);
}

#[test]
fn proof_passes_early() {
    let check = ErrorRatio { tolerated: 2.0, proven_below: Some(2.0), ..ErrorRatio::default() };
    let mut monitor = Monitor::new(rule(vec![Check::ErrorRatio(check)])).expect("a rule");
    let when = (1..=600).find(|s| {
        let sample = second(*s, (10, u64::from(s % 5 == 0)), (10, u64::from(s % 40 == 0)));
        monitor.look(&sample).expect("a sample").verdict == Verdict::Pass
    });
    let reason = monitor.report().judgement.reason;
    assert!(when.is_some_and(|s| s < 500), "{when:?}: {reason}");
    assert!(
        reason.contains("; evidence 1:1") && reason.ends_with("that this is below 2 times the baseline's"),
        "{reason}"
    );
}

#[test]
fn latency_beside_the_baseline() {
    let rule = rule(vec![Check::LatencyRatio(LatencyRatio::default())]);
    let same = judged(&rule, &seconds(600, |s| with_latency(s, 20_000, 20_000)));
    assert_eq!(same.verdict, Verdict::Pass, "{}", same.reason);
    assert!(same.reason.contains("the candidate's p99 is 20") && same.reason.contains("one of "), "{}", same.reason);
    let slower = judged(&rule, &seconds(600, |s| with_latency(s, 20_000, 26_000)));
    assert_eq!(slower.verdict, Verdict::Fail, "{}", slower.reason);
    assert!(slower.reason.contains("against \"no slower than the baseline\""), "{}", slower.reason);
    let tolerant = LatencyRatio { tolerated: 1.5, ..LatencyRatio::default() };
    let rule = Rule { checks: vec![Check::LatencyRatio(tolerant)], ..rule };
    assert_eq!(judged(&rule, &seconds(600, |s| with_latency(s, 20_000, 26_000))).verdict, Verdict::Pass);
}

#[test]
fn fixed_limits_need_no_baseline() {
    let errors = |at_most| rule(vec![Check::ErrorLimit(ErrorLimit { at_most, block_ms: 10_000 })]);
    let samples = seconds(600, |s| second(s, (0, 0), (10, u64::from(s % 5 == 0))));
    assert_eq!(judged(&errors(0.05), &samples).verdict, Verdict::Pass);
    let failed = judged(&errors(0.01), &samples);
    assert_eq!(failed.verdict, Verdict::Fail, "{}", failed.reason);
    assert!(failed.reason.contains("against \"at most 1.0 %\""), "{}", failed.reason);
    let near = judged(&errors(0.019), &samples);
    assert_eq!(near.verdict, Verdict::Inconclusive, "{}", near.reason);
    assert!(near.reason.contains("is beyond"), "{}", near.reason);

    let available = rule(vec![Check::AvailabilityLimit(AvailabilityLimit { at_least: 0.999, block_ms: 10_000 })]);
    let judgement = judged(&available, &samples);
    assert!(
        judgement.verdict == Verdict::Fail && judgement.reason.contains("\"at least 99.9 %\""),
        "{}",
        judgement.reason
    );

    let latency =
        |at_most_ms| rule(vec![Check::LatencyLimit(LatencyLimit { quantile: 0.9, at_most_ms, block_ms: 10_000 })]);
    let samples = seconds(600, |s| with_latency(s, 1, 50_000));
    let judgement = judged(&latency(40.0), &samples);
    assert!(
        judgement.verdict == Verdict::Fail && judgement.reason.contains("\"p90 at most 40.0 ms\""),
        "{}",
        judgement.reason
    );
    assert_eq!(judged(&latency(80.0), &samples).verdict, Verdict::Pass);

    let throughput =
        |at_least_rps| rule(vec![Check::ThroughputLimit(ThroughputLimit { at_least_rps, block_ms: 10_000 })]);
    let judgement = judged(&throughput(20.0), &samples);
    assert!(judgement.verdict == Verdict::Fail && judgement.reason.contains("10.0 per second"), "{}", judgement.reason);
    assert_eq!(judged(&throughput(8.0), &samples).verdict, Verdict::Pass);
}

#[test]
fn a_resumed_watch_goes_on_as_if_nothing_was() {
    let samples = seconds(200, |s| {
        let mut sample = with_latency(s, 20_000, 21_000);
        sample.candidate.errors = u64::from(s % 13 == 0);
        sample
    });
    let mut through = Monitor::new(Rule::default()).expect("a rule");
    let mut stored = serde_json::to_string(&through).expect("json");
    for sample in &samples {
        let expected = through.look(sample).expect("a sample");
        let mut resumed: Monitor = serde_json::from_str(&stored).expect("read back");
        assert_eq!(resumed.look(sample).expect("a sample"), expected);
        assert_eq!(resumed, through);
        stored = serde_json::to_string(&resumed).expect("json");
    }
    assert!(
        serde_json::from_str::<Monitor>(&stored.replace("\"format\":1,\"rule\"", "\"format\":2,\"rule\"")).is_err()
    );
}

#[test]
fn a_watch_that_lost_its_checks_passes_nothing() {
    let mut stored = serde_json::to_value(Monitor::new(errors(1.0)).expect("a rule")).expect("json");
    stored["states"] = serde_json::json!([]);
    let mut monitor: Monitor = serde_json::from_value(stored).expect("read back");
    seconds(700, |s| second(s, (1, 0), (1, 0))).iter().for_each(|sample| {
        monitor.look(sample).expect("a sample");
    });
    assert_eq!(monitor.report().judgement.verdict, Verdict::Inconclusive);
}

#[test]
fn looking_and_observing_are_the_same() {
    for every in [7, 1000] {
        let samples = seconds(600, |s| second(s, (2, u64::from(s % 100 == 0)), (2, u64::from(s % every == 0))));
        let (mut looked, mut observed) =
            (Monitor::new(errors(1.0)).expect("a rule"), Monitor::new(errors(1.0)).expect("a rule"));
        for sample in &samples {
            let decided = looked.look(sample).expect("a sample").decided;
            assert_eq!(observed.observe(sample).expect("a sample"), decided);
        }
        assert_eq!(looked, observed);
    }
}

#[test]
fn samples_that_make_no_sense_are_refused() {
    let mut monitor = Monitor::new(errors(1.0)).expect("a rule");
    monitor.look(&second(5, (1, 0), (1, 0))).expect("a sample");
    let again = monitor.look(&second(5, (1, 0), (1, 0))).expect_err("the same again").to_string();
    assert_eq!(again, "a sample of 5000 ms came after one of 5000 ms");
    let many = monitor.look(&second(6, (1, 0), (1, 2))).expect_err("two errors in one request").to_string();
    assert_eq!(many, "the candidate has 2 errors in 1 requests");
    monitor.look(&second(6, (1, 0), (1, 1))).expect("the refused one was not taken");
}

#[test]
fn history_stays_small_and_what_is_decided_stands() {
    let mut monitor = Monitor::new(Rule { window_ms: 7_200_000, ..errors(1.0) }).expect("a rule");
    for s in 1..=5000 {
        monitor.look(&second(s, (1, 0), (1, 0))).expect("a sample");
    }
    let history = monitor.report().history;
    assert!((MOST_POINTS / 2..MOST_POINTS).contains(&history.len()), "{}", history.len());
    assert!(history.windows(2).all(|pair| pair[0].at_ms < pair[1].at_ms) && history[0].at_ms == 1000);
    let ended = monitor.end(5_000_000);
    assert_eq!(monitor.look(&second(5001, (1, 0), (1, 1))).expect("a sample"), ended);
    assert_eq!(monitor.report().candidate, [5000, 0]);
}
