//! Why an upload is refused. The texts are safe to show: nothing that the caller sent is repeated in them.

use orfeas_protocol::problem::Code;

use crate::{ImageFormat, Limits};

/// Which part of the caller's declaration disagrees with the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeclaredBy {
    /// The extension of the file name.
    FileName,
    /// The `Content-Type` header of the part or the request.
    ContentType,
}

impl std::fmt::Display for DeclaredBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::FileName => "file name",
            Self::ContentType => "content type",
        })
    }
}

/// The reason for which an upload is refused; the first that its bytes show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// More bytes than [`Limits::bytes_max`].
    #[error("the upload is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The limit in force.
        limit_bytes: u64,
    },
    /// The content is not one of the accepted formats.
    #[error("the content is {found}, not JPEG, PNG or WebP")]
    UnsupportedContent {
        /// What the content looks like, with its article: `a GIF picture`.
        found: &'static str,
    },
    /// The content is an accepted format, but the name or the `Content-Type` says something else.
    #[error("the content is {content}, but the {by} says {declared}")]
    DeclarationMismatch {
        /// What the bytes are.
        content: ImageFormat,
        /// Where the other claim was made.
        by: DeclaredBy,
        /// What was claimed: `PNG`, `a GIF picture`, `another type`.
        declared: &'static str,
    },
    /// The header's dimensions are outside the limits.
    #[error(
        "the picture is {width} by {height} pixels; allowed are {} to {} pixels on a side and {} pixels in all",
        limits.side_min, limits.side_max, limits.pixels_max
    )]
    Dimensions {
        /// Width in pixels that the header declares.
        width: u32,
        /// Height in pixels that the header declares.
        height: u32,
        /// The limits in force.
        limits: Limits,
    },
    /// The bytes end before the picture does.
    #[error("the {format} file ends inside its {part}")]
    Truncated {
        /// The format being read.
        format: ImageFormat,
        /// What was being read.
        part: &'static str,
    },
    /// The bytes contradict the format.
    #[error("the {format} file is corrupt: {reason}")]
    Corrupt {
        /// The format being read.
        format: ImageFormat,
        /// What is wrong.
        reason: &'static str,
    },
    /// Legal, but a variant that common decoders do not read.
    #[error("the {format} file uses {feature}, which is not supported")]
    UnsupportedFeature {
        /// The format being read.
        format: ImageFormat,
        /// The feature's name.
        feature: &'static str,
    },
    /// An animation or a multi-picture file.
    #[error("the {format} file has more than one frame")]
    MultipleFrames {
        /// The format being read.
        format: ImageFormat,
    },
    /// Something else follows the end of the picture.
    #[error("{found} follows the end of the {format} picture")]
    TrailingFile {
        /// The format of the picture.
        format: ImageFormat,
        /// What follows: `a ZIP archive`, `unknown data`.
        found: &'static str,
    },
}

impl Rejection {
    /// The code that callers see.
    pub fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } => Code::ImageTooLarge,
            Self::UnsupportedContent { .. } | Self::DeclarationMismatch { .. } => Code::InvalidImageFormat,
            Self::Dimensions { .. } => Code::ImageDimensions,
            Self::Truncated { .. }
            | Self::Corrupt { .. }
            | Self::UnsupportedFeature { .. }
            | Self::MultipleFrames { .. }
            | Self::TrailingFile { .. } => Code::InvalidImage,
        }
    }
}
