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
mod png;
mod webp;

use std::borrow::Cow;
use std::convert::Infallible;

use crate::ImageFormat;
use crate::carry::Carry;
use crate::sniff::{Sniffed, sniff};
use jpeg::JpegRedactor;
use png::PngRedactor;
use webp::WebpRedactor;

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

/// The reader of one format.
///
/// `read` is shown the bytes that it has not yet read, from the first one on, puts as many into the output as it reads,
/// and returns how many those are.
#[derive(Debug, Default)]
enum Stage {
    /// Too few bytes to know the type.
    #[default]
    Sniffing,
    Jpeg(JpegRedactor),
    Png(PngRedactor),
    Webp(WebpRedactor),
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
            Stage::Jpeg(_) | Stage::Png(_) | Stage::Webp(_) => {
                out.blank(rest);
            }
        }
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
                Sniffed::Image(ImageFormat::Jpeg) => Self::Jpeg(JpegRedactor::default()),
                Sniffed::Image(ImageFormat::Png) => Self::Png(PngRedactor::default()),
                Sniffed::Image(ImageFormat::Webp) => Self::Webp(WebpRedactor::default()),
            };
        }
        match self {
            Self::Sniffing => 0,
            Self::Jpeg(redactor) => redactor.read(window, out),
            Self::Png(redactor) => redactor.read(window, out),
            Self::Webp(redactor) => redactor.read(window, out),
            Self::Foreign => {
                out.keep(window);
                window.len()
            }
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

/// Where the bytes go: for each that is read one is put there.
#[derive(Debug)]
struct Output<'o> {
    bytes: &'o mut Vec<u8>,
    is_changed: &'o mut bool,
}

impl Output<'_> {
    fn keep(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Puts zeros in the place of `bytes`; returns them.
    fn blank(&mut self, bytes: &[u8]) -> &[u8] {
        *self.is_changed |= bytes.iter().any(|&byte| byte != 0);
        let start = self.bytes.len();
        self.bytes.resize(start + bytes.len(), 0);
        self.bytes.get(start..).unwrap_or_default()
    }

    /// Puts `new` in the place of `old`, which is as long.
    fn replace(&mut self, old: &[u8], new: &[u8]) {
        debug_assert_eq!(old.len(), new.len());
        *self.is_changed |= old != new;
        self.bytes.extend_from_slice(new);
    }
}

/// The part of `rest` that belongs to something of which `left` bytes are still to come, which are counted down.
fn take<'r>(rest: &'r [u8], left: &mut u64) -> &'r [u8] {
    let taken = usize::try_from(*left).ok().and_then(|left| rest.get(..left)).unwrap_or(rest);
    *left -= taken.len() as u64;
    taken
}
