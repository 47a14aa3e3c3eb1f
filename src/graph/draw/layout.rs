//! Where things lie: layers from top to bottom, arrows between them. Sugiyama's way: cycles are opened, layers taken by the longest path,
//! crossings lessened by barycentres, and everything moved towards what it is connected with. Text is not known here, only its size.

use std::collections::{BTreeMap, VecDeque};

use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;

/// Between neighbours of a layer.
const BESIDE: f64 = 26.0;
/// Between neighbours of a layer of which one is only an arrow that passes.
const BESIDE_ARROW: f64 = 14.0;
/// Between layers.
const BELOW: f64 = 46.0;
/// Sweeps that order layers; more change next to nothing.
const SWEEPS: usize = 12;
/// Sweeps that move what lies in them, and what may be moved in all of them together, so that a huge graph does not take minutes.
const MOVES: usize = 120;
const MOST_MOVED: usize = 2_000_000;
/// Arrows with more room between their ends than this take one of their own in each layer; in larger graphs only order counts.
const MOST_VERTICES: usize = 20_000;

/// How much room something takes: around its middle, and to its right for what hangs there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    pub w: f64,
    pub h: f64,
    pub right: f64,
}

/// An arrow, with the size of what is written at it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub from: usize,
    pub to: usize,
    pub label: Option<(f64, f64)>,
}

/// A point; y grows downwards.
pub(super) type Point = (f64, f64);

/// An arrow's way, from its beginning to its end, and the middle of its label.
#[derive(Debug, Clone, Default)]
pub(super) struct Route {
    pub points: Vec<Point>,
    pub label: Option<Point>,
}

/// A layout: the middles of the boxes and the ways of the links.
#[derive(Debug, Clone, Default)]
pub(super) struct Laid {
    pub boxes: Vec<Point>,
    pub routes: Vec<Route>,
    pub w: f64,
    pub h: f64,
}

/// Something that lies in a layer: a box, or a place where an arrow passes.
#[derive(Debug, Clone, Copy, Default)]
struct Vertex {
    layer: usize,
    left: f64,
    right: f64,
    h: f64,
    arrow: bool,
    x: f64,
}

/// Lays boxes out; the first one lies on top. Links from a box to itself are left out.
pub(super) fn lay_out(boxes: &[Size], links: &[Link]) -> Laid {
    let mut field = Field::new(boxes, links);
    field.order();
    field.place();
    field.result(boxes, links)
}

struct Field {
    vertices: Vec<Vertex>,
    layers: Vec<Vec<usize>>,
    /// Vertices of each link, from the upper end to the lower one; empty for one from a box to itself.
    chains: Vec<Vec<usize>>,
    reversed: Vec<bool>,
    above: Vec<Vec<usize>>,
    below: Vec<Vec<usize>>,
}

impl Field {
    fn new(boxes: &[Size], links: &[Link]) -> Self {
        let reversed = back(boxes.len(), links);
        let ends = |i: usize| if reversed[i] { (links[i].to, links[i].from) } else { (links[i].from, links[i].to) };
        let pairs: Vec<(usize, usize)> = (0..links.len()).map(ends).collect();
        let mut layer = longest(boxes.len(), &pairs);
        // Between two layers lies one for what is written at the arrows.
        if links.iter().any(|link| link.label.is_some()) {
            layer.iter_mut().for_each(|layer| *layer *= 2);
        }
        let vertex = |(size, layer): (&Size, &usize)| Vertex {
            layer: *layer,
            left: size.w / 2.0,
            right: size.w / 2.0 + size.right,
            h: size.h,
            ..Vertex::default()
        };
        let mut vertices: Vec<Vertex> = boxes.iter().zip(&layer).map(vertex).collect();
        let span = |(a, b): &(usize, usize)| layer[*b].saturating_sub(layer[*a]);
        let roomy = pairs.iter().map(span).sum::<usize>() < MOST_VERTICES;
        let mut chains = Vec::new();
        for ((upper, lower), link) in pairs.iter().copied().zip(links) {
            if upper == lower {
                chains.push(Vec::new());
                continue;
            }
            let mut chain = vec![upper];
            let middle = (layer[upper] + layer[lower]) / 2;
            for at in layer[upper] + 1..layer[lower] {
                let (w, h) = link.label.filter(|_| at == middle).unwrap_or_default();
                if roomy || w > 0.0 {
                    chain.push(vertices.len());
                    vertices.push(Vertex { layer: at, left: w / 2.0, right: w / 2.0, h, arrow: true, x: 0.0 });
                }
            }
            chain.push(lower);
            chains.push(chain);
        }
        let (mut above, mut below) = (vec![Vec::new(); vertices.len()], vec![Vec::new(); vertices.len()]);
        for pair in chains.iter().flat_map(|chain| chain.windows(2)) {
            below[pair[0]].push(pair[1]);
            above[pair[1]].push(pair[0]);
        }
        let mut layers = vec![Vec::new(); vertices.iter().map(|v| v.layer + 1).max().unwrap_or(0)];
        vertices.iter().enumerate().for_each(|(i, v)| layers[v.layer].push(i));
        Self { vertices, layers, chains, reversed, above, below }
    }

