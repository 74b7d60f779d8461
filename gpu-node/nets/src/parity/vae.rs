//! Cases of the ShapeVAE: tokens, field, and every way to decode a volume.

use super::{Case, NETWORK};
use crate::Error;
use crate::shape_vae::{Config, ShapeVae, is_encoder_key};
use crate::volume::{
    self, DEFAULT_BOUND, FlashConfig, Grid, KeyChoice, Method, Request, Volume, near_surface,
};
use crate::watch::Unwatched;
use crate::weights;
use orfeas_torch::attempt;
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

/// Logits of single points and of grids.
pub(super) const LOGITS: f64 = 2e-3;
/// Logits under a choice of keys.
const FLASH: f64 = 5e-3;

#[derive(Deserialize)]
pub(super) struct Info {
    pub(super) bounds: f64,
}

#[derive(Deserialize)]
struct Flash {
    octree_resolution: i64,
    min_resolution: i64,
    mini_grid_num: i64,
    num_chunks: i64,
}

pub(super) fn run(case: &mut Case) -> Result<(), Error> {
    let config: Config = case.meta("config")?;
    config.validate()?;
    let target = (Device::Cpu, Kind::Float);
    let vae = weights::load(&case.weights(), "", target, is_encoder_key, |w| ShapeVae::new(w, &config))?;
    let bound = case.meta::<Info>("info").map_or(DEFAULT_BOUND, |info| info.bounds);

    let latents = case.tensor("in.latents")?;
    let mut mids: Vec<(String, Tensor)> = Vec::new();
    let tokens = attempt(|| {
        vae.decode_traced(&latents, &mut |name, tensor| {
            mids.push((format!("mid.{name}"), tensor.shallow_clone()));
        })
    })?;
    for (name, tensor) in &mids {
        case.compare(name, tensor, NETWORK);
    }
    case.compare("mid.decoded", &tokens, NETWORK);

    let field = attempt(|| vae.field(&tokens))?;
    if let Some(queries) = case.optional("in.queries")? {
        case.compare("mid.fourier", &attempt(|| vae.geo_decoder().features(&queries))?, NETWORK);
        case.compare("mid.query_proj", &attempt(|| field.query(&queries).0)?, NETWORK);
        case.compare("out.logits", &attempt(|| field.logits(&queries).unsqueeze(-1))?, LOGITS);
    }
    if let Some(info) = case.file.info("out.grid_logits") {
        let resolution = info.shape[1] - 1;
        let grid = Grid::new(bound, resolution, Device::Cpu);
        case.compare("mid.grid_xyz_first_300", &grid.range(0, 300.min(grid.len())), NETWORK);
        let volume = decode(&field, bound, resolution, 8000, Method::Dense)?;
        case.compare("out.grid_logits", &volume.logits.unsqueeze(0), LOGITS);
        let reference = case.tensor("out.grid_logits")?.squeeze_dim(0);
        case.compare("mid.near_surface_mask_alpha0", &attempt(|| near_surface(&reference))?, 0.0);
    }
    if case.text("flash").is_ok() {
        let flash: Flash = case.meta("flash")?;
        for (name, keys) in [("mean", KeyChoice::Mean), ("merge", KeyChoice::Merge)] {
            let tensor = format!("out.flash_{name}.grid_logits");
            if case.has(&tensor) {
                let config = FlashConfig {
                    keys,
                    min_resolution: flash.min_resolution,
                    blocks: flash.mini_grid_num,
                    mark_unqueried: true,
                };
                let method = Method::Flash(config);
                let volume = decode(&field, bound, flash.octree_resolution, flash.num_chunks, method)?;
                case.compare(&tensor, &volume.logits.unsqueeze(0), FLASH);
            }
        }
    }
    Ok(())
}

fn decode(
    field: &crate::geo_decoder::Field<'_>,
    bound: f64,
    resolution: i64,
    chunk_points: i64,
    method: Method,
) -> Result<Volume, Error> {
    let request = Request { bound, resolution, level: 0.0, chunk_points, method };
    volume::decode(field, &request, &mut Unwatched)
}
