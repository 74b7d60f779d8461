use std::collections::{HashMap, HashSet};

use super::*;
use crate::surface::contour::is_inside;
use crate::surface::cube::{EDGES, edge_corners, edge_faces};

/// How often a patch has each edge of a triangle, by its ends in ascending order.
fn edge_uses(patch: &Patch) -> HashMap<[u8; 2], usize> {
    let mut uses = HashMap::new();
    for &[a, b, c] in &patch.triangles {
        for [from, to] in [[a, b], [b, c], [c, a]] {
            *uses.entry([from.min(to), from.max(to)]).or_default() += 1;
        }
    }
    uses
}

fn contour_segments(case: u8, joined: u8) -> HashSet<[u8; 2]> {
    let contour = Contour::new(case, joined);
    let segments =
        contour.loops.iter().flat_map(|cut| (0..cut.len()).map(|i| [cut[i], cut[(i + 1) % cut.len()]]));
    segments.map(|[a, b]| [a.min(b), a.max(b)]).collect()
}

fn check_patch(case: u8, joined: u8, patch: &Patch) {
    let segments = contour_segments(case, joined);
    let uses = edge_uses(patch);
    for segment in &segments {
        assert_eq!(uses.get(segment), Some(&1), "case {case} joined {joined}: contour {segment:?}");
    }
    for (ends, &count) in uses.iter().filter(|(ends, _)| !segments.contains(*ends)) {
        assert_eq!(count, 2, "case {case} joined {joined}: edge {ends:?}");
        let on_cube = ends.iter().all(|&end| (end as usize) < EDGES);
        let shared = || edge_faces(ends[0] as usize) & edge_faces(ends[1] as usize);
        assert!(!on_cube || shared() == 0, "case {case} joined {joined}: {ends:?} lies on a face");
    }
}

#[test]
fn inner_edges_of_every_patch_have_two_triangles_and_lie_on_no_face() {
    for (case, joined, kind) in CELLS.all() {
        check_patch(case, joined, &kind.discs);
        kind.tunnels.iter().for_each(|tunnel| check_patch(case, joined, &tunnel.patch));
    }
}

#[test]
fn every_cut_edge_has_exactly_one_place_in_the_loops() {
    for (case, joined, _) in CELLS.all() {
        let mut cut: Vec<u8> = Contour::new(case, joined).loops.concat();
        cut.sort_unstable();
        let is_cut = |edge: &u8| {
            let [a, b] = edge_corners(*edge as usize);
            is_inside(case, a) != is_inside(case, b)
        };
        let expected: Vec<u8> = (0..EDGES as u8).filter(is_cut).collect();
        assert_eq!(cut, expected, "case {case} joined {joined}");
    }
}

#[test]
fn discs_have_the_euler_number_of_discs_and_tubes_that_of_tubes() {
    for (case, joined, kind) in CELLS.all() {
        let loops = Contour::new(case, joined).loops.len() as i64;
        let euler = |patch: &Patch| {
            let edges = edge_uses(patch);
            let vertices: HashSet<u8> = patch.triangles.iter().flatten().copied().collect();
            vertices.len() as i64 - edges.len() as i64 + patch.triangles.len() as i64
        };
        assert_eq!(euler(&kind.discs), loops, "case {case} joined {joined}");
        for tunnel in &kind.tunnels {
            assert_eq!(euler(&tunnel.patch), loops - 2, "case {case} joined {joined}");
        }
    }
}