    /// Orders each layer so that few arrows cross.
    fn order(&mut self) {
        let mut best = (self.crossings(), self.layers.clone());
        for sweep in 0..SWEEPS {
            let down = sweep % 2 == 0;
            let mut rank = vec![0.0; self.vertices.len()];
            let count = self.layers.len();
            let number = |rank: &mut Vec<f64>, layer: &[usize]| {
                for (at, vertex) in layer.iter().enumerate() {
                    #[expect(clippy::cast_precision_loss, reason = "a place among few")]
                    let place = at as f64;
                    rank[*vertex] = place;
                }
            };
            self.layers.iter().for_each(|layer| number(&mut rank, layer));
            for step in 0..count {
                let at = if down { step } else { count - 1 - step };
                let near = if down { &self.above } else { &self.below };
                let mut keyed: Vec<(f64, usize)> =
                    self.layers[at].iter().map(|v| (mean(&near[*v], &rank).unwrap_or(rank[*v]), *v)).collect();
                keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
                self.layers[at] = keyed.into_iter().map(|(_, v)| v).collect();
                number(&mut rank, &self.layers[at]);
            }
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.layers.clone());
            }
            if best.0 == 0 {
                break;
            }
        }
        self.layers = best.1;
    }

    fn crossings(&self) -> u64 {
        let mut rank = vec![0; self.vertices.len()];
        for layer in &self.layers {
            layer.iter().enumerate().for_each(|(at, v)| rank[*v] = at);
        }
        let count = |layer: &Vec<usize>| {
            let ends = layer.iter().map(|v| {
                let mut ends: Vec<usize> = self.below[*v].iter().map(|to| rank[*to]).collect();
                ends.sort_unstable();
                ends
            });
            inversions(ends.flatten().collect()).1
        };
        self.layers.iter().map(count).sum()
    }

    /// Moves everything towards what it is connected with.
    fn place(&mut self) {
        for layer in 0..self.layers.len() {
            self.spread(layer, |_, _| None);
        }
        let moves = MOVES.min(MOST_MOVED / self.vertices.len().max(1)).max(4);
        for sweep in 0..moves {
            let count = self.layers.len();
            for step in 0..count {
                let down = sweep % 2 == 0;
                let layer = if down { step } else { count - 1 - step };
                let last = sweep + moves / 3 >= moves;
                self.spread(layer, move |field, vertex| field.wish(vertex, down || last, !down || last));
            }
        }
        let left = self.vertices.iter().map(|v| v.x - v.left).fold(f64::INFINITY, f64::min);
        self.vertices.iter_mut().for_each(|v| v.x -= left);
    }

    /// Where a vertex would lie best, and how much it matters: straight arrows matter most.
    fn wish(&self, vertex: usize, above: bool, below: bool) -> Option<(f64, f64)> {
        let near = |take: bool, near: &'_ [usize]| if take { near.to_vec() } else { Vec::new() };
        let mut all = near(above, &self.above[vertex]);
        all.extend(near(below, &self.below[vertex]));
        let pull = |other: &usize| match (self.vertices[vertex].arrow, self.vertices[*other].arrow) {
            (true, true) => 8.0,
            (false, false) => 1.0,
            _ => 2.0,
        };
        let weight: f64 = all.iter().map(pull).sum();
        (weight > 0.0).then(|| (all.iter().map(|o| self.vertices[*o].x * pull(o)).sum::<f64>() / weight, weight))
    }

    /// Places a layer as near to its wishes as its order and the room between neighbours allow: isotonic regression, by pooling neighbours
    /// that are in each other's way.
    fn spread(&mut self, layer: usize, wish: impl Fn(&Self, usize) -> Option<(f64, f64)>) {
        let order = self.layers[layer].clone();
        let mut offset = 0.0;
        let mut offsets = Vec::with_capacity(order.len());
        for (at, vertex) in order.iter().enumerate() {
            if let Some(before) = at.checked_sub(1).map(|before| self.vertices[order[before]]) {
                let this = self.vertices[*vertex];
                let gap = if before.arrow || this.arrow { BESIDE_ARROW } else { BESIDE };
                offset += before.right + gap + this.left;
            }
            offsets.push(offset);
        }
        // Each pool: its mean, its weight, how many.
        let mut pools: Vec<(f64, f64, usize)> = Vec::new();
        for (vertex, offset) in order.iter().zip(&offsets) {
            let fresh = (self.vertices[*vertex].x, 0.01);
            let (x, weight) = wish(self, *vertex).unwrap_or(fresh);
            let mut pool = (x - offset, weight, 1);
            while let Some(before) = pools.last().copied().filter(|before| before.0 >= pool.0) {
                pools.pop();
                let weight = before.1 + pool.1;
                pool = ((before.0 * before.1 + pool.0 * pool.1) / weight, weight, before.2 + pool.2);
            }
            pools.push(pool);
        }
        let places = pools.iter().flat_map(|(x, _, count)| std::iter::repeat_n(*x, *count));
        for ((vertex, offset), x) in order.iter().zip(offsets).zip(places) {
            self.vertices[*vertex].x = x + offset;
        }
    }

    fn result(&self, boxes: &[Size], links: &[Link]) -> Laid {
        let heights: Vec<f64> =
            self.layers.iter().map(|layer| layer.iter().map(|v| self.vertices[*v].h).fold(0.0, f64::max)).collect();
        let labelled = links.iter().any(|link| link.label.is_some());
        let gap = if labelled { BELOW / 2.0 } else { BELOW };
        let mut tops = Vec::new();
        let mut y = 0.0;
        for height in &heights {
            tops.push(y);
            y += height + gap;
        }
        let middle = |v: usize| tops[self.vertices[v].layer] + heights[self.vertices[v].layer] / 2.0;
        let ports = self.ports(boxes.len());
        let route = |(index, chain): (usize, &Vec<usize>)| {
            let mut route = Route::default();
            let (Some(first), Some(last)) = (chain.first(), chain.last()) else { return route };
            let port = |vertex: usize, lower: bool| ports.get(&(index, vertex, lower)).copied().unwrap_or(0.0);
            // Up to the end of its layer an arrow stays where it left its box: a higher neighbour may reach below that.
            let end = |vertex: usize, lower: bool| {
                let (x, top) = (self.vertices[vertex].x + port(vertex, lower), tops[self.vertices[vertex].layer]);
                let half = self.vertices[vertex].h / 2.0;
                if lower {
                    [(x, middle(vertex) + half), (x, top + heights[self.vertices[vertex].layer])]
                } else {
                    [(x, top), (x, middle(vertex) - half)]
                }
            };
            route.points.extend(end(*first, true));
            for v in &chain[1..chain.len() - 1] {
                let vertex = self.vertices[*v];
                let (top, height) = (tops[vertex.layer], heights[vertex.layer]);
                // Where nothing lies the arrow needs no place to pass.
                if height == 0.0 {
                    continue;
                }
                route.points.extend([(vertex.x, top), (vertex.x, top + height)]);
                if vertex.h > 0.0 {
                    route.label = Some((vertex.x, top + height / 2.0));
                }
            }
            route.points.extend(end(*last, false));
            if self.reversed[index] {
                route.points.reverse();
            }
            route
        };
        Laid {
            boxes: (0..boxes.len()).map(|v| (self.vertices[v].x, middle(v))).collect(),
            routes: self.chains.iter().enumerate().map(route).collect(),
            w: self.vertices.iter().map(|v| v.x + v.right).fold(0.0, f64::max),
            h: (y - gap).max(0.0),
        }
    }

    /// Where arrows touch a box: side by side, in the order in which they come. By link, box and whether it is the lower side.
    fn ports(&self, boxes: usize) -> BTreeMap<(usize, usize, bool), f64> {
        let mut sides: BTreeMap<(usize, bool), Vec<(f64, usize)>> = BTreeMap::new();
        for (link, chain) in self.chains.iter().enumerate().filter(|(_, chain)| chain.len() > 1) {
            let (first, last) = (chain[0], chain[chain.len() - 1]);
            sides.entry((first, true)).or_default().push((self.vertices[chain[1]].x, link));
            sides.entry((last, false)).or_default().push((self.vertices[chain[chain.len() - 2]].x, link));
        }
        let mut ports = BTreeMap::new();
        for ((vertex, lower), mut side) in sides.into_iter().filter(|((vertex, _), _)| *vertex < boxes) {
            side.sort_by(|a, b| a.0.total_cmp(&b.0));
            #[expect(clippy::cast_precision_loss, reason = "a handful of arrows")]
            let last = (side.len() - 1) as f64;
            let step = (self.vertices[vertex].left * 1.4 / last.max(1.0)).min(22.0);
            for (at, (_, link)) in side.into_iter().enumerate() {
                #[expect(clippy::cast_precision_loss, reason = "a handful of arrows")]
                let place = at as f64;
                ports.insert((link, vertex, lower), (place - last / 2.0) * step);
            }
        }
        ports
    }
}

