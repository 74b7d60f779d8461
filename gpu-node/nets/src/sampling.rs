//! From noise to latents: classifier-free guidance and Euler steps along a schedule.
//!
//! Guidance: <https://arxiv.org/abs/2207.12598>. The unconditioned half has a
//! context of zeros.

use crate::Error;
use crate::schedule::model_time;
use crate::watch::{Watch, tick};
use orfeas_torch::attempt;
use std::sync::{Mutex, PoisonError};
use tch::{Device, Kind, Tensor};

/// The guided velocity of latents `[B, L, C]` at a time in 0..1.
pub type Velocity<'a> = Box<dyn Fn(&Tensor, f32) -> Tensor + 'a>;

/// A network that can be sampled from.
pub trait Denoiser {
    /// Does everything that no step changes, for a context `[B, S, Cc]`. A
    /// negative guidance scale switches guidance off.
    fn prepare<'a>(&'a self, context: &Tensor, guidance_scale: f64) -> Velocity<'a>;
}

/// Whether a scale needs the unconditioned velocity: at 1 it cancels out.
pub(crate) fn is_guided(scale: f64) -> bool {
    scale >= 0.0 && scale != 1.0
}

/// Moves a velocity away from the unconditioned one: `u + scale·(v − u)`.
pub(crate) fn guide(conditioned: &Tensor, unconditioned: &Tensor, scale: f64) -> Tensor {
    unconditioned + (conditioned - unconditioned) * scale
}

/// Standard normal noise of a seed: libtorch's CPU generator (mt19937) in
/// `f32`, whatever device and type the network has, so that a seed means the
/// same latents on all of them, and the same as `torch.manual_seed` in Python.
pub fn noise(seed: u64, shape: &[i64]) -> Result<Tensor, Error> {
    /// The generator is the process's own: seeding and drawing must not interleave.
    static GENERATOR: Mutex<()> = Mutex::new(());
    let _held = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(attempt(|| {
        // The bits are the seed: torch takes it as unsigned again.
        tch::manual_seed(seed.cast_signed());
        Tensor::randn(shape, (Kind::Float, Device::Cpu))
    })?)
}

/// Noise for a batch, each shape from a seed of its own: `[B, …]`. Shape `i` starts as it would alone.
pub fn batch_noise(seeds: &[u64], shape: &[i64]) -> Result<Tensor, Error> {
    let each = seeds.iter().map(|&seed| noise(seed, shape)).collect::<Result<Vec<Tensor>, Error>>()?;
    Ok(attempt(|| Tensor::stack(&each, 0))?)
}

/// Where sampling starts and how it goes.
#[derive(Debug)]
pub struct Start<'a> {
    /// `[B, L, C]` in `f32` on the network's device.
    pub noise: &'a Tensor,
    /// `[B, S, Cc]` in the network's type on its device.
    pub context: &'a Tensor,
    /// From [`crate::schedule::Schedule::sigmas`].
    pub sigmas: &'a [f32],
    /// How far to move away from the unconditioned velocity; negative for not at all.
    pub guidance_scale: f64,
}

/// Follows the flow to its end: latents `[B, L, C]` in `f32`.
///
/// Steps of no length are left out, and not counted.
pub fn sample(denoiser: &dyn Denoiser, start: &Start<'_>, watch: &mut dyn Watch) -> Result<Tensor, Error> {
    sample_traced(denoiser, start, watch, &mut |_, _, _| {})
}

