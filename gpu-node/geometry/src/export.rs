//! Model files: one writer for each format that callers can ask for.
//!
//! | format | surface | normals | paint |
//! |---|---|---|---|
//! | [`glb()`] | indexed | yes | texture, vertex colours |
//! | [`obj()`] | indexed | yes | vertex colours, taken from the texture if there is one |
//! | [`ply()`] | indexed | yes | as OBJ |
//! | [`stl()`] | triangle soup | by face | none: the format has no place for it |
//!
//! OBJ keeps its material in a second file and its texture in a third; a job has one result file, so the colours
//! go where all readers of meshes look for them beside the positions.

mod glb;
mod obj;
mod ply;
mod stl;

use thiserror::Error;

use crate::model::{Model, Texture, TextureError};

pub use glb::glb;
pub use obj::obj;
pub use ply::ply;
pub use stl::stl;

/// A model that cannot be written.
#[derive(Debug, Error)]
pub enum ExportError {
    /// A GLB holds up to 4 GiB.
    #[error("the model has {0} bytes, which are more than its format can name")]
    TooLarge(usize),
    /// glTF forbids empty meshes.
    #[error("the model has no triangles")]
    Empty,
    /// The texture cannot be read to take vertex colours from it.
    #[error("cannot take colours from the texture")]
    Texture(#[from] TextureError),
    /// The description cannot be written.
    #[error("cannot write the description of the model")]
    Json(#[from] serde_json::Error),
}

/// The colour of each vertex for formats without textures: the mesh's own, or what the texture shows there.
fn vertex_colours(model: &Model) -> Result<Option<Vec<[u8; 4]>>, ExportError> {
    if let Some(colours) = model.mesh.colours() {
        return Ok(Some(colours.to_vec()));
    }
    let (Some(encoded), Some(uvs)) = (&model.texture, model.mesh.uvs()) else { return Ok(None) };
    let texture = Texture::decode(encoded)?;
    let colours = uvs.iter().map(|&uv| texture.sample(uv).map(|channel| channel.round() as u8)).collect();
    Ok(Some(colours))
}

#[cfg(test)]
mod tests;
