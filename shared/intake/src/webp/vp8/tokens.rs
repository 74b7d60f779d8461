//! The coefficient tokens of a macroblock (RFC 6386, 13), passed over: what stays is which blocks have any,
//! because that chooses the probabilities of their neighbours.

use super::bools::Bools;
use super::modes::Residue;
use super::tables::CoefficientProbabilities;

/// Which blocks at a macroblock's lower or right edge have coefficients: bits 0 to 3 luma, 4 and 5 the first
/// chroma plane, 6 and 7 the second, 8 the block of luma DC coefficients.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Edge(u16);

const WHOLE_DC: u32 = 8;

/// Block types of the probability tables.
const LUMA_WITHOUT_DC: usize = 0;
const LUMA_DC: usize = 1;
const CHROMA: usize = 2;
const LUMA: usize = 3;

/// The band of each coefficient, and one more for the place behind the last.
const BANDS: [usize; 17] = [0, 1, 2, 3, 6, 4, 5, 6, 6, 6, 6, 6, 6, 6, 6, 7, 0];

/// Probabilities of the extra bits of the four largest token categories.
const EXTRA_BITS: [&[u8]; 4] = [
    &[173, 148, 140],
    &[176, 155, 140, 135],
    &[180, 157, 141, 134, 130],
    &[254, 254, 243, 230, 196, 177, 153, 140, 133, 130, 129],
];

impl Edge {
    fn get(self, bit: u32) -> usize {
        usize::from(self.0 >> bit & 1)
    }

    fn set(&mut self, bit: u32, has_coefficients: bool) {
        self.0 = self.0 & !(1 << bit) | u16::from(has_coefficients) << bit;
    }

    /// A macroblock without coefficients. One that is predicted block by block has no block of luma DC
    /// coefficients, and leaves that place as it was.
    fn clear(&mut self, keeps_whole_dc: bool) {
        self.0 = if keeps_whole_dc { self.0 & 1 << WHOLE_DC } else { 0 };
    }
}

/// Passes over the tokens of one macroblock.
pub(super) fn skip_macroblock(
    bools: &mut Bools<'_>,
    coefficients: &CoefficientProbabilities,
    residue: Residue,
    above: &mut Edge,
    left: &mut Edge,
) {
    let (luma, first) = match residue {
        Residue::NoneInBlocks | Residue::NoneInWhole => {
            above.clear(residue == Residue::NoneInBlocks);
            left.clear(residue == Residue::NoneInBlocks);
            return;
        }
        Residue::Whole => {
            let context = above.get(WHOLE_DC) + left.get(WHOLE_DC);
            let any = skip_block(bools, &coefficients[LUMA_DC], context, 0);
            above.set(WHOLE_DC, any);
            left.set(WHOLE_DC, any);
            (LUMA_WITHOUT_DC, 1)
        }
        Residue::Blocks => (LUMA, 0),
    };
    let mut plane = |kind: usize, first: usize, start: u32, side: u32| {
        for y in start..start + side {
            for x in start..start + side {
                let any = skip_block(bools, &coefficients[kind], above.get(x) + left.get(y), first);
                above.set(x, any);
                left.set(y, any);
            }
        }
    };
    plane(luma, first, 0, 4);
    plane(CHROMA, 0, 4, 2);
    plane(CHROMA, 0, 6, 2);
}

/// Passes over the tokens of one block from coefficient `first` on; says whether there were any.
#[inline]
fn skip_block(bools: &mut Bools<'_>, bands: &[[[u8; 11]; 3]; 8], context: usize, first: usize) -> bool {
    let mut probabilities = &bands[BANDS[first]][context];
    let mut index = first;
    while index < 16 {
        if !bools.take(probabilities[0]) {
            return index > first;
        }
        // Zeros: no block ends with one, so that no end is coded behind them.
        while !bools.take(probabilities[1]) {
            index += 1;
            if index == 16 {
                return true;
            }
            probabilities = &bands[BANDS[index]][0];
        }
        index += 1;
        let is_one = !bools.take(probabilities[2]);
        if !is_one {
            skip_magnitude(bools, probabilities);
        }
        // The sign.
        bools.flag();
        probabilities = &bands[BANDS[index]][if is_one { 1 } else { 2 }];
    }
    true
}

/// The rest of the token tree for magnitudes of two and more.
fn skip_magnitude(bools: &mut Bools<'_>, probabilities: &[u8; 11]) {
    if !bools.take(probabilities[3]) {
        if bools.take(probabilities[4]) {
            bools.take(probabilities[5]);
        }
    } else if !bools.take(probabilities[6]) {
        if !bools.take(probabilities[7]) {
            bools.take(159);
        } else {
            bools.take(165);
            bools.take(145);
        }
    } else {
        let high = usize::from(bools.take(probabilities[8]));
        let low = usize::from(bools.take(probabilities[9 + high]));
        for &probability in EXTRA_BITS[2 * high + low] {
            bools.take(probability);
        }
    }
}
