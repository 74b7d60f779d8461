//! A request's options with everything decided, before anything runs: who predicts decides here, and who recovers from
//! a failure lowers it and tries again.

use std::fmt;

use orfeas_protocol::options::{BackgroundRemoval, JobOptions, ModelFormat};
use orfeas_protocol::preset::Preset;
use orfeas_protocol::view::ModelChoice;

use super::{ModelKey, Views};

/// The quality of a request that asks for none and whose caller has no history.
const QUALITY_DEFAULT: u8 = 7;

/// Faces of a model that asks for no number: enough for a smooth outline at arm's length, about 1 MB of geometry.
const TARGET_FACES_DEFAULT: u32 = 30_000;

/// Points per decoder pass once memory has run out with as many as seemed to fit: a few tens of megabytes.
const CHUNK_POINTS_REDUCED: u32 = 8_192;
/// Fewer points per pass save no memory that counts, and cost a lot of time.
const CHUNK_POINTS_MIN: u32 = 512;

/// Who chose the quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QualitySource {
    /// The caller.
    Request,
    /// The caller's similar requests.
    History,
    /// Nobody: it is the default.
    Default,
}

impl QualitySource {
    /// The name in job objects.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::History => "history",
            Self::Default => "default",
        }
    }
}

impl fmt::Display for QualitySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a job is run.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// 1 to 10.
    pub quality: u8,
    /// Who chose it.
    pub quality_source: QualitySource,
    /// What the quality means.
    pub preset: Preset,
    /// Denoising steps; a family without diffusion maps them to its own effort.
    pub steps: u16,
    /// Guidance scale; `None` = the preset's.
    pub guidance_scale: Option<f32>,
    /// The seed of whatever is random.
    pub seed: u64,
    /// How many of the subject's pictures share one pass through a network, at least 1: more are faster on a device
    /// that one does not fill, and take more memory. The model is the same. A job of one picture has nothing to share.
    pub batch: u8,
    /// The most points that go through a decoder at a time; `None` = as many as the free memory takes.
    pub chunk_points_max: Option<u32>,
    /// Whether the mesh gets a texture.
    pub texture: bool,
    /// Upper bound of the mesh's faces.
    pub target_faces: usize,
    /// The result's file format.
    pub format: ModelFormat,
    /// Whether the background is removed.
    pub remove_background: BackgroundRemoval,
    /// Forbids [`Self::lowered`].
    pub exact: bool,
    /// Further pictures of the subject, for families that look at it from several sides.
    pub views: Views,
    /// How many of them the request names: known before they are here, for what the job will take.
    pub views_named: u8,
}

impl Settings {
    /// Decides by the request alone.
    pub fn decide(options: &JobOptions) -> Settings {
        Self::decide_with(options, None)
    }

    /// Decides by the request, and where it leaves the quality open by what the caller's history predicts.
    pub fn decide_with(options: &JobOptions, predicted_quality: Option<u8>) -> Settings {
        let (quality, quality_source) = match (options.quality, predicted_quality) {
            (Some(asked), _) => (asked, QualitySource::Request),
            (None, Some(predicted)) => (predicted.clamp(1, 10), QualitySource::History),
            (None, None) => (QUALITY_DEFAULT, QualitySource::Default),
        };
        let preset = Preset::for_quality(quality);
        Settings {
            quality,
            quality_source,
            preset,
            steps: options.steps.unwrap_or(preset.steps()),
            guidance_scale: options.guidance_scale,
            seed: options.seed.unwrap_or(0),
            batch: preset.batch(),
            chunk_points_max: None,
            texture: options.texture,
            target_faces: options.target_faces.unwrap_or(TARGET_FACES_DEFAULT) as usize,
            format: options.format,
            remove_background: options.remove_background,
            exact: options.exact,
            views: Views::default(),
            views_named: u8::try_from(options.views().count()).unwrap_or(u8::MAX),
        }
    }

    /// How many pictures of the subject there are, or will be, the front included.
    pub fn pictures(&self) -> usize {
        1 + self.views.pictures().len().max(usize::from(self.views_named))
    }

