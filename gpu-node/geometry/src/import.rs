//! Reading model files: those that this crate writes, so that a stored result can become another format.
//!
//! Every count and index that is used is checked: a file comes from a store, not from this process. What a file of ours
//! does not have is refused.
//!
//! | from | surface | paint |
//! |---|---|---|
//! | [`read_glb`] | as written, with its normals | texture |
//! | [`read_obj`], [`read_ply`] | as written | vertex colours |
//! | [`read_stl`] | corners at one position are one vertex again | none: the format has no place for it |
//!
//! Normals of files other than GLB are those of the surface, as they were when the files were written.

mod glb;
mod obj;
mod ply;
mod stl;

use thiserror::Error;

use crate::mesh::{Mesh, MeshError};
use crate::model::Model;
use crate::normals::vertex_normals;

pub use glb::read_glb;
pub use obj::read_obj;
pub use ply::read_ply;
pub use stl::read_stl;

/// A file that is none of ours.
#[derive(Debug, Error)]
pub enum ImportError {
    /// A header, a count or a range that leads out of the file.
    #[error("the file is of another kind, or is damaged: {0}")]
    Container(&'static str),
    /// The description is no JSON.
    #[error("cannot read the description of the model")]
    Json(#[from] serde_json::Error),
    /// Something that our files do not have.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// The values are not those of a mesh.
    #[error("the values are not those of a mesh")]
    Mesh(#[from] MeshError),
}

/// A model of a surface whose paint is in its vertices.
fn painted(mesh: Mesh, colours: Vec<[u8; 3]>) -> Result<Model, ImportError> {
    let normals = vertex_normals(&mesh);
    let mesh = mesh.with_normals(normals)?;
    let mesh = match colours.is_empty() {
        true => mesh,
        false => mesh.with_colours(colours.into_iter().map(|[r, g, b]| [r, g, b, 255]).collect())?,
    };
    Ok(Model::untextured(mesh))
}

#[cfg(test)]
mod tests;
