//! FlashVDM: coarse to fine, and for each block of points a choice of keys.
//!
//! Paper: <https://arxiv.org/abs/2503.16302>. Neighbouring points attend to much
//! the same tokens, so a sample of a block's queries chooses the tokens for all
//! of it. The sample takes every n-th query of a block, and thus depends on
//! their order: points keep the grid's order within a block (a stable sort), so
//! that a shape decodes the same way each time.

use super::mask::dilate;
use super::{Grid, Request, Volume};
use crate::Error;
use crate::geo_decoder::Field;
use crate::layers::attention;
use crate::watch::{Watch, tick};
use orfeas_torch::attempt;
use tch::{Kind, Tensor};

/// How a block's sample chooses its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyChoice {
    /// The keys of the highest mean score, for each head its own.
    Mean,
    /// Every key that any sampled query gives noticeable weight, for all heads the same.
    Merge,
}

/// Settings of the decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct FlashConfig {
    /// How keys are chosen beyond the coarsest level.
    pub keys: KeyChoice,
    /// The coarsest level has at least this many cells to a side.
    pub min_resolution: i64,
    /// The coarsest level is cut into this many blocks to a side.
    pub blocks: i64,
    /// Leaves points that were not evaluated NaN, as the reference does; otherwise they are interpolated.
    pub mark_unqueried: bool,
}

impl Default for FlashConfig {
    fn default() -> Self {
        Self { keys: KeyChoice::Mean, min_resolution: 63, blocks: 4, mark_unqueried: false }
    }
}

/// Logits nearer to the level than this count as near the surface.
const NEAR_LOGIT: f64 = 0.95;
/// Stands in points that have not been evaluated; values down to `INVALID` count as such.
const UNQUERIED: f64 = -10_000.0;
const INVALID: f64 = -9_000.0;
/// Blocks to a side of the finer levels, over the box of their points.
const BINS: i64 = 6;
/// A token is kept by [`KeyChoice::Merge`] if its mean weight exceeds this.
const NOTICEABLE: f64 = 1e-6;
/// Every how many queries the sample takes one.
const STRIDE_COARSE: i64 = 100;
const STRIDE_MEAN: i64 = 50;
const STRIDE_MERGE: i64 = 30;
/// Parts that the watch is told of for each level.
const PARTS_PER_LEVEL: usize = 1000;

pub(super) fn decode(
    field: &Field<'_>,
    request: &Request,
    config: &FlashConfig,
    watch: &mut dyn Watch,
) -> Result<Volume, Error> {
    let resolutions = resolutions(request.resolution, config);
    let parts = resolutions.len() * PARTS_PER_LEVEL;
    let mut decoder = Decoder { field, request, config, watch, parts, before: 0, evaluated_points: 0 };
    let mut values = decoder.coarsest(resolutions[0])?;
    let mut filled = values.shallow_clone();
    for (level, &resolution) in resolutions.iter().enumerate().skip(1) {
        decoder.before = level * PARTS_PER_LEVEL;
        let last = level + 1 == resolutions.len();
        let wanted = attempt(|| wanted_points(&(&values - request.level), last))?;
        values = decoder.finer(resolution, &wanted)?;
        filled = attempt(|| {
            let n = resolution + 1;
            let coarse = filled.unsqueeze(0).unsqueeze(0);
            let coarse = coarse.upsample_trilinear3d([n, n, n], true, None, None, None).view([n, n, n]);
            values.where_self(&wanted, &coarse)
        })?;
    }
    tick(decoder.watch, field.device(), parts, parts)?;
    let evaluated_points = decoder.evaluated_points;
    let logits = if config.mark_unqueried {
        attempt(|| values.masked_fill(&values.eq(UNQUERIED), f64::NAN))?
    } else {
        filled
    };
    Ok(Volume { logits, bound: request.bound, evaluated_points })
}

/// Halves while it may, then snaps the coarsest level so that its points divide into blocks.
fn resolutions(finest: i64, config: &FlashConfig) -> Vec<i64> {
    let mut coarsest = finest;
    let mut levels = 1;
    while coarsest / 2 >= config.min_resolution {
        coarsest /= 2;
        levels += 1;
    }
    // Halves round to even, as the published sizes assume.
    let blocks = (coarsest as f64 / config.blocks as f64).round_ties_even() as i64;
    let coarsest = (blocks * config.blocks).max(config.blocks) - 1;
    (0..levels).map(|level| coarsest << level).collect()
}

