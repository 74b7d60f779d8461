use glam::{Mat4, Vec3};
use proptest::prelude::*;

use super::*;
use crate::mesh::tests::{cube, tetrahedron};
use crate::report::MeshReport;
use crate::watch::tests::stops_at_each_look;

/// A torus of `rings` × `sides` quads, moved along its axis by `bump` at each vertex.
fn torus(rings: u32, sides: u32, bump: impl Fn(u32) -> f32) -> Mesh {
    let angle = |step: u32, of: u32| step as f32 / of as f32 * std::f32::consts::TAU;
    let mut positions = Vec::new();
    let mut triangles = Vec::new();
    for ring in 0..rings {
        for side in 0..sides {
            let (u, v) = (angle(ring, rings), angle(side, sides));
            let radius = 1.0 + 0.4 * v.cos();
            let height = 0.4 * v.sin() + bump(ring * sides + side);
            positions.push([radius * u.cos(), radius * u.sin(), height]);
            let at = |r: u32, s: u32| (r % rings) * sides + s % sides;
            let corners = [at(ring, side), at(ring + 1, side), at(ring + 1, side + 1), at(ring, side + 1)];
            triangles.push([corners[0], corners[1], corners[2]]);
            triangles.push([corners[0], corners[2], corners[3]]);
        }
    }
    Mesh::new(positions, triangles).unwrap()
}

/// A square sheet of `side` × `side` quads with its four corners at ±1.
fn sheet(side: u32) -> Mesh {
    let row = side + 1;
    let place = |step: u32| step as f32 / side as f32 * 2.0 - 1.0;
    let positions = (0..row * row).map(|i| [place(i % row), place(i / row), 0.0]).collect();
    let quads = (0..side * side).map(|i| i / side * row + i % side);
    let triangles = quads.flat_map(|i| [[i, i + 1, i + row + 1], [i, i + row + 1, i + row]]).collect();
    Mesh::new(positions, triangles).unwrap()
}

#[test]
fn a_torus_keeps_its_hole_and_its_volume() {
    let fine = torus(128, 64, |_| 0.0);
    let before = MeshReport::of(&fine);
    let coarse = simplify(&fine, 1_000).unwrap();
    let after = MeshReport::of(&coarse);
    assert!(after.watertight && after.manifold, "{after:?}");
    assert_eq!((after.faces, after.genus), (1_000, Some(1)));
    assert!((after.volume / before.volume - 1.0).abs() < 0.01, "{} {}", after.volume, before.volume);
}

#[test]
fn a_fine_cube_becomes_twelve_triangles_with_its_corners() {
    let mut positions: Vec<[f32; 3]> = Vec::new();
    let mut triangles = Vec::new();
    let turns = [Mat4::IDENTITY, Mat4::from_rotation_y(std::f32::consts::PI)];
    let quarter = std::f32::consts::FRAC_PI_2;
    let sides = [Mat4::from_rotation_x(quarter), Mat4::from_rotation_x(-quarter)];
    let flanks = [Mat4::from_rotation_y(quarter), Mat4::from_rotation_y(-quarter)];
    let side = sheet(12).transformed(&Mat4::from_translation(Vec3::Z)).unwrap();
    for turn in turns.iter().chain(&sides).chain(&flanks) {
        let turned = side.clone().transformed(turn).unwrap();
        let first = positions.len() as u32;
        // Rotations round; on the grid of the sheet, the sides meet exactly.
        positions.extend(turned.positions().iter().map(|position| position.map(|c| (c * 6.0).round() / 6.0)));
        triangles.extend(turned.triangles().iter().map(|corners| corners.map(|vertex| vertex + first)));
    }
    let loose = Mesh::new(positions, triangles).unwrap();
    let welded = crate::report::weld(&loose);
    let fine = loose.with_vertices(&welded.sources, welded.triangles);
    assert!(MeshReport::of(&fine).watertight);

    let coarse = simplify(&fine, 12).unwrap();
    let report = MeshReport::of(&coarse);
    assert!(report.watertight && report.manifold && report.faces == 12, "{report:?}");
    assert!((report.volume - 8.0).abs() < 1e-3, "{report:?}");
}

#[test]
fn the_outline_of_an_open_sheet_stays() {
    let coarse = simplify(&sheet(20), 8).unwrap();
    assert!(coarse.triangles().len() <= 8);
    assert!((coarse.area() - 4.0).abs() < 1e-4, "{}", coarse.area());
}

#[test]
fn nothing_is_collapsed_that_would_close_a_part() {
    for mesh in [tetrahedron(), cube()] {
        let report = MeshReport::of(&simplify(&mesh, 0).unwrap());
        assert!(report.watertight && report.manifold, "{report:?}");
        assert!(report.faces >= 4, "{report:?}");
    }
}

#[test]
fn enough_triangles_are_left_alone_and_colours_are_mixed() {
    let colours: Vec<[u8; 4]> = (0..128 * 64).map(|i| [(i % 200) as u8, 100, 0, 255]).collect();
    let fine = torus(128, 64, |_| 0.0).with_colours(colours).unwrap();
    assert_eq!(simplify(&fine, 1_000_000).unwrap().triangles().len(), fine.triangles().len());
    let coarse = simplify(&fine, 500).unwrap();
    assert!(
        coarse
            .colours()
            .unwrap()
            .iter()
            .all(|[red, green, _, alpha]| { *red < 200 && *green == 100 && *alpha == 255 })
    );
}

#[test]
fn the_same_mesh_gives_the_same_result() {
    let fine = torus(64, 32, |i| (i.wrapping_mul(2_654_435_761) >> 20) as f32 * 1e-5);
    assert_eq!(simplify(&fine, 700).unwrap(), simplify(&fine, 700).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_rough_surface_stays_closed_and_manifold_at_any_target(
        bumps in prop::collection::vec(-0.2f32..0.2, 24 * 16),
        target in 0usize..900,
    ) {
        let fine = torus(24, 16, |vertex| bumps[vertex as usize]);
        let report = MeshReport::of(&simplify(&fine, target).unwrap());
        prop_assert!(report.watertight && report.manifold, "{:?}", report);
        prop_assert_eq!(report.genus, Some(1));
        prop_assert!(report.degenerate_faces == 0);
    }
}

#[test]
fn simplification_stops_at_each_look() {
    let fine = torus(48, 24, |_| 0.0);
    stops_at_each_look(6, |watch| simplify_watched(&fine, 300, watch));
    // Sixteen times the edges, so looks within the lists as well.
    let finer = torus(192, 96, |_| 0.0);
    stops_at_each_look(20, |watch| simplify_watched(&finer, 300, watch));
}
