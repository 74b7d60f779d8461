//! U²-Net, which cuts subjects out: nested U-shaped blocks in a U.
//!
//! Paper: <https://arxiv.org/abs/2005.09007>. Keys as in the published state
//! dictionaries of `u2net` and `u2netp`.
//!
//! Shapes: `B` batch, `C` channels, `h × w` pixels.

use crate::Error;
use crate::watch::{self, Watch};
use crate::weights::{self, TensorSource, Weights};
use orfeas_torch::{WeightsFile, attempt};
use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use tch::{Device, Kind, Tensor};

const BATCH_NORM_EPSILON: f64 = 1e-5;
/// Stages on the way down.
const STAGES: usize = 6;
/// Side of the pictures that the published weights were trained on.
pub const INPUT_SIZE: i64 = 320;

/// Channels of one stage: in, inside, out.
type Channels = (i64, i64, i64);

/// Channels of all stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `stage1` to `stage6`.
    encoder: [Channels; STAGES],
    /// `stage1d` to `stage5d`.
    decoder: [Channels; STAGES - 1],
}

impl Config {
    /// `u2net`: 44 million parameters.
    pub fn full() -> Self {
        Self {
            encoder: [
                (3, 32, 64),
                (64, 32, 128),
                (128, 64, 256),
                (256, 128, 512),
                (512, 256, 512),
                (512, 256, 512),
            ],
            decoder: [(128, 16, 64), (256, 32, 64), (512, 64, 128), (1024, 128, 256), (1024, 256, 512)],
        }
    }

    /// `u2netp`: 1.1 million parameters.
    pub fn small() -> Self {
        let stage = (64, 16, 64);
        Self {
            encoder: [(3, 16, 64), stage, stage, stage, stage, stage],
            decoder: [(128, 16, 64); STAGES - 1],
        }
    }
}

impl Config {
    /// Channels as a file's tensors have them: the published networks, and pruned ones of the same form.
    ///
    /// # Errors
    /// A stage is missing.
    pub fn of(source: &dyn TensorSource) -> Result<Self, Error> {
        let size = |key: String, axis: usize| -> Result<i64, Error> {
            let size = source.info(&key).and_then(|info| info.shape.get(axis).copied());
            size.ok_or_else(|| Error::config("u2net", format!("{} has no {key}", source.name())))
        };
        let channels = |stage: String| -> Result<Channels, Error> {
            let (into, inside) =
                (format!("{stage}.rebnconvin.conv_s1.weight"), format!("{stage}.rebnconv1.conv_s1.weight"));
            Ok((size(into.clone(), 1)?, size(inside, 0)?, size(into, 0)?))
        };
        let mut config = Self { encoder: [(0, 0, 0); STAGES], decoder: [(0, 0, 0); STAGES - 1] };
        for (i, stage) in config.encoder.iter_mut().enumerate() {
            *stage = channels(format!("stage{}", i + 1))?;
        }
        for (i, stage) in config.decoder.iter_mut().enumerate() {
            *stage = channels(format!("stage{}d", i + 1))?;
        }
        Ok(config)
    }
}

/// ImageNet's mean and standard deviation, by channel.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// Loads a network in `f32` from a safetensors file with the published keys.
///
/// # Errors
/// The file cannot be read, or is not of this network.
pub fn load(path: &Path, device: Device) -> Result<U2Net, Error> {
    let file = WeightsFile::open(path)?;
    let config = Config::of(&file)?;
    weights::load(&file, "", (device, Kind::Float), |_| false, |w| U2Net::new(w, &config))
}

