//! The whole way from a picture to a volume, on the miniature checkpoint beside the case.

use super::{Case, NETWORK, picture, vae};
use crate::Error;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::picture::prepare;
use crate::sampling::{Start, sample};
use crate::volume::{self, Method, Request};
use crate::watch::Unwatched;
use orfeas_torch::attempt;
use tch::{Device, Kind, Tensor};

pub(super) fn run(case: &mut Case) -> Result<(), Error> {
    let folder = case.file.path().with_file_name("mini_checkpoint");
    let checkpoint = Checkpoint::open(&folder)?;
    let config = Config::parse(case.text("config")?)?;
    if config != checkpoint.config {
        return Err(Error::config("parity", format!("{} is of another checkpoint", case.name)));
    }
    let networks = checkpoint.load(Device::Cpu, Kind::Float)?;

    let prepared = prepare(&picture::picture(&case.tensor("in.rgba")?)?, &config.picture)?;
    case.compare("mid.image", &prepared.image, picture::SIGNED);
    // From here on with the reference's picture: a level of a pixel is more than the networks' tolerance.
    let image = case.tensor("mid.image")?;
    let context = networks.conditioner.encode(&image)?;
    let batch = attempt(|| Tensor::cat(&[&context, &context.zeros_like()], 0))?;
    case.compare("mid.cond_batch", &batch, NETWORK);

    let noise = case.tensor("in.noise")?;
    let sigmas = config.schedule.sigmas(case.meta("steps")?);
    let guidance_scale = case.meta("guidance")?;
    let start = Start { noise: &noise, context: &context, sigmas: &sigmas, guidance_scale };
    let latents = sample(&networks.denoiser, &start, &mut Unwatched)?;
    case.compare("out.latents", &latents, NETWORK);

    let tokens = attempt(|| networks.vae.decode(&latents))?;
    case.compare("mid.vae_decoded", &tokens, NETWORK);
    let field = attempt(|| networks.vae.field(&tokens))?;
    let request = Request {
        bound: case.meta("bounds")?,
        resolution: case.meta("octree")?,
        level: case.meta("mc_level")?,
        chunk_points: volume::chunk_points(&field, None),
        method: Method::Dense,
    };
    let volume = volume::decode(&field, &request, &mut Unwatched)?;
    case.compare("out.grid_logits", &volume.logits.unsqueeze(0), vae::LOGITS);
    Ok(())
}
