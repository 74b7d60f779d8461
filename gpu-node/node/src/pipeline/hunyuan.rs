//! The `hunyuan3d-2` family: shapes from the published Hunyuan3D-2 checkpoints, whose weights the operator supplies.
//!
//! ```text
//!  Subject ─▶ front end ─▶ conditioner ─▶ denoising ─▶ shape decoder ─▶ field, coarse to fine ─▶ Shape
//! ```
//!
//! A model folder that cannot be used fails its own jobs, with the reason, and leaves the other families alone.

mod source;

use std::cell::RefCell;
use std::ops::ControlFlow;

use orfeas_nets::conditioner::View;
use orfeas_nets::config::Config;
use orfeas_nets::residence::ResidentNetworks;
use orfeas_nets::sampling::{Start, noise, sample};
use orfeas_nets::schedule::Schedule;
use orfeas_nets::volume::{self, DEFAULT_BOUND, Method, Request, Scale};
use orfeas_nets::{Error, picture};
use orfeas_protocol::preset::Preset;
use orfeas_torch::{FailureClass, attempt, memory};
use tch::{Device, Tensor};

use super::family::{Family, Shape, Subject, Volume};
use super::models::HUNYUAN_FAMILY;
use super::stage::{Steps, Tick};
use super::{PipelineError, Settings, Side};

pub(super) use source::HunyuanSource;

/// The coarsest grid of the decoder, as fine as the published fast decoder's.
const COARSEST_RESOLUTION: i64 = 64;

/// Where the stage's time goes, as shares that are done when a part begins.
const DENOISING_BEGINS: f32 = 0.1;
const DECODING_BEGINS: f32 = 0.6;

/// The networks of one folder.
#[derive(Debug)]
struct Loaded {
    config: Config,
    /// Which of them are in memory changes from stage to stage.
    networks: RefCell<ResidentNetworks>,
    reference_compatible: bool,
}

impl Family for Loaded {
    fn shape(
        &self,
        subject: &Subject,
        settings: &Settings,
        steps: &mut Steps<'_, '_>,
    ) -> Result<Shape, PipelineError> {
        steps.advance(0.0)?;
        let shape = self.run(subject, settings, steps);
        // Also after a failure: nothing of a job stays.
        self.networks.borrow_mut().rest();
        shape
    }
}

impl Loaded {
    fn new(networks: ResidentNetworks, reference_compatible: bool) -> Self {
        let config = networks.checkpoint().config.clone();
        Self { config, networks: RefCell::new(networks), reference_compatible }
    }

    fn run(
        &self,
        subject: &Subject,
        settings: &Settings,
        steps: &mut Steps<'_, '_>,
    ) -> Result<Shape, PipelineError> {
        if !subject.others.is_empty() && !self.config.is_multi_view() {
            return Err(PipelineError::NotSupported("more than one view with this model".to_owned()));
        }
        let context = self.context(subject, settings, steps).map_err(failure)?;
        steps.advance(DENOISING_BEGINS)?;
        let latents = self.latents(&context, settings, steps).map_err(failure)?;
        drop(context);
        let volume = self.volume(&latents, settings, steps).map_err(failure)?;
        let scale = if self.reference_compatible {
            Scale::ReferenceCompatible { resolution: resolution(settings.preset) }
        } else {
            Scale::Exact
        };
        Ok(Shape { volume: closed(&volume, scale, &mut |done| steps.advance(done))?, projection: None })
    }

    /// The pictures of the subject's sides go through the encoder as many at a time as share a pass.
    fn context(
        &self,
        subject: &Subject,
        settings: &Settings,
        steps: &mut Steps<'_, '_>,
    ) -> Result<Tensor, Error> {
        let mut networks = self.networks.borrow_mut();
        let conditioner = networks.conditioner()?;
        let prepare =
            |subject| Ok::<_, Error>(picture::prepare(&cut_out(subject)?, &self.config.picture)?.image);
        let front = prepare(subject)?;
        if !self.config.is_multi_view() {
            return conditioner.encode(&front);
        }
        let (mut views, mut images) = (vec![View::Front], vec![front]);
        for (side, subject) in &subject.others {
            views.push(match side {
                Side::Left => View::Left,
                Side::Back => View::Back,
                Side::Right => View::Right,
            });
            images.push(prepare(subject)?);
        }
        let at_once = usize::from(settings.batch).max(1);
        let passes = images.len().div_ceil(at_once);
        let mut watch = part(steps, 0.0, DENOISING_BEGINS);
        let mut contexts = Vec::with_capacity(passes);
        for (pass, (images, views)) in images.chunks(at_once).zip(views.chunks(at_once)).enumerate() {
            if watch(pass, passes).is_break() {
                return Err(Error::Cancelled);
            }
            contexts.push(conditioner.encode_views(&attempt(|| Tensor::cat(images, 0))?, views)?);
        }
        Ok(attempt(|| Tensor::cat(&contexts, 1))?)
    }

    fn latents(
        &self,
        context: &Tensor,
        settings: &Settings,
        steps: &mut Steps<'_, '_>,
    ) -> Result<Tensor, Error> {
        let shape = [1, self.config.vae.num_latents, self.config.vae.embed_dim];
        let noise = attempt(|| noise(settings.seed, &shape).map(|noise| noise.to_device(context.device())))??;
        let sigmas = self.config.schedule.sigmas(denoising_steps(self.config.schedule, settings));
        let guidance_scale = settings.guidance_scale.unwrap_or(settings.preset.guidance_scale());
        let start =
            Start { noise: &noise, context, sigmas: &sigmas, guidance_scale: f64::from(guidance_scale) };
        let mut watch = part(steps, DENOISING_BEGINS, DECODING_BEGINS);
        sample(self.networks.borrow_mut().denoiser()?, &start, &mut watch)
    }

