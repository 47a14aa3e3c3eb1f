//! Pictures as SVG, for light and dark pages, without any other program.

use std::fmt::Write as _;

use super::layout::{Laid, Link, Point, Route, Size, lay_out};
use super::measure::{width, wrap};
use super::{Arrow, Picture, Role, Shape, Style};

const NAME: f64 = 13.0;
const SMALL: f64 = 11.0;
/// Between lines, as a part of the font's size.
const LINE: f64 = 1.3;
const WIDEST_NAME: f64 = 220.0;
const WIDEST_LABEL: f64 = 190.0;
const MOST_LINES: usize = 4;
/// Around the whole picture, and inside a frame.
const MARGIN: f64 = 18.0;
/// How far an arrow from a node to itself reaches.
const LOOP: f64 = 34.0;

const STYLES: &str = "\
svg{color-scheme:light dark}\
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','DejaVu Sans',sans-serif;fill:#1f2328}\
.page{fill:#ffffff}\
.box{fill:#f6f8fa;stroke:#57606a;stroke-width:1.3}\
.end{fill:#eaeef2;stroke:#57606a;stroke-width:1.3}\
.frame{fill:#8c959f;fill-opacity:.07;stroke:#8c959f;stroke-width:1.2;stroke-dasharray:6 4}\
.name{font-size:13px;font-weight:600}\
.kind,.label,.defer{font-size:11px;fill:#57606a}\
.stop{font-size:11px;fill:#9a6700}.commit{font-size:11px;fill:#1a7f37}.trace{font-size:11px;fill:#0969da}\
.plate{fill:#ffffff;fill-opacity:.85}\
.edge{fill:none;stroke:#57606a;stroke-width:1.3}.head{fill:#57606a}\
.dashed{stroke-dasharray:5 4}\
.failure{stroke:#cf222e;stroke-dasharray:5 4}.failure-head{fill:#cf222e}\
.dim{opacity:.45}\
.taken{stroke:#0969da;stroke-width:3}.taken-head{fill:#0969da}\
.ran{fill:#dafbe1;stroke:#1a7f37}.failed{fill:#ffebe9;stroke:#cf222e;stroke-width:2}.here{fill:#fff8c5;stroke:#bf8700;stroke-width:3}\
@media(prefers-color-scheme:dark){\
text{fill:#e6edf3}.page{fill:#0d1117}.box{fill:#161b22;stroke:#8b949e}.end{fill:#21262d;stroke:#8b949e}\
.kind,.label,.defer{fill:#9198a1}.stop{fill:#d29922}.commit{fill:#3fb950}.trace{fill:#58a6ff}\
.plate{fill:#0d1117}.edge{stroke:#8b949e}.head{fill:#8b949e}\
.failure{stroke:#f85149}.failure-head{fill:#f85149}.taken{stroke:#58a6ff}.taken-head{fill:#58a6ff}\
.ran{fill:#12361f;stroke:#3fb950}.failed{fill:#3d1418;stroke:#f85149}.here{fill:#3a2d05;stroke:#d29922}}";

impl Picture {
    /// What its classes look like; it stands in every [`Picture::svg`].
    pub const STYLES: &str = STYLES;

    /// As an SVG.
    pub fn svg(&self) -> String {
        self.drawn(&self.name, &format!("<style>{STYLES}</style>\n"))
    }

    /// As an SVG inside a page that has [`Picture::STYLES`] among its own, with a name for those who do not see it.
    pub fn svg_inside(&self, title: &str) -> String {
        self.drawn(title, "")
    }

    fn drawn(&self, title: &str, style: &str) -> String {
        let scene = Scene::of(self);
        let (w, h) = (scene.laid.w + 2.0 * MARGIN, scene.laid.h + 2.0 * MARGIN);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w:.0}\" height=\"{h:.0}\" viewBox=\"0 0 {w:.0} {h:.0}\" role=\"img\">\n\
             <title>{}</title>\n{style}<rect class=\"page\" width=\"100%\" height=\"100%\"/>\n",
            escaped(title)
        );
        scene.draw((MARGIN, MARGIN), &mut out);
        out.push_str("</svg>\n");
        out
    }
}

