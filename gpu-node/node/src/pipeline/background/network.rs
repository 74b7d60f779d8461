//! A trained network that tells subject from background (U²-Net, of any published size), where its weights are
//! installed: `background/u2net.safetensors` in the models folder, or `silueta`, or `u2netp`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use image::imageops::{FilterType, resize};
use image::{ImageBuffer, Luma, RgbImage};
use orfeas_nets::u2net::{self, INPUT_SIZE, U2Net};
use orfeas_torch::{FailureClass, attempt};
use tch::{Device, Tensor};

use super::super::PipelineError;
use super::super::decode::Picture;
use super::super::raster::Raster;
use super::super::stage::Tick;

/// In the order of preference.
pub(crate) const NAMES: [&str; 3] = ["u2net", "silueta", "u2netp"];

/// The networks' folder in the models folder.
pub(crate) const FOLDER: &str = "background";

/// The best weights that are installed.
pub(crate) fn find(models: Option<&Path>) -> Option<PathBuf> {
    let folder = models?.join(FOLDER);
    NAMES.iter().map(|name| folder.join(name).with_extension("safetensors")).find(|path| path.is_file())
}

/// A loaded network.
#[derive(Debug)]
pub(crate) struct SubjectNetwork {
    net: U2Net,
    device: Device,
}

impl SubjectNetwork {
    /// The best of the models folder. Weights that cannot be used are reported, and leave the colour model.
    pub(crate) fn load(models: Option<&Path>, device: Device) -> Option<Self> {
        let path = find(models)?;
        match u2net::load(&path, device) {
            Ok(net) => Some(Self { net, device }),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "the background network cannot be used");
                None
            }
        }
    }

    /// How much of each pixel the subject covers, `width` × `height` over the picture's extent.
    ///
    /// # Errors
    /// The network sees no subject, or gives no numbers; or what `tick` answers.
    pub(super) fn coverage(
        &self,
        picture: &Picture,
        (width, height): (usize, usize),
        tick: &mut Tick<'_>,
    ) -> Result<Raster<f32>, PipelineError> {
        let side = INPUT_SIZE.unsigned_abs() as u32;
        let colour = &picture.colour;
        let rgb = colour.samples().iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect();
        let rgb = RgbImage::from_raw(colour.width() as u32, colour.height() as u32, rgb);
        let rgb = rgb.ok_or_else(|| PipelineError::InvalidImage("its size is inconsistent".to_owned()))?;
        tick(0.1)?;
        let small = resize(&rgb, side, side, FilterType::Lanczos3);
        let input = attempt(|| {
            let pixels = Tensor::from_slice(small.as_raw()).view([INPUT_SIZE, INPUT_SIZE, 3]);
            pixels.permute([2, 0, 1]).to_device(self.device)
        })?;
        let mut watch = |done: usize, total: usize| match tick(0.2 + 0.7 * done as f32 / total as f32) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        let coverage = u2net::coverage(&self.net, &input, &mut watch).map_err(failure)?;
        tick(0.9)?;
        let coverage =
            attempt(|| Vec::<f32>::try_from(coverage.to_device(Device::Cpu).contiguous().view(-1)))?;
        let coverage = coverage.map_err(|error| PipelineError::Tensor(error.to_string()))?;
        let map = ImageBuffer::<Luma<f32>, Vec<f32>>::from_raw(side, side, coverage);
        let map = map.ok_or_else(|| PipelineError::Tensor("the map's size is inconsistent".to_owned()))?;
        let map = resize(&map, width as u32, height as u32, FilterType::Lanczos3);
        let samples = map.into_raw().into_iter().map(|value| value.clamp(0.0, 1.0)).collect();
        Raster::from_samples(width, height, samples)
            .ok_or_else(|| PipelineError::Tensor("the map's size is inconsistent".to_owned()))
    }
}

fn failure(error: orfeas_nets::Error) -> PipelineError {
    match error {
        orfeas_nets::Error::Cancelled => PipelineError::Cancelled,
        orfeas_nets::Error::NoSubject => PipelineError::NoSubject,
        orfeas_nets::Error::Torch(error) if error.class() != FailureClass::Other => error.into(),
        other => PipelineError::Tensor(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use orfeas_torch::WeightsFile;

    use super::*;

    /// A models folder with the networks' tests' random u2netp.
    fn models() -> tempfile::TempDir {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nets/tests/golden/u2netp.safetensors");
        let golden = WeightsFile::open(&golden).unwrap();
        let named = golden.tensors().filter_map(|(name, _)| {
            let key = name.strip_prefix("w.")?.to_owned();
            Some((key, golden.view(&name).unwrap()))
        });
        let models = tempfile::tempdir().unwrap();
        std::fs::create_dir(models.path().join(FOLDER)).unwrap();
        let path = models.path().join(FOLDER).join("u2netp.safetensors");
        Tensor::write_safetensors(&named.collect::<Vec<_>>(), path).unwrap();
        models
    }

    #[test]
    fn installed_weights_are_found_and_cover_a_picture_of_any_size() {
        let models = models();
        let network = SubjectNetwork::load(Some(models.path()), Device::Cpu).unwrap();
        let colour = Raster::from_fn(120, 80, |x, y| [(2 * x) as u8, (3 * y) as u8, 90, 255]);
        let coverage = network.coverage(&Picture { colour }, (60, 40), &mut |_| Ok(())).unwrap();
        assert_eq!((coverage.width(), coverage.height()), (60, 40));
        let (least, greatest) =
            coverage.samples().iter().fold((1.0_f32, 0.0_f32), |(l, g), &v| (l.min(v), g.max(v)));
        assert!((0.0..0.5).contains(&least) && greatest > 0.5, "{least} {greatest}");
    }

    #[test]
    fn weights_that_cannot_be_used_leave_the_colour_model() {
        let models = models();
        let better = models.path().join(FOLDER).join("u2net.safetensors");
        std::fs::write(&better, "not weights").unwrap();
        assert_eq!(find(Some(models.path())), Some(better));
        assert!(SubjectNetwork::load(Some(models.path()), Device::Cpu).is_none());
        assert!(SubjectNetwork::load(None, Device::Cpu).is_none());
    }
}
