//! Where samples come from.

use crate::surface::SurfaceError;

/// A grid of samples that can be read row by row. The extraction reads each row once, in order, and keeps two
/// slices, so a source may make its samples as they are asked for: from a sparse tree, from bricks, from a formula.
pub trait VolumeSource {
    /// The number of samples along x, y and z.
    fn dims(&self) -> [usize; 3];

    /// Writes the samples (x, y, 0), (x, y, 1), … into `row`, which has as many places as there are samples along z.
    fn read_row(&self, x: usize, y: usize, row: &mut [f32]);
}

/// Samples in an array, row-major `[x][y][z]`: z runs fastest.
#[derive(Debug, Clone, Copy)]
pub struct DenseVolume<'a> {
    dims: [usize; 3],
    samples: &'a [f32],
}

impl<'a> DenseVolume<'a> {
    /// A view of `samples`, of which there are as many as `dims` says.
    pub fn new(dims: [usize; 3], samples: &'a [f32]) -> Result<Self, SurfaceError> {
        let expected = dims.iter().try_fold(1usize, |product, &samples| product.checked_mul(samples));
        if expected != Some(samples.len()) {
            return Err(SurfaceError::SampleCount { found: samples.len(), dims });
        }
        Ok(Self { dims, samples })
    }
}

impl VolumeSource for DenseVolume<'_> {
    fn dims(&self) -> [usize; 3] {
        self.dims
    }

    fn read_row(&self, x: usize, y: usize, row: &mut [f32]) {
        let start = (x * self.dims[1] + y) * self.dims[2];
        row.copy_from_slice(&self.samples[start..start + self.dims[2]]);
    }
}

/// Another volume with one more layer of samples on each side, which mirror the border samples about the level, so
/// that everything inside ends half a cell beyond the border.
#[derive(Debug, Clone, Copy)]
pub struct ClosedVolume<'a, V> {
    inner: &'a V,
    iso: f32,
}

impl<'a, V: VolumeSource> ClosedVolume<'a, V> {
    /// `inner` with everything above `iso` closed off.
    pub fn new(inner: &'a V, iso: f32) -> Self {
        Self { inner, iso }
    }

    fn mirrored(&self, sample: f32) -> f32 {
        if sample > self.iso { 2.0 * self.iso - sample } else { sample }
    }
}

impl<V: VolumeSource> VolumeSource for ClosedVolume<'_, V> {
    fn dims(&self) -> [usize; 3] {
        self.inner.dims().map(|samples| samples + 2)
    }

    fn read_row(&self, x: usize, y: usize, row: &mut [f32]) {
        let dims = self.inner.dims();
        let nearest = |index: usize, axis: usize| index.saturating_sub(1).min(dims[axis] - 1);
        let (inner_x, inner_y) = (nearest(x, 0), nearest(y, 1));
        let last = row.len() - 1;
        self.inner.read_row(inner_x, inner_y, &mut row[1..last]);
        row[0] = self.mirrored(row[1]);
        row[last] = self.mirrored(row[last - 1]);
        if inner_x + 1 != x || inner_y + 1 != y {
            row.iter_mut().for_each(|sample| *sample = self.mirrored(*sample));
        }
    }
}
