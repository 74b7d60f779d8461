//! Wavefront OBJ.

use std::fmt::Write;

use super::{ExportError, vertex_colours};
use crate::model::Model;
use crate::report::weld;

/// The model as an OBJ file, with a vertex's colour behind its position (0 to 1, sRGB) as most readers of meshes
/// expect it. Vertices at one position, along a texture seam, are written once: a closed mesh stays closed.
///
/// # Errors
/// The texture cannot be read.
pub fn obj(model: &Model) -> Result<Vec<u8>, ExportError> {
    let mesh = &model.mesh;
    let colours = vertex_colours(model)?;
    let mut text = format!("# ORFEAS {}\no model\n", env!("CARGO_PKG_VERSION"));
    // Writing to a String does not fail.
    let welded = weld(mesh);
    for &vertex in &welded.sources {
        let vertex = vertex as usize;
        let [x, y, z] = mesh.positions()[vertex];
        let _ = write!(text, "v {x} {y} {z}");
        if let Some([r, g, b, _]) = colours.as_ref().map(|colours| colours[vertex]) {
            let [r, g, b] = [r, g, b].map(|channel| f32::from(channel) / 255.0);
            let _ = write!(text, " {r:.4} {g:.4} {b:.4}");
        }
        text.push('\n');
    }
    for [x, y, z] in mesh.normals().unwrap_or_default() {
        let _ = writeln!(text, "vn {x} {y} {z}");
    }
    for (corners, places) in mesh.triangles().iter().zip(&welded.triangles) {
        // Counted from one.
        let [a, b, c] = places.map(|place| place + 1);
        let [n, o, p] = corners.map(|vertex| vertex + 1);
        let _ = match mesh.normals() {
            Some(_) => writeln!(text, "f {a}//{n} {b}//{o} {c}//{p}"),
            None => writeln!(text, "f {a} {b} {c}"),
        };
    }
    Ok(text.into_bytes())
}
