//! Noise schedules: which σ each denoising step starts from.
//!
//! σ runs from 0, pure noise, to 1, data: the reverse of other libraries'
//! schedulers of the same names. Rectified flow:
//! <https://arxiv.org/abs/2209.03003>; phased consistency models, whose knots
//! the second schedule lands on: <https://arxiv.org/abs/2405.18407>.

use crate::Error;
use crate::error::require;

/// Steps of training, from which the consistency schedule takes its knots.
const TRAIN_STEPS: u32 = 1000;
/// The networks' times are σ in thousandths, and divided again: the detour costs an ulp that a
/// comparison with a reference would see.
const TIMESTEPS: f32 = 1000.0;

/// A noise schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Schedule {
    /// Even steps of a rectified flow, warped by `shift` (1 leaves them even).
    FlowMatchEuler {
        /// `σ ← shift·σ / (1 + (shift − 1)·σ)`
        shift: f64,
    },
    /// Steps on the knots of a model distilled in `phases` phases (the `-turbo` variants).
    Consistency {
        /// `pcm_timesteps` of the configuration.
        phases: u32,
    },
}

impl Schedule {
    /// Checks that the schedule can be computed.
    pub fn validate(&self) -> Result<(), Error> {
        match *self {
            Self::FlowMatchEuler { shift } => {
                require(shift.is_finite() && shift > 0.0, "scheduler", || format!("shift is {shift}"))
            }
            Self::Consistency { phases } => require((1..=TRAIN_STEPS).contains(&phases), "scheduler", || {
                format!("pcm_timesteps is {phases}, not in 1..={TRAIN_STEPS}")
            }),
        }
    }

    /// `steps + 1` values: where each step starts, and 1, where the last one ends.
    ///
    /// The flow's last two are equal: its last step does nothing, and
    /// [`crate::sampling::sample`] leaves it out.
    pub fn sigmas(&self, steps: u32) -> Vec<f32> {
        let sigma = |i: u32| -> f64 {
            match *self {
                Self::FlowMatchEuler { shift } => {
                    let even = if steps > 1 { f64::from(i) / f64::from(steps - 1) } else { 0.0 };
                    shift * even / (1.0 + (shift - 1.0) * even)
                }
                Self::Consistency { phases } => {
                    // Knot 0 is pure noise; knot j ends the j-th phase's last training step.
                    let knot = (f64::from(i) * (f64::from(phases) / f64::from(steps))) as u32;
                    let step = (knot * (TRAIN_STEPS / phases)).saturating_sub(1);
                    f64::from(step) / f64::from(TRAIN_STEPS - 1)
                }
            }
        };
        (0..steps).map(|i| sigma(i) as f32).chain([1.0]).collect()
    }
}

/// The time that a network is given for a σ.
pub fn model_time(sigma: f32) -> f32 {
    timestep(sigma) / TIMESTEPS
}

/// σ in thousandths.
pub fn timestep(sigma: f32) -> f32 {
    sigma * TIMESTEPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flow_ends_with_a_step_of_no_length() {
        let sigmas = Schedule::FlowMatchEuler { shift: 1.0 }.sigmas(5);
        assert_eq!(sigmas, [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]);
    }

    #[test]
    fn the_turbo_schedule_lands_on_its_published_knots() {
        let sigmas = Schedule::Consistency { phases: 100 }.sigmas(5);
        for (ours, published) in sigmas.iter().zip([0.0, 0.19920, 0.39940, 0.59960, 0.79980, 1.0]) {
            assert!((ours - published).abs() < 5e-6, "{ours} {published}");
        }
    }

    #[test]
    fn sigmas_never_fall_and_stay_in_0_to_1() {
        let schedules = [
            Schedule::FlowMatchEuler { shift: 1.0 },
            Schedule::FlowMatchEuler { shift: 3.0 },
            Schedule::Consistency { phases: 100 },
            Schedule::Consistency { phases: 7 },
        ];
        for schedule in schedules {
            for steps in [1, 2, 3, 10, 50, 333] {
                let sigmas = schedule.sigmas(steps);
                assert_eq!(sigmas.len(), steps as usize + 1);
                assert_eq!((sigmas[0], sigmas[steps as usize]), (0.0, 1.0));
                assert!(sigmas.is_sorted(), "{schedule:?} {steps}");
            }
        }
    }

    #[test]
    fn schedules_that_cannot_be_computed_are_refused() {
        assert!(Schedule::FlowMatchEuler { shift: 0.0 }.validate().is_err());
        assert!(Schedule::FlowMatchEuler { shift: f64::NAN }.validate().is_err());
        assert!(Schedule::Consistency { phases: 0 }.validate().is_err());
        assert!(Schedule::Consistency { phases: 1001 }.validate().is_err());
    }
}
