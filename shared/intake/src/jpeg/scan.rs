//! One scan: which blocks are coded how, MCU after MCU, with restart intervals.
//!
//! A scan stops at an MCU boundary when the window ends and goes on there with the next one. The last few
//! bits are the only thing that is read twice.

use super::bits::{Bits, Held, SegmentEnd, Shortage};
use super::frame::{Component, Frame, Process};
use super::huffman::{AcJumps, AcSymbols, DcTable, Definition};
use super::progressive::{EobRun, Refinement, skip_first, skip_refinement};
use super::{Tables, corrupt};
use crate::Rejection;

/// The body of a SOS segment, with the tables that its coding needs.
#[derive(Debug)]
pub(super) struct Scan {
    coding: Coding,
    units_left: u32,
    /// Units (MCUs) between restart markers; `None` without.
    restart_interval: Option<u32>,
    units_to_restart: u32,
    next_restart: u8,
    held: Held,
}

/// How the blocks of a scan are coded (T.81, F.2 and G.2).
#[derive(Debug)]
enum Coding {
    /// Whole blocks; `blocks` indexes the tables for each block of an MCU.
    Sequential { blocks: Vec<(usize, usize)>, dc: Box<[Option<DcTable>; 4]>, ac: Box<[Option<AcJumps>; 4]> },
    /// First bits of DC coefficients.
    DcFirst { blocks: Vec<usize>, dc: Box<[Option<DcTable>; 4]> },
    /// One more bit of each DC coefficient.
    DcRefinement { blocks: u32 },
    /// First bits of a band of AC coefficients of one component.
    AcFirst { component: usize, block: usize, band: Band, ac: AcSymbols, eob_run: EobRun },
    /// One more bit of a band of AC coefficients of one component.
    AcRefinement { component: usize, block: usize, band: Band, ac: AcSymbols, eob_run: EobRun },
}

/// The coefficients of a progressive AC scan: `first..=last`, within 1..=63.
#[derive(Debug, Clone, Copy)]
pub(super) struct Band {
    pub(super) first: u32,
    pub(super) last: u32,
}

impl Band {
    /// A bit for each coefficient of the band.
    pub(super) fn mask(self) -> u64 {
        (u64::MAX << self.first) & (u64::MAX >> (63 - self.last))
    }
}

/// Blocks that an MCU of an interleaved scan may have (T.81, B.2.3).
const MCU_BLOCKS_MAX: u32 = 10;

/// Whether a scan came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// More bytes are needed.
    Paused,
    /// The next marker was reached.
    Finished,
}

struct Spectrum {
    start: u8,
    end: u8,
    approximation_high: u8,
    approximation_low: u8,
}

impl Scan {
    /// Reads a SOS segment's body and prepares the tables that it names.
    pub(super) fn start(body: &[u8], frame: &mut Frame, tables: &Tables) -> Result<Self, Rejection> {
        let (selected, spectrum) = read_header(body, frame)?;
        for &(component, ..) in &selected {
            let table = frame.components.get(component).map_or(0, |c| c.quantisation_table);
            if !tables.quantisation_defined[usize::from(table & 3)] {
                return Err(corrupt("a quantisation table is missing"));
            }
        }
        let interleaved = selected.len() > 1;
        let component_of = |index: usize| frame.components.get(index);
        let blocks_of =
            |index: usize| component_of(index).map_or(0, |c| if interleaved { c.blocks_per_mcu } else { 1 });
        let blocks_per_mcu: u32 = selected.iter().map(|&(component, ..)| blocks_of(component)).sum();
        if blocks_per_mcu > MCU_BLOCKS_MAX {
            return Err(corrupt("an MCU has too many blocks"));
        }
        let single =
            selected.first().and_then(|&(component, ..)| component_of(component)).map_or(0, |c| c.blocks);
        let units_left = if interleaved { frame.mcus } else { single };
        let repeat = |&(component, dc, ac): &(usize, usize, usize)| {
            std::iter::repeat_n((dc, ac), blocks_of(component) as usize)
        };
        let blocks: Vec<(usize, usize)> = selected.iter().flat_map(repeat).collect();
        let coding = Coding::new(&selected, blocks, &spectrum, frame.process, tables)?;
        mark_seen(&selected, &coding, frame)?;
        let units_to_restart = tables.restart_interval.unwrap_or(u32::MAX);
        Ok(Self {
            coding,
            units_left,
            restart_interval: tables.restart_interval,
            units_to_restart,
            next_restart: 0,
            held: Held::default(),
        })
    }

    /// Reads as many MCUs of `window` as are whole; returns how many bytes were read.
    pub(super) fn read(
        &mut self,
        window: &[u8],
        components: &mut [Component],
    ) -> Result<(usize, Progress), Rejection> {
        let mut bits = Bits::resume(window, self.held);
        let progress = self.run(&mut bits, components)?;
        let (read, held) = bits.suspend();
        self.held = held;
        Ok((read, progress))
    }

