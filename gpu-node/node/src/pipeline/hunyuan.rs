//! The `hunyuan3d-2` family: shapes from the published Hunyuan3D-2 checkpoints, whose weights the operator supplies.
//!
//! ```text
//!  Subject ─▶ front end ─▶ conditioner ─▶ denoising ─▶ shape decoder ─▶ field, coarse to fine ─▶ Shape
//! ```
//!
//! The networks are loaded at the first job and stay. A model folder that cannot be used fails its own jobs, with the
//! reason, and leaves the other families alone.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use orfeas_nets::checkpoint::{Checkpoint, Networks, default_kind};
use orfeas_nets::conditioner::View;
use orfeas_nets::config::Config;
use orfeas_nets::sampling::{Start, noise, sample};
use orfeas_nets::schedule::Schedule;
use orfeas_nets::volume::{self, DEFAULT_BOUND, Method, Request};
use orfeas_nets::{Error, picture};
use orfeas_protocol::preset::Preset;
use orfeas_torch::{FailureClass, attempt, memory};
use tch::{Device, Kind, Tensor};

use super::PipelineError;
use super::family::{Family, FamilyInfo, Settings, Shape, Subject, Volume};
use super::models::HUNYUAN_FAMILY;
use super::stage::Steps;

/// The coarsest grid of the decoder, as fine as the published fast decoder's.
const COARSEST_RESOLUTION: i64 = 64;

/// Where the stage's time goes, as shares that are done when a part begins.
const DENOISING_BEGINS: f32 = 0.1;
const DECODING_BEGINS: f32 = 0.6;

/// The family, for one model folder.
#[derive(Debug)]
pub(super) struct Hunyuan {
    folder: PathBuf,
    version: String,
    device: Device,
    loaded: Option<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    config: Config,
    networks: Networks,
    kind: Kind,
}

impl Hunyuan {
    /// Reads the folder's headers; a folder that cannot be read shows as its version, and fails its jobs.
    pub(super) fn new(folder: &Path, device: Device) -> Self {
        let version = Checkpoint::open(folder).and_then(|model| model.fingerprint());
        let version = version.unwrap_or_else(|error| {
            tracing::error!(folder = %folder.display(), %error, "the model folder cannot be used");
            "unusable".to_owned()
        });
        Self { folder: folder.to_owned(), version, device, loaded: None }
    }

    fn load(&mut self) -> Result<&Loaded, PipelineError> {
        if self.loaded.is_none() {
            let checkpoint = Checkpoint::open(&self.folder).map_err(failure)?;
            let kind = default_kind(self.device);
            let networks = checkpoint.load(self.device, kind).map_err(failure)?;
            self.loaded = Some(Loaded { config: checkpoint.config, networks, kind });
        }
        self.loaded.as_ref().ok_or_else(|| PipelineError::WeightsMissing(HUNYUAN_FAMILY.to_owned()))
    }
}

impl Family for Hunyuan {
    fn info(&self) -> FamilyInfo {
        FamilyInfo { name: HUNYUAN_FAMILY, version: self.version.clone() }
    }

    fn shape(
        &mut self,
        subject: &Subject,
        settings: &Settings,
        steps: &mut Steps<'_, '_>,
    ) -> Result<Shape, PipelineError> {
        let device = self.device;
        let loaded = self.load()?;
        steps.advance(0.0)?;
        let context = loaded.context(subject).map_err(failure)?;
        steps.advance(DENOISING_BEGINS)?;
        let latents = loaded.latents(&context, settings, steps).map_err(failure)?;
        let volume = loaded.volume(&latents, settings.preset, device, steps).map_err(failure)?;
        Ok(Shape { volume: closed(&volume)?, projection: None })
    }
}

impl Loaded {
    fn context(&self, subject: &Subject) -> Result<Tensor, Error> {
        let prepared = picture::prepare(&cut_out(subject)?, &self.config.picture)?;
        let conditioner = &self.networks.conditioner;
        if self.config.is_multi_view() {
            return conditioner.encode_views(&prepared.image, &[View::Front]);
        }
        conditioner.encode(&prepared.image)
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
        sample(&self.networks.denoiser, &start, &mut watch)
    }

    fn volume(
        &self,
        latents: &Tensor,
        preset: Preset,
        device: Device,
        steps: &mut Steps<'_, '_>,
    ) -> Result<volume::Volume, Error> {
        let vae = &self.networks.vae;
        let tokens = attempt(|| vae.decode(&latents.to_kind(self.kind)))?;
        let field = attempt(|| vae.field(&tokens))?;
        let free = memory::stats(device).ok().map(|stats| stats.free_bytes);
        let request = Request {
            bound: DEFAULT_BOUND,
            resolution: resolution(preset),
            level: 0.0,
            chunk_points: volume::chunk_points(&field, free),
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
fn closed(volume: &volume::Volume) -> Result<Volume, PipelineError> {
    let samples = attempt(|| {
        let logits = volume.logits.to_device(Device::Cpu).copy();
        for axis in 0..3 {
            for end in [0, -1] {
                let _ = logits.select(axis, end).clamp_max_(-f64::from(f32::EPSILON));
            }
        }
        Vec::<f32>::try_from(logits.view(-1))
    })?;
    let samples = samples.map_err(|error| PipelineError::Tensor(error.to_string()))?;
    let cells = volume.resolution() as usize;
    Ok(Volume {
        dims: [cells + 1; 3],
        samples,
        origin: [-volume.bound as f32; 3],
        spacing: (2.0 * volume.bound / cells as f64) as f32,
    })
}

fn failure(error: Error) -> PipelineError {
    match error {
        Error::Cancelled => PipelineError::Cancelled,
        Error::NoSubject => PipelineError::NoSubject,
        Error::EmptyField { .. } => PipelineError::EmptyMesh,
        Error::NonFinite { .. } => PipelineError::Tensor(error.to_string()),
        Error::Torch(error) if error.class() != FailureClass::Other => error.into(),
        other => PipelineError::WeightsUnusable { family: HUNYUAN_FAMILY, reason: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cube_is_closed_and_keeps_its_place() {
        let logits = Tensor::ones([5, 5, 5], (Kind::Float, Device::Cpu));
        let volume = closed(&volume::Volume { logits, bound: 1.0, evaluated_points: 0 }).unwrap();
        assert_eq!((volume.dims, volume.origin, volume.spacing), ([5; 3], [-1.0; 3], 0.5));
        let inside = volume.samples.iter().filter(|&&sample| sample > 0.0).count();
        assert_eq!(inside, 27);
    }

    #[test]
    fn a_folder_that_is_not_there_fails_its_jobs_only() {
        let mut family = Hunyuan::new(Path::new("/nonexistent"), Device::Cpu);
        assert_eq!(family.info().version, "unusable");
        assert!(matches!(family.load(), Err(PipelineError::WeightsUnusable { .. })));
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