/// How much each pixel of a picture is subject, over the range that the network gave: `[3, h, w]` in 0..255 → `[h, w]`
/// in 0..1. The picture has the side that the network was trained on. Watched before each block.
///
/// # Errors
/// [`Error::NonFinite`], [`Error::Cancelled`], or [`Error::NoSubject`] where the network sees no difference between
/// the pixels.
pub fn coverage(net: &U2Net, rgb: &Tensor, watch: &mut dyn Watch) -> Result<Tensor, Error> {
    let _no_grad = tch::no_grad_guard();
    let (map, least, greatest) = attempt(|| {
        let channels = |values: [f32; 3]| Tensor::from_slice(&values).view([3, 1, 1]).to_device(rgb.device());
        let rgb = rgb.to_kind(Kind::Float);
        // By the picture's own maximum, as the published front end has it.
        let unit = &rgb / rgb.max().clamp_min(1e-6);
        let x = ((unit - channels(MEAN)) / channels(DEVIATION)).unsqueeze(0);
        let mut before_block = |block| watch::tick(watch, rgb.device(), block, BLOCKS);
        let map = net.run(&x, &mut |_, _| {}, &mut before_block)?.squeeze();
        let (least, greatest) = map.aminmax(None, false);
        Ok::<_, Error>((map, least.double_value(&[]), greatest.double_value(&[])))
    })??;
    if !(least.is_finite() && greatest.is_finite()) {
        return Err(Error::NonFinite { stage: "the background remover" });
    }
    if greatest - least < f64::from(f32::EPSILON) {
        return Err(Error::NoSubject);
    }
    Ok(attempt(|| (map - least) / (greatest - least))?)
}

/// Blocks on the way down and up again.
const BLOCKS: usize = 2 * STAGES - 1;

/// Levels of the blocks of each stage; 0 is the block that dilates instead of pooling.
const LEVELS: [usize; STAGES] = [7, 6, 5, 4, 0, 0];

/// The network.
#[derive(Debug)]
pub struct U2Net {
    encoder: Vec<Block>,
    decoder: Vec<Block>,
    /// `side1` to `side6`: a 3×3 convolution to one channel each.
    sides: Vec<(Tensor, Tensor)>,
    outconv: (Tensor, Tensor),
}

impl U2Net {
    /// Takes the weights from a scope that holds `stage1`, …, `outconv`.
    pub fn new(w: &Weights<'_>, config: &Config) -> Self {
        let conv = |name: String, inputs: i64, outputs: i64, side: i64| {
            let scope = w.scope(name);
            (scope.tensor("weight", &[outputs, inputs, side, side]), scope.tensor("bias", &[outputs]))
        };
        let block = |name: String, level: usize, channels| Block::new(&w.scope(name), level, channels);
        let side = |i: usize| {
            let from = config.decoder.get(i).unwrap_or(&config.encoder[STAGES - 1]);
            conv(format!("side{}", i + 1), from.2, 1, 3)
        };
        Self {
            encoder: (0..STAGES)
                .map(|i| block(format!("stage{}", i + 1), LEVELS[i], config.encoder[i]))
                .collect(),
            decoder: (0..STAGES - 1)
                .map(|i| block(format!("stage{}d", i + 1), LEVELS[i], config.decoder[i]))
                .collect(),
            sides: (0..STAGES).map(side).collect(),
            outconv: conv("outconv".to_owned(), STAGES as i64, 1, 1),
        }
    }

