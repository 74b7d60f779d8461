//! The walk over the grid: two slices of samples at a time, vertices on their cut edges, then the cells between.
//!
//! Whether a sample is inside is one bit, 64 to a word, so that the empty parts of a volume cost a few operations
//! per word. Vertex numbers are kept for one slab only and need no clearing: exactly the cut edges are written
//! before the cells read them.

use crate::mesh::Mesh;
use crate::surface::cube::{CORNERS, EDGES, FACES, corner_position, face_corners};
use crate::surface::interior::joined_corners;
use crate::surface::patch::Patch;
use crate::surface::table::{CELLS, CellKind, CellTable};
use crate::surface::{SurfaceError, SurfaceOptions, VolumeSource};
use crate::watch::Watch;

const WORD_BITS: usize = u64::BITS as usize;

pub(super) fn sweep<E>(
    volume: &impl VolumeSource,
    options: &SurfaceOptions,
    watch: &mut Watch<'_, E>,
) -> Result<Result<Mesh, SurfaceError>, E> {
    let [nx, ny, nz] = volume.dims();
    let mut sweep = Sweep::new([ny, nz], options);
    sweep.upper.read(volume, 0, options.iso);
    sweep.cut_slice(0);
    for x in 1..nx {
        watch(x as f32 / nx as f32)?;
        sweep.advance();
        sweep.upper.read(volume, x, options.iso);
        sweep.cut_slice(x);
        sweep.cut_between(x - 1);
        sweep.fill_cells();
        if u32::try_from(sweep.positions.len()).is_err() {
            return Ok(Err(SurfaceError::TooManyVertices));
        }
    }
    watch(1.0)?;
    Ok(Mesh::new(sweep.positions, sweep.triangles).map_err(SurfaceError::from))
}

/// One slice of the grid across x.
struct Slice {
    samples: Vec<f32>,
    /// Rows of bits along z, each padded to whole words with zeros.
    inside: Vec<u64>,
    /// The vertex on the edge that leaves a sample along y, and along z; only cut edges have one.
    y_vertices: Vec<u32>,
    z_vertices: Vec<u32>,
}

impl Slice {
    fn new([ny, nz]: [usize; 2]) -> Self {
        Self {
            samples: vec![0.0; ny * nz],
            inside: vec![0; ny * nz.div_ceil(WORD_BITS)],
            y_vertices: vec![0; ny * nz],
            z_vertices: vec![0; ny * nz],
        }
    }

    fn read(&mut self, volume: &impl VolumeSource, x: usize, iso: f32) {
        let nz = volume.dims()[2];
        let rows =
            self.samples.chunks_exact_mut(nz).zip(self.inside.chunks_exact_mut(nz.div_ceil(WORD_BITS)));
        for (y, (row, words)) in rows.enumerate() {
            volume.read_row(x, y, row);
            for (samples, word) in row.chunks(WORD_BITS).zip(words) {
                *word = inside_bits(samples, iso);
            }
        }
    }
}

/// One bit for each of at most 64 samples. Bytes first, because comparisons into bytes run in vector registers.
fn inside_bits(samples: &[f32], iso: f32) -> u64 {
    let mut word = 0;
    for (place, octet) in samples.chunks(8).enumerate() {
        let mut flags = [0u8; 8];
        octet.iter().zip(&mut flags).for_each(|(&sample, flag)| *flag = u8::from(sample > iso));
        // Each byte's low bit is multiplied to its own place in the top byte.
        let bits = u64::from_le_bytes(flags).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        word |= bits << (8 * place);
    }
    word
}

struct Sweep<'a> {
    options: &'a SurfaceOptions,
    table: &'static CellTable,
    ny: usize,
    nz: usize,
    words: usize,
    lower: Slice,
    upper: Slice,
    /// The vertex on the edge between the slices at each sample.
    x_vertices: Vec<u32>,
    positions: Vec<[f32; 3]>,
    triangles: Vec<[u32; 3]>,
}

impl<'a> Sweep<'a> {
    fn new(dims: [usize; 2], options: &'a SurfaceOptions) -> Self {
        let [ny, nz] = dims;
        Self {
            options,
            table: &CELLS,
            ny,
            nz,
            words: nz.div_ceil(WORD_BITS),
            lower: Slice::new(dims),
            upper: Slice::new(dims),
            x_vertices: vec![0; ny * nz],
            positions: Vec::new(),
            triangles: Vec::new(),
        }
    }

    /// Makes the upper slice the lower one.
    fn advance(&mut self) {
        std::mem::swap(&mut self.lower, &mut self.upper);
    }

