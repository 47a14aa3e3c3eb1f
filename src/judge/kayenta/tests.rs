use super::*;
use crate::judge::Verdict;
use crate::judge::simulate::Dice;

/// Normal points around `mean`.
fn around(mean: f64, n: usize, dice: &mut Dice) -> Vec<Option<f64>> {
    (0..n).map(|_| Some(mean + dice.normal())).collect()
}

fn one(metric: MetricConfig, baseline: Vec<Option<f64>>, candidate: Vec<Option<f64>>) -> KayentaReport {
    let series = BTreeMap::from([(metric.name.clone(), Series { baseline, candidate })]);
    judge_metrics(&KayentaConfig { metrics: vec![metric], ..KayentaConfig::default() }, &series)
}

fn metric() -> MetricConfig {
    MetricConfig { name: "latency".into(), ..MetricConfig::default() }
}

#[test]
fn the_shift_is_that_of_r() {
    // wilcox.test(c(1.1,2.2,3.3,4.4,6.1), c(0.8,1.9,2.7,3.1,5.2), conf.int=TRUE, exact=FALSE): the middle difference is 0.6.
    let shift = shift(&[0.8, 1.9, 2.7, 3.1, 5.2], &[1.1, 2.2, 3.3, 4.4, 6.1], 0.95).expect("points");
    assert!((shift.estimate - 0.6).abs() < 1e-6, "{shift:?}");
    assert!(shift.low < -1.5 && shift.high > 2.5, "{shift:?}");
    assert_eq!(super::shift(&[], &[1.0], 0.95), None);
    let same = super::shift(&[2.0; 9], &[2.0; 9], 0.98).expect("points");
    assert_eq!((same.low, same.estimate, same.high), (0.0, 0.0, 0.0));
}

#[test]
fn higher_lower_and_the_direction() {
    let mut dice = Dice::new(1);
    let (at10, at12) = (around(10.0, 60, &mut dice), around(12.0, 60, &mut dice));
    let class = |direction, baseline: &Vec<_>, candidate: &Vec<_>| {
        one(MetricConfig { direction, ..metric() }, baseline.clone(), candidate.clone()).metrics[0].classification
    };
    assert_eq!(class(Direction::Either, &at10, &at12), Classification::High);
    assert_eq!(class(Direction::Decrease, &at10, &at12), Classification::Pass);
    assert_eq!(class(Direction::Either, &at12, &at10), Classification::Low);
    assert_eq!(class(Direction::Increase, &at12, &at10), Classification::Pass);
    let tolerant = EffectSize { allowed_increase: 1.5, ..EffectSize::default() };
    let report = one(MetricConfig { effect: tolerant, ..metric() }, at10, at12);
    assert_eq!((report.verdict, report.score), (Verdict::Pass, 100.0), "{}", report.reason);
}

#[test]
fn too_few_points_are_inconclusive() {
    let mut dice = Dice::new(2);
    let report = one(metric(), around(10.0, 20, &mut dice), around(10.0, 20, &mut dice));
    assert_eq!(report.verdict, Verdict::Inconclusive);
    assert!(report.reason.contains("20 and 20 points") && report.reason.contains("needs 50"), "{}", report.reason);
    let report = one(metric(), vec![None; 60], vec![]);
    assert_eq!((report.verdict, report.metrics[0].classification), (Verdict::Inconclusive, Classification::Nodata));
    let must = MetricConfig { must_have_data: true, ..metric() };
    assert_eq!(one(must, vec![], vec![]).verdict, Verdict::Fail);
}

#[test]
fn missing_points_outliers_and_effects() {
    let mut dice = Dice::new(3);
    let baseline = around(10.0, 60, &mut dice);
    let mut candidate = around(10.0, 60, &mut dice);
    candidate.extend([None, Some(1e9), Some(f64::NAN)]);
    let cleaned = MetricConfig { outliers: OutlierStrategy::Remove { factor: 3.0 }, ..metric() };
    let report = one(cleaned, baseline.clone(), candidate.clone());
    assert_eq!((report.metrics[0].points, report.verdict), ([60, 60], Verdict::Pass), "{}", report.reason);
    let zeros = MetricConfig { nan: NanStrategy::Replace, ..metric() };
    assert_eq!(one(zeros, baseline, candidate).metrics[0].points, [60, 61], "what was put in was not measured");
    let errors = one(metric(), vec![Some(0.0); 60], (0..60).map(|i| Some(f64::from(i % 3))).collect());
    assert_eq!(errors.metrics[0].classification, Classification::High, "from none to some is an infinite increase");
    let probable = EffectSize { measure: EffectMeasure::Cles, allowed_increase: 0.9, ..EffectSize::default() };
    let mut dice = Dice::new(4);
    let slight =
        one(MetricConfig { effect: probable, ..metric() }, around(10.0, 99, &mut dice), around(10.8, 99, &mut dice));
    assert_eq!(slight.metrics[0].classification, Classification::Pass, "{}", slight.reason);
}

#[test]
fn weights_groups_critical_and_muted() {
    let mut dice = Dice::new(5);
    let names = ["a", "b", "c"];
    let series: BTreeMap<String, Series> = names
        .iter()
        .map(|name| {
            let shifted = if *name == "a" { 15.0 } else { 10.0 };
            let series = Series { baseline: around(10.0, 60, &mut dice), candidate: around(shifted, 60, &mut dice) };
            ((*name).to_owned(), series)
        })
        .collect();
    let mut config = KayentaConfig::default();
    let group = |name: &str| vec![if name == "c" { "rest".to_owned() } else { "main".to_owned() }];
    config.metrics =
        names.iter().map(|name| MetricConfig { name: (*name).into(), groups: group(name), ..metric() }).collect();
    config.group_weights = BTreeMap::from([("main".to_owned(), 40.0)]);
    let report = judge_metrics(&config, &series);
    assert_eq!((report.score, report.verdict), (80.0, Verdict::Inconclusive), "{}", report.reason);
    config.metrics[0].critical = true;
    let report = judge_metrics(&config, &series);
    assert_eq!((report.score, report.verdict), (0.0, Verdict::Fail));
    assert!(report.reason.contains("a critical metric failed: a is higher"), "{}", report.reason);
    config.metrics[0].muted = true;
    assert_eq!(judge_metrics(&config, &series).verdict, Verdict::Pass);
}

#[test]
fn a_shift_of_nothing_is_nothing() {
    // One point in ten is not zero, on both sides alike.
    let sparse =
        |n: u32| (0..60).map(|i| Some(if (i + n).is_multiple_of(10) { 1.0 / 60.0 } else { 0.0 })).collect::<Vec<_>>();
    let report = one(metric(), sparse(0), sparse(3));
    let shift = report.metrics[0].shift.expect("points");
    assert_eq!((shift.low, shift.estimate, shift.high), (0.0, 0.0, 0.0));
    assert_eq!(report.verdict, Verdict::Pass, "{}", report.reason);
}
