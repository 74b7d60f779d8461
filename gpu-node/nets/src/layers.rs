//! Layers that several networks share. Shapes: `B` batch, `L` tokens, `D` width, `H` heads, `d = D/H`.

use crate::weights::Weights;
use tch::{Kind, Tensor};

/// `x Wᵀ + b` over the last axis.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// Keys `weight [outputs, inputs]` and `bias [outputs]`.
    pub fn new(w: &Weights<'_>, inputs: i64, outputs: i64) -> Self {
        Self::with_bias(w, inputs, outputs, true)
    }

    /// As [`Linear::new`], with a bias only if `bias`.
    pub fn with_bias(w: &Weights<'_>, inputs: i64, outputs: i64, bias: bool) -> Self {
        let weight = w.matrix("weight", &[outputs, inputs]);
        let bias = bias.then(|| w.tensor("bias", &[outputs]));
        Self { weight, bias }
    }

    /// From tensors that have been made.
    pub(crate) fn of(weight: Tensor, bias: Tensor) -> Self {
        Self { weight, bias: Some(bias) }
    }

    /// As two layers, the first with so many of the outputs.
    pub(crate) fn split_outputs(self, outputs: i64) -> (Self, Self) {
        let cut = |x: &Tensor| {
            let rest = x.size()[0] - outputs;
            (x.narrow(0, 0, outputs), x.narrow(0, outputs, rest))
        };
        let (first, rest) = cut(&self.weight);
        let (first_bias, rest_bias) = self.bias.as_ref().map(cut).unzip();
        (Self { weight: first, bias: first_bias }, Self { weight: rest, bias: rest_bias })
    }

    /// As two layers whose results add up, the first with so many of the inputs, and the bias.
    pub(crate) fn split_inputs(self, inputs: i64) -> (Self, Self) {
        let rest = self.weight.size()[1] - inputs;
        let (first, rest) = (self.weight.narrow(1, 0, inputs), self.weight.narrow(1, inputs, rest));
        (Self { weight: first, bias: self.bias }, Self { weight: rest, bias: None })
    }

    /// `[…, inputs] → […, outputs]`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight_for(x), self.bias.as_ref())
    }

    /// With GELU after it, in the form with tanh.
    pub(crate) fn forward_gelu(&self, x: &Tensor) -> Tensor {
        self.forward(x).gelu_("tanh")
    }

    /// Added to a sum, which it overwrites: `[B, L, outputs]`, `[B, L, inputs]` → `[B, L, outputs]`. A bias is left out.
    pub(crate) fn forward_add(&self, sum: &Tensor, x: &Tensor) -> Tensor {
        let mut rows = sum.flatten(0, 1);
        let _ = rows.addmm_(&x.flatten(0, 1), &self.weight_for(x).tr());
        rows.view([x.size()[0], x.size()[1], -1])
    }

    /// A mapped weight stays in its file's type: for the many tokens of one call, converting it costs a hundredth of
    /// the product.
    fn weight_for(&self, x: &Tensor) -> Tensor {
        self.weight.to_kind(x.kind())
    }

    /// The bias, which is also the layer's value at zero.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}

/// Layer normalisation over the last axis, with scale and shift.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

impl LayerNorm {
    /// Keys `weight [size]`, `bias [size]`.
    pub fn new(w: &Weights<'_>, size: i64, epsilon: f64) -> Self {
        Self { weight: w.tensor("weight", &[size]), bias: w.tensor("bias", &[size]), epsilon }
    }

    /// `[…, size] → […, size]`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.epsilon, true)
    }
}

/// Softmax attention over heads, `[B, H, L, d] × [B, H, S, d] → [B, L, H·d]`.
pub fn attention(query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
    Tensor::scaled_dot_product_attention(query, key, value, None::<&Tensor>, 0.0, false, None, false)
        .transpose(1, 2)
        .flatten(2, 3)
}

/// The angles `scale · t · period^(-i/half)` for `i < half`, `[B] → [B, half]`, in `f32`:
/// at `1000 · t` radians a half type would round whole turns away.
pub fn sinusoid_angles(t: &Tensor, half: i64, period: f64, scale: f64) -> Tensor {
    let index = Tensor::arange(half, (Kind::Float, t.device()));
    let frequency = (index * -period.ln() / half as f64).exp();
    (t.to_kind(Kind::Float) * scale).unsqueeze(-1) * frequency
}

/// Linear, GELU (the exact one), linear.
#[derive(Debug)]
pub struct Mlp {
    inner: Linear,
    outer: Linear,
}

impl Mlp {
    /// `names` are the scopes of the two layers.
    pub fn new(w: &Weights<'_>, names: (&str, &str), width: i64, hidden: i64) -> Self {
        Self {
            inner: Linear::new(&w.scope(names.0), width, hidden),
            outer: Linear::new(&w.scope(names.1), hidden, width),
        }
    }

    /// `[…, width] → […, width]`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.outer.forward(&self.inner.forward(x).gelu("none"))
    }
}
