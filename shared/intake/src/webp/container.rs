//! Which chunks a WebP file may hold, in which order, and the dimensions that they declare.

use super::corrupt;
use super::payload::{Collected, Payload};
use crate::exif::{self, Orientation};
use crate::inspector::Picture;
use crate::{ImageFormat, Limits, Rejection};

/// Longest EXIF chunk that is read for the orientation.
const EXIF_BYTES_MAX: u64 = 64 * 1024;

/// Width and height in pixels.
pub(super) type Size = (u32, u32);

/// The dimensions that a picture's own header may declare.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    /// What the canvas or the frame says.
    Exactly(Size),
    /// Nothing was said before.
    Within(Limits),
}

impl Expected {
    pub(super) fn check(&self, (width, height): Size) -> Result<(), Rejection> {
        match self {
            Self::Exactly(size) if *size != (width, height) => {
                Err(corrupt("the picture's dimensions differ from those of its canvas"))
            }
            Self::Exactly(_) => Ok(()),
            Self::Within(limits) => limits.check_dimensions(width, height),
        }
    }
}

/// The chunks so far.
#[derive(Debug)]
pub(super) struct Container {
    limits: Limits,
    /// Set by the extended header, VP8X.
    canvas: Option<Canvas>,
    /// Set by an animation's frame.
    frame: Option<Size>,
    has_alpha: bool,
    has_exif: bool,
    has_xmp: bool,
    picture: Option<Size>,
    is_empty: bool,
    orientation: Option<Orientation>,
}

#[derive(Debug, Clone, Copy)]
struct Canvas {
    size: Size,
    animated: bool,
    /// Metadata chunks that the header announces.
    exif: bool,
    xmp: bool,
}

impl Container {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            canvas: None,
            frame: None,
            has_alpha: false,
            has_exif: false,
            has_xmp: false,
            picture: None,
            is_empty: true,
            orientation: None,
        }
    }

    /// Opens a chunk: checks its place, and says how its data is read.
    pub(super) fn open(&mut self, kind: &[u8; 4], size: u64) -> Result<Payload, Rejection> {
        let is_first = std::mem::replace(&mut self.is_empty, false);
        if is_first && !matches!(kind, b"VP8 " | b"VP8L" | b"VP8X") {
            return Err(corrupt("the first chunk is not a picture or an extended header"));
        }
        match kind {
            b"VP8 " | b"VP8L" => {
                let expected = self.expect_picture()?;
                Ok(if kind == b"VP8 " { Payload::vp8(size, expected) } else { Payload::vp8l(expected) })
            }
            b"VP8X" if is_first => Ok(Payload::collect(*kind, 10)),
            b"VP8X" => Err(corrupt("the extended header is not the first chunk")),
            b"ALPH" => {
                let Expected::Exactly(size) = self.expect_picture()? else {
                    return Err(corrupt("alpha data comes without an extended header"));
                };
                if std::mem::replace(&mut self.has_alpha, true) {
                    return Err(corrupt("there is a second alpha chunk"));
                }
                Ok(Payload::alpha(size))
            }
            b"ANMF" => {
                if !self.canvas.is_some_and(|canvas| canvas.animated) {
                    return Err(corrupt("an animation frame comes without an animation header"));
                }
                if self.frame.is_some() {
                    return Err(Rejection::MultipleFrames { format: ImageFormat::Webp });
                }
                Ok(Payload::collect(*kind, 16))
            }
            b"EXIF" => {
                let is_first = !std::mem::replace(&mut self.has_exif, true);
                let is_read = is_first && size <= EXIF_BYTES_MAX;
                Ok(if is_read { Payload::collect(*kind, size as usize) } else { Payload::Skipped })
            }
            b"XMP " => {
                self.has_xmp = true;
                Ok(Payload::Skipped)
            }
            _ => Ok(Payload::Skipped),
        }
    }

    /// Takes what a chunk said.
    pub(super) fn close(&mut self, payload: Payload) -> Result<(), Rejection> {
        match payload {
            Payload::Skipped | Payload::Alpha(_) => Ok(()),
            Payload::Vp8(vp8) => self.take_picture(vp8.size()),
            Payload::Vp8l(vp8l) => self.take_picture(vp8l.size()),
            Payload::Collected(Collected { kind, bytes, .. }) => match &kind {
                b"VP8X" => self.read_canvas(&bytes),
                b"ANMF" => self.read_frame(&bytes),
                _ => {
                    self.orientation = exif::orientation(&bytes);
                    Ok(())
                }
            },
        }
    }

    /// The whole file's picture.
    pub(super) fn finish(&self) -> Result<Picture, Rejection> {
        let size = self.picture.ok_or_else(|| corrupt("there is no picture"))?;
        // An announced colour profile that is missing is common, and harmless.
        if self.canvas.is_some_and(|canvas| canvas.exif && !self.has_exif || canvas.xmp && !self.has_xmp) {
            return Err(corrupt("a metadata chunk is missing that the extended header announces"));
        }
        let (width, height) = self.canvas.map_or(size, |canvas| canvas.size);
        let orientation = self.orientation.unwrap_or_default();
        Ok(Picture { format: ImageFormat::Webp, width, height, orientation })
    }

    fn expect_picture(&self) -> Result<Expected, Rejection> {
        if self.picture.is_some() {
            return Err(Rejection::MultipleFrames { format: ImageFormat::Webp });
        }
        match (self.canvas, self.frame) {
            (None, _) => Ok(Expected::Within(self.limits)),
            (Some(Canvas { animated: true, .. }), None) => {
                Err(corrupt("a picture stands outside of its frame"))
            }
            (Some(_), Some(size)) => Ok(Expected::Exactly(size)),
            (Some(canvas), None) => Ok(Expected::Exactly(canvas.size)),
        }
    }

    fn take_picture(&mut self, size: Option<Size>) -> Result<(), Rejection> {
        self.picture = Some(size.ok_or_else(|| corrupt("there is no picture"))?);
        Ok(())
    }

    fn read_canvas(&mut self, bytes: &[u8]) -> Result<(), Rejection> {
        let &[flags, _, _, _, w0, w1, w2, h0, h1, h2, ..] = bytes else {
            return Err(corrupt("the extended header is too short"));
        };
        let size = (1 + u24([w0, w1, w2]), 1 + u24([h0, h1, h2]));
        self.limits.check_dimensions(size.0, size.1)?;
        let has = |flag: u8| flags & flag != 0;
        self.canvas = Some(Canvas { size, animated: has(0x02), exif: has(0x08), xmp: has(0x04) });
        Ok(())
    }

    fn read_frame(&mut self, bytes: &[u8]) -> Result<(), Rejection> {
        let &[x0, x1, x2, y0, y1, y2, w0, w1, w2, h0, h1, h2, ..] = bytes else {
            return Err(corrupt("the frame header is too short"));
        };
        let (x, y) = (2 * u24([x0, x1, x2]), 2 * u24([y0, y1, y2]));
        let (width, height) = (1 + u24([w0, w1, w2]), 1 + u24([h0, h1, h2]));
        let fits = |canvas: Canvas| x + width <= canvas.size.0 && y + height <= canvas.size.1;
        if !self.canvas.is_some_and(fits) {
            return Err(corrupt("the frame is larger than its canvas"));
        }
        self.frame = Some((width, height));
        Ok(())
    }
}

fn u24([low, middle, high]: [u8; 3]) -> u32 {
    u32::from_le_bytes([low, middle, high, 0])
}
