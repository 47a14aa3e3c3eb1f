//! How wide a text is, about: there is no font here, so every guess is on the wide side.

/// About as wide as `text` is drawn at `size`, in the widest of the common sans-serif fonts.
pub(super) fn width(text: &str, size: f64) -> f64 {
    text.chars().map(advance).sum::<f64>() * size
}

/// A letter's width, as a part of the font's size.
fn advance(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | '(' | ')' | '[' | ']' | ' ' | 'f' | 't' | 'r'
        | 'I' => 0.42,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.98,
        'A'..='Z' | '&' | '=' | '<' | '>' | '+' | '#' => 0.78,
        '\u{20}'..='\u{7e}' => 0.64,
        // Marks that stand over the letter before, joiners, variants.
        '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}' => 0.0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{1f000}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 1.05,
        '\u{2000}'..='\u{2bff}' => 0.9,
        _ => 0.7,
    }
}

/// `text` in lines of at most `widest`, broken where words end or else anywhere; what does not fit into `most` lines is left out.
pub(super) fn wrap(text: &str, size: f64, widest: f64, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        broken(line.trim_end(), size, widest, &mut lines);
    }
    if lines.is_empty() {
        lines.push(String::new());
    }
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            while !last.is_empty() && width(last, size) + size > widest {
                last.pop();
            }
            last.push('…');
        }
    }
    lines
}

fn broken(line: &str, size: f64, widest: f64, lines: &mut Vec<String>) {
    let mut now = String::new();
    // How much of `now` stays when it is broken where its last word began.
    let mut word_ends = 0;
    for c in line.chars() {
        if width(&now, size) + advance(c) * size > widest && !now.is_empty() && advance(c) > 0.0 {
            // A break that leaves next to nothing on its line helps nobody.
            let at = if width(&now[..word_ends], size) > widest / 3.0 { word_ends } else { now.len() };
            let rest = now.split_off(at);
            lines.push(std::mem::replace(&mut now, rest.trim_start().to_owned()).trim_end().to_owned());
            word_ends = 0;
        }
        now.push(c);
        if c == ' ' || c == '_' || c == '-' || c == '.' || c == ',' {
            word_ends = now.len();
        }
    }
    lines.push(now.trim_end().to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_lose_nothing_that_fits() {
        let text = "deployment_planner_for_the_northern_region";
        let lines = wrap(text, 13.0, 160.0, 4);
        assert!(lines.len() > 1 && lines.iter().all(|line| width(line, 13.0) <= 160.0), "{lines:?}");
        assert_eq!(lines.concat(), text);
        assert_eq!(wrap("n < 3\nelse", 11.0, 100.0, 4), ["n < 3", "else"]);
        let long = wrap(&"x".repeat(500), 13.0, 160.0, 3);
        assert_eq!(long.len(), 3);
        assert!(long[2].ends_with('…') && long.iter().all(|line| width(line, 13.0) <= 165.0), "{long:?}");
        assert_eq!(wrap("", 13.0, 10.0, 2), [""]);
        assert!(width("日本", 10.0) > width("ab", 10.0));
        assert!(width("e\u{301}", 10.0) <= width("e", 10.0));
        assert!(wrap("日本語の名前", 13.0, 5.0, 9).len() == 6);
    }
}
