//! Cases of the picture encoder.

use super::{Case, NETWORK};
use crate::Error;
use crate::conditioner::{Conditioner, Config, EncoderConfig, EncoderKind, View};
use crate::dino::{self, Dino};
use crate::weights;
use orfeas_torch::attempt;
use tch::{Device, Kind, Tensor};

fn conditioner(case: &Case, kind: EncoderKind, image_size: i64) -> Result<Conditioner, Error> {
    let config: dino::Config = case.meta("config")?;
    let target = (Device::Cpu, Kind::Float);
    let dino = weights::load(&case.weights(), "", target, |_| false, |w| Dino::new(w, &config))?;
    let config = Config { kind, kwargs: EncoderConfig { config, image_size } };
    config.validate()?;
    Ok(Conditioner::with_encoder(dino, &config, Kind::Float, Device::Cpu))
}

pub(super) fn run(case: &mut Case) -> Result<(), Error> {
    let image = case.tensor("in.image")?;
    for (mode, size) in [("interp", "enc_size"), ("native", "native_size")] {
        let conditioner = conditioner(case, EncoderKind::Single, case.meta(size)?)?;
        let pixels = attempt(|| conditioner.pixels(&image))?;
        case.compare(&format!("{mode}.mid.pixel_values"), &pixels, NETWORK);
        let mut mids: Vec<(String, Tensor)> = Vec::new();
        let out = attempt(|| {
            conditioner.dino().forward_traced(&pixels, &mut |name, tensor| {
                mids.push((format!("{mode}.mid.{name}"), tensor.shallow_clone()));
            })
        })?;
        for (name, tensor) in &mids {
            case.compare(name, tensor, NETWORK);
        }
        case.compare(&format!("{mode}.out.last_hidden_state"), &out, NETWORK);
    }
    views(case)
}

/// `mv.out.views_<i>_<j>…`: the view indices are in the tensor's name.
fn views(case: &mut Case) -> Result<(), Error> {
    let names = case.file.tensors().map(|(name, _)| name).filter(|name| name.starts_with("mv.out.views_"));
    for name in names.collect::<Vec<_>>() {
        let conditioner = conditioner(case, EncoderKind::MultiView, case.meta("enc_size")?)?;
        let embedding = conditioner.view_embedding();
        case.compare("mv.mid.view_embed_row0", &embedding, NETWORK);
        let digits = name.trim_start_matches("mv.out.views_").split('_');
        let views: Vec<View> = digits.filter_map(|digit| view(digit.parse().ok()?)).collect();
        let images = case.tensor("mv.in.images")?.squeeze_dim(0);
        let out = conditioner.encode_views(&images, &views)?;
        case.compare(&name, &out, NETWORK);
    }
    Ok(())
}

fn view(index: usize) -> Option<View> {
    [View::Front, View::Left, View::Back, View::Right].get(index).copied()
}
