//! What a raw surface may have and a model should not: floaters, and faces that are none.

use std::collections::HashSet;
use std::convert::Infallible;

use crate::mesh::{Mesh, triangle_area};
use crate::topology::{DisjointSets, HalfEdges, NONE, is_collapsed};
use crate::watch::{Watch, before, part};

/// What [`clean`] takes away.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CleanOptions {
    /// Parts with less area than this much of the largest part's are floaters, 0 to 1. At 1 only the largest part
    /// stays.
    pub floater_area_ratio: f64,
}

impl Default for CleanOptions {
    /// A hundredth of the area is a tenth of the size: a part of that size is seen, a smaller one is dust.
    fn default() -> Self {
        Self { floater_area_ratio: 0.01 }
    }
}

/// The mesh without floaters, without faces that name a vertex twice or stand a second time on the same vertices,
/// and without vertices that no face uses. What stays keeps its order and its attributes.
///
/// A part is what hangs together by edges. A closed manifold stays one: only whole parts are taken from it.
pub fn clean(mesh: &Mesh, options: &CleanOptions) -> Mesh {
    let Ok(cleaned) = clean_watched::<Infallible>(mesh, options, &mut |_| Ok(()));
    cleaned
}

/// As [`clean`], watched.
///
/// # Errors
/// The watch's.
pub fn clean_watched<E>(mesh: &Mesh, options: &CleanOptions, watch: &mut Watch<'_, E>) -> Result<Mesh, E> {
    let proper = without_defects(mesh, &mut part(watch, 0.0, 0.4))?;
    let parts = Parts::of(&proper, &mut part(watch, 0.4, 0.9))?;
    watch(0.9)?;
    let threshold = parts.largest() * options.floater_area_ratio.clamp(0.0, 1.0);
    Ok(proper.retain_triangles(|triangle| parts.area_around(triangle) >= threshold))
}

fn without_defects<E>(mesh: &Mesh, watch: &mut Watch<'_, E>) -> Result<Mesh, E> {
    let triangles = mesh.triangles();
    let mut seen = HashSet::with_capacity(triangles.len());
    let mut is_first = Vec::with_capacity(triangles.len());
    for (triangle, &corners) in triangles.iter().enumerate() {
        before(watch, triangle, triangles.len())?;
        let mut vertices = corners;
        vertices.sort_unstable();
        is_first.push(!is_collapsed(corners) && seen.insert(vertices));
    }
    Ok(mesh.retain_triangles(|triangle| is_first[triangle]))
}

/// The parts of a mesh and their areas.
struct Parts {
    of_triangle: Vec<u32>,
    areas: Vec<f64>,
}

impl Parts {
    fn of<E>(mesh: &Mesh, watch: &mut Watch<'_, E>) -> Result<Self, E> {
        let (triangles, vertices) = (mesh.triangles(), mesh.positions().len());
        let half_edges = HalfEdges::new_watched(triangles, vertices, &mut part(watch, 0.0, 0.7))?;
        let mut sets = DisjointSets::new(triangles.len());
        for (half_edge, &twin) in half_edges.twins.iter().enumerate() {
            before(&mut part(watch, 0.7, 0.9), half_edge, half_edges.twins.len())?;
            if twin != NONE {
                sets.join(half_edge as u32 / 3, twin / 3);
            }
        }
        watch(0.9)?;
        let of_triangle: Vec<u32> = (0..triangles.len() as u32).map(|t| sets.find(t)).collect();
        let mut areas = vec![0.0; of_triangle.len()];
        for (triangle, &part) in of_triangle.iter().enumerate() {
            areas[part as usize] += triangle_area(mesh.corners(triangle));
        }
        Ok(Self { of_triangle, areas })
    }

    fn largest(&self) -> f64 {
        self.areas.iter().copied().fold(0.0, f64::max)
    }

    fn area_around(&self, triangle: usize) -> f64 {
        self.areas[self.of_triangle[triangle] as usize]
    }
}

#[cfg(test)]
mod tests {
    use glam::{Mat4, Vec3};

    use super::*;
    use crate::mesh::tests::cube;
    use crate::report::MeshReport;
    use crate::watch::tests::stops_at_each_look;

    /// A unit cube, and another of the given size beside it.
    fn two_cubes(size: f32) -> Mesh {
        let place = Mat4::from_translation(Vec3::splat(3.0)) * Mat4::from_scale(Vec3::splat(size));
        let other = cube().transformed(&place).unwrap();
        let mut positions = cube().positions().to_vec();
        positions.extend_from_slice(other.positions());
        let mut triangles = cube().triangles().to_vec();
        triangles.extend(other.triangles().iter().map(|corners| corners.map(|vertex| vertex + 8)));
        Mesh::new(positions, triangles).unwrap()
    }

    #[test]
    fn dust_goes_and_parts_stay() {
        let options = CleanOptions::default();
        assert_eq!(clean(&two_cubes(0.05), &options), cube());
        assert_eq!(MeshReport::of(&clean(&two_cubes(0.2), &options)).components, 2);
        let largest = CleanOptions { floater_area_ratio: 1.0 };
        assert_eq!(clean(&two_cubes(0.9), &largest), cube());
    }

    #[test]
    fn repeated_and_collapsed_faces_go_with_their_vertices() {
        let mut positions = cube().positions().to_vec();
        positions.push([9.0; 3]);
        let mut triangles = cube().triangles().to_vec();
        let [a, b, c] = triangles[0];
        triangles.extend([[b, c, a], [a, c, b], [8, 8, a]]);
        let broken = Mesh::new(positions, triangles).unwrap();
        assert_eq!(clean(&broken, &CleanOptions::default()), cube());
    }

    #[test]
    fn cleaning_stops_at_each_look() {
        stops_at_each_look(6, |watch| clean_watched(&two_cubes(0.2), &CleanOptions::default(), watch));
    }

    #[test]
    fn nothing_is_left_of_nothing() {
        assert!(clean(&Mesh::default(), &CleanOptions::default()).is_empty());
    }
}
