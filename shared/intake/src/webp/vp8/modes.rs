//! The first partition behind its header: each macroblock's segment, skip flag and prediction modes
//! (RFC 6386, 10, 11 and 19.3). Modes are read because each is coded by its neighbours'; what stays is
//! whether a macroblock has coefficients, and which.

use super::bools::Bools;
use super::header::Header;
use super::tables::BLOCK_MODES;
use crate::Rejection;
use crate::webp::corrupt;

/// What the coefficients of a macroblock look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Residue {
    /// Four luma blocks a side, predicted each by itself: 24 blocks.
    Blocks,
    /// Luma predicted as a whole: the DC coefficients stand in a block of their own, the 25th.
    Whole,
    /// No coefficients; predicted block by block.
    NoneInBlocks,
    /// No coefficients; predicted as a whole.
    NoneInWhole,
}

/// Prediction modes of 4x4 blocks, in the order of the probability tables. The modes of whole macroblocks
/// count, as neighbours, as the 4x4 mode alike.
mod mode {
    pub(super) const DC: u8 = 0;
    pub(super) const TRUE_MOTION: u8 = 1;
    pub(super) const VERTICAL: u8 = 2;
    pub(super) const HORIZONTAL: u8 = 3;
    pub(super) const LEFT_DOWN: u8 = 4;
    pub(super) const RIGHT_DOWN: u8 = 5;
    pub(super) const VERTICAL_RIGHT: u8 = 6;
    pub(super) const VERTICAL_LEFT: u8 = 7;
    pub(super) const HORIZONTAL_DOWN: u8 = 8;
    pub(super) const HORIZONTAL_UP: u8 = 9;
}

/// Reads the modes of all macroblocks, row by row.
pub(super) fn read_modes(
    bools: &mut Bools<'_>,
    header: &Header,
    (columns, rows): (usize, usize),
) -> Result<Vec<Residue>, Rejection> {
    let mut residues = Vec::with_capacity(columns * rows);
    let mut above = vec![[mode::DC; 4]; columns];
    for _ in 0..rows {
        let mut left = [mode::DC; 4];
        for above in &mut above {
            residues.push(read_macroblock(bools, header, above, &mut left));
        }
        if bools.is_short() {
            return Err(corrupt("the prediction modes end early"));
        }
    }
    Ok(residues)
}

fn read_macroblock(
    bools: &mut Bools<'_>,
    header: &Header,
    above: &mut [u8; 4],
    left: &mut [u8; 4],
) -> Residue {
    if let Some([root, low, high]) = header.segment_probabilities {
        let half = if bools.take(root) { high } else { low };
        bools.take(half);
    }
    let is_empty = header.skip_probability.is_some_and(|probability| bools.take(probability));
    let is_whole = bools.take(145);
    if is_whole {
        let mode = match bools.take(156) {
            true => {
                if bools.take(128) {
                    mode::TRUE_MOTION
                } else {
                    mode::HORIZONTAL
                }
            }
            false => {
                if bools.take(163) {
                    mode::VERTICAL
                } else {
                    mode::DC
                }
            }
        };
        *above = [mode; 4];
        *left = [mode; 4];
    } else {
        for left in left {
            for above in above.iter_mut() {
                let probabilities = &BLOCK_MODES[usize::from(*above)][usize::from(*left)];
                *left = read_block_mode(bools, probabilities);
                *above = *left;
            }
        }
    }
    // The chroma mode: one of four.
    let _ = bools.take(142) && bools.take(114) && bools.take(183);
    match (is_empty, is_whole) {
        (false, false) => Residue::Blocks,
        (false, true) => Residue::Whole,
        (true, false) => Residue::NoneInBlocks,
        (true, true) => Residue::NoneInWhole,
    }
}

/// The tree of RFC 6386, 11.2.
fn read_block_mode(bools: &mut Bools<'_>, probabilities: &[u8; 9]) -> u8 {
    let &[p0, p1, p2, p3, p4, p5, p6, p7, p8] = probabilities;
    if !bools.take(p0) {
        return mode::DC;
    }
    if !bools.take(p1) {
        return mode::TRUE_MOTION;
    }
    if !bools.take(p2) {
        return mode::VERTICAL;
    }
    if !bools.take(p3) {
        if !bools.take(p4) {
            return mode::HORIZONTAL;
        }
        return if bools.take(p5) { mode::VERTICAL_RIGHT } else { mode::RIGHT_DOWN };
    }
    if !bools.take(p6) {
        return mode::LEFT_DOWN;
    }
    if !bools.take(p7) {
        return mode::VERTICAL_LEFT;
    }
    if bools.take(p8) { mode::HORIZONTAL_UP } else { mode::HORIZONTAL_DOWN }
}