/// A picture with its layout, and that of what is inside.
struct Scene<'p> {
    picture: &'p Picture,
    faces: Vec<Face<'p>>,
    labels: Vec<Option<Vec<String>>>,
    laid: Laid,
}

/// What a shape looks like: lines with their classes, and what is inside.
struct Face<'p> {
    lines: Vec<(&'static str, String)>,
    size: Size,
    inner: Option<Scene<'p>>,
}

impl<'p> Scene<'p> {
    fn of(picture: &'p Picture) -> Self {
        let loops = |index: usize| picture.arrows.iter().filter(move |a| a.from == index && a.to == index);
        let labels: Vec<Option<Vec<String>>> =
            picture.arrows.iter().map(|a| Some(wrap(a.label.as_ref()?, SMALL, WIDEST_LABEL, MOST_LINES))).collect();
        let faces: Vec<Face<'p>> = picture
            .shapes
            .iter()
            .enumerate()
            .map(|(index, shape)| {
                let mut face = Face::of(shape);
                let written = picture.arrows.iter().zip(&labels).filter(|(a, _)| a.from == index && a.to == index);
                let written = written.filter_map(|(_, label)| label.as_deref()).map(|lines| extent(lines).0);
                let widest = written.fold(0.0, f64::max);
                #[expect(clippy::cast_precision_loss, reason = "a handful of arrows")]
                let count = loops(index).count() as f64;
                if count > 0.0 {
                    face.size.right = LOOP * count + widest;
                    face.size.h = face.size.h.max(46.0);
                }
                face
            })
            .collect();
        let links = |(arrow, label): (&Arrow, &Option<Vec<String>>)| Link {
            from: arrow.from,
            to: arrow.to,
            label: label.as_deref().filter(|_| arrow.from != arrow.to).map(extent),
        };
        let links: Vec<Link> = picture.arrows.iter().zip(&labels).map(links).collect();
        let sizes: Vec<Size> = faces.iter().map(|face| face.size).collect();
        let laid = lay_out(&sizes, &links);
        Self { picture, faces, labels, laid }
    }

    fn draw(&self, (left, top): Point, out: &mut String) {
        let at = |(x, y): Point| (x + left, y + top);
        for (face, (shape, middle)) in self.faces.iter().zip(self.picture.shapes.iter().zip(&self.laid.boxes)) {
            face.draw(shape, at(*middle), self.picture.traced, out);
        }
        let arrows = || self.picture.arrows.iter().enumerate();
        // What was taken lies on top of what was not.
        for (index, arrow) in arrows().filter(|(_, a)| a.taken == 0).chain(arrows().filter(|(_, a)| a.taken > 0)) {
            let looped = arrow.from == arrow.to;
            let route = if looped { self.looped(index) } else { self.laid.routes[index].clone() };
            let route = Route { points: route.points.into_iter().map(at).collect(), label: route.label.map(at) };
            self.edge(arrow, &route, out);
        }
        // Labels come last: nothing may lie over them.
        for (index, arrow) in arrows() {
            let Some(lines) = &self.labels[index] else { continue };
            let looped = arrow.from == arrow.to;
            let middle = if looped { self.looped(index).label } else { self.laid.routes[index].label };
            if let Some(middle) = middle {
                label(lines, at(middle), self.picture.traced && arrow.taken == 0, out);
            }
        }
    }

    /// The way of an arrow from a node to itself, at the node's right.
    fn looped(&self, index: usize) -> Route {
        let arrow = &self.picture.arrows[index];
        let before = self.picture.arrows[..index].iter().filter(|a| a.from == arrow.from && a.to == arrow.to).count();
        #[expect(clippy::cast_precision_loss, reason = "a handful of arrows")]
        let reach = LOOP * (before as f64 + 0.8);
        let (x, y) = self.laid.boxes[arrow.from];
        let size = self.faces[arrow.from].size;
        let right = x + size.w / 2.0;
        let quarter = size.h / 4.0;
        let points = vec![
            (right, y + quarter),
            (right + reach, y + quarter),
            (right + reach, y - quarter),
            (right, y - quarter),
        ];
        let wide = self.labels[index].as_deref().map_or(0.0, |lines| extent(lines).0);
        Route { points, label: Some((right + reach * 0.8 + wide / 2.0, y)) }
    }

