//! Upload checks: is this one whole JPEG, PNG or WebP picture, and nothing else?
//!
//! Every way in (the edge's HTTP endpoints, the node's NATS service) passes its bytes through an
//! [`Inspector`] while they arrive. The inspector does no I/O and never decodes pixels; it
//!
//! 1. bounds the size and computes the SHA-256 ([`inspector`]),
//! 2. recognises the type by content and compares it with what the caller declared ([`sniff`], [`declared`]),
//! 3. reads the dimensions from the header and compares them with the [`Limits`],
//! 4. walks all compressed data to its end, so that a truncated or corrupt file is refused
//!    ([`jpeg`]: every Huffman symbol; [`png`]: inflate, CRCs and filters; [`webp`]: every VP8 token or VP8L code),
//! 5. looks at what follows the end of the picture ([`trailing`]).
//!
//! ```text
//!  push(chunk) ─▶ size ─▶ SHA-256 ─▶ Carry ─▶ sniff ─▶ walker ─▶ trailing ─▶ finish ─▶ ValidImage
//!                   └──────────────────┴─────────┴────────┴───────────┴─────▶ Rejection
//! ```
//!
//! The verdict depends on the bytes alone, never on how they were cut into chunks. Memory stays bounded:
//! tables and a window of tens of KiB, plus what the format itself needs (8 bytes per 8×8 block for a
//! progressive JPEG, one byte per macroblock and the partitions but one for a lossy WebP, two to four bytes
//! per tile of a lossless WebP's entropy image).
//!
//! ```
//! use orfeas_intake::{Declared, Inspector, Limits, Rejection};
//!
//! let declared = Declared { file_name: Some("chair.png"), content_type: Some("image/png") };
//! let mut inspector = Inspector::new(declared, Limits::default());
//! inspector.push(b"\x89PNG\r\n\x1a\n")?;
//! assert!(matches!(inspector.finish(), Err(Rejection::Truncated { .. })));
//! # Ok::<(), Rejection>(())
//! ```

mod carry;
mod declared;
mod exif;
mod inspector;
mod jpeg;
mod limits;
mod png;
mod rejection;
mod sniff;
mod trailing;
mod webp;

pub use declared::Declared;
pub use exif::Orientation;
pub use inspector::{Inspector, ValidImage, inspect};
pub use limits::Limits;
pub use rejection::{DeclaredBy, Rejection};
pub use sniff::ImageFormat;
