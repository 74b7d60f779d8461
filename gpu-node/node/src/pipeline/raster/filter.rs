//! Local means by running box sums.

use super::{Raster, Sample};

/// The mean over the (2·radius + 1)² window, cut at the border.
pub(crate) fn box_mean<T: Sample>(raster: &Raster<T>, radius: usize) -> Raster<T> {
    if radius == 0 {
        return raster.clone();
    }
    let (width, height) = (raster.width(), raster.height());
    let mut across = Raster::filled(width, height, T::ZERO);
    for y in 0..height {
        let row = raster.row(y);
        let line = &mut across.samples_mut()[y * width..(y + 1) * width];
        let mut sum = row[..radius.min(width)].iter().fold(T::ZERO, |sum, value| sum.add(*value));
        for x in 0..width {
            if x + radius < width {
                sum = sum.add(row[x + radius]);
            }
            if x > radius {
                sum = sum.add(row[x - radius - 1].scale(-1.0));
            }
            let count = (x + radius).min(width - 1) - x.saturating_sub(radius) + 1;
            line[x] = sum.scale(1.0 / count as f32);
        }
    }
    // Down the columns a whole row at a time, so that memory is read in order.
    let mut output = Raster::filled(width, height, T::ZERO);
    let mut sums = vec![T::ZERO; width];
    let accumulate = |sums: &mut [T], row: &[T], sign: f32| {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum = sum.add(value.scale(sign));
        }
    };
    for y in 0..radius.min(height) {
        accumulate(&mut sums, across.row(y), 1.0);
    }
    for y in 0..height {
        if y + radius < height {
            accumulate(&mut sums, across.row(y + radius), 1.0);
        }
        if y > radius {
            accumulate(&mut sums, across.row(y - radius - 1), -1.0);
        }
        let count = (y + radius).min(height - 1) - y.saturating_sub(radius) + 1;
        let line = &mut output.samples_mut()[y * width..(y + 1) * width];
        for (value, sum) in line.iter_mut().zip(&sums) {
            *value = sum.scale(1.0 / count as f32);
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn box_mean_equals_the_plain_average() {
        let raster = Raster::from_fn(9, 6, |x, y| ((x * 7 + y * 13) % 11) as f32);
        for radius in [1, 2, 8] {
            let fast = box_mean(&raster, radius);
            for y in 0..6_usize {
                for x in 0..9_usize {
                    let (mut across_sum, mut rows) = (0.0, 0.0);
                    for row in y.saturating_sub(radius)..=(y + radius).min(5) {
                        let window = &raster.row(row)[x.saturating_sub(radius)..=(x + radius).min(8)];
                        across_sum += window.iter().sum::<f32>() / window.len() as f32;
                        rows += 1.0;
                    }
                    assert!((fast.at(x, y) - across_sum / rows).abs() < 1e-4, "radius {radius} at {x}, {y}");
                }
            }
        }
    }
}