    fn edge(&self, arrow: &Arrow, route: &Route, out: &mut String) {
        let looped = arrow.from == arrow.to;
        let Some((path, tip, from)) = curve(&route.points, looped) else { return };
        let style = match arrow.style {
            Style::Plain => "",
            Style::Conditional => " dashed",
            Style::OnError => " failure",
        };
        let (lit, head) = match (self.picture.traced, arrow.taken > 0, arrow.style) {
            (true, true, _) => (" taken", "taken-head"),
            (true, false, Style::OnError) => (" dim", "failure-head dim"),
            (true, false, _) => (" dim", "head dim"),
            (false, _, Style::OnError) => ("", "failure-head"),
            (false, _, _) => ("", "head"),
        };
        let _ = writeln!(out, "<path class=\"edge{style}{lit}\" d=\"{path}\"/>");
        let (dx, dy) = (tip.0 - from.0, tip.1 - from.1);
        let length = dx.hypot(dy).max(0.001);
        let (dx, dy) = (dx / length, dy / length);
        let (back, side) = (8.0, 4.0);
        let (bx, by) = (tip.0 - dx * back, tip.1 - dy * back);
        let _ = writeln!(
            out,
            "<path class=\"{head}\" d=\"M{:.1} {:.1}L{:.1} {:.1}L{:.1} {:.1}Z\"/>",
            tip.0,
            tip.1,
            bx - dy * side,
            by + dx * side,
            bx + dy * side,
            by - dx * side
        );
    }
}

/// A smooth path, its tip, and where it comes from there.
fn curve(points: &[Point], looped: bool) -> Option<(String, Point, Point)> {
    let (first, tip) = (points.first()?, points.last()?);
    let mut path = format!("M{:.1} {:.1}", first.0, first.1);
    if let (true, [_, a, b, _]) = (looped, points) {
        let _ = write!(path, "C{:.1} {:.1} {:.1} {:.1} {:.1} {:.1}", a.0, a.1, b.0, b.1, tip.0, tip.1);
        return Some((path, *tip, (tip.0 + 1.0, tip.1)));
    }
    for pair in points.windows(2) {
        let ((ax, ay), (bx, by)) = (pair[0], pair[1]);
        if (ax - bx).abs() < 0.05 && (ay - by).abs() < 0.05 {
            continue;
        }
        if (ax - bx).abs() < 0.5 {
            let _ = write!(path, "L{bx:.1} {by:.1}");
        } else {
            let half = f64::midpoint(ay, by);
            let _ = write!(path, "C{ax:.1} {half:.1} {bx:.1} {half:.1} {bx:.1} {by:.1}");
        }
    }
    // It arrives as it came through the layer: from above or from below.
    let from = points.iter().rev().find(|point| (point.1 - tip.1).abs() > 0.5)?;
    Some((path, *tip, (tip.0, from.1)))
}