    fn run(&mut self, bits: &mut Bits<'_>, components: &mut [Component]) -> Result<Progress, Rejection> {
        loop {
            if self.units_left == 0 || self.units_to_restart == 0 {
                self.coding.end_segment();
                match bits.end_segment() {
                    SegmentEnd::Unknown => return Ok(Progress::Paused),
                    SegmentEnd::Excess => {
                        return Err(corrupt("a segment has more data than its blocks need"));
                    }
                    SegmentEnd::Marker(_) if self.units_left == 0 => {
                        bits.unread_marker();
                        return Ok(Progress::Finished);
                    }
                    SegmentEnd::Marker(code) if code == 0xd0 + self.next_restart => {}
                    SegmentEnd::Marker(_) => return Err(corrupt("a restart marker is missing")),
                }
                self.next_restart = (self.next_restart + 1) & 7;
                self.units_to_restart = self.restart_interval.unwrap_or(u32::MAX);
            }
            let wanted = self.units_left.min(self.units_to_restart);
            let read = self.coding.skip_units(bits, wanted, components)?;
            self.units_left -= read;
            self.units_to_restart -= read;
            if read < wanted {
                return Ok(Progress::Paused);
            }
        }
    }
}

/// (component index, DC table, AC table) of each component in the scan.
type Selected = Vec<(usize, usize, usize)>;

fn read_header(body: &[u8], frame: &Frame) -> Result<(Selected, Spectrum), Rejection> {
    let malformed = || corrupt("the scan header is malformed");
    let (&count, rest) = body.split_first().ok_or_else(malformed)?;
    let (specs, spectrum) = rest.split_at_checked(2 * usize::from(count)).ok_or_else(malformed)?;
    let &[start, end, approximation] = spectrum else { return Err(malformed()) };
    let spectrum = Spectrum {
        start,
        end,
        approximation_high: approximation >> 4,
        approximation_low: approximation & 15,
    };
    let mut selected = Selected::new();
    let (specs, _) = specs.as_chunks::<2>();
    for &[id, table_numbers] in specs {
        let component = frame.components.iter().position(|c| c.id == id).ok_or_else(malformed)?;
        let (dc, ac) = (usize::from(table_numbers >> 4), usize::from(table_numbers & 15));
        if selected.iter().any(|&(other, ..)| other == component) {
            return Err(malformed());
        }
        selected.push((component, dc, ac));
    }
    if selected.is_empty() {
        return Err(malformed());
    }
    Ok((selected, spectrum))
}

/// Records that the scan codes DC coefficients; sequential components are coded once.
fn mark_seen(selected: &Selected, coding: &Coding, frame: &mut Frame) -> Result<(), Rejection> {
    let codes_dc = matches!(coding, Coding::Sequential { .. } | Coding::DcFirst { .. });
    for &(component, ..) in selected {
        let Some(component) = frame.components.get_mut(component) else { continue };
        match coding {
            Coding::Sequential { .. } if component.seen => {
                return Err(corrupt("a component is coded twice"));
            }
            Coding::AcFirst { .. } | Coding::AcRefinement { .. } if component.nonzero.is_empty() => {
                component.nonzero = vec![0; component.blocks as usize];
            }
            _ => {}
        }
        component.seen |= codes_dc;
    }
    Ok(())
}

impl Coding {
    fn new(
        selected: &Selected,
        blocks: Vec<(usize, usize)>,
        spectrum: &Spectrum,
        process: Process,
        tables: &Tables,
    ) -> Result<Self, Rejection> {
        let Spectrum { start, end, approximation_high, approximation_low } = *spectrum;
        let dc = |used: &Vec<(usize, usize)>| {
            build(&tables.dc, |n| used.iter().any(|&(dc, _)| dc == n), DcTable::new)
        };
        if process == Process::Sequential {
            if (start, end, approximation_high, approximation_low) != (0, 63, 0, 0) {
                return Err(corrupt("the scan's spectral selection is out of range"));
            }
            let ac = build(&tables.ac, |n| blocks.iter().any(|&(_, ac)| ac == n), AcJumps::new)?;
            return Ok(Self::Sequential { dc: dc(&blocks)?, ac, blocks });
        }
        let is_refinement = approximation_high != 0;
        let valid_band = if start == 0 { end == 0 } else { start <= end && end <= 63 && selected.len() == 1 };
        let valid_bits =
            approximation_low <= 13 && (!is_refinement || approximation_high == approximation_low + 1);
        if !valid_band || !valid_bits {
            return Err(corrupt("the scan's spectral selection is out of range"));
        }
        if start == 0 {
            return Ok(if is_refinement {
                Self::DcRefinement { blocks: blocks.len() as u32 }
            } else {
                Self::DcFirst { dc: dc(&blocks)?, blocks: blocks.into_iter().map(|(dc, _)| dc).collect() }
            });
        }
        let band = Band { first: u32::from(start), last: u32::from(end) };
        let &(component, _, number) = selected.first().ok_or_else(|| corrupt("the scan has no component"))?;
        let ac = build_one(tables.ac.get(number).and_then(Option::as_ref), AcSymbols::new)?;
        let (block, eob_run) = (0, EobRun::default());
        Ok(if is_refinement {
            Self::AcRefinement { component, block, band, ac, eob_run }
        } else {
            Self::AcFirst { component, block, band, ac, eob_run }
        })
    }

