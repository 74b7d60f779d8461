//! Cases of the denoisers.

use super::Case;
use crate::Error;
use crate::dit21::{self, Dit21};
use crate::hunyuan_dit::{Config, HunyuanDit};
use crate::weights;
use orfeas_torch::attempt;
use tch::{Device, Kind, Tensor};

/// The network that a case holds.
pub(super) fn network(case: &Case) -> Result<HunyuanDit, Error> {
    let config: Config = case.meta("config")?;
    config.validate()?;
    let target = (Device::Cpu, Kind::Float);
    weights::load(&case.weights(), "", target, |_| false, |w| HunyuanDit::new(w, &config))
}

/// One evaluation, with every intermediate tensor.
pub(super) fn forward(case: &mut Case) -> Result<(), Error> {
    let dit = network(case)?;
    let (x, t, context) = (case.tensor("in.x")?, case.tensor("in.t")?, case.tensor("in.context")?);
    let guidance = case.optional("in.guidance")?;
    let mut mids: Vec<(String, Tensor)> = Vec::new();
    let out = attempt(|| {
        dit.forward_traced(&x, &t, &context, guidance.as_ref(), &mut |name, tensor| {
            mids.push((format!("mid.{name}"), tensor.shallow_clone()));
        })
    })?;
    case.compare_traced(&mids, &out);
    Ok(())
}

/// One evaluation of the 2.1 denoiser.
pub(super) fn forward_21(case: &mut Case) -> Result<(), Error> {
    let config: dit21::Config = case.meta("config")?;
    config.validate()?;
    let target = (Device::Cpu, Kind::Float);
    let dit = weights::load(&case.weights(), "", target, |_| false, |w| Dit21::new(w, &config))?;
    let (x, t, context) = (case.tensor("in.x")?, case.tensor("in.t")?, case.tensor("in.context")?);
    let mut mids: Vec<(String, Tensor)> = Vec::new();
    let out = attempt(|| {
        dit.forward_traced(&x, &t, &context, &mut |name, tensor| {
            mids.push((format!("mid.{name}"), tensor.shallow_clone()));
        })
    })?;
    case.compare_traced(&mids, &out);
    Ok(())
}
