//! The families of this build.

use tch::Device;

use super::InferenceConfig;
use super::engine::ModelSource;
use super::hunyuan::HunyuanSource;
use super::noop::NoopSource;
use super::silhouette::SilhouetteSource;

/// Finds the families of a device.
pub(crate) type Registry = fn(Device, &InferenceConfig) -> Vec<Box<dyn ModelSource>>;

/// All of them; `noop` only where it is asked for.
pub(super) fn registry(device: Device, config: &InferenceConfig) -> Vec<Box<dyn ModelSource>> {
    let mut sources: Vec<Box<dyn ModelSource>> = vec![
        Box::new(SilhouetteSource::new(device)),
        Box::new(HunyuanSource::new(config.models_folder.clone(), device, config.neural)),
    ];
    if config.noop_family {
        sources.push(Box::new(NoopSource::new(config.models_folder.as_deref())));
    }
    sources
}
