//! Meshes without tensors: surfaces, clean-up, simplification, files, pictures.
//!
//! How the pieces fit, in the order in which a job uses them:
//!
//! ```text
//!  samples ──VolumeSource──▶ surface::extract_surface ──▶ Mesh (closed, manifold, outward)
//!                                                          │ cleanup::clean        floaters, defects, holes
//!                                                          │ simplify::simplify    ≤ target faces, still closed
//!                                                          │ normals::vertex_normals
//!                                                          ▼
//!                       Mesh + uvs + texture = Model ──▶ export::{glb, obj, stl, ply}
//!                          │         ▲                     │
//!                          │         └── import::read_* ◀──┘   (a stored file becomes another format)
//!                          ├──▶ report::MeshReport             (what the job result says)
//!                          └──▶ render                         (pictures: turntable, tests)
//! ```
//!
//! What takes long has a form that is watched ([`watch`]), so that a job can be stopped within it.
//!
//! A [`Mesh`] checks its invariants when it is made, so that everything behind it need not.
//! [`topology::HalfEdges`] is the one place that knows which face lies across an edge.
//!
//! Conventions are those of glTF: right-handed, +Y up, the model faces +Z, front faces are counter-clockwise,
//! the origin of texture coordinates is the picture's upper left corner.

pub mod cleanup;
mod container;
pub mod export;
pub mod import;
pub mod mesh;
pub mod model;
pub mod normals;
pub mod render;
pub mod report;
pub mod simplify;
pub mod surface;
pub mod topology;
pub mod watch;

pub use mesh::{Bounds, Mesh, MeshError};
pub use model::{EncodedImage, ImageFormat, Model, Texture};
pub use report::MeshReport;
