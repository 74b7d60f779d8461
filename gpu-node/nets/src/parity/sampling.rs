//! Cases of the schedules and of whole denoising runs.

use super::{Case, dit};
use crate::Error;
use crate::sampling::{Start, sample_traced};
use crate::schedule::{Schedule, timestep};
use crate::watch::Unwatched;
use tch::Tensor;

/// σ in `f32`.
const SIGMA: f64 = 1e-6;

/// `flow.shift<s>.n<steps>.*` and `consistency.pcm<phases>.n<steps>.*`.
pub(super) fn schedules(case: &mut Case) -> Result<(), Error> {
    let names: Vec<String> = case.file.tensors().map(|(name, _)| name).collect();
    for name in names {
        let Some((schedule, steps)) = schedule_named(&name) else { continue };
        let sigmas = schedule.sigmas(steps);
        if name.ends_with(".sigmas") {
            case.compare(&name, &Tensor::from_slice(&sigmas), SIGMA);
        } else {
            let times: Vec<f32> = sigmas[..steps as usize].iter().map(|&sigma| timestep(sigma)).collect();
            case.compare(&name, &Tensor::from_slice(&times), 1000.0 * SIGMA);
        }
    }
    Ok(())
}

fn schedule_named(name: &str) -> Option<(Schedule, u32)> {
    let mut parts = name.split('.');
    let (family, parameter, steps) = (parts.next()?, parts.next()?, parts.next()?);
    let schedule = match family {
        "flow" => Schedule::FlowMatchEuler { shift: parameter.strip_prefix("shift")?.parse().ok()? },
        "consistency" => Schedule::Consistency { phases: parameter.strip_prefix("pcm")?.parse().ok()? },
        _ => return None,
    };
    Some((schedule, steps.strip_prefix('n')?.parse().ok()?))
}

/// A whole run on the weights of another case.
pub(super) fn denoise(case: &mut Case) -> Result<(), Error> {
    let network = dit::network(&case.sibling(case.text("weights")?)?)?;
    let (noise, context) = (case.tensor("in.noise")?, case.tensor("in.context")?);
    let timesteps = Vec::<f32>::try_from(case.tensor("in.timesteps")?).unwrap_or_default();
    let sigmas: Vec<f32> = timesteps.iter().map(|t| t / 1000.0).chain([1.0]).collect();
    let start = Start {
        noise: &noise,
        context: &context,
        sigmas: &sigmas,
        guidance_scale: case.meta("guidance_scale")?,
    };
    let mut mids = Vec::new();
    let latents = sample_traced(&network, &start, &mut Unwatched, &mut |i, velocity, latents| {
        mids.push((format!("mid.velocity{i}"), velocity.shallow_clone()));
        mids.push((format!("mid.latents{i}"), latents.shallow_clone()));
    })?;
    case.compare_traced(&mids, &latents);
    Ok(())
}
