//! Where the family's models come from: what is in the model folder, what memory it takes, and how it is loaded.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use orfeas_nets::Error;
use orfeas_nets::checkpoint::Checkpoint;
use orfeas_nets::footprint::{Footprint, Job};
use orfeas_nets::residence::{Residence, ResidentNetworks};
use orfeas_nets::volume::CPU_CHUNK_POINTS;
use orfeas_protocol::preset::Preset;
use orfeas_torch::memory;
use tch::Device;

use super::super::engine::{LoadedModel, ModelSource};
use super::super::models::{self, HUNYUAN_FAMILY, Stamp};
use super::super::neural::{NeuralConfig, Offload};
use super::super::{PipelineError, Settings, Side};
use super::{Loaded, failure, resolution, unusable};

/// The front and every other side.
const PICTURES_MAX: usize = 1 + Side::ALL.len();

/// Where the family comes from: the model folder that is there at the time.
#[derive(Debug)]
pub(in crate::pipeline) struct HunyuanSource {
    models_folder: Option<PathBuf>,
    device: Device,
    neural: NeuralConfig,
    seen: Mutex<Option<Seen>>,
}

/// What was in the folder when it was last read.
#[derive(Debug, Clone)]
struct Seen {
    stamp: Stamp,
    /// Or why it cannot be used.
    content: Result<Content, String>,
}

#[derive(Debug, Clone)]
struct Content {
    version: String,
    /// By preset, from the fastest, and by the number of pictures.
    footprints: [[Footprint; PICTURES_MAX]; 3],
    residence: Residence,
}

impl Content {
    /// A model of one view refuses more, whatever that would have taken.
    fn footprint(&self, preset: Preset, pictures: usize) -> &Footprint {
        let [fast, balanced, quality] = &self.footprints;
        let by_pictures = match preset {
            Preset::Fast => fast,
            Preset::Balanced => balanced,
            Preset::Quality => quality,
        };
        let [of_one, ..] = by_pictures;
        by_pictures.get(pictures.saturating_sub(1)).unwrap_or(of_one)
    }
}

impl HunyuanSource {
    pub(in crate::pipeline) fn new(
        models_folder: Option<PathBuf>,
        device: Device,
        neural: NeuralConfig,
    ) -> Self {
        Self { models_folder, device, neural, seen: Mutex::new(None) }
    }

    /// Networks stay together where a balanced job fits beside them. The CPU's weights are mapped and take no room.
    fn residence(&self, footprint: &Footprint) -> Residence {
        match self.neural.offload {
            Offload::Always => Residence::InTurn,
            Offload::Never => Residence::Together,
            Offload::Auto => match memory::stats(self.device) {
                Ok(stats) => footprint.residence(stats.total_bytes / 5 * 4),
                Err(_) => Residence::Together,
            },
        }
    }

    fn folder(&self) -> Result<PathBuf, PipelineError> {
        models::find(self.models_folder.as_deref(), HUNYUAN_FAMILY)
            .ok_or_else(|| PipelineError::WeightsMissing(HUNYUAN_FAMILY.to_owned()))
    }

    /// Reads the folder if it has changed since it was last read.
    fn look(&self) -> Result<Content, PipelineError> {
        let folder = self.folder()?;
        let stamp = Stamp::of(&folder).map_err(unusable)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let content = match &*seen {
            Some(seen) if seen.stamp == stamp => seen.content.clone(),
            _ => {
                let content = self.read(&folder).map_err(|error| error.to_string());
                if let Err(reason) = &content {
                    tracing::error!(folder = %folder.display(), reason, "the model folder cannot be used");
                }
                *seen = Some(Seen { stamp, content: content.clone() });
                content
            }
        };
        content.map_err(unusable)
    }

    fn read(&self, folder: &Path) -> Result<Content, Error> {
        let checkpoint = Checkpoint::open(folder)?;
        let kind = self.neural.precision.kind(self.device);
        let footprints = [Preset::Fast, Preset::Balanced, Preset::Quality].map(|preset| {
            let resolution = resolution(preset);
            [1, 2, 3, 4].map(|views| {
                let views_at_once = i64::from(preset.batch());
                let job = Job { batch: 1, views, views_at_once, resolution, chunk_points: CPU_CHUNK_POINTS };
                Footprint::of(&checkpoint, self.device, kind, &job)
            })
        });
        let [_, [balanced, ..], _] = &footprints;
        let residence = self.residence(balanced);
        Ok(Content { version: checkpoint.fingerprint()?, footprints, residence })
    }

    fn known(&self) -> Option<Content> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.as_ref()?.content.as_ref().ok().cloned()
    }
}

impl ModelSource for HunyuanSource {
    fn family(&self) -> &'static str {
        HUNYUAN_FAMILY
    }

    fn fingerprint(&self) -> Result<String, PipelineError> {
        Ok(self.look()?.version)
    }

    fn resident_bytes(&self) -> u64 {
        self.known().map_or(0, |content| content.footprint(Preset::Fast, 1).resident(content.residence))
    }

    fn job_bytes(&self, settings: &Settings) -> u64 {
        self.known().map_or(0, |content| {
            let footprint = content.footprint(settings.preset, settings.pictures());
            footprint.peak(content.residence).saturating_sub(footprint.resident(content.residence))
        })
    }

    fn load(&self, version: &str) -> Result<LoadedModel, PipelineError> {
        let folder = self.folder()?;
        let before = Stamp::of(&folder).map_err(unusable)?;
        let checkpoint = Checkpoint::open(&folder).map_err(failure)?;
        let changed = || unusable("the model folder changed while it was read");
        if checkpoint.fingerprint().map_err(failure)? != version {
            return Err(changed());
        }
        let residence = self.known().map_or(Residence::Together, |content| content.residence);
        let kind = self.neural.precision.kind(self.device);
        let networks = ResidentNetworks::load(checkpoint, self.device, kind, residence).map_err(failure)?;
        if Stamp::of(&folder).map_err(unusable)? != before {
            return Err(changed());
        }
        Ok(LoadedModel::new(Loaded::new(networks, self.neural.reference_compatible)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_fails_its_jobs_only() {
        let folder = tempfile::tempdir().unwrap();
        let source = HunyuanSource::new(Some(folder.path().to_owned()), Device::Cpu, NeuralConfig::default());
        assert!(matches!(source.fingerprint(), Err(PipelineError::WeightsMissing(_))));
        assert!(matches!(source.load("any"), Err(PipelineError::WeightsMissing(_))));
        std::fs::create_dir(folder.path().join(HUNYUAN_FAMILY)).unwrap();
        std::fs::write(folder.path().join(HUNYUAN_FAMILY).join("config.yaml"), "?").unwrap();
        assert!(matches!(source.fingerprint(), Err(PipelineError::WeightsUnusable { .. })));
    }
}