    fn volume(
        &self,
        latents: &Tensor,
        settings: &Settings,
        steps: &mut Steps<'_, '_>,
    ) -> Result<volume::Volume, Error> {
        let mut networks = self.networks.borrow_mut();
        let (device, kind) = (networks.device(), networks.kind());
        let vae = networks.vae()?;
        let tokens = attempt(|| vae.decode(&latents.to_kind(kind)))?;
        let field = attempt(|| vae.field(&tokens))?;
        let free = memory::stats(device).ok().map(|stats| stats.free_bytes);
        let chunk_points = volume::chunk_points(&field, free);
        let chunk_points_max = settings.chunk_points_max.map_or(i64::MAX, i64::from).max(1);
        let request = Request {
            bound: DEFAULT_BOUND,
            resolution: resolution(settings.preset),
            level: 0.0,
            chunk_points: chunk_points.min(chunk_points_max),
            method: Method::Hierarchical { min_resolution: COARSEST_RESOLUTION },
        };
        volume::decode(&field, &request, &mut part(steps, DECODING_BEGINS, 1.0))
    }
}

/// A watch over a part of the stage.
fn part<'s>(
    steps: &'s mut Steps<'_, '_>,
    from: f32,
    to: f32,
) -> impl FnMut(usize, usize) -> ControlFlow<()> + 's {
    move |done, total| {
        let done = done as f32 / total.max(1) as f32;
        match steps.advance(from + (to - from) * done) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

/// The subject with its mask as alpha.
fn cut_out(subject: &Subject) -> Result<picture::Picture, Error> {
    let colour = &subject.picture.colour;
    let mask = subject.mask.resized(colour.width(), colour.height());
    let rgba = colour.zip(&mask, |[r, g, b, _], alpha| [r, g, b, (alpha * 255.0).round() as u8]);
    picture::Picture::new(colour.width(), colour.height(), 4, rgba.samples().as_flattened().to_vec())
}

/// Models distilled into few steps gain nothing from more: the presets' steps are for the others.
fn denoising_steps(schedule: Schedule, settings: &Settings) -> u32 {
    let asked = u32::from(settings.steps);
    match schedule {
        Schedule::Consistency { .. } if settings.steps == settings.preset.steps() => match settings.preset {
            Preset::Fast => 5,
            Preset::Balanced => 8,
            Preset::Quality => 10,
        },
        _ => asked.max(1),
    }
}

/// Cells to a side.
fn resolution(preset: Preset) -> i64 {
    match preset {
        Preset::Fast => 192,
        Preset::Balanced => 256,
        Preset::Quality => 384,
    }
}

/// The decoded field as the later stages take it: outside on the cube's faces, where a subject would be cut off.
fn closed(volume: &volume::Volume, scale: Scale, tick: &mut Tick<'_>) -> Result<Volume, PipelineError> {
    let samples = attempt(|| Vec::<f32>::try_from(volume.logits.to_device(Device::Cpu).view(-1)))?;
    let mut samples = samples.map_err(|error| PipelineError::Tensor(error.to_string()))?;
    let side = volume.resolution() as usize + 1;
    let on_face = |index: usize| index == 0 || index + 1 == side;
    for (x, slice) in samples.chunks_exact_mut(side * side).enumerate() {
        tick(1.0)?;
        for (i, sample) in slice.iter_mut().enumerate() {
            if on_face(x) || on_face(i / side) || on_face(i % side) {
                *sample = sample.min(-f32::EPSILON);
            }
        }
    }
    Ok(Volume {
        dims: [side; 3],
        samples,
        origin: [-volume.bound as f32; 3],
        spacing: volume.cell_size(scale) as f32,
    })
}

fn failure(error: Error) -> PipelineError {
    match error {
        Error::Cancelled => PipelineError::Cancelled,
        Error::NoSubject => PipelineError::NoSubject,
        Error::EmptyField { .. } => PipelineError::EmptyMesh,
        Error::NonFinite { .. } => PipelineError::Tensor(error.to_string()),
        Error::Torch(error) if error.class() != FailureClass::Other => error.into(),
        other => unusable(other),
    }
}

fn unusable(reason: impl std::fmt::Display) -> PipelineError {
    PipelineError::WeightsUnusable { family: HUNYUAN_FAMILY, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn the_cube_is_closed_and_keeps_its_place() {
        let logits = Tensor::ones([5, 5, 5], (Kind::Float, Device::Cpu));
        let field = volume::Volume { logits, bound: 1.0, evaluated_points: 0 };
        let volume = closed(&field, Scale::Exact, &mut |_| Ok(())).unwrap();
        assert_eq!((volume.dims, volume.origin, volume.spacing), ([5; 3], [-1.0; 3], 0.5));
        let inside = volume.samples.iter().filter(|&&sample| sample > 0.0).count();
        assert_eq!(inside, 27);
    }

    #[test]
    fn distilled_models_take_few_steps_unless_asked_for_more() {
        let settings = Settings::decide(&Default::default());
        let turbo = Schedule::Consistency { phases: 100 };
        assert_eq!(denoising_steps(turbo, &settings), 8);
        assert_eq!(denoising_steps(turbo, &Settings { steps: 12, ..settings.clone() }), 12);
        assert_eq!(denoising_steps(Schedule::FlowMatchEuler { shift: 1.0 }, &settings), 50);
    }
}
