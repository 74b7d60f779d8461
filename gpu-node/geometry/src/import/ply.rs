//! A reader of PLY, as [`crate::export::ply`] writes it: binary, little-endian, triangles.

use super::{ImportError, painted};
use crate::mesh::Mesh;
use crate::model::Model;

const END: &[u8] = b"end_header\n";
/// Bytes of a face: a count of one byte, and three indices.
const FACE_BYTES: usize = 13;

/// Reads a PLY file.
///
/// # Errors
/// It is damaged, or has what our files do not have.
pub fn read_ply(file: &[u8]) -> Result<Model, ImportError> {
    let end = file.windows(END.len()).position(|window| window == END);
    let end = end.ok_or(ImportError::Container("the header has no end"))?;
    let header = std::str::from_utf8(file.get(..end).unwrap_or_default());
    let header = Header::read(header.map_err(|_| ImportError::Container("the header is no text"))?)?;

    let body = file.get(end + END.len()..).unwrap_or_default();
    let vertex_bytes = header.vertex_bytes();
    let vertices = header.vertices.checked_mul(vertex_bytes).and_then(|bytes| body.split_at_checked(bytes));
    let (vertices, faces) = vertices.ok_or(ImportError::Container("the vertices end early"))?;
    if header.faces.checked_mul(FACE_BYTES) != Some(faces.len()) {
        return Err(ImportError::Container("there are not as many faces as it says"));
    }
    let word = |bytes: &[u8], at: usize| -> [u8; 4] { std::array::from_fn(|place| bytes[at + place]) };
    let position = |vertex: &[u8]| [0, 4, 8].map(|at| f32::from_le_bytes(word(vertex, at)));
    let positions = vertices.chunks_exact(vertex_bytes).map(position).collect();
    let colours = match header.has_colours {
        // They stand last.
        true => {
            vertices.chunks_exact(vertex_bytes).filter_map(|vertex| vertex.last_chunk().copied()).collect()
        }
        false => Vec::new(),
    };
    let mut triangles = Vec::with_capacity(header.faces);
    for face in faces.chunks_exact(FACE_BYTES) {
        if face[0] != 3 {
            return Err(ImportError::Unsupported("a face of other than three corners"));
        }
        triangles.push([1, 5, 9].map(|at| u32::from_le_bytes(word(face, at))));
    }
    painted(Mesh::new(positions, triangles)?, colours)
}

/// What a header says.
struct Header {
    vertices: usize,
    faces: usize,
    has_normals: bool,
    has_colours: bool,
}

impl Header {
    fn read(text: &str) -> Result<Self, ImportError> {
        let lines: Vec<&str> = text.lines().collect();
        let has = |line: &str| lines.contains(&line);
        if lines.first() != Some(&"ply") || !has("format binary_little_endian 1.0") {
            return Err(ImportError::Container("the header is another one"));
        }
        let count = |element: &str| {
            let number = lines.iter().find_map(|line| line.strip_prefix(element)?.parse().ok());
            number.ok_or(ImportError::Container("the header has no count"))
        };
        let header = Self {
            vertices: count("element vertex ")?,
            faces: count("element face ")?,
            has_normals: has("property float nx"),
            has_colours: has("property uchar red"),
        };
        let properties = 4 + 3 * (usize::from(header.has_normals) + usize::from(header.has_colours));
        if lines.iter().filter(|line| line.starts_with("property ")).count() != properties {
            return Err(ImportError::Unsupported("other properties than ours"));
        }
        Ok(header)
    }

    fn vertex_bytes(&self) -> usize {
        12 + if self.has_normals { 12 } else { 0 } + if self.has_colours { 3 } else { 0 }
    }
}
