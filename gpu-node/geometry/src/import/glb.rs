//! A reader of binary glTF 2.0 for one mesh with one primitive, as [`crate::export::glb`] writes it.
//!
//! It checks every offset and count that it uses: the file comes from a store, not from this process. What such a
//! file does not have (sparse accessors, strides, external buffers, several primitives) is refused by name.

use serde_json::Value;

use super::ImportError;
use crate::container::{CHUNK_BINARY, CHUNK_JSON, FLOAT, MAGIC, UNSIGNED_INT, UNSIGNED_SHORT};
use crate::mesh::Mesh;
use crate::model::{EncodedImage, ImageFormat, Model};

/// Reads a GLB file.
///
/// # Errors
/// It is damaged, or has what our files do not have.
pub fn read_glb(file: &[u8]) -> Result<Model, ImportError> {
    let (json, binary) = chunks(file)?;
    let document = Document { root: serde_json::from_slice(json)?, binary };
    let primitives = document.root.pointer("/meshes/0/primitives").and_then(Value::as_array);
    let [primitive] = primitives.map(Vec::as_slice).unwrap_or_default() else {
        return Err(ImportError::Unsupported("other than one primitive"));
    };
    let attribute = |name: &str| primitive["attributes"][name].as_u64();
    let positions = attribute("POSITION").ok_or(ImportError::Unsupported("a mesh without positions"))?;
    let indices = primitive["indices"].as_u64().ok_or(ImportError::Unsupported("a mesh without indices"))?;

    let mut mesh = Mesh::new(document.floats(positions)?, document.triangles(indices)?)?;
    if let Some(normals) = attribute("NORMAL") {
        mesh = mesh.with_normals(document.floats(normals)?)?;
    }
    if let Some(uvs) = attribute("TEXCOORD_0") {
        mesh = mesh.with_uvs(document.floats(uvs)?)?;
    }
    let texture = document.texture()?;
    let roughness = document.root.pointer("/materials/0/pbrMetallicRoughness/roughnessFactor");
    // 1 is glTF's default.
    let roughness = roughness.and_then(Value::as_f64).unwrap_or(1.0) as f32;
    Ok(Model { mesh, texture, roughness })
}

/// The JSON and the binary chunk.
fn chunks(file: &[u8]) -> Result<(&[u8], &[u8]), ImportError> {
    let word = |at: usize| -> Result<u32, ImportError> {
        let bytes = file.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_le_bytes).ok_or(ImportError::Container("the header ends early"))
    };
    if word(0)? != MAGIC || word(4)? != 2 || word(8)? as usize != file.len() {
        return Err(ImportError::Container("the header is another one"));
    }
    let mut at = 12;
    let mut take = |kind: u32| {
        let length = word(at)? as usize;
        let start = at + 8;
        let chunk = start.checked_add(length).and_then(|end| file.get(start..end));
        if word(at + 4)? != kind {
            return Err(ImportError::Container("the chunks are others"));
        }
        at = start + length;
        chunk.ok_or(ImportError::Container("a chunk ends early"))
    };
    Ok((take(CHUNK_JSON)?, take(CHUNK_BINARY)?))
}

struct Document<'a> {
    root: Value,
    binary: &'a [u8],
}

impl Document<'_> {
    fn view(&self, index: &Value) -> Result<&[u8], ImportError> {
        let index = index.as_u64().ok_or(ImportError::Unsupported("an accessor without a buffer view"))?;
        let view = &self.root["bufferViews"][index as usize];
        if !view["byteStride"].is_null() {
            return Err(ImportError::Unsupported("interleaved attributes"));
        }
        let start = view["byteOffset"].as_u64().unwrap_or(0) as usize;
        let end = view["byteLength"].as_u64().and_then(|length| start.checked_add(length as usize));
        let bytes = end.and_then(|end| self.binary.get(start..end));
        bytes.ok_or(ImportError::Container("a buffer view leads out of the file"))
    }

    /// The bytes of an accessor's `count` values of `size` bytes.
    fn accessor(
        &self,
        index: u64,
        size: impl Fn(&Value) -> Option<usize>,
    ) -> Result<(&Value, &[u8]), ImportError> {
        let accessor = &self.root["accessors"][index as usize];
        let size = size(accessor).ok_or(ImportError::Unsupported("a component type"))?;
        if !accessor["sparse"].is_null() || accessor["byteOffset"].as_u64().unwrap_or(0) != 0 {
            return Err(ImportError::Unsupported("sparse or shared accessors"));
        }
        let length = accessor["count"].as_u64().and_then(|count| size.checked_mul(count as usize));
        let bytes = length.and_then(|length| self.view(&accessor["bufferView"]).ok()?.get(..length));
        Ok((accessor, bytes.ok_or(ImportError::Container("an accessor leads out of its view"))?))
    }

    fn floats<const N: usize>(&self, index: u64) -> Result<Vec<[f32; N]>, ImportError> {
        let shape = format!("VEC{N}");
        let size = |accessor: &Value| {
            (accessor["componentType"] == FLOAT && accessor["type"] == shape.as_str()).then_some(4 * N)
        };
        let (_, bytes) = self.accessor(index, size)?;
        let value = |bytes: &[u8]| bytes.try_into().map_or(f32::NAN, f32::from_le_bytes);
        let vector = |bytes: &[u8]| std::array::from_fn(|axis| value(&bytes[4 * axis..4 * axis + 4]));
        Ok(bytes.chunks_exact(4 * N).map(vector).collect())
    }

    fn triangles(&self, index: u64) -> Result<Vec<[u32; 3]>, ImportError> {
        let size = |accessor: &Value| {
            let component = &accessor["componentType"];
            if *component == UNSIGNED_SHORT { Some(2) } else { (*component == UNSIGNED_INT).then_some(4) }
        };
        let (accessor, bytes) = self.accessor(index, size)?;
        let wide = size(accessor).unwrap_or(4);
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte));
        let indices: Vec<u32> = bytes.chunks_exact(wide).map(number).collect();
        Ok(indices.chunks_exact(3).map(|corners| [corners[0], corners[1], corners[2]]).collect())
    }

    fn texture(&self) -> Result<Option<EncodedImage>, ImportError> {
        let image = &self.root["images"][0];
        if image.is_null() {
            return Ok(None);
        }
        let format = image["mimeType"].as_str().and_then(ImageFormat::from_media_type);
        let format = format.ok_or(ImportError::Unsupported("the texture's media type"))?;
        Ok(Some(EncodedImage { format, bytes: self.view(&image["bufferView"])?.to_vec() }))
    }
}