/// Points whose value, taken from the level, has another sign than one of its
/// six neighbours: `[n, n, n] → [n, n, n]` in `bool`. Points that have not been
/// evaluated neither count as neighbours nor are near the surface.
pub fn near_surface(values: &Tensor) -> Tensor {
    let n = values.size()[0];
    let valid = values.gt(INVALID);
    let sign = values.sign();
    let near = valid.zeros_like();
    for axis in 0..3 {
        let (low, high) = (|x: &Tensor| x.narrow(axis, 0, n - 1), |x: &Tensor| x.narrow(axis, 1, n - 1));
        let differ = low(&sign).ne_tensor(&high(&sign)).logical_and(&low(&valid)).logical_and(&high(&valid));
        let _ = low(&near).logical_or_(&differ);
        let _ = high(&near).logical_or_(&differ);
    }
    near
}

/// Which points of the next level to evaluate.
fn wanted_points(values: &Tensor, last: bool) -> Tensor {
    let mut marked = near_surface(values).logical_or(&values.abs().lt(NEAR_LOGIT));
    if !last {
        marked = dilate(&marked);
    }
    let n = 2 * values.size()[0] - 1;
    let wanted = Tensor::zeros([n, n, n], (Kind::Bool, values.device()));
    wanted.slice(0, 0, n, 2).slice(1, 0, n, 2).slice(2, 0, n, 2).copy_(&marked);
    if last { dilate(&dilate(&wanted)) } else { dilate(&wanted) }
}

struct Decoder<'a> {
    field: &'a Field<'a>,
    request: &'a Request,
    config: &'a FlashConfig,
    watch: &'a mut dyn Watch,
    parts: usize,
    before: usize,
    evaluated_points: u64,
}

