//! Binary glTF 2.0 (Khronos specification, section "GLB File Format").

use serde_json::{Map, Value, json};

use super::ExportError;
use crate::container::{CHUNK_BINARY, CHUNK_JSON, FLOAT, MAGIC, UNSIGNED_INT, UNSIGNED_SHORT};
use crate::mesh::Mesh;
use crate::model::Model;

/// A component type and the buffer targets, as OpenGL numbers them.
const UNSIGNED_BYTE: u32 = 5121;
const ARRAY_BUFFER: u32 = 34962;
const ELEMENT_ARRAY_BUFFER: u32 = 34963;

/// The model as a GLB file, with its texture inside. Vertex colours are written only without a texture: a viewer
/// would multiply the two.
///
/// # Errors
/// The mesh is empty, or the file would be larger than 4 GiB.
pub fn glb(model: &Model) -> Result<Vec<u8>, ExportError> {
    let mesh = &model.mesh;
    let bounds = mesh.bounds().filter(|_| !mesh.is_empty()).ok_or(ExportError::Empty)?;
    let mut buffer = Buffer::default();
    let mut attributes = Map::new();

    let positions = buffer.add_floats(mesh.positions(), "VEC3");
    buffer.accessors[positions]["min"] = json!(bounds.min);
    buffer.accessors[positions]["max"] = json!(bounds.max);
    attributes.insert("POSITION".into(), positions.into());
    if let Some(normals) = mesh.normals() {
        attributes.insert("NORMAL".into(), buffer.add_floats(normals, "VEC3").into());
    }
    let textured = model.texture.as_ref().zip(mesh.uvs());
    if let Some((_, uvs)) = textured {
        attributes.insert("TEXCOORD_0".into(), buffer.add_floats(uvs, "VEC2").into());
    } else if let Some(colours) = mesh.colours() {
        attributes.insert("COLOR_0".into(), buffer.add_colours(colours).into());
    }
    let indices = buffer.add_indices(mesh);

    let mut material = json!({
        "name": "surface",
        "pbrMetallicRoughness": { "metallicFactor": 0.0, "roughnessFactor": model.roughness },
    });
    let mut root = json!({
        "asset": { "version": "2.0", "generator": concat!("ORFEAS ", env!("CARGO_PKG_VERSION")) },
        "scene": 0,
        "scenes": [{ "nodes": [0] }],
        "nodes": [{ "name": "model", "mesh": 0 }],
        "meshes": [{
            "name": "model",
            "primitives": [{ "attributes": attributes, "indices": indices, "material": 0, "mode": 4 }],
        }],
    });
    if let Some((texture, _)) = textured {
        let view = buffer.add_view(&texture.bytes, None);
        material["pbrMetallicRoughness"]["baseColorTexture"] = json!({ "index": 0 });
        root["images"] = json!([{ "bufferView": view, "mimeType": texture.format.media_type() }]);
        // Linear with mipmaps, and no repetition: charts must not bleed over the atlas's border.
        root["samplers"] = json!([{ "magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071 }]);
        root["textures"] = json!([{ "source": 0, "sampler": 0 }]);
    }
    root["materials"] = json!([material]);
    root["accessors"] = buffer.accessors.into();
    root["bufferViews"] = buffer.views.into();
    root["buffers"] = json!([{ "byteLength": buffer.bytes.len() }]);
    assemble(serde_json::to_vec(&root)?, buffer.bytes)
}

/// Header and two chunks, each padded to four bytes: JSON with spaces, binary data with zeros.
fn assemble(mut json: Vec<u8>, mut binary: Vec<u8>) -> Result<Vec<u8>, ExportError> {
    json.resize(json.len().next_multiple_of(4), b' ');
    binary.resize(binary.len().next_multiple_of(4), 0);
    let total = 12 + 8 + json.len() + 8 + binary.len();
    let length = u32::try_from(total).map_err(|_| ExportError::TooLarge(total))?;
    let mut file = Vec::with_capacity(total);
    for word in [MAGIC, 2, length] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    for (kind, chunk) in [(CHUNK_JSON, json), (CHUNK_BINARY, binary)] {
        // No longer than the whole, which fits.
        file.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
        file.extend_from_slice(&kind.to_le_bytes());
        file.extend_from_slice(&chunk);
    }
    Ok(file)
}

/// The one buffer of the file, with its views and accessors.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    views: Vec<Value>,
    accessors: Vec<Value>,
}

impl Buffer {
    fn add_view(&mut self, bytes: &[u8], target: Option<u32>) -> usize {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let mut view = json!({ "buffer": 0, "byteOffset": self.bytes.len(), "byteLength": bytes.len() });
        if let Some(target) = target {
            view["target"] = target.into();
        }
        self.bytes.extend_from_slice(bytes);
        self.views.push(view);
        self.views.len() - 1
    }

    fn add_accessor(&mut self, view: usize, component: u32, count: usize, shape: &str) -> usize {
        let accessor =
            json!({ "bufferView": view, "componentType": component, "count": count, "type": shape });
        self.accessors.push(accessor);
        self.accessors.len() - 1
    }

    fn add_floats<const N: usize>(&mut self, values: &[[f32; N]], shape: &str) -> usize {
        let bytes: Vec<u8> = values.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
        let view = self.add_view(&bytes, Some(ARRAY_BUFFER));
        self.add_accessor(view, FLOAT, values.len(), shape)
    }

    /// Vertex colours are linear in glTF, and ours are sRGB.
    fn add_colours(&mut self, colours: &[[u8; 4]]) -> usize {
        let linear: Vec<u8> = colours
            .iter()
            .flat_map(|&[r, g, b, a]| [linear_from_srgb(r), linear_from_srgb(g), linear_from_srgb(b), a])
            .collect();
        let view = self.add_view(&linear, Some(ARRAY_BUFFER));
        let accessor = self.add_accessor(view, UNSIGNED_BYTE, colours.len(), "VEC4");
        self.accessors[accessor]["normalized"] = true.into();
        accessor
    }

    fn add_indices(&mut self, mesh: &Mesh) -> usize {
        let indices = mesh.triangles().as_flattened();
        // The largest 16-bit index restarts primitives, so it names no vertex.
        let (bytes, component): (Vec<u8>, u32) = if mesh.positions().len() <= usize::from(u16::MAX) {
            (indices.iter().flat_map(|&index| (index as u16).to_le_bytes()).collect(), UNSIGNED_SHORT)
        } else {
            (indices.iter().flat_map(|index| index.to_le_bytes()).collect(), UNSIGNED_INT)
        };
        let view = self.add_view(&bytes, Some(ELEMENT_ARRAY_BUFFER));
        self.add_accessor(view, component, indices.len(), "SCALAR")
    }
}

/// IEC 61966-2-1.
fn linear_from_srgb(value: u8) -> u8 {
    let encoded = f32::from(value) / 255.0;
    let linear = if encoded <= 0.04045 { encoded / 12.92 } else { ((encoded + 0.055) / 1.055).powf(2.4) };
    (linear * 255.0).round() as u8
}
