//! Triangles within one cell: discs that fill one loop each, tubes between two.
//!
//! No edge of a patch but the contour's own has both ends on one face of the cell (surface.rs says why). Where that
//! cannot be, the patch gets a vertex of its own in the middle. Of all patches that are left, the one with the least
//! area over the middles of the edges is taken: it lies nearest to the loops.

use crate::surface::cube::{EDGES, edge_faces, edge_middle};

/// A piece of surface in one cell. Vertices below [`EDGES`] are on the cell's edges; vertex `EDGES + i` is a new one
/// in the middle of those that `centres[i]` names.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Patch {
    pub(super) triangles: Vec<[u8; 3]>,
    pub(super) centres: Vec<Vec<u8>>,
}

impl Patch {
    /// Adds `other`, which is in the same cell and shares no vertex with this one.
    pub(super) fn append(&mut self, other: &Patch) {
        let shift = self.centres.len() as u8;
        let renamed = |vertex: u8| if vertex as usize >= EDGES { vertex + shift } else { vertex };
        self.triangles.extend(other.triangles.iter().map(|corners| corners.map(renamed)));
        self.centres.extend_from_slice(&other.centres);
    }
}

/// Fills a loop.
pub(super) fn disc(cut: &[u8]) -> Patch {
    flat_disc(cut).unwrap_or_else(|| Patch {
        triangles: (0..cut.len()).map(|i| [cut[i], cut[(i + 1) % cut.len()], EDGES as u8]).collect(),
        centres: vec![cut.to_vec()],
    })
}

/// A tube between two loops: the shortest strip round both, with a ring of new vertices on it, one beside each vertex
/// of the shorter loop, in the middle of that and of its neighbours on the longer one. Without the ring the strip's
/// own edges would lie on the cell's faces, or cross the tunnel to avoid them.
pub(super) fn tube(a: &[u8], b: &[u8]) -> Patch {
    let (shorter, longer) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let strip = shortest_strip(shorter, longer);
    let place_on_shorter = |vertex: u8| shorter.iter().position(|&edge| edge == vertex);
    let ring = |vertex: u8| place_on_shorter(vertex).map_or(vertex, |place| (EDGES + place) as u8);

    let beside = |vertex: u8| {
        let touching = strip.iter().filter(|corners| corners.contains(&vertex)).flatten();
        let mut around: Vec<u8> = touching.copied().filter(|other| longer.contains(other)).collect();
        around.sort_unstable();
        around.dedup();
        around.push(vertex);
        around
    };
    let centres = shorter.iter().map(|&vertex| beside(vertex)).collect();
    let mut triangles: Vec<[u8; 3]> = strip.iter().map(|corners| corners.map(ring)).collect();
    for (place, &here) in shorter.iter().enumerate() {
        let next = shorter[(place + 1) % shorter.len()];
        triangles.extend([[here, next, ring(next)], [here, ring(next), ring(here)]]);
    }
    Patch { triangles, centres }
}

/// The triangulation of a loop without further vertices that has the least area, by dynamic programming over the
/// chains of the loop.
fn flat_disc(cut: &[u8]) -> Option<Patch> {
    let n = cut.len();
    // best[i][j]: area and tip of the best filling of the chain from i to j, closed by the edge from j to i.
    let mut best = vec![vec![None; n]; n];
    for i in 0..n - 1 {
        best[i][i + 1] = Some((0.0, 0));
    }
    for length in 2..n {
        for i in 0..n - length {
            let j = i + length;
            let is_contour = i == 0 && j == n - 1;
            if !is_contour && share_a_face(cut[i], cut[j]) {
                continue;
            }
            best[i][j] = (i + 1..j)
                .filter_map(|tip| {
                    let ((left, _), (right, _)) = (best[i][tip]?, best[tip][j]?);
                    Some((left + right + area_of([cut[i], cut[tip], cut[j]]), tip))
                })
                .min_by(|a: &(f64, usize), b| a.0.total_cmp(&b.0));
        }
    }
    best[0][n - 1]?;
    let mut triangles = Vec::new();
    let mut open = vec![(0, n - 1)];
    while let Some((i, j)) = open.pop() {
        if let (true, Some((_, tip))) = (j > i + 1, best[i][j]) {
            triangles.push([cut[i], cut[tip], cut[j]]);
            open.extend([(i, tip), (tip, j)]);
        }
    }
    Some(Patch { triangles, centres: Vec::new() })
}

/// The triangles of least area that go once round two loops, forward along `a` and backward along `b`.
fn shortest_strip(a: &[u8], b: &[u8]) -> Vec<[u8; 3]> {
    let starts = (0..a.len()).flat_map(|i| (0..b.len()).map(move |j| (i, j)));
    let strips = starts.map(|(i, j)| {
        let forward: Vec<u8> = (0..=a.len()).map(|step| a[(i + step) % a.len()]).collect();
        let backward: Vec<u8> = (0..=b.len()).map(|step| b[(j + b.len() - step) % b.len()]).collect();
        strip_between(&forward, &backward)
    });
    strips.min_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, strip)| strip).unwrap_or_default()
}

/// The triangles of least area between two chains, and their area, by dynamic programming over cross edges.
///
/// The first triangle is along `a` and the last along `b`, but not all of `a` comes before all of `b`: when the chains
/// are loops, no cross edge comes twice, and every strip round two loops is such a one from some start.
fn strip_between(a: &[u8], b: &[u8]) -> (f64, Vec<[u8; 3]>) {
    let along_a = |i: usize, j: usize| [a[i - 1], a[i], b[j]];
    let along_b = |i: usize, j: usize| [b[j], b[j - 1], a[i]];
    let (last_a, last_b) = (a.len() - 1, b.len() - 1);
    let is_barred =
        |i: usize, j: usize| (i == 0 && j > 0) || (i < last_a && j == last_b) || (i, j) == (last_a, 0);
    // areas[i][j]: the least area up to the cross edge from a[i] to b[j]; by_a: whether its last triangle is along a.
    let mut areas = vec![vec![f64::INFINITY; b.len()]; a.len()];
    let mut by_a = vec![vec![false; b.len()]; a.len()];
    areas[0][0] = 0.0;
    for (i, j) in
        (1..a.len()).flat_map(|i| (0..b.len()).map(move |j| (i, j))).filter(|&(i, j)| !is_barred(i, j))
    {
        let from_a = areas[i - 1][j] + area_of(along_a(i, j));
        let from_b = if j > 0 { areas[i][j - 1] + area_of(along_b(i, j)) } else { f64::INFINITY };
        by_a[i][j] = from_a < from_b;
        areas[i][j] = from_a.min(from_b);
    }
    let (mut i, mut j) = (last_a, last_b);
    let mut triangles = Vec::new();
    while i + j > 0 {
        if by_a[i][j] {
            triangles.push(along_a(i, j));
            i -= 1;
        } else {
            triangles.push(along_b(i, j));
            j -= 1;
        }
    }
    (areas[last_a][last_b], triangles)
}

fn area_of(edges: [u8; 3]) -> f64 {
    crate::mesh::triangle_area(edges.map(|edge| edge_middle(edge as usize)))
}

fn share_a_face(a: u8, b: u8) -> bool {
    edge_faces(a as usize) & edge_faces(b as usize) != 0
}
