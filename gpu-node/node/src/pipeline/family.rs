//! What a model family is to the pipeline: it makes a shape from a cut-out picture. Everything before and after is
//! the same for all of them.
//!
//! ```text
//!  Subject + Settings ──Family::shape──▶ Shape: a volume to extract, and how the picture lies on it
//! ```

use orfeas_geometry::{Mesh, MeshReport};

use super::decode::Picture;
use super::raster::Raster;
use super::stage::{Steps, Track};
use super::{PipelineError, Settings, Side};

/// A loaded model of a family. One thread at a time has it, and its tensors with it.
///
/// A job reads it and changes nothing (`&self`), so that one which fails in the middle, by a panic even, leaves a model
/// behind that is as good as before.
pub(crate) trait Family {
    /// Makes the shape of a subject. The result depends on nothing but the arguments, so that a job which is run
    /// again gives the same model.
    fn shape(
        &self,
        subject: &Subject,
        settings: &Settings,
        steps: &mut Steps<'_, '_>,
    ) -> Result<Shape, PipelineError>;

    /// The finished model without any of the stages, of a family that is there for measuring and tests; `None`
    /// of all others.
    fn ready_made(
        &self,
        _settings: &Settings,
        _track: &mut Track<'_>,
    ) -> Option<Result<ReadyMade, PipelineError>> {
        None
    }
}

/// A model that went through none of the stages.
pub(crate) struct ReadyMade {
    pub(crate) file: Vec<u8>,
    pub(crate) report: MeshReport,
}

/// A picture and what of it is the subject.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) picture: Picture,
    /// How much of each pixel the subject covers, over the same extent as the picture.
    pub(crate) mask: Raster<f32>,
    /// The subject seen from other sides, in their order, for families that make use of it.
    pub(crate) others: Vec<(Side, Subject)>,
}

/// What a family makes.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) volume: Volume,
    /// How the picture lies on the shape; `None` for a family that does not know, whose shape is then fitted to the
    /// subject's outline.
    pub(crate) projection: Option<Projection>,
}

/// A scalar field on a grid: positive inside, and outside everywhere on the border. +Y up, the front toward +Z.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Volume {
    /// Samples along x, y and z; z runs fastest.
    pub(crate) dims: [usize; 3],
    pub(crate) samples: Vec<f32>,
    /// Position of the first sample.
    pub(crate) origin: [f32; 3],
    /// Distance between samples.
    pub(crate) spacing: f32,
}

impl Volume {
    /// With its middle at the origin.
    pub(crate) fn centred(dims: [usize; 3], samples: Vec<f32>, spacing: f32) -> Self {
        let origin = dims.map(|count| -0.5 * spacing * count.saturating_sub(1) as f32);
        Self { dims, samples, origin, spacing }
    }
}

/// Where a point of the shape is in the picture, seen from the front: u to the right and v down, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Projection {
    pub(crate) scale: [f32; 2],
    pub(crate) offset: [f32; 2],
}

impl Projection {
    /// Lays the subject's outline over the mesh's box, for shapes that were made in a frame of their own.
    pub(crate) fn fitted(mesh: &Mesh, mask: &Raster<f32>) -> Option<Projection> {
        let bounds = mesh.bounds()?;
        let subject = Extent::of(mask)?;
        let fit = |axis: usize, low: usize, high: usize, samples: usize, sign: f32| {
            let length = (bounds.max[axis] - bounds.min[axis]).max(f32::MIN_POSITIVE);
            let scale = sign * (high - low) as f32 / samples as f32 / length;
            let middle = (low + high) as f32 / (2 * samples) as f32;
            (scale, middle - scale * 0.5 * (bounds.min[axis] + bounds.max[axis]))
        };
        let (scale_u, offset_u) = fit(0, subject.left, subject.right, mask.width(), 1.0);
        let (scale_v, offset_v) = fit(1, subject.top, subject.bottom, mask.height(), -1.0);
        Some(Projection { scale: [scale_u, scale_v], offset: [offset_u, offset_v] })
    }

    pub(crate) fn uv(&self, [x, y, _]: [f32; 3]) -> [f32; 2] {
        [self.offset[0] + self.scale[0] * x, self.offset[1] + self.scale[1] * y]
    }
}

/// The rectangle of pixels that hold the subject; right and bottom are just outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) left: usize,
    pub(crate) top: usize,
    pub(crate) right: usize,
    pub(crate) bottom: usize,
}

impl Extent {
    /// `None` when no pixel is mostly covered.
    pub(crate) fn of(mask: &Raster<f32>) -> Option<Extent> {
        let mut extent = Extent { left: usize::MAX, top: usize::MAX, right: 0, bottom: 0 };
        for y in 0..mask.height() {
            for (x, _) in mask.row(y).iter().enumerate().filter(|(_, value)| **value >= 0.5) {
                extent.left = extent.left.min(x);
                extent.right = extent.right.max(x + 1);
                extent.top = extent.top.min(y);
                extent.bottom = extent.bottom.max(y + 1);
            }
        }
        (extent.right > 0).then_some(extent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fitted_projection_puts_the_box_on_the_outline_upright() {
        let positions = vec![[-1.0, -2.0, 0.0], [3.0, -2.0, 0.0], [3.0, 2.0, 1.0]];
        let mesh = Mesh::new(positions, vec![[0, 1, 2]]).unwrap();
        let mask = Raster::from_fn(40, 20, |x, y| {
            f32::from(u8::from((10..30).contains(&x) && (5..15).contains(&y)))
        });
        let projection = Projection::fitted(&mesh, &mask).unwrap();
        let close = |[u, v]: [f32; 2], x: f32, y: f32| (u - x).abs() < 1e-6 && (v - y).abs() < 1e-6;
        assert!(close(projection.uv([-1.0, 2.0, 0.0]), 0.25, 0.25), "upper left");
        assert!(close(projection.uv([3.0, -2.0, 0.0]), 0.75, 0.75), "lower right");
    }
}
