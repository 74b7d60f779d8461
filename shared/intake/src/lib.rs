//! Upload checks: is this one whole JPEG, PNG or WebP picture, and nothing else?
//!
//! Every way in (the edge's HTTP endpoints, the node's NATS service) passes its bytes through an
//! [`Inspector`]. The inspector does no I/O and never decodes pixels; it
//!
//! 1. bounds the size and computes the SHA-256 (`inspector`),
//! 2. recognises the type by content and compares it with what the caller declared (`sniff`, `declared`),
//! 3. reads the dimensions from the header and compares them with the [`Limits`],
//! 4. walks all compressed data to its end, so that a truncated or corrupt file is refused
//!    (`jpeg`: every Huffman symbol; `png`: inflate, CRCs and filters; `webp`: every VP8 token or VP8L code),
//! 5. looks at what follows the end of the picture (`trailing`).
//!
//! ```text
//!  push(chunk) ─▶ size ─▶ SHA-256 ─▶ Carry ─▶ sniff ─▶ walker ─▶ trailing ─▶ finish ─▶ ValidImage
//!                   └──────────────────┴─────────┴────────┴───────────┴─────▶ Rejection
//! ```
//!
//! The verdict depends on the bytes alone, never on how they were cut into chunks (only which of several faults
//! of a damaged PNG is named may). Memory does not grow with the upload: a window and tables take at most a few
//! hundred KiB. On top of that comes what a format needs:
//!
//! | format | holds | at most |
//! |---|---|---|
//! | progressive JPEG | 8 bytes for each 8×8 block | 32 MB (64 megapixels, four components) |
//! | lossy WebP | 1 byte for each macroblock; all token partitions but the last (most files have one) | 24 MiB |
//! | lossless WebP | prefix codes; 4 bytes for each tile of the entropy image, then 2 | 24 MiB; 24 MB |
//!
//! What is accepted follows what libjpeg, libpng, libwebp and the `image` crate decode without a complaint.
//! PNG, which has checksums, is held to them; JPEG and WebP have none, so a changed bit that leaves the coded
//! data well-formed passes, as it passes every decoder.
//!
//! What is stored is not what was sent: a [`Redactor`] beside the inspector overwrites the metadata (EXIF but for the
//! orientation, XMP, comments, thumbnails) with zeros where it lies (`redact`). A [`Receiver`] is both, for bytes that
//! arrive in chunks; it knows the digest of what was sent, which is the picture's name, and of what is stored.
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
mod receiver;
mod redact;
mod rejection;
mod sniff;
mod trailing;
mod webp;

pub use declared::Declared;
pub use exif::Orientation;
pub use inspector::{Inspector, ValidImage, inspect};
pub use limits::Limits;
pub use receiver::{Received, Receiver};
pub use redact::{Redactor, redact};
pub use rejection::{DeclaredBy, Rejection};
pub use sniff::ImageFormat;