impl<'p> Face<'p> {
    fn of(shape: &'p Shape) -> Self {
        let (widest, class) =
            (WIDEST_NAME, if matches!(shape.role, Role::Start | Role::End) { "kind" } else { "name" });
        let name_size = if class == "name" { NAME } else { SMALL };
        let mut lines: Vec<(&'static str, String)> =
            wrap(&shape.name, name_size, widest, MOST_LINES).into_iter().map(|line| (class, line)).collect();
        let inner = match &shape.role {
            Role::Frame(inner) => Some(Scene::of(inner)),
            Role::Leaf => {
                lines.extend(wrap(&shape.kind, SMALL, widest, 1).into_iter().map(|line| ("kind", line)));
                None
            }
            Role::Start | Role::End => None,
        };
        lines.extend(shape.marks.iter().map(|(class, mark)| (*class, mark.clone())));
        let text_w = lines.iter().map(|(class, line)| width(line, size_of(class))).fold(0.0, f64::max);
        let text_h: f64 = lines.iter().map(|(class, _)| size_of(class) * LINE).sum();
        let (w, h) = match &inner {
            Some(scene) => (scene.laid.w.max(text_w) + 2.0 * MARGIN, scene.laid.h + text_h + 2.0 * MARGIN + 6.0),
            None if class == "kind" => (text_w + 24.0, text_h + 8.0),
            None => ((text_w + 28.0).max(90.0), text_h + 16.0),
        };
        Self { lines, size: Size { w, h, right: 0.0 }, inner }
    }

    fn draw(&self, shape: &Shape, (x, y): Point, traced: bool, out: &mut String) {
        let Size { w, h, .. } = self.size;
        let (left, top) = (x - w / 2.0, y - h / 2.0);
        let (class, radius) = match shape.role {
            Role::Start | Role::End => ("end", h / 2.0),
            Role::Leaf => ("box", 7.0),
            Role::Frame(_) => ("frame", 10.0),
        };
        let dim = if traced && shape.trace.is_none() && matches!(shape.role, Role::Leaf) { " dim" } else { "" };
        let glow = shape.trace.as_ref().filter(|_| self.inner.is_none()).map_or("", |trace| trace.glow.word());
        let _ = writeln!(out, "<g class=\"node{dim}\"><title>{}</title>", escaped(&told(shape)));
        let _ = writeln!(
            out,
            "<rect class=\"{class} {glow}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" rx=\"{radius:.1}\"/>"
        );
        // Once more around what ends with what is never undone.
        if shape.marks.iter().any(|(mark, _)| *mark == "commit") && self.inner.is_none() {
            let _ = writeln!(
                out,
                "<rect class=\"edge\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"9\"/>",
                left - 3.5,
                top - 3.5,
                w + 7.0,
                h + 7.0
            );
        }
        let text_h: f64 = self.lines.iter().map(|(class, _)| size_of(class) * LINE).sum();
        let mut baseline = if self.inner.is_some() { top + 8.0 } else { y - text_h / 2.0 };
        for (class, line) in &self.lines {
            let size = size_of(class);
            baseline += size * LINE;
            let _ = writeln!(
                out,
                "<text class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                baseline - size * 0.32,
                escaped(line)
            );
        }
        out.push_str("</g>\n");
        if let Some(scene) = &self.inner {
            scene.draw((x - scene.laid.w / 2.0, top + text_h + MARGIN + 6.0), out);
        }
    }
}

/// Everything that is known of a shape, for those who point at it.
fn told(shape: &Shape) -> String {
    let marks = shape.marks.iter().map(|(_, mark)| mark.as_str());
    let all = [shape.name.as_str(), shape.kind.as_str()].into_iter().chain(marks);
    all.filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n")
}

fn size_of(class: &str) -> f64 {
    if class == "name" { NAME } else { SMALL }
}

/// How much room a label takes.
fn extent(lines: &[String]) -> (f64, f64) {
    let widest = lines.iter().map(|line| width(line, SMALL)).fold(0.0, f64::max);
    #[expect(clippy::cast_precision_loss, reason = "a few lines")]
    let count = lines.len() as f64;
    (widest + 10.0, count * SMALL * LINE + 4.0)
}

fn label(lines: &[String], (x, y): Point, dim: bool, out: &mut String) {
    let (w, h) = extent(lines);
    let dim = if dim { " class=\"dim\"" } else { "" };
    let (left, top) = (x - w / 2.0, y - h / 2.0);
    let _ = writeln!(
        out,
        "<g{dim}><rect class=\"plate\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" rx=\"3\"/>"
    );
    let mut baseline = top + 2.0;
    for line in lines {
        baseline += SMALL * LINE;
        let _ = writeln!(
            out,
            "<text class=\"label\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            baseline - SMALL * 0.32,
            escaped(line)
        );
    }
    out.push_str("</g>\n");
}

/// A text as it may stand in XML.
fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' => safe.push('\n'),
            // XML has no way to say these.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}
