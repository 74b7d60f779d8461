//! What a finished mesh is like: the figures that a job result carries and that tests insist on.

use std::collections::HashMap;
use std::convert::Infallible;

use serde::{Deserialize, Serialize};

use crate::mesh::{Bounds, Mesh};
use crate::topology::{DisjointSets, HalfEdges, is_collapsed};
use crate::watch::{Watch, part};

/// Counts and measures of a mesh.
///
/// Topology is judged as a reader of the file sees it: vertices at bit-identical positions are one vertex, so that
/// a texture seam is no gap and two surfaces that touch in a point are no manifold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeshReport {
    /// Vertices of the file; a position on a texture seam counts more than once.
    pub vertices: usize,
    /// Triangles.
    pub faces: usize,
    /// Whether every edge joins exactly two faces, which agree on where the outside is.
    pub watertight: bool,
    /// Whether no edge joins more than two faces and the faces round each vertex are one fan.
    pub manifold: bool,
    /// Surfaces that share no edge with another.
    pub components: usize,
    /// Triangles that name a position twice.
    pub degenerate_faces: usize,
    /// Vertices − edges + faces, with used vertices at one position counted once.
    pub euler_characteristic: i64,
    /// How many handles there are in all; only a watertight manifold has a number of them.
    pub genus: Option<i64>,
    /// The signed volume; positive if the faces look outwards. Without meaning unless watertight.
    pub volume: f64,
    /// The area of all faces.
    pub area: f64,
    /// The box around it; `None` without vertices.
    pub bounds: Option<Bounds>,
}

impl MeshReport {
    /// Measures a mesh.
    pub fn of(mesh: &Mesh) -> Self {
        let Ok(report) = Self::of_watched::<Infallible>(mesh, &mut |_| Ok(()));
        report
    }

    /// As [`Self::of`], watched.
    ///
    /// # Errors
    /// The watch's.
    pub fn of_watched<E>(mesh: &Mesh, watch: &mut Watch<'_, E>) -> Result<Self, E> {
        watch(0.0)?;
        let welded = weld(mesh);
        let triangles = &welded.triangles;
        let half_edges = HalfEdges::new_watched(triangles, welded.vertices, &mut part(watch, 0.3, 0.6))?;
        let fans = half_edges.fans_watched(triangles, &mut part(watch, 0.6, 0.8))?;
        watch(0.8)?;
        let used = used_vertices(triangles, welded.vertices);

        let degenerate_faces = triangles.iter().filter(|&&corners| is_collapsed(corners)).count();
        let proper_faces = triangles.len() - degenerate_faces;
        let watertight =
            proper_faces > 0 && half_edges.boundary_edges == 0 && half_edges.irregular_edges == 0;
        let manifold = half_edges.irregular_edges == 0 && fans.vertices.len() == used;
        let components = count_components(triangles, &half_edges);
        let euler_characteristic = used as i64 - half_edges.edges as i64 + proper_faces as i64;
        let genus = (watertight && manifold).then_some((2 * components as i64 - euler_characteristic) / 2);
        Ok(Self {
            vertices: mesh.positions().len(),
            faces: mesh.triangles().len(),
            watertight,
            manifold,
            components,
            degenerate_faces,
            euler_characteristic,
            genus,
            volume: mesh.signed_volume(),
            area: mesh.area(),
            bounds: mesh.bounds(),
        })
    }
}

/// A triangle list in which one position is one vertex.
pub(crate) struct Welded {
    /// The welded vertices of each triangle.
    pub(crate) triangles: Vec<[u32; 3]>,
    /// How many there are.
    pub(crate) vertices: usize,
    /// The first vertex of the mesh at each welded one.
    pub(crate) sources: Vec<u32>,
}

/// Makes one vertex of those at bit-identical positions, in the order of their first use in the vertex list.
pub(crate) fn weld(mesh: &Mesh) -> Welded {
    let mut at_position: HashMap<[u32; 3], u32> = HashMap::with_capacity(mesh.positions().len());
    let mut sources = Vec::new();
    let mut of_vertex = Vec::with_capacity(mesh.positions().len());
    for (vertex, position) in mesh.positions().iter().enumerate() {
        // Adding zero makes one key of 0 and −0.
        let key = position.map(|component| (component + 0.0).to_bits());
        of_vertex.push(*at_position.entry(key).or_insert_with(|| {
            sources.push(vertex as u32);
            sources.len() as u32 - 1
        }));
    }
    let triangles = mesh.triangles().iter().map(|corners| corners.map(|v| of_vertex[v as usize])).collect();
    Welded { triangles, vertices: sources.len(), sources }
}

fn used_vertices(triangles: &[[u32; 3]], vertices: usize) -> usize {
    let mut used = vec![false; vertices];
    let proper = triangles.iter().filter(|&&corners| !is_collapsed(corners));
    proper.flatten().for_each(|&vertex| used[vertex as usize] = true);
    used.into_iter().filter(|&used| used).count()
}

fn count_components(triangles: &[[u32; 3]], half_edges: &HalfEdges) -> usize {
    let mut sets = DisjointSets::new(triangles.len());
    for (half_edge, &twin) in half_edges.twins.iter().enumerate() {
        if twin != crate::topology::NONE {
            sets.join(half_edge as u32 / 3, twin / 3);
        }
    }
    let proper = (0..triangles.len() as u32).filter(|&t| !is_collapsed(triangles[t as usize]));
    proper.filter(|&t| sets.find(t) == t).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::tests::{cube, tetrahedron};

    #[test]
    fn cube_is_a_closed_manifold_of_genus_0() {
        let report = MeshReport::of(&cube());
        assert!(report.watertight && report.manifold, "{report:?}");
        assert_eq!((report.faces, report.components, report.genus), (12, 1, Some(0)));
        assert!((report.volume - 1.0).abs() < 1e-9 && (report.area - 6.0).abs() < 1e-9, "{report:?}");
    }

    #[test]
    fn missing_face_is_not_watertight() {
        let report = MeshReport::of(&cube().retain_triangles(|triangle| triangle != 3));
        assert!(!report.watertight && report.manifold && report.genus.is_none(), "{report:?}");
    }

    #[test]
    fn tetrahedra_that_touch_in_a_corner_are_watertight_but_no_manifold() {
        let first = tetrahedron();
        let mut positions = first.positions().to_vec();
        positions.extend(first.positions().iter().map(|position| position.map(|component| -component)));
        let mut triangles = first.triangles().to_vec();
        triangles.extend(first.triangles().iter().map(|&[a, b, c]| [a + 4, c + 4, b + 4]));
        let report = MeshReport::of(&Mesh::new(positions, triangles).unwrap());
        assert!(report.watertight && !report.manifold && report.components == 2, "{report:?}");
    }

    #[test]
    fn split_vertices_at_one_position_are_no_gap() {
        let cube = cube();
        let sources: Vec<u32> = cube.triangles().iter().flatten().copied().collect();
        let triangles = (0..12).map(|triangle| [3 * triangle, 3 * triangle + 1, 3 * triangle + 2]).collect();
        let report = MeshReport::of(&cube.with_vertices(&sources, triangles));
        assert!(report.watertight && report.manifold && report.vertices == 36, "{report:?}");
    }

    #[test]
    fn turned_face_is_not_watertight() {
        let mut triangles = cube().triangles().to_vec();
        triangles[0].swap(0, 1);
        let report = MeshReport::of(&Mesh::new(cube().positions().to_vec(), triangles).unwrap());
        assert!(!report.watertight && !report.manifold, "{report:?}");
    }
}