impl Decoder<'_> {
    fn tick(&mut self, done: i64, total: i64) -> Result<(), Error> {
        let part = (done as usize * PARTS_PER_LEVEL) / (total as usize).max(1);
        tick(self.watch, self.field.device(), self.before + part, self.parts)
    }

    /// The whole coarsest grid, block by block: `[n, n, n]`.
    fn coarsest(&mut self, resolution: i64) -> Result<Tensor, Error> {
        let (blocks, n) = (self.config.blocks, resolution + 1);
        let side = n / blocks;
        let device = self.field.device();
        let (points, values) = attempt(|| {
            let points = Grid::new(self.request.bound, resolution, device).range(0, n.pow(3));
            let points = points.reshape([blocks, side, blocks, side, blocks, side, 3]);
            let points = points.permute([0, 2, 4, 1, 3, 5, 6]).reshape([blocks.pow(3), side.pow(3), 3]);
            (points, Tensor::empty([blocks.pow(3), side.pow(3)], (Kind::Float, device)))
        })?;
        let at_once = (self.request.chunk_points / side.pow(3)).max(1);
        let mut first = 0;
        while first < blocks.pow(3) {
            self.tick(first, blocks.pow(3))?;
            let count = at_once.min(blocks.pow(3) - first);
            attempt(|| {
                let (x, query) = self.field.query(&points.narrow(0, first, count));
                let attended = self.attend(&query, KeyChoice::Mean, STRIDE_COARSE);
                values.narrow(0, first, count).copy_(&self.field.finish(&x, &attended));
            })?;
            first += count;
        }
        self.evaluated_points += n.pow(3).unsigned_abs();
        Ok(attempt(|| {
            let values = values.view([blocks, blocks, blocks, side, side, side]);
            values.permute([0, 3, 1, 4, 2, 5]).reshape([n, n, n])
        })?)
    }

    /// The wanted points of a finer grid, bin by bin; the rest stays [`UNQUERIED`].
    fn finer(&mut self, resolution: i64, wanted: &Tensor) -> Result<Tensor, Error> {
        let n = resolution + 1;
        let device = self.field.device();
        let (points, order, counts) = attempt(|| {
            let points = self.points(&wanted.nonzero(), resolution);
            let (bins, order) = bins(&points).sort_stable(true, 0, false);
            let (_, _, counts) = bins.unique_consecutive(false, true, None);
            (points, order, Vec::<i64>::try_from(counts).unwrap_or_default())
        })?;
        let total = order.size()[0];
        self.evaluated_points += total.unsigned_abs();
        let values = attempt(|| Tensor::empty([total], (Kind::Float, device)))?;
        let mut first = 0;
        for group in group_bins(&counts, self.request.chunk_points) {
            self.tick(first, total)?;
            let count: i64 = group.iter().sum();
            attempt(|| {
                let order = order.narrow(0, first, count);
                let (x, query) = self.field.query(&points.index_select(0, &order).unsqueeze(0));
                let attended = self.attend_bins(&query, group);
                let _ = values.shallow_clone().index_copy_(
                    0,
                    &order,
                    &self.field.finish(&x, &attended).squeeze_dim(0),
                );
            })?;
            first += count;
        }
        Ok(attempt(|| {
            let grid = Tensor::full([n, n, n], UNQUERIED, (Kind::Float, device));
            grid.masked_scatter(wanted, &values)
        })?)
    }

    /// Coordinates of grid indices `[P, 3]`, in `f32` arithmetic as the reference's finer levels have it.
    fn points(&self, indices: &Tensor, resolution: i64) -> Tensor {
        let step = (2.0 * self.request.bound / resolution as f64) as f32;
        indices.to_kind(Kind::Float) * f64::from(step) - f64::from(self.request.bound as f32)
    }

    /// Attention of consecutive bins `[1, Hg, P, d] → [1, P, Wg]`, each with its own keys.
    fn attend_bins(&self, query: &Tensor, counts: &[i64]) -> Tensor {
        let stride = match self.config.keys {
            KeyChoice::Mean => STRIDE_MEAN,
            KeyChoice::Merge => STRIDE_MERGE,
        };
        let mut first = 0;
        let attended: Vec<Tensor> = counts
            .iter()
            .map(|&count| {
                let query = query.narrow(2, first, count);
                first += count;
                self.attend(&query, self.config.keys, stride)
            })
            .collect();
        Tensor::cat(&attended, 1)
    }

    /// Attention of each block of queries `[B, Hg, P, d] → [B, P, Wg]` to the keys that its sample chooses.
    fn attend(&self, query: &Tensor, choice: KeyChoice, stride: i64) -> Tensor {
        let size = query.size();
        let (batch, heads, head_dim) = (size[0], size[1], size[3]);
        let sample = query.slice(2, None, None, stride);
        let scores = sample.matmul(&self.field.key.transpose(-1, -2));
        let chosen = match choice {
            // [B, Hg, k]
            KeyChoice::Mean => {
                let scores = scores.mean_dim([-2].as_slice(), false, None);
                scores.topk(keys_kept(self.field.tokens()), -1, true, false).1
            }
            // [k] → [1, Hg, k]: one bin at a time
            KeyChoice::Merge => {
                let weights = scores.softmax(-1, None).mean_dim([1].as_slice(), false, None);
                let noticed = weights.gt(NOTICEABLE).flatten(0, 1).any_dim(0, false);
                noticed.nonzero().squeeze_dim(1).expand([batch, heads, -1], false)
            }
        };
        let index = chosen.unsqueeze(-1).expand([-1, -1, -1, head_dim], false);
        let pick = |kv: &Tensor| kv.expand([batch, -1, -1, -1], false).gather(2, &index, false);
        attention(query, &pick(&self.field.key), &pick(&self.field.value))
    }
}

/// Keys that [`KeyChoice::Mean`] keeps, of the published sizes and others.
fn keys_kept(tokens: i64) -> i64 {
    match tokens {
        3072 => 1024,
        512 => 256,
        _ => (tokens / 3).max(1),
    }
}

/// The bin of each point `[P, 3] → [P]`, over the points' own box.
fn bins(points: &Tensor) -> Tensor {
    let (least, greatest) = (points.amin([0].as_slice(), false), points.amax([0].as_slice(), false));
    let relative = (points - &least) / (greatest - &least);
    // A box without extent along an axis is one bin there.
    let bin = (relative * (BINS as f64 - 0.001)).nan_to_num(0.0, None, None).floor().to_kind(Kind::Int64);
    bin.select(1, 0) * (BINS * BINS) + bin.select(1, 1) * BINS + bin.select(1, 2)
}

/// Consecutive bins of together fewer than `chunk_points` points, at least one.
fn group_bins(counts: &[i64], chunk_points: i64) -> Vec<&[i64]> {
    let mut groups = Vec::new();
    let mut rest = counts;
    while !rest.is_empty() {
        let mut sum = 0;
        let fitting = rest.iter().take_while(|&&count| {
            sum += count;
            sum < chunk_points
        });
        let (group, others) = rest.split_at(fitting.count().max(1));
        groups.push(group);
        rest = others;
    }
    groups
}
