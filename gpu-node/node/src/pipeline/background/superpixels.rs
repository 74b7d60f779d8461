//! Superpixels: a few hundred patches of about one colour that follow the picture's edges (Achanta et al., "SLIC
//! Superpixels", 2010), so that questions about regions are cheap.

use crate::pipeline::PipelineError;
use crate::pipeline::raster::Raster;
use crate::pipeline::stage::Tick;

/// Rounds of moving the centres; they hardly move afterwards.
const ROUNDS: usize = 5;

/// How many units of CIELAB the distance of one grid step counts.
const COMPACTNESS: f32 = 12.0;

/// A patch.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Patch {
    /// Mean colour, CIELAB.
    pub(super) lab: [f32; 3],
    /// Mean position, in units of the picture's longer side.
    pub(super) place: [f32; 2],
    /// Its part of the picture.
    pub(super) area: f32,
    /// Its pixels on the picture's border, as a part of the longer side.
    pub(super) border: f32,
}

/// The patches of a picture.
pub(super) struct Superpixels {
    pub(super) patches: Vec<Patch>,
    /// The patch of each pixel.
    pub(super) labels: Raster<u32>,
    /// Pairs of patches that touch, each once, the lesser first.
    pub(super) touching: Vec<(u32, u32)>,
}

impl Superpixels {
    /// About `count` patches of a picture, RGB from 0 to 1.
    ///
    /// # Errors
    /// What `tick` answers.
    pub(super) fn of(
        colour: &Raster<[f32; 3]>,
        count: usize,
        tick: &mut Tick<'_>,
    ) -> Result<Superpixels, PipelineError> {
        let lab = colour.map(lab);
        let labels = connected(&clustered(&lab, count, tick)?);
        let patches = measure(&lab, &labels);
        let touching = touching(&labels);
        Ok(Superpixels { patches, labels, touching })
    }
}

#[derive(Clone, Copy)]
struct Centre {
    lab: [f32; 3],
    x: f32,
    y: f32,
}

/// Each pixel goes to the best of the centres nearby, each centre to the middle of its pixels.
fn clustered(
    lab: &Raster<[f32; 3]>,
    count: usize,
    tick: &mut Tick<'_>,
) -> Result<Raster<u32>, PipelineError> {
    let (width, height) = (lab.width(), lab.height());
    let step = ((width * height) as f32 / count.max(1) as f32).sqrt().max(2.0);
    let columns = (width as f32 / step).ceil().max(1.0) as usize;
    let rows = (height as f32 / step).ceil().max(1.0) as usize;
    let mut centres: Vec<Centre> = (0..rows * columns)
        .map(|index| {
            let x = (index % columns * 2 + 1) * width / (2 * columns);
            let y = (index / columns * 2 + 1) * height / (2 * rows);
            Centre { lab: lab.at(x, y), x: x as f32, y: y as f32 }
        })
        .collect();
    let scale = (COMPACTNESS / step).powi(2);
    let mut labels = Raster::filled(width, height, 0_u32);
    for round in 0..ROUNDS {
        tick(round as f32 / ROUNDS as f32)?;
        let mut nearest = Raster::filled(width, height, f32::MAX);
        for (label, centre) in centres.iter().enumerate() {
            let range = |middle: f32, limit: usize| {
                (middle - step).max(0.0) as usize..((middle + step + 1.0) as usize).min(limit)
            };
            for y in range(centre.y, height) {
                for x in range(centre.x, width) {
                    let away = (x as f32 - centre.x).powi(2) + (y as f32 - centre.y).powi(2);
                    let distance = squared(lab.at(x, y), centre.lab) + scale * away;
                    let index = y * width + x;
                    if distance < nearest.samples()[index] {
                        nearest.samples_mut()[index] = distance;
                        labels.samples_mut()[index] = label as u32;
                    }
                }
            }
        }
        let mut sums = vec![([0.0_f32; 3], 0.0_f32, 0.0_f32, 0.0_f32); centres.len()];
        for (index, label) in labels.samples().iter().enumerate() {
            let (x, y) = (index % width, index / width);
            let sum = &mut sums[*label as usize];
            sum.0.iter_mut().zip(lab.at(x, y)).for_each(|(sum, value)| *sum += value);
            sum.1 += x as f32;
            sum.2 += y as f32;
            sum.3 += 1.0;
        }
        for (centre, (lab, x, y, count)) in centres.iter_mut().zip(sums) {
            if count > 0.0 {
                *centre = Centre { lab: lab.map(|v| v / count), x: x / count, y: y / count };
            }
        }
    }
    tick(1.0)?;
    Ok(labels)
}

