//! What stands out in a picture whose border is no plain backdrop (Zhu, Liang, Wei and Sun, "Saliency Optimization
//! from Robust Background Detection", 2014): a region is background when much of its outline lies on the picture's
//! border, measured over regions of like colour rather than over patches; what differs from the background nearby
//! stands out.

use super::superpixels::{Patch, Superpixels};
use crate::pipeline::PipelineError;
use crate::pipeline::raster::Raster;
use crate::pipeline::stage::{Tick, within};

/// Patches of a picture.
const PATCHES: usize = 260;

/// Units of CIELAB within which colours count as alike.
const COLOUR_SCALE: f32 = 10.0;

/// How far, in longer sides of the picture, contrast counts.
const REACH: f32 = 0.35;

/// Border connectivity at which a region is more likely background than not.
const CONNECTIVITY_SCALE: f32 = 1.0;

/// Pull of neighbours of like colour, with the part that unlike ones have.
const SMOOTHNESS_FLOOR: f32 = 0.1;

/// Sweeps of the last step's linear system.
const SWEEPS: usize = 100;

/// From 0, background, to 1, for each pixel of a picture of a few hundred pixels a side.
///
/// # Errors
/// What `tick` answers.
pub(super) fn saliency(colour: &Raster<[f32; 3]>, tick: &mut Tick<'_>) -> Result<Raster<f32>, PipelineError> {
    let superpixels = Superpixels::of(colour, PATCHES, &mut within(tick, 0.0, 0.5))?;
    let patches = &superpixels.patches;
    let links = links(&superpixels);
    tick(0.5)?;
    let background = background(patches, &links);
    tick(0.8)?;
    let contrast = contrast(patches, &background);
    let found = settle(&links, &background, &contrast);
    Ok(superpixels.labels.map(|label| found[label as usize]))
}

/// For each patch the neighbours and how far their colours are apart.
type Links = Vec<Vec<(usize, f32)>>;

fn links(superpixels: &Superpixels) -> Links {
    let mut links = vec![Vec::new(); superpixels.patches.len()];
    for &(a, b) in &superpixels.touching {
        let (a, b) = (a as usize, b as usize);
        let distance = colour_distance(&superpixels.patches[a], &superpixels.patches[b]);
        links[a].push((b, distance));
        links[b].push((a, distance));
    }
    links
}

/// How likely each patch is background, by the border that its region has.
fn background(patches: &[Patch], links: &Links) -> Vec<f32> {
    // What neighbours of one region differ by is no distance: otherwise far patches of a gradient would be unlike.
    let mut nearest: Vec<f32> =
        links.iter().filter_map(|l| l.iter().map(|(_, d)| *d).reduce(f32::min)).collect();
    let free = if nearest.is_empty() {
        0.0
    } else {
        let middle = nearest.len() / 2;
        *nearest.select_nth_unstable_by(middle, f32::total_cmp).1
    };
    (0..patches.len())
        .map(|start| {
            let (mut area, mut border) = (0.0, 0.0);
            for (patch, distance) in patches.iter().zip(geodesic(links, start, free)) {
                let likeness = (-distance * distance / (2.0 * COLOUR_SCALE * COLOUR_SCALE)).exp();
                area += likeness * patch.area;
                border += likeness * patch.border;
            }
            let connectivity = border / area.max(1e-6).sqrt();
            1.0 - (-connectivity * connectivity / (2.0 * CONNECTIVITY_SCALE * CONNECTIVITY_SCALE)).exp()
        })
        .collect()
}

/// The least sum of colour steps on a way from one patch to each (Dijkstra on a few hundred nodes).
fn geodesic(links: &Links, start: usize, free: f32) -> Vec<f32> {
    let mut distances = vec![f32::INFINITY; links.len()];
    let mut open = vec![true; links.len()];
    distances[start] = 0.0;
    loop {
        let candidates = (0..links.len()).filter(|node| open[*node] && distances[*node].is_finite());
        let Some(node) = candidates.min_by(|a, b| distances[*a].total_cmp(&distances[*b])) else {
            return distances;
        };
        open[node] = false;
        for &(neighbour, step) in &links[node] {
            let distance = distances[node] + (step - free).max(0.0);
            if distance < distances[neighbour] {
                distances[neighbour] = distance;
            }
        }
    }
}

/// How much each patch differs from the background around it, from 0 to 1.
fn contrast(patches: &[Patch], background: &[f32]) -> Vec<f32> {
    let raw: Vec<f32> = patches
        .iter()
        .map(|patch| {
            let against = patches.iter().zip(background).map(|(other, background)| {
                let [dx, dy] = [0, 1].map(|axis| patch.place[axis] - other.place[axis]);
                let near = (-(dx * dx + dy * dy) / (2.0 * REACH * REACH)).exp();
                other.area * near * background * colour_distance(patch, other)
            });
            against.sum()
        })
        .collect();
    let greatest = raw.iter().copied().fold(1e-6, f32::max);
    raw.into_iter().map(|value| value / greatest).collect()
}

/// Least squares between background, contrast and likeness of neighbours.
fn settle(links: &Links, background: &[f32], contrast: &[f32]) -> Vec<f32> {
    let mut found = contrast.to_vec();
    for _ in 0..SWEEPS {
        for node in 0..found.len() {
            let mut weights = background[node] + contrast[node] + 1e-6;
            let mut sum = contrast[node];
            for &(neighbour, distance) in &links[node] {
                let pull =
                    (-distance * distance / (2.0 * COLOUR_SCALE * COLOUR_SCALE)).exp() + SMOOTHNESS_FLOOR;
                weights += pull;
                sum += pull * found[neighbour];
            }
            found[node] = sum / weights;
        }
    }
    let (least, greatest) =
        found.iter().fold((f32::MAX, f32::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
    let span = (greatest - least).max(1e-6);
    found.into_iter().map(|value| (value - least) / span).collect()
}

fn colour_distance(a: &Patch, b: &Patch) -> f32 {
    a.lab.iter().zip(b.lab).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_before_sky_and_ground_stands_out() {
        let colour = Raster::from_fn(160, 120, |x, y| {
            let thing = (x as f32 - 80.0).hypot((y as f32 - 65.0) * 1.4) < 30.0;
            let grain = ((x * 31 + y * 17) % 13) as f32 / 130.0;
            match (thing, y < 60) {
                (true, _) => [0.8, 0.2 + grain, 0.15],
                (_, true) => [0.5 + grain, 0.7, 0.95],
                _ => [0.25, 0.5 + grain, 0.2],
            }
        });
        let found = saliency(&colour, &mut |_| Ok(())).unwrap();
        assert!(
            found.at(80, 65) > 0.8 && found.at(70, 55) > 0.8,
            "{} {}",
            found.at(80, 65),
            found.at(70, 55)
        );
        assert!([(5, 5), (150, 20), (20, 110), (80, 115)].iter().all(|&(x, y)| found.at(x, y) < 0.3));
    }
}
