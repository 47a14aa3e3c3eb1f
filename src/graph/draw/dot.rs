//! Pictures as Graphviz digraphs.

use std::fmt::Write as _;

use super::{Glow, Picture, Role, Shape, Style};

impl Picture {
    /// As a Graphviz digraph; subgraphs are clusters.
    pub fn dot(&self) -> String {
        let mut out = format!("digraph {} {{\n", quoted(&self.name));
        out.push_str("  rankdir=TB; compound=true; node [shape=box, style=rounded, fontname=\"sans-serif\"];\n");
        out.push_str("  edge [fontname=\"sans-serif\", fontsize=10];\n");
        part(self, "", 1, &mut out);
        out.push_str("}\n");
        out
    }
}

fn part(picture: &Picture, prefix: &str, depth: usize, out: &mut String) {
    let pad = "  ".repeat(depth);
    for shape in &picture.shapes {
        let id = format!("{prefix}{}", shape.name);
        match &shape.role {
            Role::Start | Role::End => {
                let _ = writeln!(out, "{pad}{} [label={}, shape=oval];", quoted(&id), quoted(&shape.name));
            }
            Role::Leaf => {
                let _ = writeln!(out, "{pad}{} [label={}{}];", quoted(&id), quoted(&label(shape)), glow(shape));
            }
            Role::Frame(inner) => {
                let _ = writeln!(out, "{pad}subgraph {} {{", quoted(&format!("cluster_{id}")));
                let _ = writeln!(out, "{pad}  label={}; style=\"rounded,dashed\";", quoted(&label(shape)));
                part(inner, &format!("{id}/"), depth + 1, out);
                let _ = writeln!(out, "{pad}}}");
            }
        }
    }
    for arrow in &picture.arrows {
        let (from, to) = (&picture.shapes[arrow.from], &picture.shapes[arrow.to]);
        let mut with: Vec<String> = Vec::new();
        match arrow.style {
            Style::Plain => {}
            Style::Conditional => with.push("style=dashed".to_owned()),
            Style::OnError => with.push("style=dashed, color=\"#b91c1c\", fontcolor=\"#b91c1c\"".to_owned()),
        }
        if arrow.taken > 0 {
            with.push("penwidth=3".to_owned());
        }
        with.extend(arrow.label.iter().map(|label| format!("label={}", quoted(label))));
        // An arrow ends at a node; what it is cut off at is the frame around it.
        with.extend(frame(from, prefix).map(|frame| format!("ltail={frame}")));
        with.extend(frame(to, prefix).map(|frame| format!("lhead={frame}")));
        let with = if with.is_empty() { String::new() } else { format!(" [{}]", with.join(", ")) };
        let (from, to) = (anchor(from, prefix, true), anchor(to, prefix, false));
        let _ = writeln!(out, "{pad}{} -> {}{with};", quoted(&from), quoted(&to));
    }
}

fn frame(shape: &Shape, prefix: &str) -> Option<String> {
    matches!(shape.role, Role::Frame(_)).then(|| quoted(&format!("cluster_{prefix}{}", shape.name)))
}

/// The node that stands for a shape at an arrow's end: itself, or one inside.
fn anchor(shape: &Shape, prefix: &str, leaves: bool) -> String {
    let id = format!("{prefix}{}", shape.name);
    let Role::Frame(inner) = &shape.role else { return id };
    let inside = if leaves { inner.shapes.last() } else { inner.shapes.first() };
    inside.map_or(id.clone(), |inside| anchor(inside, &format!("{id}/"), leaves))
}

fn label(shape: &Shape) -> String {
    let marks = shape.marks.iter().map(|(_, mark)| mark.as_str());
    [shape.name.as_str(), shape.kind.as_str()].into_iter().chain(marks).collect::<Vec<_>>().join("\n")
}

fn glow(shape: &Shape) -> &'static str {
    match shape.trace.as_ref().map(|trace| trace.glow) {
        None => "",
        Some(Glow::Ran) => ", style=\"rounded,filled\", fillcolor=\"#dcfce7\", color=\"#15803d\"",
        Some(Glow::Failed) => ", style=\"rounded,filled\", fillcolor=\"#fee2e2\", color=\"#b91c1c\"",
        Some(Glow::Here) => ", style=\"rounded,filled\", fillcolor=\"#fef3c7\", color=\"#b45309\", penwidth=3",
    }
}

/// A text between quotes, in which only quotes and backslashes mean anything.
fn quoted(text: &str) -> String {
    let mut safe = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => safe.push_str("\\\""),
            '\\' => safe.push_str("\\\\"),
            '\n' => safe.push_str("\\n"),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe.push('"');
    safe
}
