//! Where the surface cuts the faces of a cell: one or two segments on each face, closed loops on the whole cell.

use crate::surface::cube::{CORNERS, EDGES, FACES, edge_between, edge_corners, face_corners};
use crate::topology::DisjointSets;

/// Whether corner `corner` is inside in a cell of kind `case`, whose bits are the corners.
pub(super) fn is_inside(case: u8, corner: usize) -> bool {
    case >> corner & 1 == 1
}

/// The faces of a cell whose corners are inside and outside by turns, as bits: only there is more than one contour
/// possible.
pub(super) fn ambiguous_faces(case: u8) -> u8 {
    let alternates = |face: usize| {
        let inside = face_corners(face).map(|corner| is_inside(case, corner));
        inside[0] == inside[2] && inside[1] == inside[3] && inside[0] != inside[1]
    };
    (0..FACES).filter(|&face| alternates(face)).fold(0, |faces, face| faces | 1 << face)
}

/// The loops in which the surface cuts the faces of a cell.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Contour {
    /// The cut edges of each loop, counter-clockwise seen from outside the surface.
    pub(super) loops: Vec<Vec<u8>>,
    /// For each corner the least corner that it is joined to over the cell's faces.
    pub(super) regions: [u8; CORNERS],
}

impl Contour {
    /// The contour of a cell of kind `case`. On the ambiguous faces that have a bit in `joined`, the two corners that
    /// are inside are joined over the face; on the others the two that are outside.
    pub(super) fn new(case: u8, joined: u8) -> Self {
        let ambiguous = ambiguous_faces(case);
        let mut successors = [None; EDGES];
        let mut sets = DisjointSets::new(CORNERS);
        for edge in 0..EDGES {
            let [a, b] = edge_corners(edge);
            if is_inside(case, a) == is_inside(case, b) {
                sets.join(a as u32, b as u32);
            }
        }
        for face in 0..FACES {
            let joined = joined >> face & 1 == 1;
            add_segments(case, face, joined, &mut successors);
            if ambiguous >> face & 1 == 1 {
                let corners = face_corners(face);
                let first = usize::from(is_inside(case, corners[0]) != joined);
                sets.join(corners[first] as u32, corners[first + 2] as u32);
            }
        }
        let regions = std::array::from_fn(|corner| sets.find(corner as u32) as u8);
        Self { loops: close_loops(successors), regions }
    }

    /// The regions inside and outside of a loop's edges.
    pub(super) fn sides(&self, case: u8, number: usize) -> (u8, u8) {
        let [a, b] = edge_corners(self.loops[number][0] as usize);
        let (inside, outside) = if is_inside(case, a) { (a, b) } else { (b, a) };
        (self.regions[inside], self.regions[outside])
    }
}

/// Adds the segments on one face: each runs from an edge where a walk round the face, counter-clockwise seen from
/// outside the cell, comes inside, to one where it goes outside. The neighbour walks the other way, so it gets the
/// same segments reversed.
fn add_segments(case: u8, face: usize, joined: bool, successors: &mut [Option<u8>; EDGES]) {
    let corners = face_corners(face);
    let inside = corners.map(|corner| is_inside(case, corner));
    for place in 0..4 {
        if inside[place] || !inside[(place + 1) % 4] {
            continue;
        }
        let entered = edge_between(corners[place], corners[(place + 1) % 4]);
        // Leave at the end of the inside run; if the insides are joined, go round the outside corner before instead.
        let mut leave = (place + 1) % 4;
        if joined && ambiguous_faces(case) >> face & 1 == 1 {
            leave = (place + 3) % 4;
        } else {
            while inside[(leave + 1) % 4] {
                leave = (leave + 1) % 4;
            }
        }
        successors[entered] = Some(edge_between(corners[leave], corners[(leave + 1) % 4]) as u8);
    }
}

fn close_loops(mut successors: [Option<u8>; EDGES]) -> Vec<Vec<u8>> {
    let mut loops = Vec::new();
    for start in 0..EDGES {
        let mut cut = Vec::new();
        let mut edge = start;
        while let Some(next) = successors[edge].take() {
            cut.push(edge as u8);
            edge = next as usize;
        }
        if !cut.is_empty() {
            loops.push(cut);
        }
    }
    loops
}
