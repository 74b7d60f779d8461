//! Two-dimensional fields of samples, and the few filters that every stage needs: resampling, blurring, reading
//! between the samples. Sample (x, y) stands at (x + ½, y + ½); y points down, as in the picture.

mod bands;
mod filter;
mod sample;

pub(crate) use filter::box_mean;
pub(crate) use sample::Sample;

/// A row-major field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Raster<T> {
    width: usize,
    height: usize,
    samples: Vec<T>,
}

impl<T: Copy> Raster<T> {
    pub(crate) fn filled(width: usize, height: usize, value: T) -> Self {
        Self { width, height, samples: vec![value; width * height] }
    }

    /// The field of `f(x, y)`, on several threads where it is large.
    pub(crate) fn from_fn(width: usize, height: usize, f: impl Fn(usize, usize) -> T + Sync) -> Self
    where
        T: Send,
    {
        if width == 0 || height == 0 {
            return Self { width, height, samples: Vec::new() };
        }
        let mut samples = vec![f(0, 0); width * height];
        bands::for_each_row(&mut samples, width, |y, row| {
            row.iter_mut().enumerate().for_each(|(x, sample)| *sample = f(x, y));
        });
        Self { width, height, samples }
    }

    /// Fails when there are not exactly `width * height` samples.
    pub(crate) fn from_samples(width: usize, height: usize, samples: Vec<T>) -> Option<Self> {
        (samples.len() == width * height).then_some(Self { width, height, samples })
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn height(&self) -> usize {
        self.height
    }

    pub(crate) fn samples(&self) -> &[T] {
        &self.samples
    }

    pub(crate) fn samples_mut(&mut self) -> &mut [T] {
        &mut self.samples
    }

    pub(crate) fn row(&self, y: usize) -> &[T] {
        &self.samples[y * self.width..(y + 1) * self.width]
    }

    pub(crate) fn at(&self, x: usize, y: usize) -> T {
        self.samples[y * self.width + x]
    }

    /// The nearest sample to a position that may lie outside.
    pub(crate) fn at_clamped(&self, x: isize, y: isize) -> T {
        let x = x.clamp(0, self.width as isize - 1) as usize;
        let y = y.clamp(0, self.height as isize - 1) as usize;
        self.at(x, y)
    }

    pub(crate) fn map<U: Copy>(&self, f: impl FnMut(T) -> U) -> Raster<U> {
        let samples = self.samples.iter().copied().map(f).collect();
        Raster { width: self.width, height: self.height, samples }
    }

    /// Combines two fields of the same size.
    pub(crate) fn zip<U: Copy, V: Copy>(&self, other: &Raster<U>, mut f: impl FnMut(T, U) -> V) -> Raster<V> {
        debug_assert_eq!((self.width, self.height), (other.width, other.height));
        let pairs = self.samples.iter().zip(&other.samples);
        Raster { width: self.width, height: self.height, samples: pairs.map(|(&a, &b)| f(a, b)).collect() }
    }
}

impl<T: Sample> Raster<T> {
    /// The bilinear value at a position in pixels, the border's value outside.
    pub(crate) fn bilinear(&self, x: f32, y: f32) -> T {
        let (x, y) = (x - 0.5, y - 0.5);
        let (left, top) = (x.floor(), y.floor());
        let (u, v) = (x - left, y - top);
        let (left, top) = (left as isize, top as isize);
        if left >= 0 && top >= 0 && left + 1 < self.width as isize && top + 1 < self.height as isize {
            let first = top as usize * self.width + left as usize;
            let (above, below) = (&self.samples[first..first + 2], &self.samples[first + self.width..][..2]);
            return above[0].lerp(above[1], u).lerp(below[0].lerp(below[1], u), v);
        }
        let upper = self.at_clamped(left, top).lerp(self.at_clamped(left + 1, top), u);
        let lower = self.at_clamped(left, top + 1).lerp(self.at_clamped(left + 1, top + 1), u);
        upper.lerp(lower, v)
    }

    /// Another size for the same extent: a tent filter, as wide as the coarser of the two grids.
    pub(crate) fn resized(&self, width: usize, height: usize) -> Self {
        if (width, height) == (self.width, self.height) {
            return self.clone();
        }
        resample((self.width, self.height), (width, height), |y, row| row.copy_from_slice(self.row(y)))
    }

