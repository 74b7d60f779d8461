//! Progressive AC scans (T.81, G.1.2.2 and G.1.2.3).
//!
//! A refinement scan has one correction bit for each coefficient that is already non-zero, so the walker
//! keeps a bit map of them, 64 bits a block, and nothing else of the coefficients.

use super::bits::{Bits, Shortage};
use super::corrupt;
use super::huffman::AcSymbols;
use super::scan::{Band, verdict};
use crate::Rejection;

/// Blocks, counted from the next one, whose band has no further new coefficients.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EobRun(u32);

/// What a refinement scan needs besides its blocks.
#[derive(Clone, Copy)]
pub(super) struct Refinement<'t> {
    pub(super) band: Band,
    pub(super) ac: &'t AcSymbols,
}

/// Sixteen zeros.
const ZRL: u8 = 0xf0;

/// The bit of a coefficient. Decoders let a run pass that ends beyond the band, and put what follows it
/// beyond the band, or at the last coefficient: a damaged file reads on only for those who do the same.
fn coefficient(index: u32) -> u64 {
    1 << index.min(63)
}

/// Passes over the band's first bits in `blocks`; returns for how many blocks.
pub(super) fn skip_first(
    bits: &mut Bits<'_>,
    blocks: &mut std::slice::IterMut<'_, u64>,
    band: Band,
    ac: &AcSymbols,
    eob_run: &mut EobRun,
) -> Result<u32, Rejection> {
    let total = blocks.len() as u32;
    loop {
        // Blocks within a run have no bits at all.
        let skipped = eob_run.0.min(blocks.len() as u32);
        if skipped > 0 {
            blocks.nth(skipped as usize - 1);
            eob_run.0 -= skipped;
        }
        let left = blocks.len() as u32;
        let Some(nonzero) = blocks.next() else { return Ok(total) };
        let snapshot = *bits;
        let mut coded = *nonzero;
        let outcome = first_block(bits, band, ac, &mut coded, eob_run);
        if outcome.is_some() && bits.shortage().is_none() {
            *nonzero = coded;
            continue;
        }
        match verdict(bits, outcome)? {
            Shortage::Window => {
                *bits = snapshot;
                eob_run.0 = 0;
                return Ok(total - left);
            }
            Shortage::Segment => return Err(corrupt("a segment ends before its last block")),
        }
    }
}

/// One block's first bits.
#[inline]
fn first_block(
    bits: &mut Bits<'_>,
    band: Band,
    ac: &AcSymbols,
    nonzero: &mut u64,
    eob_run: &mut EobRun,
) -> Option<()> {
    let mut index = band.first;
    while index <= band.last {
        let symbol = ac.take(bits)?;
        let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        if size > 0 {
            index += run;
            bits.skip(size);
            *nonzero |= coefficient(index);
            index += 1;
        } else if symbol == ZRL {
            index += 16;
        } else {
            eob_run.0 = (1 << run) - 1 + bits.take(run);
            return Some(());
        }
    }
    Some(())
}

/// Passes over the band's next bit in `blocks`; returns for how many blocks.
pub(super) fn skip_refinement(
    bits: &mut Bits<'_>,
    blocks: &mut [u64],
    scan: Refinement<'_>,
    eob_run: &mut EobRun,
) -> Result<u32, Rejection> {
    let band = scan.band.mask();
    for (read, nonzero) in (0..).zip(blocks.iter_mut()) {
        // Within a run, a block without coefficients in the band has no bits at all.
        if eob_run.0 > 0 && *nonzero & band == 0 {
            eob_run.0 -= 1;
            continue;
        }
        let (snapshot, run_before) = (*bits, *eob_run);
        let mut refined = *nonzero;
        let outcome = refine_block(bits, scan, &mut refined, eob_run);
        if outcome.is_some() && bits.shortage().is_none() {
            *nonzero = refined;
            continue;
        }
        match verdict(bits, outcome)? {
            Shortage::Window => {
                *bits = snapshot;
                *eob_run = run_before;
                return Ok(read);
            }
            Shortage::Segment => return Err(corrupt("a segment ends before its last block")),
        }
    }
    Ok(blocks.len() as u32)
}

/// One block's next bits.
#[inline]
fn refine_block(
    bits: &mut Bits<'_>,
    scan: Refinement<'_>,
    nonzero: &mut u64,
    eob_run: &mut EobRun,
) -> Option<()> {
    // Coefficients of the band at or behind the next one.
    let mut ahead = scan.band.mask();
    while eob_run.0 == 0 && ahead != 0 {
        let symbol = scan.ac.take(bits)?;
        let (run, size) = (u32::from(symbol >> 4), symbol & 15);
        match size {
            0 if symbol != ZRL => {
                eob_run.0 = (1 << run) + bits.take(run);
                break;
            }
            0 => {}
            1 => bits.skip(1),
            _ => return None,
        }
        // The symbol passes over `run` zero coefficients to a further one; those that are not zero, on the
        // way, have a correction bit each.
        let mut zeros = ahead & !*nonzero;
        for _ in 0..run {
            zeros &= zeros.wrapping_sub(1);
        }
        let target = zeros & zeros.wrapping_neg();
        let passed = ahead & target.wrapping_sub(1);
        bits.discard((passed & *nonzero).count_ones());
        ahead &= !(passed | target);
        if size != 0 {
            *nonzero |= if target != 0 { target } else { coefficient(scan.band.last + 1) };
        }
    }
    if eob_run.0 > 0 {
        bits.discard((ahead & *nonzero).count_ones());
        eob_run.0 -= 1;
    }
    Some(())
}
