use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::surface::cube::{EDGES, edge_corners, edge_faces};
use crate::surface::interior::joined_corners;
use crate::surface::sweep::{choose_patch, decide_faces};

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

/// Heights of both signs and, in some cells, of very different size.
fn random_heights() -> impl Strategy<Value = [f64; CORNERS]> {
    let height = (any::<bool>(), -2.0..2.0f64);
    let heights = proptest::array::uniform8(height);
    (heights, 0.0..1.0f64).prop_map(|(heights, spread)| {
        heights.map(|(inside, power)| 10f64.powf(spread * power) * if inside { 1.0 } else { -1.0 })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// The surface parts the cell as the trilinear function does: a tunnel joins two regions into one.
    #[test]
    fn patch_parts_the_cell_as_the_trilinear_function_does(heights in random_heights()) {
        let case = (0..CORNERS).fold(0, |case, corner| case | u8::from(heights[corner] > 0.0) << corner);
        let ambiguous = ambiguous_faces(case);
        let decisions = decide_faces(case, ambiguous, &heights);
        let kind = CELLS.kind(case, decisions);
        let regions = Contour::new(case, spread(decisions, ambiguous)).regions;
        let parts = |joined: [u8; CORNERS]| (0..CORNERS).filter(|&c| joined[c] as usize == c).count();
        let has_tunnel = !std::ptr::eq(choose_patch(kind, &heights), &kind.discs);
        prop_assert_eq!(parts(regions) - usize::from(has_tunnel), parts(joined_corners(&heights)));
    }

    /// The sweep goes along z; the connectivity must not depend on that.
    #[test]
    fn connectivity_does_not_depend_on_the_axis_of_the_sweep(heights in random_heights()) {
        // Corner xyz of the turned cell is corner zxy of the cell.
        let turned = |corner: usize| corner >> 1 | (corner & 1) << 2;
        let joined = joined_corners(&heights);
        let joined_turned = joined_corners(&std::array::from_fn(|corner| heights[turned(corner)]));
        for (a, b) in (0..CORNERS).flat_map(|b| (0..b).map(move |a| (a, b))) {
            let alike = joined[turned(a)] == joined[turned(b)];
            prop_assert_eq!(joined_turned[a] == joined_turned[b], alike, "corners {} and {}", a, b);
        }
    }
}
