//! Cases of the background remover.

use super::{Case, NETWORK};
use crate::Error;
use crate::u2net::{Config, U2Net};
use crate::weights::{self, TensorSource};
use orfeas_torch::attempt;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

pub(super) fn run(case: &mut Case) -> Result<(), Error> {
    let holder = weights_holder(case)?;
    let source = holder.as_ref().unwrap_or(case);
    let config = if case.name.starts_with("u2netp") { Config::small() } else { Config::full() };
    let target = (Device::Cpu, Kind::Float);
    let net = weights::load(&source.weights(), "", target, |_| false, |w| U2Net::new(w, &config))?;
    let x = case.tensor("in.x")?;
    let mut maps: Vec<(String, Tensor)> = Vec::new();
    let _ = attempt(|| {
        net.forward_traced(&x, &mut |name, tensor| maps.push((name.to_string(), tensor.shallow_clone())))
    })?;
    for (name, tensor) in maps {
        let mid = format!("mid.{name}");
        // The files keep only the first channels of a stage.
        if let Some(info) = case.file.info(&mid) {
            case.compare(&mid, &tensor.narrow(1, 0, info.shape[1]), NETWORK);
        }
        case.compare(&format!("out.{name}"), &tensor, NETWORK);
    }
    Ok(())
}

/// The file that a case without weights names, here or in a neighbouring folder.
fn weights_holder(case: &Case) -> Result<Option<Case>, Error> {
    if !case.weights().keys().is_empty() {
        return Ok(None);
    }
    let named = PathBuf::from(case.text("weights")?);
    let here = case.file.path().parent().unwrap_or(Path::new("."));
    let above = here.parent().unwrap_or(here);
    let mut folders = vec![here.to_owned()];
    folders
        .extend(std::fs::read_dir(above).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())));
    let name = named.file_name().unwrap_or(named.as_os_str());
    let candidates = [here.join(&named), above.join(&named)];
    for path in candidates.into_iter().chain(folders.iter().map(|folder| folder.join(name))) {
        if let Ok(holder) = Case::open(&path)
            && !holder.weights().keys().is_empty()
        {
            return Ok(Some(holder));
        }
    }
    Err(Error::config("parity", format!("the weights of {} are not found: {}", case.name, named.display())))
}