    /// Normalised pictures `[B, 3, h, w]` → how much each pixel is subject, `[B, 1, h, w]` in 0..1.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_traced(x, &mut |_, _| {})
    }

    /// As [`Self::forward`], showing the stages and the side outputs `d0` to `d6`.
    pub fn forward_traced(&self, x: &Tensor, trace: &mut dyn FnMut(fmt::Arguments<'_>, &Tensor)) -> Tensor {
        let Ok(map) = self.run::<Infallible>(x, trace, &mut |_| Ok(()));
        map
    }

    /// Asks `before_block` before each block, by its number, whether to go on.
    fn run<E>(
        &self,
        x: &Tensor,
        trace: &mut dyn FnMut(fmt::Arguments<'_>, &Tensor),
        before_block: &mut dyn FnMut(usize) -> Result<(), E>,
    ) -> Result<Tensor, E> {
        let mut down: Vec<Tensor> = Vec::with_capacity(STAGES);
        for (i, block) in self.encoder.iter().enumerate() {
            before_block(i)?;
            let input = down.last().map_or_else(|| x.shallow_clone(), halve);
            down.push(block.forward(&input));
            trace(format_args!("stage{}", i + 1), &down[i]);
        }
        // Deepest first: stage 6, then 5d up to 1d.
        let mut maps = vec![down[STAGES - 1].shallow_clone()];
        for (block, skip) in self.decoder.iter().zip(&down).rev() {
            before_block(STAGES + maps.len() - 1)?;
            let deeper = resize_to(&maps[maps.len() - 1], skip);
            maps.push(block.forward(&Tensor::cat(&[&deeper, skip], 1)));
        }
        let mut sides: Vec<Tensor> = Vec::with_capacity(STAGES);
        for ((weight, bias), map) in self.sides.iter().zip(maps.iter().rev()) {
            let side = map.conv2d(weight, Some(bias), [1, 1], [1, 1], [1, 1], 1);
            let side = sides.first().map_or_else(|| side.shallow_clone(), |first| resize_to(&side, first));
            trace(format_args!("d{}", sides.len() + 1), &side.sigmoid());
            sides.push(side);
        }
        let (weight, bias) = &self.outconv;
        let out = Tensor::cat(&sides, 1).conv2d(weight, Some(bias), [1, 1], [0, 0], [1, 1], 1).sigmoid();
        trace(format_args!("d0"), &out);
        Ok(out)
    }
}

/// 2×2 max-pooling; an odd last row or column makes a pixel of its own.
fn halve(x: &Tensor) -> Tensor {
    x.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], true)
}

fn resize_to(x: &Tensor, like: &Tensor) -> Tensor {
    x.upsample_bilinear2d(&like.size()[2..], false, None, None)
}

/// 3×3 convolution, batch norm, ReLU.
#[derive(Debug)]
struct ConvNormRelu {
    weight: Tensor,
    bias: Tensor,
    dilation: i64,
}

impl ConvNormRelu {
    /// The norm is folded into the convolution: at inference both are affine.
    fn new(w: &Weights<'_>, inputs: i64, outputs: i64, dilation: i64) -> Self {
        let (conv, norm) = (w.scope("conv_s1"), w.scope("bn_s1"));
        let of_norm = |name| norm.tensor(name, &[outputs]).to_kind(Kind::Float);
        if norm.has("num_batches_tracked") {
            let _ = norm.tensor("num_batches_tracked", &[]);
        }
        let scale = of_norm("weight") / (of_norm("running_var") + BATCH_NORM_EPSILON).sqrt();
        let weight = conv.tensor("weight", &[outputs, inputs, 3, 3]);
        let bias = conv.tensor("bias", &[outputs]).to_kind(Kind::Float);
        let bias = (bias - of_norm("running_mean")) * &scale + of_norm("bias");
        let weight = weight.to_kind(Kind::Float) * scale.view([-1, 1, 1, 1]);
        Self { weight: weight.to_kind(w.kind()), bias: bias.to_kind(w.kind()), dilation }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let around = [self.dilation, self.dilation];
        x.conv2d(&self.weight, Some(&self.bias), [1, 1], around, around, 1).relu()
    }
}

/// A residual U-block.
#[derive(Debug)]
struct Block {
    input: ConvNormRelu,
    /// `rebnconv1` to `rebnconv{n}`; the last one is the bottom.
    down: Vec<ConvNormRelu>,
    /// `rebnconv1d` to `rebnconv{n-1}d`.
    up: Vec<ConvNormRelu>,
    pools: bool,
}

