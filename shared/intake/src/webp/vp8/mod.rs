//! Lossy WebP data: a VP8 key frame (RFC 6386), every bit of its partitions, without prediction, transform
//! or loop filter.
//!
//! ```text
//!  tag │ first partition: header, modes │ sizes │ token partitions 1 … n
//!                                                 row y of macroblocks: partition y mod n
//! ```
//!
//! The tokens of a row depend on those of the row above, which stand in another partition. So all partitions
//! but the last are collected, and the last, mostly the only one, is read as it comes.

mod bools;
mod header;
mod modes;
mod tables;
mod tokens;

use super::container::{Expected, Size};
use super::corrupt;
use super::payload::Progress;
use crate::{ImageFormat, Rejection};
use bools::{Bools, State};
use header::{Header, TAG_BYTES, Tag};
use modes::{Residue, read_modes};
use tokens::{Edge, skip_macroblock};

/// Memory for collected partitions. Encoders write one partition unless told otherwise.
const COLLECTED_BYTES_MAX: u64 = 24 * 1024 * 1024;

/// Bytes of a partition's size.
const SIZE_BYTES: usize = 3;

/// A VP8 chunk.
#[derive(Debug)]
pub(super) struct Vp8 {
    /// Bytes of the chunk that have not been read.
    left: u64,
    expected: Expected,
    size: Option<Size>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Tag,
    FirstPartition(Tag),
    Sizes(Macroblocks),
    Collecting(Macroblocks),
    Tokens(Macroblocks),
    Done,
}

/// The macroblocks behind the first partition.
#[derive(Debug)]
struct Macroblocks {
    header: Header,
    columns: usize,
    residues: Vec<Residue>,
    /// All token partitions but the last.
    collected: Vec<Partition>,
    /// The last token partition, which is read as it comes.
    streamed: State,
    /// The next macroblock.
    at: usize,
    above: Vec<Edge>,
    left: Edge,
}

/// A partition that is kept until its rows are due.
#[derive(Debug, Default)]
struct Partition {
    size: usize,
    bytes: Vec<u8>,
    /// Where its decoder stands.
    at: usize,
    state: State,
}

impl Vp8 {
    pub(super) fn new(chunk_bytes: u64, expected: Expected) -> Self {
        Self { left: chunk_bytes, expected, size: None, stage: Stage::Tag }
    }

    /// The dimensions, once they are known.
    pub(super) fn size(&self) -> Option<Size> {
        self.size
    }

    /// Reads what it can of `data`; `is_whole` says that the chunk ends with it.
    pub(super) fn read(&mut self, data: &[u8], is_whole: bool) -> Result<(usize, Progress), Rejection> {
        let mut at = 0;
        loop {
            if let Stage::Done = self.stage {
                return Ok((at, Progress::Done));
            }
            let rest = data.get(at..).unwrap_or_default();
            let (read, went_on) = self.read_stage(rest, is_whole)?;
            at += read;
            self.left = self.left.saturating_sub(read as u64);
            if !went_on {
                return Ok((at, Progress::NeedsMore));
            }
        }
    }

    /// Reads one stage, or a part of it; returns the bytes read and whether the next stage was reached.
    fn read_stage(&mut self, rest: &[u8], is_whole: bool) -> Result<(usize, bool), Rejection> {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Tag => {
                let Some(tag) = rest.first_chunk::<TAG_BYTES>() else {
                    self.stage = Stage::Tag;
                    return Ok((0, false));
                };
                let tag = Tag::read(tag, &self.expected)?;
                if (TAG_BYTES + tag.first_partition_bytes) as u64 > self.left {
                    return Err(corrupt("the first partition is larger than its chunk"));
                }
                self.size = Some(tag.size);
                self.stage = Stage::FirstPartition(tag);
                Ok((TAG_BYTES, true))
            }
            Stage::FirstPartition(tag) => {
                let Some(partition) = rest.get(..tag.first_partition_bytes) else {
                    self.stage = Stage::FirstPartition(tag);
                    return Ok((0, false));
                };
                self.stage = Stage::Sizes(Macroblocks::read(partition, tag.size)?);
                Ok((tag.first_partition_bytes, true))
            }
            Stage::Sizes(mut macroblocks) => {
                let Some(sizes) = rest.get(..SIZE_BYTES * (macroblocks.header.partitions - 1)) else {
                    self.stage = Stage::Sizes(macroblocks);
                    return Ok((0, false));
                };
                macroblocks.collected = lay_out(sizes, self.left - sizes.len() as u64)?;
                self.stage = Stage::Collecting(macroblocks);
                Ok((sizes.len(), true))
            }
            Stage::Collecting(mut macroblocks) => {
                let (read, is_complete) = macroblocks.collect(rest);
                self.stage =
                    if is_complete { Stage::Tokens(macroblocks) } else { Stage::Collecting(macroblocks) };
                Ok((read, is_complete))
            }
            Stage::Tokens(mut macroblocks) => {
                let (read, is_complete) = macroblocks.skip_tokens(rest)?;
                if !is_complete {
                    if is_whole {
                        return Err(corrupt("the coefficients end early"));
                    }
                    self.stage = Stage::Tokens(macroblocks);
                }
                Ok((read, is_complete))
            }
            Stage::Done => Ok((0, true)),
        }
    }
}

