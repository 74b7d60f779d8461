//! PLY, binary and little-endian (Turk, *The PLY Polygon File Format*, 1994).

use std::fmt::Write;

use super::{ExportError, vertex_colours};
use crate::model::Model;
use crate::report::weld;

/// The model as a PLY file. Vertices at one position, along a texture seam, are written once: a closed mesh stays
/// closed.
///
/// # Errors
/// The texture cannot be read.
pub fn ply(model: &Model) -> Result<Vec<u8>, ExportError> {
    let mesh = &model.mesh;
    let colours = vertex_colours(model)?;
    let welded = weld(mesh);
    let mut header = String::from("ply\nformat binary_little_endian 1.0\ncomment ORFEAS\n");
    // Writing to a String does not fail.
    let _ = writeln!(header, "element vertex {}", welded.sources.len());
    header.push_str("property float x\nproperty float y\nproperty float z\n");
    if mesh.normals().is_some() {
        header.push_str("property float nx\nproperty float ny\nproperty float nz\n");
    }
    if colours.is_some() {
        header.push_str("property uchar red\nproperty uchar green\nproperty uchar blue\n");
    }
    let _ = writeln!(header, "element face {}", mesh.triangles().len());
    header.push_str("property list uchar int vertex_indices\nend_header\n");

    let mut file = header.into_bytes();
    for &vertex in &welded.sources {
        let vertex = vertex as usize;
        let position = mesh.positions()[vertex];
        let normal = mesh.normals().map(|normals| normals[vertex]);
        for value in position.iter().chain(normal.iter().flatten()) {
            file.extend_from_slice(&value.to_le_bytes());
        }
        if let Some([r, g, b, _]) = colours.as_ref().map(|colours| colours[vertex]) {
            file.extend_from_slice(&[r, g, b]);
        }
    }
    for corners in &welded.triangles {
        file.push(3);
        corners.iter().for_each(|vertex| file.extend_from_slice(&vertex.to_le_bytes()));
    }
    Ok(file)
}