fn mean(near: &[usize], rank: &[f64]) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a handful of arrows")]
    let count = near.len() as f64;
    (!near.is_empty()).then(|| near.iter().map(|v| rank[*v]).sum::<f64>() / count)
}

/// Which links lead back: inside a cycle those that lead to a box as near to the first one, or nearer. Without them there is no cycle.
fn back(boxes: usize, links: &[Link]) -> Vec<bool> {
    let mut map = DiGraphMap::<usize, ()>::from_edges(links.iter().map(|link| (link.from, link.to)));
    for node in 0..boxes {
        map.add_node(node);
    }
    let mut part = vec![0; boxes];
    for (number, members) in tarjan_scc(&map).into_iter().enumerate() {
        members.into_iter().for_each(|member| part[member] = number);
    }
    let mut leaving = vec![Vec::new(); boxes];
    links.iter().for_each(|link| leaving[link.from].push(link.to));
    let mut far: Vec<Option<usize>> = vec![None; boxes];
    for root in 0..boxes {
        let mut near = VecDeque::new();
        if far[root].is_none() {
            far[root] = Some(0);
            near.push_back(root);
        }
        while let Some(here) = near.pop_front() {
            let next = far[here].map(|far| far + 1);
            for to in &leaving[here] {
                if far[*to].is_none() {
                    far[*to] = next;
                    near.push_back(*to);
                }
            }
        }
    }
    let leads_back =
        |link: &Link| part[link.from] == part[link.to] && (far[link.to], link.to) < (far[link.from], link.from);
    links.iter().map(leads_back).collect()
}

