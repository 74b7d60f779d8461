//! The headers of a VP8 key frame (RFC 6386, 9): the frame tag, and what the first partition says before the
//! macroblocks.

use super::bools::Bools;
use super::tables::{COEFFICIENT_DEFAULTS, COEFFICIENT_UPDATES, CoefficientProbabilities};
use crate::webp::container::{Expected, Size};
use crate::webp::corrupt;
use crate::{ImageFormat, Rejection};

/// Frame tag, start code and dimensions.
pub(super) const TAG_BYTES: usize = 10;

const START_CODE: [u8; 3] = [0x9d, 0x01, 0x2a];
const VERSION_MAX: u32 = 3;

/// The uncompressed data at the front of a key frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tag {
    pub(super) size: Size,
    pub(super) first_partition_bytes: usize,
}

impl Tag {
    pub(super) fn read(bytes: &[u8; TAG_BYTES], expected: &Expected) -> Result<Self, Rejection> {
        let &[t0, t1, t2, s0, s1, s2, w0, w1, h0, h1] = bytes;
        let tag = u32::from_le_bytes([t0, t1, t2, 0]);
        if [s0, s1, s2] != START_CODE {
            return Err(corrupt("the picture does not start with a key frame"));
        }
        // The upper two bits are a hint for scaling.
        let size = (
            u32::from(u16::from_le_bytes([w0, w1]) & 0x3fff),
            u32::from(u16::from_le_bytes([h0, h1]) & 0x3fff),
        );
        expected.check(size)?;
        let (is_inter_frame, version, is_shown) = (tag & 1 != 0, tag >> 1 & 7, tag >> 4 & 1 != 0);
        if is_inter_frame || version > VERSION_MAX || !is_shown {
            return Err(corrupt("the picture is not a visible key frame"));
        }
        Ok(Self { size, first_partition_bytes: (tag >> 5) as usize })
    }
}

/// What the macroblocks need of the frame header.
#[derive(Debug)]
pub(super) struct Header {
    /// Token partitions: 1, 2, 4 or 8.
    pub(super) partitions: usize,
    /// Tree probabilities of the segment numbers, if macroblocks have one.
    pub(super) segment_probabilities: Option<[u8; 3]>,
    /// Probability that a macroblock has coefficients, if macroblocks say so.
    pub(super) skip_probability: Option<u8>,
    pub(super) coefficients: Box<CoefficientProbabilities>,
}

impl Header {
    /// Reads the compressed header. Call [`Bools::is_short`] afterwards.
    pub(super) fn read(bools: &mut Bools<'_>) -> Result<Self, Rejection> {
        if bools.flag() {
            return Err(Rejection::UnsupportedFeature {
                format: ImageFormat::Webp,
                feature: "a reserved colour space",
            });
        }
        let _clamping_is_needless = bools.flag();
        let segment_probabilities = read_segmentation(bools);
        read_loop_filter(bools);
        let partitions = 1 << bools.literal(2);
        read_quantisation(bools);
        let _probabilities_are_kept = bools.flag();
        let mut coefficients = Box::new(COEFFICIENT_DEFAULTS);
        let probabilities = coefficients.as_flattened_mut().as_flattened_mut().as_flattened_mut();
        let updates = COEFFICIENT_UPDATES.as_flattened().as_flattened().as_flattened();
        for (probability, &update) in probabilities.iter_mut().zip(updates) {
            if bools.take(update) {
                *probability = bools.literal(8) as u8;
            }
        }
        let skip_probability = bools.optional(8).map(|probability| probability as u8);
        Ok(Self { partitions, segment_probabilities, skip_probability, coefficients })
    }
}

/// Segment-based adjustments (RFC 6386, 9.3).
fn read_segmentation(bools: &mut Bools<'_>) -> Option<[u8; 3]> {
    if !bools.flag() {
        return None;
    }
    let (has_map, has_data) = (bools.flag(), bools.flag());
    if has_data {
        let _values_are_absolute = bools.flag();
        for bits in [7, 7, 7, 7, 6, 6, 6, 6] {
            skip_signed(bools, bits);
        }
    }
    has_map.then(|| [(); 3].map(|()| bools.optional(8).map_or(u8::MAX, |probability| probability as u8)))
}

/// Loop filter type, levels and adjustments (RFC 6386, 9.6).
fn read_loop_filter(bools: &mut Bools<'_>) {
    let (_is_simple, _level, _sharpness) = (bools.flag(), bools.literal(6), bools.literal(3));
    let has_adjustments = bools.flag();
    if has_adjustments && bools.flag() {
        for _ in 0..8 {
            skip_signed(bools, 6);
        }
    }
}

/// Quantiser indices (RFC 6386, 9.6).
fn read_quantisation(bools: &mut Bools<'_>) {
    let _base = bools.literal(7);
    for _ in 0..5 {
        skip_signed(bools, 4);
    }
}

/// Passes over an optional number with a sign.
fn skip_signed(bools: &mut Bools<'_>, bits: u32) {
    if bools.optional(bits).is_some() {
        bools.flag();
    }
}