    /// Puts vertices on the cut edges within the upper slice, which is at `x`.
    fn cut_slice(&mut self, x: usize) {
        for y in 0..self.ny {
            for word in 0..self.words {
                let row = y * self.words;
                let here = self.upper.inside[row + word];
                let along_z = here ^ self.next_along_z(&self.upper, row, word);
                for z in ones(along_z & self.cells_in_word(word), word) {
                    let sample = y * self.nz + z;
                    let ends = [self.upper.samples[sample], self.upper.samples[sample + 1]];
                    self.upper.z_vertices[sample] = self.add_vertex([x, y, z], 2, ends);
                }
                if y + 1 == self.ny {
                    continue;
                }
                for z in ones(here ^ self.upper.inside[row + self.words + word], word) {
                    let sample = y * self.nz + z;
                    let ends = [self.upper.samples[sample], self.upper.samples[sample + self.nz]];
                    self.upper.y_vertices[sample] = self.add_vertex([x, y, z], 1, ends);
                }
            }
        }
    }

    /// Puts vertices on the cut edges between the lower slice, which is at `x`, and the upper one.
    fn cut_between(&mut self, x: usize) {
        for y in 0..self.ny {
            for word in 0..self.words {
                let place = y * self.words + word;
                for z in ones(self.lower.inside[place] ^ self.upper.inside[place], word) {
                    let sample = y * self.nz + z;
                    let ends = [self.lower.samples[sample], self.upper.samples[sample]];
                    self.x_vertices[sample] = self.add_vertex([x, y, z], 0, ends);
                }
            }
        }
    }

    /// The vertex where the samples at the two ends of an edge pass through the level.
    fn add_vertex(&mut self, start: [usize; 3], axis: usize, ends: [f32; 2]) -> u32 {
        let heights = ends.map(|sample| f64::from(sample) - f64::from(self.options.iso));
        let fraction = heights[0] / (heights[0] - heights[1]);
        let margin = f64::from(self.options.edge_margin);
        let fraction = if fraction.is_nan() { 0.5 } else { fraction.clamp(margin, 1.0 - margin) };
        let mut place = start.map(|index| index as f64);
        place[axis] += fraction;
        let frame = &self.options.frame;
        let along =
            |axis: usize| f64::from(frame.origin[axis]) + place[axis] * f64::from(frame.cell_size[axis]);
        self.positions.push(std::array::from_fn(|axis| along(axis) as f32));
        (self.positions.len() - 1) as u32
    }

    /// Fills the cells between the two slices.
    fn fill_cells(&mut self) {
        for y in 0..self.ny - 1 {
            for word in 0..self.words {
                let rows = [(&self.lower, y), (&self.lower, y + 1), (&self.upper, y), (&self.upper, y + 1)];
                let near = rows.map(|(slice, y)| slice.inside[y * self.words + word]);
                let far = rows.map(|(slice, y)| self.next_along_z(slice, y * self.words, word));
                let bits = [near[0], far[0], near[1], far[1], near[2], far[2], near[3], far[3]];
                let any = bits.iter().fold(0, |any, bits| any | bits);
                let all = bits.iter().fold(u64::MAX, |all, bits| all & bits);
                for z in ones(any & !all & self.cells_in_word(word), word) {
                    let shift = z % WORD_BITS;
                    let case = (0..CORNERS).fold(0, |case, c| case | ((bits[c] >> shift & 1) as u8) << c);
                    self.fill_cell(y, z, case);
                }
            }
        }
    }

    fn fill_cell(&mut self, y: usize, z: usize, case: u8) {
        let table = self.table;
        let ambiguous = table.ambiguous(case);
        let first = table.kind(case, 0);
        let patch = if ambiguous == 0 && first.tunnels.is_empty() {
            &first.discs
        } else {
            let heights = self.corner_heights(y, z);
            let kind = table.kind(case, decide_faces(case, ambiguous, &heights));
            choose_patch(kind, &heights)
        };
        let first_centre = self.positions.len() as u32;
        let vertices: [u32; EDGES] = self.edge_vertices(y, z);
        for around in &patch.centres {
            self.add_centre(around, &vertices);
        }
        let name = |vertex: u8| match (vertex as usize).checked_sub(EDGES) {
            None => vertices[vertex as usize],
            Some(centre) => first_centre + centre as u32,
        };
        self.triangles.extend(patch.triangles.iter().map(|corners| corners.map(name)));
    }

