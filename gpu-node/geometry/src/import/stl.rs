//! A reader of binary STL. The format is a heap of triangles; corners at bit-identical positions are one vertex again.

use super::{ImportError, painted};
use crate::mesh::Mesh;
use crate::model::Model;
use crate::report::weld;

const HEADER_BYTES: usize = 80;
const TRIANGLE_BYTES: usize = 50;

/// Reads a binary STL file.
///
/// # Errors
/// It is damaged.
pub fn read_stl(file: &[u8]) -> Result<Model, ImportError> {
    let early = ImportError::Container("the header ends early");
    let (count, triangles) = file.get(HEADER_BYTES..).and_then(<[u8]>::split_first_chunk).ok_or(early)?;
    let count = u32::from_le_bytes(*count) as usize;
    if count.checked_mul(TRIANGLE_BYTES) != Some(triangles.len()) {
        return Err(ImportError::Container("there are not as many triangles as it says"));
    }
    let number = |bytes: &[u8]| bytes.try_into().map_or(f32::NAN, f32::from_le_bytes);
    let mut corners = Vec::with_capacity(3 * count);
    for triangle in triangles.chunks_exact(TRIANGLE_BYTES) {
        // The first three numbers are the normal, and the last two bytes mean nothing.
        let numbers: Vec<f32> = triangle.chunks_exact(4).skip(3).map(number).collect();
        corners.extend(numbers.chunks_exact(3).map(|corner| [corner[0], corner[1], corner[2]]));
    }
    let faces = (0..count as u32).map(|face| [3 * face, 3 * face + 1, 3 * face + 2]).collect();
    let heap = Mesh::new(corners, faces)?;
    let welded = weld(&heap);
    painted(heap.with_vertices(&welded.sources, welded.triangles), Vec::new())
}