impl Block {
    /// `level` as in [`LEVELS`].
    fn new(w: &Weights<'_>, level: usize, (inputs, inside, outputs): Channels) -> Self {
        let pools = level > 0;
        let levels = if pools { level } else { 4 };
        let bottom = levels - 1;
        let dilation_down = |i: usize| match (pools, i == bottom) {
            (true, true) => 2,
            (true, false) => 1,
            (false, _) => 1 << i,
        };
        let dilation_up = |i: usize| if pools { 1 } else { 1 << i };
        let conv = |name: String, from, to, dilation| ConvNormRelu::new(&w.scope(name), from, to, dilation);
        Self {
            input: conv("rebnconvin".to_owned(), inputs, outputs, 1),
            down: (0..levels)
                .map(|i| {
                    let from = if i == 0 { outputs } else { inside };
                    conv(format!("rebnconv{}", i + 1), from, inside, dilation_down(i))
                })
                .collect(),
            up: (0..bottom)
                .map(|i| {
                    let to = if i == 0 { outputs } else { inside };
                    conv(format!("rebnconv{}d", i + 1), 2 * inside, to, dilation_up(i))
                })
                .collect(),
            pools,
        }
    }

    /// `[B, in, h, w] → [B, out, h, w]`
    fn forward(&self, x: &Tensor) -> Tensor {
        let input = self.input.forward(x);
        let bottom = self.down.len() - 1;
        let mut maps: Vec<Tensor> = Vec::with_capacity(self.down.len());
        for (i, conv) in self.down.iter().enumerate() {
            // No pooling in front of the first map, nor of the bottom.
            let from = match maps.last() {
                None => input.shallow_clone(),
                Some(map) if self.pools && i < bottom => halve(map),
                Some(map) => map.shallow_clone(),
            };
            maps.push(conv.forward(&from));
        }
        let mut deeper = maps[bottom].shallow_clone();
        for (conv, skip) in self.up.iter().zip(&maps).rev() {
            if self.pools {
                deeper = resize_to(&deeper, skip);
            }
            deeper = conv.forward(&Tensor::cat(&[&deeper, skip], 1));
        }
        deeper + input
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Unwatched;
    use crate::weights::Prefixed;

    fn golden() -> WeightsFile {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        WeightsFile::open(&folder.join("u2netp.safetensors")).unwrap()
    }

    /// The reference case's weights under the published names.
    fn written() -> tempfile::TempDir {
        let golden = golden();
        let keys = Prefixed { file: &golden, prefix: "w." }.keys();
        let tensors: Vec<(String, Tensor)> =
            keys.into_iter().map(|key| (key.clone(), golden.view(&format!("w.{key}")).unwrap())).collect();
        let folder = tempfile::tempdir().unwrap();
        Tensor::write_safetensors(&tensors, folder.path().join("u2netp.safetensors")).unwrap();
        folder
    }

    #[test]
    fn the_sizes_are_read_off_the_tensors() {
        let golden = golden();
        assert_eq!(Config::of(&Prefixed { file: &golden, prefix: "w." }).unwrap(), Config::small());
        let requests = weights::requests(|w| drop(U2Net::new(w, &Config::full()))).unwrap();
        let parameters: i64 = requests.iter().map(|(_, shape)| shape.iter().product::<i64>()).sum();
        assert_eq!(parameters / 1_000_000, 44);
    }

    #[test]
    fn a_file_of_the_published_keys_gives_a_coverage_in_0_to_1() {
        let folder = written();
        let net = load(&folder.path().join("u2netp.safetensors"), Device::Cpu).unwrap();
        let picture =
            Tensor::arange(3 * 64 * 64, (Kind::Float, Device::Cpu)).view([3, 64, 64]).remainder(251);
        let coverage = coverage(&net, &picture, &mut Unwatched).unwrap();
        assert_eq!(coverage.size(), [64, 64]);
        assert_eq!((coverage.min().double_value(&[]), coverage.max().double_value(&[])), (0.0, 1.0));
    }

    #[test]
    fn a_file_of_another_network_is_refused() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let error = load(&folder.join("dit_plain.safetensors"), Device::Cpu).unwrap_err();
        assert!(error.to_string().contains("stage1"), "{error}");
    }
}
