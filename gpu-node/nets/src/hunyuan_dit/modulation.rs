//! Adaptive normalisation: the step's time (and guidance) to shift, scale and gate of every sub-layer.
//!
//! All modulation layers take the same vector, so one matrix product gives the
//! rows of all of them, which the blocks then take in the order in which they run.

use super::config::Config;
use super::{EPSILON, TIME_SCALE};
use crate::layers::{Linear, sinusoid_angles};
use crate::weights::Weights;
use tch::{Device, Tensor};

/// Width of the sinusoidal time embedding.
const TIME_CHANNELS: i64 = 256;

/// `[B] → [B, 256]`: cosines, then sines.
pub(super) fn time_embedding(t: &Tensor, period: f64) -> Tensor {
    let angles = sinusoid_angles(t, TIME_CHANNELS / 2, period, TIME_SCALE);
    Tensor::cat(&[angles.cos(), angles.sin()], -1)
}

/// Linear, SiLU, linear.
#[derive(Debug)]
pub(super) struct Embedder {
    in_layer: Linear,
    out_layer: Linear,
}

impl Embedder {
    pub(super) fn new(w: &Weights<'_>, width: i64) -> Self {
        Self {
            in_layer: Linear::new(&w.scope("in_layer"), TIME_CHANNELS, width),
            out_layer: Linear::new(&w.scope("out_layer"), width, width),
        }
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        self.out_layer.forward(&self.in_layer.forward(x).silu())
    }
}

/// The modulation layers of the network.
#[derive(Debug)]
pub(super) struct Modulation {
    /// In the order in which the blocks run. On an accelerator one layer with the
    /// rows of all, because a launch costs more than the product; on the CPU
    /// each its own, because the mapped file is not copied.
    layers: Vec<Linear>,
    /// `[rows · D]`: 1 where a row is a scale, which multiplies as `1 + scale`.
    ones: Tensor,
}

impl Modulation {
    pub(super) fn new(w: &Weights<'_>, config: &Config) -> Self {
        let width = config.hidden_size;
        // Rows of a triple are shift, scale, gate; the last pair has no gate.
        let mut scopes = Vec::new();
        for i in 0..config.depth {
            let block = w.scope("double_blocks").scope(i);
            scopes.push((block.scope("txt_mod").scope("lin"), 6));
            scopes.push((block.scope("img_mod").scope("lin"), 6));
        }
        for i in 0..config.depth_single_blocks {
            scopes.push((w.scope("single_blocks").scope(i).scope("modulation").scope("lin"), 3));
        }
        scopes.push((w.scope("final_layer").scope("adaLN_modulation").scope(1), 2));

        let total: i64 = scopes.iter().map(|(_, rows)| rows).sum();
        let ones = Tensor::zeros([total, width], (w.kind(), w.device()));
        let mut row = 0;
        for (_, rows) in &scopes {
            for scale in (row + 1..row + rows).step_by(3) {
                let _ = ones.get(scale).fill_(1.0);
            }
            row += rows;
        }
        let layers = if w.device() == Device::Cpu {
            scopes.iter().map(|(scope, rows)| Linear::new(scope, width, rows * width)).collect()
        } else {
            vec![folded(w, &scopes, total, width)]
        };
        Self { layers, ones: ones.flatten(0, 1) }
    }

    /// `[B, D] → [B, rows · D]`
    pub(super) fn forward(&self, vec: &Tensor) -> Tensor {
        let vec = vec.silu();
        let rows: Vec<Tensor> = self.layers.iter().map(|layer| layer.forward(&vec)).collect();
        Tensor::cat(&rows, 1) + &self.ones
    }
}

fn folded(w: &Weights<'_>, scopes: &[(Weights<'_>, i64)], total: i64, width: i64) -> Linear {
    let options = (w.kind(), w.device());
    let weight = Tensor::empty([total * width, width], options);
    let bias = Tensor::empty([total * width], options);
    let mut at = 0;
    for (scope, rows) in scopes {
        let size = rows * width;
        weight.narrow(0, at, size).copy_(&scope.tensor("weight", &[size, width]));
        bias.narrow(0, at, size).copy_(&scope.tensor("bias", &[size]));
        at += size;
    }
    Linear::of(weight, bias)
}

/// Hands out the modulation rows in the blocks' order.
pub(super) struct Rows<'a> {
    rows: &'a Tensor,
    width: i64,
    next: i64,
}

/// Modulation of one sub-layer, each `[B or 1, D]`; the scale has its 1 added.
pub(super) struct Triple {
    pub(super) shift: Tensor,
    pub(super) scale: Tensor,
    pub(super) gate: Tensor,
}

impl<'a> Rows<'a> {
    pub(super) fn new(rows: &'a Tensor, width: i64) -> Self {
        Self { rows, width, next: 0 }
    }

    pub(super) fn row(&mut self) -> Tensor {
        let row = self.rows.narrow(1, self.next * self.width, self.width);
        self.next += 1;
        row
    }

    pub(super) fn triple(&mut self) -> Triple {
        Triple { shift: self.row(), scale: self.row(), gate: self.row() }
    }
}

/// `scale · norm(x) + shift`, `x [B, L, D]`. One time for the whole batch, as in
/// sampling, makes it an ordinary layer norm, in one pass.
pub(super) fn adaptive_norm(x: &Tensor, shift: &Tensor, scale: &Tensor) -> Tensor {
    let width = x.size()[2];
    if shift.size()[0] == 1 {
        let (scale, shift) = (scale.view([width]), shift.view([width]));
        return x.layer_norm([width], Some(&scale), Some(&shift), EPSILON, true);
    }
    let norm = x.layer_norm([width], None::<&Tensor>, None::<&Tensor>, EPSILON, true);
    norm * scale.unsqueeze(1) + shift.unsqueeze(1)
}

/// `x + gate · y`
pub(super) fn gated(x: &Tensor, gate: &Tensor, y: &Tensor) -> Tensor {
    x.addcmul(&gate.unsqueeze(1), y)
}
