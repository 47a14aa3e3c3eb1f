use serde_json::json;

use super::*;

fn rule(json: Value) -> AnswersRule {
    serde_json::from_value(json).expect("a rule")
}

fn one(rule: AnswersRule, baseline: &Value, candidate: &Value) -> Agreement {
    Answers::new(rule).expect("a rule").look(baseline, candidate).expect("compared")
}

fn path(agreement: &Agreement) -> &str {
    match agreement {
        Agreement::Differ(difference) => &difference.path,
        Agreement::Agree => "agree",
        Agreement::Nothing => "nothing",
    }
}

#[test]
fn the_first_difference_has_its_place() {
    let ours = json!({"rows": [{"label": "cat", "p": 0.91}, {"label": "dog", "p": 0.4}], "id": 1});
    let mut theirs = ours.clone();
    assert_eq!(one(AnswersRule::default(), &ours, &theirs), Agreement::Agree);
    theirs["rows"][1]["p"] = json!(0.41);
    theirs["id"] = json!(2);
    assert_eq!(path(&one(rule(json!({})), &ours, &theirs)), "$.id");
    assert_eq!(path(&one(rule(json!({"ignore": ["$.id"]})), &ours, &theirs)), "$.rows[1].p");
    assert_eq!(path(&one(rule(json!({"ignore": ["$.id"], "absolute": 0.02})), &ours, &theirs)), "agree");
    assert_eq!(path(&one(rule(json!({"ignore": ["$.id"], "relative": 0.05})), &ours, &theirs)), "agree");
    assert_eq!(path(&one(rule(json!({"compare": ["$.rows[*].label"]})), &ours, &theirs)), "agree");
    assert_eq!(path(&one(rule(json!({"compare": ["$.none"]})), &ours, &theirs)), "nothing");
    theirs = json!({"rows": [{"label": "cat", "p": 0.91}]});
    assert_eq!(path(&one(rule(json!({"compare": ["$.rows[*].label"]})), &ours, &theirs)), "$.rows[1]");
    assert_eq!(path(&one(rule(json!({})), &json!([1]), &json!({"a": 1}))), "$");
    assert_eq!(path(&one(rule(json!({})), &json!(9_007_199_254_740_993_u64), &json!(9_007_199_254_740_992_u64))), "$");
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    for (json, part) in [
        (json!({"compare": ["rows"]}), "path"),
        (json!({"at_most": 0.0}), "cannot be used"),
        (json!({"absolute": -1}), "cannot be used"),
    ] {
        assert!(Answers::new(rule(json)).expect_err(part).to_string().contains(part));
    }
}

/// A comparison of `pairs` answers, of which every `every`-th differs.
fn after(rule: AnswersRule, pairs: u64, every: u64) -> AnswersReport {
    let mut answers = Answers::new(rule).expect("a rule");
    for i in 0..pairs {
        let theirs = if i % every == every - 1 { "dog" } else { "cat" };
        answers.look(&json!({"label": "cat"}), &json!({"label": theirs})).expect("compared");
    }
    let stored: Answers = serde_json::from_value(serde_json::to_value(&answers).expect("json")).expect("read back");
    assert_eq!(stored.report(), answers.report());
    answers.report()
}

#[test]
fn a_pass_must_be_shown() {
    let none = Answers::new(AnswersRule::default()).expect("a rule").report();
    assert_eq!(none.verdict, Verdict::Inconclusive, "{}", none.reason);
    let few = after(AnswersRule::default(), 50, u64::MAX);
    assert!(few.verdict == Verdict::Inconclusive && few.reason.contains("a pass needs 100 answers"), "{}", few.reason);
    let unsure = after(AnswersRule::default(), 200, u64::MAX);
    assert_eq!(unsure.verdict, Verdict::Inconclusive, "none of 200 may still be 2 %: {}", unsure.reason);
    let sure = after(AnswersRule::default(), 1000, u64::MAX);
    assert_eq!(sure.verdict, Verdict::Pass, "{}", sure.reason);
    assert_eq!(sure.reason, "0 of 1,000 answers differ (0 %); no more than 0.54 % do, with 99 % certainty");
    let many = after(AnswersRule::default(), 300, 20);
    assert_eq!(many.verdict, Verdict::Fail, "{}", many.reason);
    assert!(many.reason.contains("the first at $.label: differs; evidence 1:"), "{}", many.reason);
    assert_eq!((many.differing, many.examples.len()), (15, MOST_EXAMPLES));
}

#[test]
fn outputs_that_drift() {
    let numbers = |shift: f64| {
        let json = json!({"compare": ["$.id"], "drift": {"path": "$.score"}});
        let mut answers = Answers::new(rule(json)).expect("a rule");
        for i in 0..1000 {
            let score = f64::from(i % 100) / 100.0;
            answers
                .look(&json!({"id": i, "score": score}), &json!({"id": i, "score": score + shift}))
                .expect("compared");
        }
        answers.report()
    };
    let (same, moved) = (numbers(0.0), numbers(0.3));
    assert_eq!((same.verdict, same.drift.map(|d| d.psi)), (Verdict::Pass, Some(0.0)), "{}", same.reason);
    assert_eq!(moved.verdict, Verdict::Fail, "{}", moved.reason);
    let ks = moved.drift.and_then(|d| d.ks).expect("of numbers");
    assert!((ks - 0.3).abs() < 0.02, "{ks}");
    let counts = |a, b| BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
    let labels = label_drift(&counts(500, 500), &counts(800, 200)).expect("labels");
    assert!(labels.psi > 0.25 && labels.p_value < 1e-6, "{labels:?}");
    let few = label_drift(&counts(5, 5), &counts(8, 2)).expect("labels");
    assert!(few.p_value > 0.05, "{few:?}");
}