/// Each box's layer: one below the lowest of those that lead to it.
fn longest(boxes: usize, pairs: &[(usize, usize)]) -> Vec<usize> {
    let mut waits = vec![0_usize; boxes];
    let mut leaving = vec![Vec::new(); boxes];
    for (from, to) in pairs.iter().filter(|(from, to)| from != to) {
        waits[*to] += 1;
        leaving[*from].push(*to);
    }
    let mut layer: Vec<usize> = vec![0; boxes];
    let sources: Vec<usize> = (0..boxes).filter(|v| waits[*v] == 0).collect();
    let mut ready = sources.clone();
    while let Some(from) = ready.pop() {
        for to in &leaving[from] {
            layer[*to] = layer[*to].max(layer[from] + 1);
            waits[*to] -= 1;
            if waits[*to] == 0 {
                ready.push(*to);
            }
        }
    }
    // What nothing leads to lies where it leads to, not at the far end of a long arrow.
    for source in sources.into_iter().filter(|source| *source != 0) {
        let nearest = leaving[source].iter().map(|to| layer[*to]).min();
        layer[source] = nearest.map_or(layer[source], |nearest| nearest.saturating_sub(1));
    }
    layer
}

/// A list in order, and how many pairs of it were not.
fn inversions(list: Vec<usize>) -> (Vec<usize>, u64) {
    if list.len() < 2 {
        return (list, 0);
    }
    let (right, left) = (list[list.len() / 2..].to_vec(), list[..list.len() / 2].to_vec());
    let ((left, a), (right, b)) = (inversions(left), inversions(right));
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut count, mut at) = (a + b, 0);
    for item in right {
        while at < left.len() && left[at] <= item {
            merged.push(left[at]);
            at += 1;
        }
        count += (left.len() - at) as u64;
        merged.push(item);
    }
    merged.extend_from_slice(&left[at..]);
    (merged, count)
}
