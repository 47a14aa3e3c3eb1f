//! Pictures of a graph, as text: mermaid and dot. Subgraphs are drawn inside.

use std::fmt::Write as _;

use super::{Body, CompiledGraph, Destination, END, Name, START};

/// A mermaid flowchart. Dashed arrows are conditional.
pub fn mermaid(graph: &CompiledGraph) -> String {
    let mut out = String::from("flowchart TD\n");
    mermaid_part(graph, "", 1, &mut out);
    out
}

fn mermaid_part(graph: &CompiledGraph, prefix: &str, depth: usize, out: &mut String) {
    let pad = "  ".repeat(depth);
    let id = |name: &str| format!("{prefix}{}", sanitize(name));
    let mut line = |text: String| {
        let _ = writeln!(out, "{pad}{text}");
    };
    line(format!("{}([START])", id(START)));
    line(format!("{}([END])", id(END)));
    for (name, entry) in graph.nodes() {
        match &entry.body {
            Body::Leaf(_) => {
                let mut label = format!("<b>{name}</b><br/>{}", entry.info.kind);
                if graph.interrupt_before().contains(name) || graph.interrupt_after().contains(name) {
                    label.push_str("<br/>⏸");
                }
                if entry.policy.commit_point {
                    label.push_str("<br/>commit point");
                }
                line(format!("{}[\"{label}\"]", id(name)));
            }
            Body::Subgraph(inner) => {
                line(format!("subgraph {} [\"{name}\"]", id(name)));
                let mut inside = String::new();
                mermaid_part(inner, &format!("{}_", id(name)), depth + 1, &mut inside);
                line(inside.trim().to_owned());
                line("end".to_owned());
            }
        }
    }
    for arrow in arrows(graph) {
        let (from, to) = (id(&arrow.from), id(&arrow.to));
        let shaft = if arrow.conditional { "-.->" } else { "-->" };
        match arrow.label {
            Some(label) => line(format!("{from} {shaft}|\"{}\"| {to}", label.replace('"', "'"))),
            None => line(format!("{from} {shaft} {to}")),
        }
    }
}

/// A Graphviz digraph. Dashed arrows are conditional; a subgraph is one box.
pub fn dot(graph: &CompiledGraph) -> String {
    let mut out = format!("digraph {:?} {{\n  rankdir=TB; node [shape=box, fontname=\"sans-serif\"];\n", graph.name());
    let _ = writeln!(out, "  {START:?} [shape=oval]; {END:?} [shape=oval];");
    for (name, entry) in graph.nodes() {
        let kind = match &entry.body {
            Body::Leaf(_) => entry.info.kind.clone(),
            Body::Subgraph(inner) => format!("subgraph {}", inner.name()),
        };
        let _ = writeln!(out, "  {name:?} [label={:?}];", format!("{name}\n{kind}"));
    }
    for arrow in arrows(graph) {
        let style = if arrow.conditional { "style=dashed, " } else { "" };
        let label = arrow.label.unwrap_or_default();
        let _ = writeln!(out, "  {:?} -> {:?} [{style}label={label:?}];", arrow.from, arrow.to);
    }
    out.push_str("}\n");
    out
}

struct Arrow {
    from: String,
    to: String,
    label: Option<String>,
    conditional: bool,
}

fn arrows(graph: &CompiledGraph) -> Vec<Arrow> {
    let mut arrows = Vec::new();
    let starts = std::iter::once(START).chain(graph.nodes().keys().map(Name::as_str));
    for from in starts {
        let arrow = |to: &str, label: Option<String>, conditional| Arrow {
            from: from.to_owned(),
            to: to.to_owned(),
            label,
            conditional,
        };
        if let Some(leaving) = graph.leaving(from) {
            arrows.extend(leaving.to.iter().map(|to| arrow(to, None, false)));
            let destinations = leaving.routers.iter().flat_map(|r| r.destinations());
            arrows.extend(destinations.map(|Destination { to, label, .. }| arrow(&to, label, true)));
            let barriers = leaving.barriers.iter().filter_map(|id| graph.barriers().get(id));
            arrows.extend(barriers.map(|b| arrow(&b.to, Some("all".to_owned()), false)));
        }
        if let Some(entry) = graph.nodes().get(from) {
            arrows.extend(entry.info.gotos.iter().map(|to| arrow(to, Some("goto".to_owned()), true)));
            let handler = entry.policy.on_error.iter();
            arrows.extend(handler.map(|by| arrow(&by.to, Some("on error".to_owned()), true)));
        }
    }
    arrows
}

fn sanitize(name: &str) -> String {
    // `end` in lower case ends a mermaid subgraph; other marks would be syntax.
    let safe: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if safe.eq_ignore_ascii_case("end") { format!("{safe}_") } else { safe }
}
