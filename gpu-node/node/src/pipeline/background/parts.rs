//! Connected parts of a mask: what is too small beside the largest part is dirt, not subject.

use crate::pipeline::raster::Raster;

/// Clears the parts smaller than `part_min` of the largest one, and fills enclosed gaps smaller than `gap_min` of it.
pub(super) fn clean(mask: &mut Raster<f32>, part_min: f32, gap_min: f32) {
    // A wire of one pixel may run diagonally; what surrounds it then must not leak through.
    let parts = Parts::of(mask, true, |value| value >= 0.5);
    let largest = parts.sizes.iter().copied().max().unwrap_or(0) as f32;
    let gaps = Parts::of(mask, false, |value| value < 0.5);
    for (index, value) in mask.samples_mut().iter_mut().enumerate() {
        if parts.size_at(index).is_some_and(|size| (size as f32) < part_min * largest) {
            *value = 0.0;
        } else if gaps.size_at(index).is_some_and(|size| (size as f32) < gap_min * largest) {
            *value = 1.0;
        }
    }
}

/// Parts that hang together by their sides, or by their corners as well: a label for each pixel that counts, and the parts' sizes.
struct Parts {
    labels: Vec<Option<u32>>,
    sizes: Vec<usize>,
}

/// The four neighbours by sides, then the four by corners.
const NEIGHBOURS: [(isize, isize); 8] =
    [(-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (1, -1), (-1, 1), (1, 1)];

impl Parts {
    fn of(mask: &Raster<f32>, by_corners: bool, counts: impl Fn(f32) -> bool) -> Parts {
        let width = mask.width();
        let samples = mask.samples();
        let mut parts = Parts { labels: vec![None; samples.len()], sizes: Vec::new() };
        let mut open = Vec::new();
        for start in 0..samples.len() {
            if parts.labels[start].is_some() || !counts(samples[start]) {
                continue;
            }
            let label = Some(parts.sizes.len() as u32);
            let mut size = 0;
            open.push(start);
            parts.labels[start] = label;
            while let Some(index) = open.pop() {
                size += 1;
                let (x, y) = ((index % width) as isize, (index / width) as isize);
                let around = NEIGHBOURS[..if by_corners { 8 } else { 4 }].iter().filter_map(|(dx, dy)| {
                    let (x, y) = (x + dx, y + dy);
                    let within = (0..width as isize).contains(&x) && (0..mask.height() as isize).contains(&y);
                    within.then(|| y as usize * width + x as usize)
                });
                for neighbour in around {
                    if parts.labels[neighbour].is_none() && counts(samples[neighbour]) {
                        parts.labels[neighbour] = label;
                        open.push(neighbour);
                    }
                }
            }
            parts.sizes.push(size);
        }
        parts
    }

    fn size_at(&self, index: usize) -> Option<usize> {
        self.labels[index].and_then(|label| self.sizes.get(label as usize).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dirt_goes_holes_stay_and_pinholes_close() {
        let mut mask = Raster::from_fn(60, 40, |x, y| match (x, y) {
            (10, 10) => 0.0,
            (20..30, 15..25) => 0.0,
            (5..45, 5..35) => 1.0,
            (52..54, 20..22) => 1.0,
            _ => 0.0,
        });
        clean(&mut mask, 0.01, 0.005);
        assert_eq!((mask.at(53, 21), mask.at(10, 10), mask.at(25, 20), mask.at(6, 6)), (0.0, 1.0, 0.0, 1.0));
    }
}
