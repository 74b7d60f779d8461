//! Numbers of the GLB container and of glTF that writer and reader share.

/// `glTF`, read as a little-endian number.
pub(crate) const MAGIC: u32 = 0x4654_6c67;
/// The chunk `JSON`.
pub(crate) const CHUNK_JSON: u32 = 0x4e4f_534a;
/// The chunk `BIN` and a zero.
pub(crate) const CHUNK_BINARY: u32 = 0x004e_4942;
/// Component type of short index lists, as OpenGL numbers it.
pub(crate) const UNSIGNED_SHORT: u32 = 5123;
/// Component type of long index lists.
pub(crate) const UNSIGNED_INT: u32 = 5125;
/// Component type of positions, normals and texture coordinates.
pub(crate) const FLOAT: u32 = 5126;