/// Names each connected part of a label by itself; parts of a few pixels join the part before them.
fn connected(labels: &Raster<u32>) -> Raster<u32> {
    const UNNAMED: u32 = u32::MAX;
    let (width, height) = (labels.width(), labels.height());
    let parts = labels.samples().iter().max().map_or(1, |last| *last as usize + 1);
    let least = width * height / parts / 5;
    let mut names = Raster::filled(width, height, UNNAMED);
    let mut next = 0;
    let mut part: Vec<usize> = Vec::new();
    for start in 0..width * height {
        if names.samples()[start] != UNNAMED {
            continue;
        }
        let before = start.checked_sub(if start % width > 0 { 1 } else { width });
        let label = labels.samples()[start];
        part.clear();
        part.push(start);
        names.samples_mut()[start] = next;
        let mut done = 0;
        while let Some(&index) = part.get(done) {
            done += 1;
            for neighbour in sides(index, width, height) {
                if names.samples()[neighbour] == UNNAMED && labels.samples()[neighbour] == label {
                    names.samples_mut()[neighbour] = next;
                    part.push(neighbour);
                }
            }
        }
        match before {
            Some(before) if part.len() < least => {
                let name = names.samples()[before];
                part.iter().for_each(|index| names.samples_mut()[*index] = name);
            }
            _ => next += 1,
        }
    }
    names
}

fn sides(index: usize, width: usize, height: usize) -> impl Iterator<Item = usize> {
    let (x, y) = (index % width, index / width);
    [
        (x > 0).then(|| index - 1),
        (x + 1 < width).then(|| index + 1),
        (y > 0).then(|| index - width),
        (y + 1 < height).then(|| index + width),
    ]
    .into_iter()
    .flatten()
}

fn measure(lab: &Raster<[f32; 3]>, labels: &Raster<u32>) -> Vec<Patch> {
    let (width, height) = (lab.width(), lab.height());
    let longer = width.max(height) as f32;
    let count = labels.samples().iter().max().map_or(0, |last| *last as usize + 1);
    let mut patches = vec![Patch::default(); count];
    for (index, label) in labels.samples().iter().enumerate() {
        let (x, y) = (index % width, index / width);
        let patch = &mut patches[*label as usize];
        patch.lab.iter_mut().zip(lab.at(x, y)).for_each(|(sum, value)| *sum += value);
        patch.place[0] += x as f32;
        patch.place[1] += y as f32;
        patch.area += 1.0;
        if x == 0 || y == 0 || x + 1 == width || y + 1 == height {
            patch.border += 1.0;
        }
    }
    for patch in &mut patches {
        let pixels = patch.area.max(1.0);
        patch.lab = patch.lab.map(|sum| sum / pixels);
        patch.place = patch.place.map(|sum| sum / pixels / longer);
        patch.area /= (width * height) as f32;
        patch.border /= longer;
    }
    patches
}

fn touching(labels: &Raster<u32>) -> Vec<(u32, u32)> {
    let mut pairs = Vec::new();
    for y in 0..labels.height() {
        for x in 0..labels.width() {
            let here = labels.at(x, y);
            let ahead = [(x + 1, y), (x, y + 1)].into_iter();
            for (x, y) in ahead.filter(|(x, y)| *x < labels.width() && *y < labels.height()) {
                let there = labels.at(x, y);
                if here != there {
                    pairs.push((here.min(there), here.max(there)));
                }
            }
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

fn squared(a: [f32; 3], b: [f32; 3]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}

/// sRGB from 0 to 1 to CIELAB under D65.
fn lab(colour: [f32; 3]) -> [f32; 3] {
    let [r, g, b] =
        colour.map(|v| if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).max(0.0).powf(2.4) });
    let curve = |v: f32| if v > 0.008_856 { v.cbrt() } else { 7.787 * v + 16.0 / 116.0 };
    let x = curve((0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505);
    let y = curve(0.2126 * r + 0.7152 * g + 0.0722 * b);
    let z = curve((0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089);
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_cover_the_picture_and_do_not_cross_a_strong_edge() {
        let colour = Raster::from_fn(90, 60, |x, y| {
            if x < 37 { [0.9, 0.1, 0.1] } else { [0.1, 0.1, 0.2 + 0.001 * y as f32] }
        });
        let found = Superpixels::of(&colour, 60, &mut |_| Ok(())).unwrap();
        assert!((30..120).contains(&found.patches.len()), "{}", found.patches.len());
        assert!((found.patches.iter().map(|p| p.area).sum::<f32>() - 1.0).abs() < 1e-3);
        let mut sides = vec![[0, 0]; found.patches.len()];
        for y in 0..60 {
            (0..90).for_each(|x| sides[found.labels.at(x, y) as usize][usize::from(x >= 37)] += 1);
        }
        let crossing: i32 = sides.iter().map(|[left, right]| *left.min(right)).sum();
        assert!(crossing < 60, "{crossing} pixels of 5400 lie beyond the edge");
    }

    #[test]
    fn white_is_a_hundred_and_grey_has_no_hue() {
        let [l, a, b] = lab([1.0; 3]);
        assert!((l - 100.0).abs() < 0.1 && a.abs() < 0.5 && b.abs() < 0.5, "{l} {a} {b}");
        let [_, a, b] = lab([0.3; 3]);
        assert!(a.abs() < 0.5 && b.abs() < 0.5, "{a} {b}");
    }
}