/// As [`sample`], showing each step's index, velocity and latents.
pub fn sample_traced(
    denoiser: &dyn Denoiser,
    start: &Start<'_>,
    watch: &mut dyn Watch,
    trace: &mut dyn FnMut(usize, &Tensor, &Tensor),
) -> Result<Tensor, Error> {
    let _no_grad = tch::no_grad_guard();
    let velocity = attempt(|| denoiser.prepare(start.context, start.guidance_scale))?;
    let steps: Vec<(f32, f32)> = start.sigmas.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let total = steps.iter().filter(|(from, to)| from != to).count();
    let kind = start.context.kind();
    let mut latents = start.noise.shallow_clone();
    let mut done = 0;
    for (i, (from, to)) in steps.into_iter().enumerate() {
        if from == to {
            continue;
        }
        tick(watch, start.noise.device(), done, total)?;
        latents = attempt(|| {
            let v = velocity(&latents.to_kind(kind), model_time(from)).to_kind(Kind::Float);
            let next = &latents + &v * f64::from(to - from);
            trace(i, &v, &next);
            next
        })?;
        done += 1;
    }
    if !attempt(|| latents.isfinite().all().int64_value(&[]) != 0)? {
        return Err(Error::NonFinite { stage: "denoising" });
    }
    tick(watch, start.noise.device(), done, total)?;
    Ok(latents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Schedule;
    use crate::watch::Unwatched;
    use std::cell::Cell;
    use std::ops::ControlFlow;

    /// A straight flow towards `to`, which counts its evaluations.
    struct Towards {
        to: f64,
        calls: Cell<usize>,
    }

    impl Towards {
        fn new(to: f64) -> Self {
            Self { to, calls: Cell::new(0) }
        }
    }

    impl Denoiser for Towards {
        fn prepare<'a>(&'a self, _context: &Tensor, _guidance_scale: f64) -> Velocity<'a> {
            Box::new(|x, t| {
                self.calls.set(self.calls.get() + 1);
                (self.to - x) / f64::from(1.0 - t)
            })
        }
    }

    fn run(denoiser: &Towards, steps: u32, watch: &mut dyn Watch) -> Result<Tensor, Error> {
        let noise = noise(7, &[1, 4, 3]).unwrap();
        let context = Tensor::zeros([1, 2, 3], (Kind::Float, Device::Cpu));
        let sigmas = Schedule::FlowMatchEuler { shift: 1.0 }.sigmas(steps);
        sample(
            denoiser,
            &Start { noise: &noise, context: &context, sigmas: &sigmas, guidance_scale: 5.0 },
            watch,
        )
    }

    #[test]
    fn a_straight_flow_ends_at_its_goal() {
        let end = run(&Towards::new(2.5), 10, &mut Unwatched).unwrap();
        assert!((end - 2.5).abs().max().double_value(&[]) < 1e-5);
    }

    #[test]
    fn the_step_of_no_length_is_not_evaluated() {
        let denoiser = Towards::new(0.0);
        let mut ticks = Vec::new();
        let mut watch = |done: usize, total: usize| {
            ticks.push((done, total));
            ControlFlow::Continue(())
        };
        assert!(run(&denoiser, 5, &mut watch).is_ok());
        assert_eq!(denoiser.calls.get(), 4);
        assert_eq!(ticks, [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]);
    }

    #[test]
    fn cancelling_stops_before_the_next_step() {
        let denoiser = Towards::new(0.0);
        let mut watch = |done: usize, _: usize| {
            if done == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        assert!(matches!(run(&denoiser, 50, &mut watch), Err(Error::Cancelled)));
        assert_eq!(denoiser.calls.get(), 2);
    }

    #[test]
    fn latents_that_are_not_numbers_are_an_error() {
        let outcome = run(&Towards::new(f64::NAN), 5, &mut Unwatched);
        assert!(matches!(outcome, Err(Error::NonFinite { .. })));
    }

    #[test]
    fn a_seed_gives_its_noise_again_and_another_seed_gives_other_noise() {
        let draw = |seed| Vec::<f32>::try_from(noise(seed, &[64]).unwrap()).unwrap();
        assert_eq!(draw(1234), draw(1234));
        assert_ne!(draw(1234), draw(1235));
        assert_ne!(draw(u64::MAX), draw(u64::MAX - 1));
    }
}
