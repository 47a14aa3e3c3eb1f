//! Pictures as mermaid flowcharts.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Picture, Role, Shape, Style};

/// Words that mean something to mermaid where a node's id may stand.
const RESERVED: [&str; 14] = [
    "end",
    "graph",
    "flowchart",
    "subgraph",
    "style",
    "linkstyle",
    "class",
    "classdef",
    "click",
    "default",
    "direction",
    "href",
    "call",
    "interpolate",
];

const CLASSES: &str = "\
  classDef ran fill:#dcfce7,stroke:#15803d,color:#14532d
  classDef failed fill:#fee2e2,stroke:#b91c1c,color:#7f1d1d
  classDef here fill:#fef3c7,stroke:#b45309,stroke-width:4px,color:#78350f
";

impl Picture {
    /// As a mermaid flowchart.
    pub fn mermaid(&self) -> String {
        let mut chart = Chart { out: String::from("flowchart TD\n"), ..Chart::default() };
        chart.part(self, "", 1);
        if self.traced {
            chart.out.push_str(CLASSES);
        }
        for (id, class) in &chart.classes {
            let _ = writeln!(chart.out, "  class {id} {class}");
        }
        if !chart.taken.is_empty() {
            let links: Vec<String> = chart.taken.iter().map(usize::to_string).collect();
            let _ = writeln!(chart.out, "  linkStyle {} stroke-width:4px", links.join(","));
        }
        chart.out
    }
}

#[derive(Default)]
struct Chart {
    out: String,
    ids: BTreeSet<String>,
    /// Arrows so far: they are styled by their number.
    links: usize,
    taken: Vec<usize>,
    classes: Vec<(String, &'static str)>,
}

impl Chart {
    fn part(&mut self, picture: &Picture, prefix: &str, depth: usize) {
        let pad = "  ".repeat(depth);
        let ids: Vec<String> = picture.shapes.iter().map(|shape| self.id(prefix, &shape.name)).collect();
        for (shape, id) in picture.shapes.iter().zip(&ids) {
            match &shape.role {
                Role::Start | Role::End => self.line(&pad, format_args!("{id}([{}])", shape.name)),
                Role::Leaf => self.line(&pad, format_args!("{id}[\"{}\"]", label(shape))),
                Role::Frame(inner) => {
                    let title = [&shape.name].into_iter().chain(shape.marks.iter().map(|(_, mark)| mark));
                    let title: Vec<String> = title.map(|text| quoted(text)).collect();
                    self.line(&pad, format_args!("subgraph {id} [\"{}\"]", title.join(" · ")));
                    self.part(inner, &format!("{id}_"), depth + 1);
                    self.line(&pad, format_args!("end"));
                }
            }
            if let Some(trace) = &shape.trace {
                self.classes.push((id.clone(), trace.glow.word()));
            }
        }
        for arrow in &picture.arrows {
            let (from, to) = (&ids[arrow.from], &ids[arrow.to]);
            let shaft = if arrow.style == Style::Plain { "-->" } else { "-.->" };
            match &arrow.label {
                Some(label) => self.line(&pad, format_args!("{from} {shaft}|\"{}\"| {to}", quoted(label))),
                None => self.line(&pad, format_args!("{from} {shaft} {to}")),
            }
            if arrow.taken > 0 {
                self.taken.push(self.links);
            }
            self.links += 1;
        }
    }

    fn line(&mut self, pad: &str, text: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.out, "{pad}{text}");
    }

    /// An id that no other node has: `a-b` and `a_b` look alike when only letters are left.
    fn id(&mut self, prefix: &str, name: &str) -> String {
        let safe: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let reserved = prefix.is_empty() && RESERVED.contains(&safe.to_ascii_lowercase().as_str());
        let base = if reserved { format!("{safe}_") } else { format!("{prefix}{safe}") };
        let mut id = base.clone();
        let mut number = 2;
        while !self.ids.insert(id.clone()) {
            id = format!("{base}_{number}");
            number += 1;
        }
        id
    }
}

fn label(shape: &Shape) -> String {
    let mut label = format!("<b>{}</b><br/>{}", quoted(&shape.name), quoted(&shape.kind));
    for (_, mark) in &shape.marks {
        label.push_str(&format!("<br/>{}", quoted(mark)));
    }
    label
}

/// A text as it may stand in a label between quotes.
fn quoted(text: &str) -> String {
    let mut safe = String::new();
    for c in text.chars() {
        match c {
            '"' => safe.push_str("#quot;"),
            '<' => safe.push_str("#lt;"),
            '>' => safe.push_str("#gt;"),
            '&' => safe.push_str("#amp;"),
            // They begin a code of this kind, and a text with marks of its own.
            '#' => safe.push_str("#35;"),
            '`' => safe.push_str("#96;"),
            '\n' => safe.push_str("<br/>"),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}
