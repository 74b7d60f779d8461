//! The `silhouette` family: a closed solid from an outline, without weights. Honest geometry for demonstrations,
//! previews and tests: round where the picture cannot say what is behind.
//!
//! ```text
//!  mask ─▶ signed distance (distance.rs) ─▶ ∇²h = −1 (poisson.rs) ─▶ H − z² (level_set.rs) ─▶ Shape
//! ```

mod level_set;
mod poisson;

use orfeas_protocol::preset::Preset;
use tch::{Device, Tensor};

use super::distance;
use super::engine::{LoadedModel, ModelSource};
use super::family::{Extent, Family, Projection, Shape, Subject, Volume};
use super::raster::Raster;
use super::stage::Steps;
use super::{PipelineError, Settings};

/// Samples of the outline along each grid cell.
const OVERSAMPLING: usize = 4;

/// Air around the subject, in cells.
const MARGIN_CELLS: usize = 4;

/// Anything thinner than this radius, in cells, would fall through the grid.
const RADIUS_MIN_CELLS: f32 = 0.8;

/// Where the family comes from: it is always there, and its version is the program's.
#[derive(Debug)]
pub(super) struct SilhouetteSource {
    device: Device,
}

impl SilhouetteSource {
    pub(super) fn new(device: Device) -> Self {
        Self { device }
    }
}

impl ModelSource for SilhouetteSource {
    fn family(&self) -> &'static str {
        "silhouette"
    }

    fn fingerprint(&self) -> Result<String, PipelineError> {
        Ok(env!("CARGO_PKG_VERSION").to_owned())
    }

    fn resident_bytes(&self) -> u64 {
        0
    }

    /// The finest grid is solved in a few planes, and inflated into a volume, each in `f32`.
    fn job_bytes(&self, settings: &Settings) -> u64 {
        let side = (cells(settings.preset) + 2 * MARGIN_CELLS) as u64;
        3 * side.pow(3) * size_of::<f32>() as u64
    }

    fn load(&self, _version: &str) -> Result<LoadedModel, PipelineError> {
        Ok(LoadedModel::new(Silhouette { device: self.device }))
    }
}

/// The family; it keeps nothing between jobs.
#[derive(Debug)]
struct Silhouette {
    device: Device,
}

impl Family for Silhouette {
    /// `steps` bounds the solver's iterations on each grid; the seed has no effect, there is nothing random.
    fn shape(
        &self,
        subject: &Subject,
        settings: &Settings,
        steps: &mut Steps<'_, '_>,
    ) -> Result<Shape, PipelineError> {
        let grid = Grid::around(&subject.mask, cells(settings.preset)).ok_or(PipelineError::NoSubject)?;
        let fine_mask = grid.fine_mask(&subject.mask);
        steps.advance(0.1)?;
        let outline = distance::signed_distance(&fine_mask);
        steps.advance(0.25)?;
        let outline = distance::thickened(&outline, RADIUS_MIN_CELLS * OVERSAMPLING as f32);
        steps.advance(0.5)?;
        let distance = grid.upload(&outline, self.device);
        let height = poisson::solve(&distance, settings.steps, &mut || steps.advance(0.7))?;
        steps.advance(0.8)?;
        let level_set = level_set::inflate(&distance, &height);
        steps.advance(0.9)?;
        let samples =
            Vec::<f32>::try_from(level_set.samples.to_device(Device::Cpu).contiguous().flatten(0, -1))
                .map_err(|error| PipelineError::Tensor(error.to_string()))?;
        let volume = Volume::centred(level_set.dims, samples, grid.unit_per_cell());
        Ok(Shape { volume, projection: Some(grid.projection(&subject.mask)) })
    }
}

/// Cells along the subject's longest side.
fn cells(preset: Preset) -> usize {
    match preset {
        Preset::Fast => 128,
        Preset::Balanced => 192,
        Preset::Quality => 256,
    }
}

/// A grid over the subject, in the mask's pixels. Sample i is the middle of its block of fine samples.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Grid {
    centre: [f32; 2],
    /// Side of a cell, in pixels of the mask.
    cell: f32,
    /// The subject's longest side, in cells.
    cells: usize,
    width: usize,
    height: usize,
}

impl Grid {
    fn around(mask: &Raster<f32>, cells: usize) -> Option<Grid> {
        let Extent { left, top, right, bottom } = Extent::of(mask)?;
        let (width, height) = ((right - left) as f32, (bottom - top) as f32);
        let cell = width.max(height) / cells as f32;
        let samples = |length: f32| (length / cell).ceil() as usize + 2 * MARGIN_CELLS;
        Some(Grid {
            centre: [(left + right) as f32 / 2.0, (top + bottom) as f32 / 2.0],
            cell,
            cells,
            width: samples(width),
            height: samples(height),
        })
    }

    /// The mask read at [`OVERSAMPLING`] samples a cell; nothing is beyond the picture's border.
    fn fine_mask(&self, mask: &Raster<f32>) -> Raster<f32> {
        let (width, height) = (self.width * OVERSAMPLING, self.height * OVERSAMPLING);
        let step = self.cell / OVERSAMPLING as f32;
        let (mask_width, mask_height) = (mask.width() as f32, mask.height() as f32);
        Raster::from_fn(width, height, |x, y| {
            let x = self.centre[0] + (x as f32 + 0.5 - width as f32 / 2.0) * step;
            let y = self.centre[1] + (y as f32 + 0.5 - height as f32 / 2.0) * step;
            let within = (0.0..mask_width).contains(&x) && (0.0..mask_height).contains(&y);
            if within { mask.bilinear(x, y) } else { 0.0 }
        })
    }

    /// The distance at the grid's samples, in cells, as `[x][y]` with y upwards.
    fn upload(&self, fine: &Raster<f32>, device: Device) -> Tensor {
        let coarse = fine.resized(self.width, self.height);
        let rows = Tensor::from_slice(coarse.samples()).reshape([self.height as i64, self.width as i64]);
        (rows.flip([0]).transpose(0, 1).contiguous() / OVERSAMPLING as f64).to_device(device)
    }

    /// The subject's longest side is one unit.
    fn unit_per_cell(&self) -> f32 {
        1.0 / self.cells as f32
    }

    fn projection(&self, mask: &Raster<f32>) -> Projection {
        let pixels_per_unit = self.cell * self.cells as f32;
        let (width, height) = (mask.width() as f32, mask.height() as f32);
        Projection {
            scale: [pixels_per_unit / width, -pixels_per_unit / height],
            offset: [self.centre[0] / width, self.centre[1] / height],
        }
    }
}