    /// Passes over up to `wanted` MCUs; fewer only if the window ends.
    fn skip_units(
        &mut self,
        bits: &mut Bits<'_>,
        wanted: u32,
        components: &mut [Component],
    ) -> Result<u32, Rejection> {
        match self {
            Self::Sequential { blocks, dc, ac } => {
                let pairs: Option<Vec<_>> =
                    blocks.iter().map(|&(d, a)| Some((dc.get(d)?.as_ref()?, ac.get(a)?.as_ref()?))).collect();
                let pairs = pairs.ok_or_else(|| corrupt("a Huffman table is missing"))?;
                skip_units(bits, wanted, |bits| {
                    pairs.iter().try_for_each(|(dc, ac)| {
                        dc.skip_difference(bits)?;
                        ac.skip_block(bits)
                    })
                })
            }
            Self::DcFirst { blocks, dc } => {
                let tables: Option<Vec<_>> = blocks.iter().map(|&d| dc.get(d)?.as_ref()).collect();
                let tables = tables.ok_or_else(|| corrupt("a Huffman table is missing"))?;
                skip_units(bits, wanted, |bits| tables.iter().try_for_each(|dc| dc.skip_difference(bits)))
            }
            Self::DcRefinement { blocks } => skip_units(bits, wanted, |bits| {
                bits.discard(*blocks);
                Some(())
            }),
            Self::AcFirst { component, block, band, ac, eob_run } => {
                let mut blocks = blocks_from(components, *component, *block, wanted).iter_mut();
                let read = skip_first(bits, &mut blocks, *band, ac, eob_run)?;
                *block += read as usize;
                Ok(read)
            }
            Self::AcRefinement { component, block, band, ac, eob_run } => {
                let blocks = blocks_from(components, *component, *block, wanted);
                let read = skip_refinement(bits, blocks, Refinement { band: *band, ac }, eob_run)?;
                *block += read as usize;
                Ok(read)
            }
        }
    }

    /// Ends an end-of-band run: it may reach over the end of its segment, where decoders cut it.
    fn end_segment(&mut self) {
        if let Self::AcFirst { eob_run, .. } | Self::AcRefinement { eob_run, .. } = self {
            *eob_run = EobRun::default();
        }
    }
}

fn blocks_from(components: &mut [Component], component: usize, block: usize, wanted: u32) -> &mut [u64] {
    let blocks = components.get_mut(component).map(|c| c.nonzero.as_mut_slice()).unwrap_or_default();
    blocks.get_mut(block..block + wanted as usize).unwrap_or_default()
}

/// Builds the look-up tables that are used from their definitions.
fn build<T, const N: usize>(
    definitions: &[Option<Definition>; N],
    is_used: impl Fn(usize) -> bool,
    new: impl Fn(&Definition) -> Option<T>,
) -> Result<Box<[Option<T>; N]>, Rejection> {
    let mut tables = Box::new([const { None }; N]);
    for (number, (table, definition)) in tables.iter_mut().zip(definitions).enumerate() {
        if is_used(number) {
            *table = Some(build_one(definition.as_ref(), &new)?);
        }
    }
    Ok(tables)
}

fn build_one<T>(
    definition: Option<&Definition>,
    new: impl Fn(&Definition) -> Option<T>,
) -> Result<T, Rejection> {
    let definition = definition.ok_or_else(|| corrupt("a Huffman table is missing"))?;
    new(definition).ok_or_else(|| corrupt("a Huffman table is malformed"))
}

/// Runs `unit` up to `wanted` times; undoes the last run if the window ended in it.
#[inline(always)]
pub(super) fn skip_units(
    bits: &mut Bits<'_>,
    wanted: u32,
    mut unit: impl FnMut(&mut Bits<'_>) -> Option<()>,
) -> Result<u32, Rejection> {
    // A copy of our own can stay in registers.
    let mut current = *bits;
    for read in 0..wanted {
        let snapshot = current;
        let outcome = unit(&mut current);
        if outcome.is_some() && current.shortage().is_none() {
            continue;
        }
        *bits = current;
        return match verdict(bits, outcome)? {
            Shortage::Window => {
                *bits = snapshot;
                Ok(read)
            }
            Shortage::Segment => Err(corrupt("a segment ends before its last block")),
        };
    }
    *bits = current;
    Ok(wanted)
}

/// What stopped a unit: missing bits, or bits that mean nothing.
#[cold]
pub(super) fn verdict(bits: &mut Bits<'_>, outcome: Option<()>) -> Result<Shortage, Rejection> {
    match (bits.shortage(), outcome) {
        (Some(shortage), _) => Ok(shortage),
        (None, _) => {
            bits.shortage_of_code().ok_or_else(|| corrupt("a Huffman code or a run of zeros is invalid"))
        }
    }
}
