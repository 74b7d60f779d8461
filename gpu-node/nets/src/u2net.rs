//! U²-Net, which cuts subjects out: nested U-shaped blocks in a U.
//!
//! Paper: <https://arxiv.org/abs/2005.09007>. Keys as in the published state
//! dictionaries of `u2net` and `u2netp`.
//!
//! Shapes: `B` batch, `C` channels, `h × w` pixels.

use crate::weights::Weights;
use std::fmt;
use tch::{Kind, Tensor};

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
        let mut down: Vec<Tensor> = Vec::with_capacity(STAGES);
        for (i, block) in self.encoder.iter().enumerate() {
            let input = down.last().map_or_else(|| x.shallow_clone(), halve);
            down.push(block.forward(&input));
            trace(format_args!("stage{}", i + 1), &down[i]);
        }
        // Deepest first: stage 6, then 5d up to 1d.
        let mut maps = vec![down[STAGES - 1].shallow_clone()];
        for (block, skip) in self.decoder.iter().zip(&down).rev() {
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
        out
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
