//! STL, binary: what slicers for 3D printers read.

use super::ExportError;
use crate::mesh::Mesh;

/// Bytes of the header, which readers ignore. It must not begin with `solid`: that would announce the text form.
const HEADER_BYTES: usize = 80;
/// Bytes of a triangle: normal, three corners, and two bytes without a meaning.
const TRIANGLE_BYTES: usize = 50;

/// The mesh as an STL file. Units are the mesh's own: the format names none.
///
/// # Errors
/// More triangles than the format can count.
pub fn stl(mesh: &Mesh) -> Result<Vec<u8>, ExportError> {
    let triangles = mesh.triangles().len();
    let size = HEADER_BYTES + 4 + triangles * TRIANGLE_BYTES;
    let count = u32::try_from(triangles).map_err(|_| ExportError::TooLarge(size))?;
    let mut file = Vec::with_capacity(size);
    file.extend_from_slice(b"ORFEAS binary STL, Y up");
    file.resize(HEADER_BYTES, b' ');
    file.extend_from_slice(&count.to_le_bytes());
    for triangle in 0..triangles {
        let [a, b, c] = mesh.corners(triangle);
        let normal = (b - a).cross(c - a).normalize_or_zero();
        for point in [normal, a, b, c] {
            point.as_vec3().to_array().iter().for_each(|value| file.extend_from_slice(&value.to_le_bytes()));
        }
        file.extend_from_slice(&[0, 0]);
    }
    Ok(file)
}
