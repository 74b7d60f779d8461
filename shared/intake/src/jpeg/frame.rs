//! The frame header (SOF): size, components, sampling, and the block grids that follow from them.

use super::corrupt;
use crate::{ImageFormat, Limits, Rejection};

/// How the coefficients are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Process {
    /// Baseline or extended sequential: whole blocks, one scan for each component.
    Sequential,
    /// Spectral selection and successive approximation over many scans.
    Progressive,
}

/// A frame header that passed its checks.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) process: Process,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) components: Vec<Component>,
    /// MCUs of an interleaved scan.
    pub(super) mcus: u32,
}

/// One colour component.
#[derive(Debug)]
pub(super) struct Component {
    pub(super) id: u8,
    pub(super) quantisation_table: u8,
    /// Blocks of this component in one MCU of an interleaved scan.
    pub(super) blocks_per_mcu: u32,
    /// Blocks of a scan of this component alone.
    pub(super) blocks: u32,
    /// Whether a scan has coded its DC coefficients.
    pub(super) seen: bool,
    /// Progressive: for each block, which coefficients are non-zero so far. Empty before the first AC scan.
    pub(super) nonzero: Vec<u64>,
}

impl Frame {
    /// Reads a SOF segment's body. `code` is the marker's second byte.
    pub(super) fn read(code: u8, body: &[u8], limits: &Limits) -> Result<Self, Rejection> {
        let [precision, h1, h0, w1, w0, count, specs @ ..] = body else {
            return Err(corrupt("the frame header is too short"));
        };
        let height = u32::from(u16::from_be_bytes([*h1, *h0]));
        let width = u32::from(u16::from_be_bytes([*w1, *w0]));
        limits.check_dimensions(width, height)?;
        let process = match code {
            0xc0 | 0xc1 => Process::Sequential,
            0xc2 => Process::Progressive,
            0xc3 => return Err(unsupported("lossless coding")),
            0xc9..=0xcb => return Err(unsupported("arithmetic coding")),
            _ => return Err(unsupported("hierarchical coding")),
        };
        if *precision != 8 {
            return Err(unsupported("samples of more than 8 bits"));
        }
        if specs.len() != 3 * usize::from(*count) {
            return Err(corrupt("the frame header has a wrong length"));
        }
        if !matches!(count, 1 | 3 | 4) {
            return Err(unsupported("a number of components other than 1, 3 or 4"));
        }
        let (specs, _) = specs.as_chunks::<3>();
        let (components, mcus) = lay_out(width, height, specs)?;
        Ok(Self { process, width, height, components, mcus })
    }
}

fn lay_out(width: u32, height: u32, specs: &[[u8; 3]]) -> Result<(Vec<Component>, u32), Rejection> {
    let sampling = |spec: &[u8; 3]| (u32::from(spec[1] >> 4), u32::from(spec[1] & 15));
    let in_range = |factor: u32| (1..=4).contains(&factor);
    if !specs.iter().map(sampling).all(|(h, v)| in_range(h) && in_range(v)) {
        return Err(corrupt("a sampling factor is out of range"));
    }
    let h_max = specs.iter().map(|spec| sampling(spec).0).max().unwrap_or(1);
    let v_max = specs.iter().map(|spec| sampling(spec).1).max().unwrap_or(1);
    let mut components: Vec<Component> = Vec::with_capacity(specs.len());
    for spec in specs {
        let (h, v) = sampling(spec);
        let [id, _, quantisation_table] = *spec;
        if components.iter().any(|other| other.id == id) {
            return Err(corrupt("two components have the same identifier"));
        }
        if quantisation_table > 3 {
            return Err(corrupt("a quantisation table number is out of range"));
        }
        let blocks = (width * h).div_ceil(8 * h_max) * (height * v).div_ceil(8 * v_max);
        let blocks_per_mcu = h * v;
        components.push(Component {
            id,
            quantisation_table,
            blocks_per_mcu,
            blocks,
            seen: false,
            nonzero: Vec::new(),
        });
    }
    let mcus = width.div_ceil(8 * h_max) * height.div_ceil(8 * v_max);
    Ok((components, mcus))
}

fn unsupported(feature: &'static str) -> Rejection {
    Rejection::UnsupportedFeature { format: ImageFormat::Jpeg, feature }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(code: u8, width: u16, height: u16, specs: &[[u8; 3]]) -> Result<Frame, Rejection> {
        let [h1, h0] = height.to_be_bytes();
        let [w1, w0] = width.to_be_bytes();
        let mut body = vec![8, h1, h0, w1, w0, specs.len() as u8];
        body.extend(specs.iter().flatten());
        Frame::read(code, &body, &Limits::default())
    }

    #[test]
    fn block_grids_follow_from_sampling() {
        let frame = header(0xc0, 33, 17, &[[1, 0x22, 0], [2, 0x11, 1], [3, 0x11, 1]]).unwrap();
        assert_eq!(frame.mcus, 3 * 2);
        let grids: Vec<_> = frame.components.iter().map(|c| (c.blocks_per_mcu, c.blocks)).collect();
        assert_eq!(grids, [(4, 5 * 3), (1, 3 * 2), (1, 3 * 2)]);
    }

    #[test]
    fn dimensions_come_before_all_else() {
        let refused = header(0xc9, 8, 20_000, &[]).unwrap_err();
        assert!(matches!(refused, Rejection::Dimensions { width: 8, height: 20_000, .. }), "{refused}");
    }

    #[test]
    fn variants_that_decoders_do_not_share_are_refused() {
        for code in [0xc3, 0xc5, 0xc6, 0xc7, 0xc9, 0xca, 0xcb, 0xcd, 0xce, 0xcf] {
            let refused = header(code, 32, 32, &[[1, 0x11, 0]]).unwrap_err();
            assert!(matches!(refused, Rejection::UnsupportedFeature { .. }), "{code:x}: {refused}");
        }
    }

    #[test]
    fn malformed_components_are_refused() {
        for specs in [
            &[[1, 0x51, 0]][..],
            &[[1, 0x10, 0]],
            &[[1, 0x11, 4]],
            &[[1, 0x11, 0], [1, 0x11, 0], [3, 0x11, 0]],
        ] {
            assert!(matches!(header(0xc0, 32, 32, specs), Err(Rejection::Corrupt { .. })), "{specs:?}");
        }
    }
}
