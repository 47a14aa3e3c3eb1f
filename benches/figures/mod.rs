//! Figures beside each other, for people.

use tidegate::bench::{Figure, Limit};

/// A table of them, with what missed its target.
pub fn print(title: &str, figures: &[Figure]) {
    println!("\n{title}");
    let mut missed = 0;
    for figure in figures {
        let floor = figure.floor.map(|floor| format!("beside {floor:>9.2}")).unwrap_or_default();
        let ratio = figure.ratio().map(|ratio| format!("ratio {ratio:.2}")).unwrap_or_default();
        let target = match figure.target {
            Some(Limit::AtLeast(least)) => format!("at least {least}"),
            Some(Limit::AtMost(most)) => format!("at most {most}"),
            None => String::new(),
        };
        let reached = match figure.is_reached() {
            Some(true) => "reached",
            Some(false) => "MISSED",
            None => "",
        };
        missed += usize::from(figure.is_reached() == Some(false));
        let Figure { what, value, unit, note, .. } = figure;
        println!("{what:<46} {value:>10.2} {unit:<5} {floor:<17} {ratio:<10} {target:<14} {reached:<8} {note}");
    }
    println!("{missed} of {} targets missed", figures.iter().filter(|figure| figure.target.is_some()).count());
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