    /// One preset lower: its resolution, and no more than its steps and its batch. `None` where there is no lower
    /// one, or the caller wants it exactly as asked.
    pub fn lowered(&self) -> Option<Settings> {
        let preset = self.preset.lower().filter(|_| !self.exact)?;
        Some(Settings {
            quality: preset.quality(),
            preset,
            steps: self.steps.min(preset.steps()),
            batch: self.batch.min(preset.batch()),
            ..self.clone()
        })
    }

    /// Half as much at one time, for the same result: the batch, and the points that go through a decoder together.
    /// `None` where both are at their least.
    pub fn halved(&self) -> Option<Settings> {
        let batch = (self.batch / 2).max(1);
        let chunk_points = match self.chunk_points_max {
            None => CHUNK_POINTS_REDUCED,
            Some(points) => (points / 2).max(CHUNK_POINTS_MIN.min(points)),
        };
        let halved = Settings { batch, chunk_points_max: Some(chunk_points), ..self.clone() };
        (halved != *self).then_some(halved)
    }

    /// What the job object says about the model.
    pub fn choice(&self, key: &ModelKey) -> ModelChoice {
        ModelChoice {
            family: Some(key.family.clone()),
            version: Some(key.version.clone()),
            seed: Some(self.seed),
            steps: Some(self.steps),
            guidance_scale: self.guidance_scale,
            quality: Some(self.quality),
            quality_source: Some(self.quality_source.as_str().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use orfeas_protocol::{Sha256Digest, Side};

    use super::*;

    #[test]
    fn left_out_options_take_the_preset() {
        let settings = Settings::decide(&JobOptions::default());
        let decided = (settings.quality, settings.steps, settings.quality_source);
        assert_eq!(decided, (7, 50, QualitySource::Default));
        let asked =
            Settings::decide(&JobOptions { quality: Some(3), steps: Some(9), ..JobOptions::default() });
        assert_eq!((asked.preset, asked.steps), (Preset::Fast, 9));
    }

    #[test]
    fn history_decides_only_where_the_request_does_not() {
        let open = Settings::decide_with(&JobOptions::default(), Some(9));
        assert_eq!((open.preset, open.quality_source), (Preset::Quality, QualitySource::History));
        let options = JobOptions { quality: Some(5), ..JobOptions::default() };
        let asked = Settings::decide_with(&options, Some(9));
        assert_eq!((asked.preset, asked.quality_source), (Preset::Fast, QualitySource::Request));
    }

    #[test]
    fn pictures_count_from_the_request_on() {
        assert_eq!(Settings::decide(&JobOptions::default()).pictures(), 1);
        let mut options = JobOptions::default();
        options.set_view(Side::Left, Sha256Digest::of("l"));
        options.set_view(Side::Back, Sha256Digest::of("b"));
        let named = Settings::decide(&options);
        assert_eq!(named.pictures(), 3);
        let bytes = Bytes::from_static(b"x");
        let views = Views::new(vec![(Side::Left, bytes.clone()), (Side::Back, bytes)]).unwrap();
        assert_eq!(Settings { views, ..named }.pictures(), 3);
    }

    #[test]
    fn lowering_ends_at_the_lowest_preset_and_never_adds_work() {
        let options = JobOptions { quality: Some(9), steps: Some(40), ..JobOptions::default() };
        let best = Settings::decide(&options);
        let middle = best.lowered().unwrap();
        assert_eq!((middle.preset, middle.quality, middle.steps), (Preset::Balanced, 7, 40));
        let least = middle.lowered().unwrap();
        assert_eq!((least.preset, least.steps, least.batch), (Preset::Fast, 30, 1));
        assert_eq!(least.lowered(), None);
        let exact = Settings::decide(&JobOptions { exact: true, ..options });
        assert_eq!(exact.lowered(), None);
    }

    #[test]
    fn halving_ends_and_keeps_everything_that_the_result_depends_on() {
        let whole = Settings::decide(&JobOptions { quality: Some(5), exact: true, ..JobOptions::default() });
        assert_eq!(whole.batch, 2);
        let mut half = whole.halved().unwrap();
        assert_eq!((half.batch, half.chunk_points_max), (1, Some(CHUNK_POINTS_REDUCED)));
        while let Some(less) = half.halved() {
            assert!(less.chunk_points_max < half.chunk_points_max);
            half = less;
        }
        let as_before = Settings { batch: whole.batch, chunk_points_max: None, ..half };
        assert_eq!(as_before, whole);
    }
}