/// Reads the sizes of all token partitions but the last. `available` bytes follow them.
fn lay_out(sizes: &[u8], available: u64) -> Result<Vec<Partition>, Rejection> {
    let (sizes, _) = sizes.as_chunks::<SIZE_BYTES>();
    let sizes = sizes.iter().map(|&[low, middle, high]| u32::from_le_bytes([low, middle, high, 0]) as usize);
    let partitions: Vec<Partition> =
        sizes.map(|size| Partition { size, bytes: Vec::new(), at: 0, state: State::default() }).collect();
    let total: u64 = partitions.iter().map(|partition| partition.size as u64).sum();
    if total >= available {
        return Err(corrupt("a partition is larger than its chunk"));
    }
    if total > COLLECTED_BYTES_MAX {
        let feature = "very large partitions";
        return Err(Rejection::UnsupportedFeature { format: ImageFormat::Webp, feature });
    }
    Ok(partitions)
}

impl Macroblocks {
    /// Reads the first partition.
    fn read(partition: &[u8], (width, height): Size) -> Result<Self, Rejection> {
        let mut bools = Bools::resume(partition, State::default());
        let header = Header::read(&mut bools)?;
        let (columns, rows) = (width.div_ceil(16) as usize, height.div_ceil(16) as usize);
        let residues = read_modes(&mut bools, &header, (columns, rows))?;
        Ok(Self {
            header,
            columns,
            residues,
            collected: Vec::new(),
            streamed: State::default(),
            at: 0,
            above: vec![Edge::default(); columns],
            left: Edge::default(),
        })
    }

    /// Stores the next bytes of the partitions before the last; says whether they are complete.
    fn collect(&mut self, data: &[u8]) -> (usize, bool) {
        let mut read = 0;
        for partition in &mut self.collected {
            let missing = partition.size - partition.bytes.len();
            if missing == 0 {
                continue;
            }
            let rest = data.get(read..).unwrap_or_default();
            let now = rest.get(..missing).unwrap_or(rest);
            if now.is_empty() {
                return (read, false);
            }
            // Reserved as a whole, so that the memory is not doubled while it grows.
            partition.bytes.reserve_exact(missing);
            partition.bytes.extend_from_slice(now);
            read += now.len();
        }
        (read, self.collected.iter().all(|partition| partition.bytes.len() == partition.size))
    }

    /// Passes over macroblocks until the picture is complete or `data`, of the last partition, runs out.
    fn skip_tokens(&mut self, data: &[u8]) -> Result<(usize, bool), Rejection> {
        let mut streamed = Bools::resume(data, self.streamed);
        while self.at < self.residues.len() {
            let row = self.at / self.columns;
            let number = row % self.header.partitions;
            if let Some(mut partition) = self.collected.get_mut(number).map(std::mem::take) {
                let mut bools =
                    Bools::resume(partition.bytes.get(partition.at..).unwrap_or_default(), partition.state);
                if !self.skip_row(&mut bools) {
                    return Err(corrupt("the coefficients end early"));
                }
                let (read, state) = bools.suspend();
                partition.at += read;
                partition.state = state;
                if let Some(slot) = self.collected.get_mut(number) {
                    *slot = partition;
                }
            } else if !self.skip_row(&mut streamed) {
                let (read, state) = streamed.suspend();
                self.streamed = state;
                return Ok((read, false));
            }
        }
        Ok((streamed.suspend().0, true))
    }

    /// Passes over the rest of a row; if the window ends in it, up to the macroblock that it ends in.
    fn skip_row(&mut self, bools: &mut Bools<'_>) -> bool {
        let column = self.at % self.columns;
        if column == 0 {
            self.left = Edge::default();
        }
        let residues = self.residues.get(self.at..self.at + self.columns - column).unwrap_or_default();
        for (&residue, above) in residues.iter().zip(self.above.iter_mut().skip(column)) {
            let snapshot = (*bools, *above, self.left);
            skip_macroblock(bools, &self.header.coefficients, residue, above, &mut self.left);
            if bools.is_short() {
                (*bools, *above, self.left) = snapshot;
                return false;
            }
            self.at += 1;
        }
        true
    }
}
