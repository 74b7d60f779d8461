//! Smooth vertex normals.

use std::collections::HashMap;

use glam::DVec3;

use crate::mesh::Mesh;

/// The unit normal of each vertex: the mean of its triangles' normals, weighted by the angle of each at the vertex
/// (Thürmer and Wüthrich 1998), which does not depend on how the surface is cut into triangles.
///
/// Vertices at bit-identical positions, the two sides of a texture seam, get the same normal. A vertex without any
/// surface gets +Y.
pub fn vertex_normals(mesh: &Mesh) -> Vec<[f32; 3]> {
    let mut sums = vec![DVec3::ZERO; mesh.positions().len()];
    for (triangle, vertices) in mesh.triangles().iter().enumerate() {
        let corners = mesh.corners(triangle);
        let normal = (corners[1] - corners[0]).cross(corners[2] - corners[0]).normalize_or_zero();
        for (corner, &vertex) in vertices.iter().enumerate() {
            let here = corners[corner];
            let ahead = corners[(corner + 1) % 3] - here;
            let behind = corners[(corner + 2) % 3] - here;
            let angle = ahead.cross(behind).length().atan2(ahead.dot(behind));
            sums[vertex as usize] += normal * angle;
        }
    }
    if mesh.uvs().is_some() {
        join_seams(mesh, &mut sums);
    }
    sums.into_iter().map(|sum| sum.try_normalize().unwrap_or(DVec3::Y).as_vec3().into()).collect()
}

fn join_seams(mesh: &Mesh, sums: &mut [DVec3]) {
    let mut at_position: HashMap<[u32; 3], DVec3> = HashMap::with_capacity(sums.len());
    let key = |position: &[f32; 3]| position.map(|component| (component + 0.0).to_bits());
    for (position, sum) in mesh.positions().iter().zip(sums.iter()) {
        *at_position.entry(key(position)).or_default() += *sum;
    }
    for (position, sum) in mesh.positions().iter().zip(sums) {
        *sum = at_position.get(&key(position)).copied().unwrap_or(*sum);
    }
}
