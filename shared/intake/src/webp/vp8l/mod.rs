//! Lossless WebP data, VP8L (RFC 9649, 3): every code of the picture and of its transforms' data, without
//! computing a colour. Also the alpha chunk of lossy pictures, which may hold the same stream.
//!
//! ```text
//!  mod: header, transforms ─▶ entropy: an entropy-coded image ─▶ prefix, distance, values ─▶ bits
//! ```

mod bits;
mod distance;
mod entropy;
mod prefix;
mod values;

use super::container::{Expected, Size};
use super::corrupt;
use super::payload::Progress;
use crate::{ImageFormat, Rejection};
use bits::{Bits, Held};
use entropy::{EntropyImage, Role};

/// Signature, dimensions, alpha hint, version.
const HEADER_BYTES: usize = 5;
const SIGNATURE: u8 = 0x2f;

/// A VP8L chunk.
#[derive(Debug)]
pub(super) struct Vp8l {
    expected: Expected,
    stream: Option<Stream>,
    size: Option<Size>,
}

impl Vp8l {
    pub(super) fn new(expected: Expected) -> Self {
        Self { expected, stream: None, size: None }
    }

    /// The dimensions, once they are known.
    pub(super) fn size(&self) -> Option<Size> {
        self.size
    }

    pub(super) fn read(&mut self, data: &[u8]) -> Result<(usize, Progress), Rejection> {
        if let Some(stream) = &mut self.stream {
            return stream.read(data);
        }
        let Some(&[signature, packed @ ..]) = data.first_chunk::<HEADER_BYTES>() else {
            return Ok((0, Progress::NeedsMore));
        };
        if signature != SIGNATURE {
            return Err(corrupt("the lossless signature is missing"));
        }
        let packed = u32::from_le_bytes(packed);
        let size = (1 + (packed & 0x3fff), 1 + (packed >> 14 & 0x3fff));
        self.expected.check(size)?;
        if packed >> 29 != 0 {
            return Err(Rejection::UnsupportedFeature {
                format: ImageFormat::Webp,
                feature: "an unknown version of lossless coding",
            });
        }
        self.size = Some(size);
        let stream = self.stream.insert(Stream::new(size));
        let (read, progress) = stream.read(data.get(HEADER_BYTES..).unwrap_or_default())?;
        Ok((HEADER_BYTES + read, progress))
    }
}

/// An ALPH chunk.
#[derive(Debug)]
pub(super) enum Alpha {
    Header(Size),
    /// One byte for each pixel.
    Raw {
        left: usize,
    },
    Lossless(Stream),
}

impl Alpha {
    pub(super) fn new(size: Size) -> Self {
        Self::Header(size)
    }

    pub(super) fn read(&mut self, data: &[u8]) -> Result<(usize, Progress), Rejection> {
        match self {
            Self::Header(size) => {
                let Some((&header, rest)) = data.split_first() else { return Ok((0, Progress::NeedsMore)) };
                let (compression, preprocessing, reserved) = (header & 3, header >> 4 & 3, header >> 6);
                *self = match compression {
                    0 => Self::Raw { left: size.0 as usize * size.1 as usize },
                    1 => Self::Lossless(Stream::new(*size)),
                    _ => return Err(corrupt("the alpha data has an unknown compression")),
                };
                if preprocessing > 1 || reserved > 1 {
                    return Err(corrupt("the alpha data has an unknown header"));
                }
                let (read, progress) = self.read(rest)?;
                Ok((1 + read, progress))
            }
            Self::Raw { left } => {
                let now = data.len().min(*left);
                *left -= now;
                Ok((now, if *left == 0 { Progress::Done } else { Progress::NeedsMore }))
            }
            Self::Lossless(stream) => stream.read(data),
        }
    }
}

/// A VP8L stream behind its header.
#[derive(Debug)]
pub(super) struct Stream {
    /// Dimensions of the entropy-coded picture: several palette indexes may share a pixel.
    size: Size,
    transforms_seen: [bool; 4],
    stage: Stage,
    held: Held,
}

#[derive(Debug)]
enum Stage {
    Transforms,
    TransformData(Box<EntropyImage>),
    Picture(Box<EntropyImage>),
    Done,
}

/// What follows the transforms so far.
enum Next {
    Picture,
    /// A transform without data.
    Transform,
    /// A transform with data of this size, and the width of the picture from there on.
    Data {
        size: Size,
        width: u32,
    },
}

impl Stream {
    fn new(size: Size) -> Self {
        Self { size, transforms_seen: [false; 4], stage: Stage::Transforms, held: Held::default() }
    }

    fn read(&mut self, data: &[u8]) -> Result<(usize, Progress), Rejection> {
        let mut bits = Bits::resume(data, self.held);
        let progress = self.run(&mut bits)?;
        let (read, held) = bits.suspend();
        self.held = held;
        Ok((read, progress))
    }

    fn run(&mut self, bits: &mut Bits<'_>) -> Result<Progress, Rejection> {
        loop {
            match &mut self.stage {
                Stage::Transforms => {
                    let (size, seen) = (self.size, &self.transforms_seen);
                    let Some((kind, next)) = bits.attempt(|bits| read_transform(bits, size, seen))? else {
                        return Ok(Progress::NeedsMore);
                    };
                    if let Some(seen) = kind.and_then(|kind| self.transforms_seen.get_mut(kind)) {
                        *seen = true;
                    }
                    match next {
                        Next::Transform => {}
                        Next::Picture => {
                            self.stage =
                                Stage::Picture(Box::new(EntropyImage::new(Role::Picture, self.size)));
                        }
                        Next::Data { size, width } => {
                            self.size.0 = width;
                            self.stage =
                                Stage::TransformData(Box::new(EntropyImage::new(Role::Transform, size)));
                        }
                    }
                }
                Stage::TransformData(image) => {
                    if !image.read(bits)? {
                        return Ok(Progress::NeedsMore);
                    }
                    self.stage = Stage::Transforms;
                }
                Stage::Picture(image) => {
                    if !image.read(bits)? {
                        return Ok(Progress::NeedsMore);
                    }
                    self.stage = Stage::Done;
                }
                Stage::Done => return Ok(Progress::Done),
            }
        }
    }
}

/// Reads one transform's header, if there is another: its number (RFC 9649, 3.5) and what follows it.
fn read_transform(
    bits: &mut Bits<'_>,
    (width, height): Size,
    seen: &[bool; 4],
) -> Result<(Option<usize>, Next), Rejection> {
    if bits.take(1) == 0 {
        return Ok((None, Next::Picture));
    }
    let kind = bits.take(2) as usize;
    if seen.get(kind) != Some(&false) {
        return Err(corrupt("a transform is used twice"));
    }
    let next = match kind {
        // Predictor and colour: an image with one pixel for each block.
        0 | 1 => {
            let block_bits = 2 + bits.take(3);
            let size = (width.div_ceil(1 << block_bits), height.div_ceil(1 << block_bits));
            Next::Data { size, width }
        }
        2 => Next::Transform,
        // A palette: few colours let several pixels share one.
        _ => {
            let colours = 1 + bits.take(8);
            let shared_bits = match colours {
                0..=2 => 3,
                3..=4 => 2,
                5..=16 => 1,
                _ => 0,
            };
            Next::Data { size: (colours, 1), width: width.div_ceil(1 << shared_bits) }
        }
    };
    Ok((Some(kind), next))
}