    /// The vertices on the edges of a cell; what is there for edges that are not cut has no meaning.
    fn edge_vertices(&self, y: usize, z: usize) -> [u32; EDGES] {
        let at = y * self.nz + z;
        let (right, above) = (at + self.nz, at + 1);
        [
            self.x_vertices[at],
            self.x_vertices[above],
            self.x_vertices[right],
            self.x_vertices[right + 1],
            self.lower.y_vertices[at],
            self.lower.y_vertices[above],
            self.upper.y_vertices[at],
            self.upper.y_vertices[above],
            self.lower.z_vertices[at],
            self.lower.z_vertices[right],
            self.upper.z_vertices[at],
            self.upper.z_vertices[right],
        ]
    }

    fn corner_heights(&self, y: usize, z: usize) -> [f64; CORNERS] {
        std::array::from_fn(|corner| {
            let [dx, dy, dz] = corner_position(corner);
            let slice = if dx == 0 { &self.lower } else { &self.upper };
            f64::from(slice.samples[(y + dy) * self.nz + z + dz]) - f64::from(self.options.iso)
        })
    }

    fn add_centre(&mut self, around: &[u8], vertices: &[u32; EDGES]) {
        let share = 1.0 / around.len() as f64;
        let sum = around.iter().fold([0.0; 3], |sum, &edge| {
            let position = self.positions[vertices[edge as usize] as usize];
            std::array::from_fn(|axis| sum[axis] + share * f64::from(position[axis]))
        });
        self.positions.push(sum.map(|component: f64| component as f32));
    }

    /// The bits of the samples one further along z.
    fn next_along_z(&self, slice: &Slice, row: usize, word: usize) -> u64 {
        let carried = if word + 1 < self.words { slice.inside[row + word + 1] << (WORD_BITS - 1) } else { 0 };
        slice.inside[row + word] >> 1 | carried
    }

    /// Which places of a word start a cell: all but the last sample of the row.
    fn cells_in_word(&self, word: usize) -> u64 {
        let left = (self.nz - 1).saturating_sub(word * WORD_BITS);
        if left >= WORD_BITS { u64::MAX } else { (1 << left) - 1 }
    }
}

/// The asymptotic decider on each ambiguous face, as bits in the order of the faces: whether the insides are joined.
/// The products are of the same two numbers in both cells of a face, so both decide alike.
pub(super) fn decide_faces(case: u8, ambiguous: u8, heights: &[f64; CORNERS]) -> u8 {
    let faces = (0..FACES).filter(|&face| ambiguous >> face & 1 == 1);
    faces.enumerate().fold(0, |decisions, (rank, face)| {
        let [a, b, c, d] = face_corners(face);
        let (ac, bd) = (heights[a] * heights[c], heights[b] * heights[d]);
        let joined = if case >> a & 1 == 1 { ac > bd } else { bd > ac };
        decisions | u8::from(joined) << rank
    })
}

/// The patch of a cell whose faces are decided: with the tunnel that its interior has, if any.
pub(super) fn choose_patch<'k>(kind: &'k CellKind, heights: &[f64; CORNERS]) -> &'k Patch {
    if kind.tunnels.is_empty() {
        return &kind.discs;
    }
    let joined = joined_corners(heights);
    let is_there = |corners: [u8; 2]| joined[corners[0] as usize] == joined[corners[1] as usize];
    match kind.tunnels.iter().find(|tunnel| is_there(tunnel.joins)) {
        Some(tunnel) => &tunnel.patch,
        None => &kind.discs,
    }
}

/// The places of the bits that are set in word number `word`.
fn ones(mut bits: u64, word: usize) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = bits.trailing_zeros() as usize;
        (bits != 0).then(|| {
            bits &= bits - 1;
            word * WORD_BITS + place
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surface::cube::edge_corners;

    #[test]
    fn bits_are_in_the_order_of_the_samples() {
        let samples: Vec<f32> = (0..61).map(|i| if i % 3 == 0 || i == 59 { 1.0 } else { 0.0 }).collect();
        let expected = (0..61).filter(|i| i % 3 == 0 || *i == 59).fold(0u64, |word, i| word | 1 << i);
        assert_eq!(inside_bits(&samples, 0.5), expected);
    }

    #[test]
    fn edge_numbers_are_those_of_the_cube() {
        let sweep_order = [0, 1, 2].map(|axis| [0, 1, 2, 3].map(|i| edge_corners(4 * axis + i)[0]));
        assert_eq!(sweep_order, [[0, 1, 2, 3], [0, 1, 4, 5], [0, 2, 4, 6]]);
    }
}