    /// Scaled so that the longest side is at most `side`.
    pub(crate) fn fitted(&self, side: usize) -> Self {
        let (width, height) = fit(self.width, self.height, side);
        self.resized(width, height)
    }
}

/// The size that keeps the proportions and has at most `side` samples along its longest side.
pub(crate) fn fit(width: usize, height: usize, side: usize) -> (usize, usize) {
    let longest = width.max(height);
    if longest <= side {
        return (width, height);
    }
    let scaled = |length: usize| ((length * side + longest / 2) / longest).max(1);
    (scaled(width), scaled(height))
}

/// The source samples that make one destination sample along an axis.
struct Tap {
    first: usize,
    weights: Vec<f32>,
}

fn taps(source: usize, destination: usize) -> Vec<Tap> {
    let ratio = source as f32 / destination as f32;
    let radius = ratio.max(1.0);
    let tap = |index: usize| {
        let centre = (index as f32 + 0.5) * ratio - 0.5;
        let first = (centre - radius).ceil().max(0.0) as usize;
        let last = ((centre + radius).floor() as usize).min(source - 1);
        let mut weights: Vec<f32> =
            (first..=last).map(|i| (1.0 - (i as f32 - centre).abs() / radius).max(0.0)).collect();
        let sum: f32 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
        Tap { first, weights }
    };
    (0..destination).map(tap).collect()
}

/// Resamples rows as `read_row(y, row)` delivers them, so that a large source need not stand in memory as samples.
pub(crate) fn resample<T: Sample>(
    (source_width, source_height): (usize, usize),
    (width, height): (usize, usize),
    mut read_row: impl FnMut(usize, &mut [T]),
) -> Raster<T> {
    let columns = taps(source_width, width);
    let rows = taps(source_height, height);
    let mut output = Raster::filled(width, height, T::ZERO);
    let mut source_row = vec![T::ZERO; source_width];
    let mut narrow = vec![T::ZERO; width];
    let mut first_open = 0;
    for y in 0..source_height {
        read_row(y, &mut source_row);
        for (value, tap) in narrow.iter_mut().zip(&columns) {
            let source = &source_row[tap.first..tap.first + tap.weights.len()];
            *value = source.iter().zip(&tap.weights).fold(T::ZERO, |sum, (s, w)| sum.add(s.scale(*w)));
        }
        while first_open < height && rows[first_open].first + rows[first_open].weights.len() <= y {
            first_open += 1;
        }
        for (index, tap) in rows.iter().enumerate().skip(first_open).take_while(|(_, tap)| tap.first <= y) {
            let Some(&weight) = tap.weights.get(y - tap.first) else { continue };
            let line = &mut output.samples[index * width..(index + 1) * width];
            for (sum, value) in line.iter_mut().zip(&narrow) {
                *sum = sum.add(value.scale(weight));
            }
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resizing_keeps_constants_and_the_mean_of_a_ramp() {
        for (width, height) in [(7, 5), (40, 40), (13, 64)] {
            let flat = Raster::filled(20, 30, 0.7_f32).resized(width, height);
            assert!(flat.samples().iter().all(|v| (v - 0.7).abs() < 1e-5));
            let ramp = Raster::from_fn(20, 30, |x, _| x as f32).resized(width, height);
            let mean = ramp.samples().iter().sum::<f32>() / ramp.samples().len() as f32;
            assert!((mean - 9.5).abs() < 0.05, "{width}x{height}: {mean}");
        }
    }

    #[test]
    fn bilinear_reads_samples_at_their_centres() {
        let raster = Raster::from_fn(3, 2, |x, y| (x + 10 * y) as f32);
        assert_eq!(raster.bilinear(1.5, 0.5), 1.0);
        assert_eq!(raster.bilinear(2.0, 1.0), 6.5);
        assert_eq!(raster.bilinear(-5.0, 9.0), 10.0);
    }

    #[test]
    fn fit_never_enlarges_and_keeps_a_pixel() {
        assert_eq!(fit(100, 50, 200), (100, 50));
        assert_eq!(fit(16_384, 16, 1024), (1024, 1));
        assert_eq!(fit(3, 10_000, 1024), (1, 1024));
    }
}
