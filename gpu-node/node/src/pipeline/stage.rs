//! The stages as users see them, and how much of a job each one is.

/// A stage of the pipeline, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Read the picture.
    Decode,
    /// Cut the subject out.
    Background,
    /// Make the shape: the family's own work.
    Shape,
    /// Turn the shape into triangles.
    Surface,
    /// Remove floaters and defects.
    Cleanup,
    /// Reduce the triangles to the requested number.
    Simplify,
    /// Paint the surface.
    Texture,
    /// Write the file.
    Export,
}

impl Stage {
    /// In the order in which they run.
    pub const ALL: [Stage; 8] = [
        Stage::Decode,
        Stage::Background,
        Stage::Shape,
        Stage::Surface,
        Stage::Cleanup,
        Stage::Simplify,
        Stage::Texture,
        Stage::Export,
    ];

    /// The name that job objects and metrics carry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Background => "background",
            Stage::Shape => "shape",
            Stage::Surface => "surface",
            Stage::Cleanup => "cleanup",
            Stage::Simplify => "simplify",
            Stage::Texture => "texture",
            Stage::Export => "export",
        }
    }
}
