//! Takes out of a picture what it says about its maker: EXIF but for the orientation, XMP, IPTC, comments,
//! thumbnails, and whatever else no decoder needs for the pixels.
//!
//! The output has the length of the input and the same structure: a block that goes is overwritten with zeros where it
//! lies. So a redactor streams, nothing in a file points to a wrong place afterwards, and redacting twice is redacting
//! once. The pixels are not decoded, and not changed.
//!
//! ```text
//!  push(chunk) ─▶ Carry ─▶ sniff ─▶ jpeg: segments │ png: chunks │ webp: chunks ─▶ Output: keep │ blank │ replace
//! ```
//!
//! It checks nothing: that is the [`Inspector`](crate::Inspector)'s work, beside it. What is valid stays valid, with the
//! same format, dimensions and orientation. What is not, or is of no known format, goes through from there on as it is.

mod jpeg;
mod pass;
mod png;
mod webp;

use std::borrow::Cow;
use std::convert::Infallible;

use crate::ImageFormat;
use crate::carry::Carry;
use crate::sniff::{Sniffed, sniff};
use jpeg::Jpeg;
use pass::Pass;
use png::Png;
use webp::Webp;

/// Longest part of an EXIF block that is read for the orientation, and with it all that a redactor holds back. A JPEG
/// segment is no longer; blocks of the other formats that are have their first directory at their start.
const EXIF_BYTES_MAX: usize = 64 * 1024;

/// Takes the metadata out of an upload while it arrives.
///
/// The output does not depend on the chunk sizes. It lags behind the input by at most one EXIF block (64 KiB) and the
/// header of it.
///
/// ```
/// use orfeas_intake::Redactor;
///
/// let mut redactor = Redactor::new();
/// let mut out = Vec::new();
/// redactor.push(b"\xff\xd8\xff\xfe\0\x06by ", &mut out);
/// redactor.push(b"J\xff\xd9", &mut out);
/// redactor.finish(&mut out);
/// assert_eq!(out, b"\xff\xd8\xff\xfe\0\x06\0\0\0\0\xff\xd9");
/// ```
#[derive(Debug, Default)]
pub struct Redactor {
    carry: Carry,
    stage: Stage,
    is_changed: bool,
}

#[derive(Debug, Default)]
enum Stage {
    /// Too few bytes to know the type.
    #[default]
    Sniffing,
    Jpeg(Pass<Jpeg>),
    Png(Pass<Png>),
    Webp(Pass<Webp>),
    Foreign,
}

impl Redactor {
    /// Begins an upload.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes, and adds to `out` what can be told by now.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let Self { carry, stage, is_changed } = self;
        let mut out = Output { bytes: out, is_changed };
        let Ok(()) = carry.feed(chunk, |window| Ok::<_, Infallible>(stage.read(window, &mut out)));
    }

    /// Ends the upload, and adds the rest to `out`. Tells whether the output differs from the input.
    pub fn finish(mut self, out: &mut Vec<u8>) -> bool {
        let mut out = Output { bytes: out, is_changed: &mut self.is_changed };
        let rest = self.carry.pending();
        match self.stage {
            Stage::Sniffing | Stage::Foreign => out.keep(rest),
            // A picture that is cut off. What is left may be the start of what has to go.
            Stage::Jpeg(_) | Stage::Png(_) | Stage::Webp(_) => out.blank(rest),
        };
        self.is_changed
    }

    /// Whether the output so far is the input so far, to the last byte.
    pub(crate) fn is_level(&self) -> bool {
        !self.is_changed && self.carry.pending().is_empty()
    }
}

impl Stage {
    /// Reads what it can of `window`, through as many stages as it lasts.
    fn read(&mut self, window: &[u8], out: &mut Output<'_>) -> usize {
        if let Self::Sniffing = self {
            *self = match sniff(window, false) {
                Sniffed::Undecided => return 0,
                Sniffed::Other(_) => Self::Foreign,
                Sniffed::Image(ImageFormat::Jpeg) => Self::Jpeg(Pass::default()),
                Sniffed::Image(ImageFormat::Png) => Self::Png(Pass::default()),
                Sniffed::Image(ImageFormat::Webp) => Self::Webp(Pass::default()),
            };
        }
        match self {
            Self::Sniffing => 0,
            Self::Jpeg(pass) => pass.read(window, out),
            Self::Png(pass) => pass.read(window, out),
            Self::Webp(pass) => pass.read(window, out),
            Self::Foreign => out.keep(window),
        }
    }
}

/// Takes the metadata out of a whole upload; borrowed if there is nothing to take out.
pub fn redact(upload: &[u8]) -> Cow<'_, [u8]> {
    let mut redactor = Redactor::new();
    let mut out = Vec::with_capacity(upload.len());
    redactor.push(upload, &mut out);
    if redactor.finish(&mut out) { Cow::Owned(out) } else { Cow::Borrowed(upload) }
}

/// Where the bytes go: for each that is read one is put there. Each way tells how many it took.
#[derive(Debug)]
struct Output<'o> {
    bytes: &'o mut Vec<u8>,
    is_changed: &'o mut bool,
}

impl Output<'_> {
    fn keep(&mut self, bytes: &[u8]) -> usize {
        self.bytes.extend_from_slice(bytes);
        bytes.len()
    }

    /// Puts zeros in the place of `bytes`.
    fn blank(&mut self, bytes: &[u8]) -> usize {
        *self.is_changed |= bytes.iter().any(|&byte| byte != 0);
        self.bytes.resize(self.bytes.len() + bytes.len(), 0);
        bytes.len()
    }

    /// Puts `new` in the place of `old`, which is as long.
    fn replace(&mut self, old: &[u8], new: &[u8]) -> usize {
        debug_assert_eq!(old.len(), new.len());
        *self.is_changed |= old != new;
        self.keep(new)
    }
}
