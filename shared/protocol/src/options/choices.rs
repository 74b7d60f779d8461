//! Options whose value is one of a few names.

use serde::{Deserialize, Serialize};

use crate::names::names;

/// Defines an enum whose variants have one lower-case name on the wire.
macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident, $kind:literal { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)* }

        names!($name, $kind { $($variant = $text,)* });
    };
}

named_enum!(
    /// What a job makes.
    JobType, "job type (3d_generation or video_generation)" {
        /// A textured mesh.
        #[default]
        Generation3d = "3d_generation",
        /// A turntable video of the textured mesh.
        VideoGeneration = "video_generation",
    }
);

named_enum!(
    /// The file format of a model.
    ModelFormat, "model format (glb, obj, stl or ply)" {
        /// Binary glTF 2.0, with its texture inside.
        #[default]
        Glb = "glb",
        /// Wavefront OBJ.
        Obj = "obj",
        /// Binary STL.
        Stl = "stl",
        /// Binary PLY.
        Ply = "ply",
    }
);

impl ModelFormat {
    /// The registered media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Glb => "model/gltf-binary",
            Self::Obj => "model/obj",
            Self::Stl => "model/stl",
            Self::Ply => "application/ply",
        }
    }
}

named_enum!(
    /// Whether to cut the subject out of its background.
    BackgroundRemoval, "background removal (auto, always or never)" {
        /// Only where the picture brings no transparency of its own.
        #[default]
        Auto = "auto",
        /// Even where there is an alpha channel.
        Always = "always",
        /// The whole picture is the subject.
        Never = "never",
    }
);
