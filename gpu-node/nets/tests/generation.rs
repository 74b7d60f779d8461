//! The networks of the miniature checkpoint together: batches, seeds, views, offloading, and what goes wrong.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as its assertions do")]

use orfeas_nets::Error;
use orfeas_nets::checkpoint::Checkpoint;
use orfeas_nets::conditioner::View;
use orfeas_nets::residence::{Residence, ResidentNetworks};
use orfeas_nets::sampling::{Start, batch_noise, noise, sample};
use orfeas_nets::volume::{self, Method, Request};
use orfeas_nets::watch::{Unwatched, Watch};
use std::ops::ControlFlow;
use std::path::Path;
use tch::{Device, Kind, Tensor};

const RESOLUTION: i64 = 32;

fn networks(residence: Residence) -> ResidentNetworks {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/mini_checkpoint");
    ResidentNetworks::load(Checkpoint::open(&folder).unwrap(), Device::Cpu, Kind::Float, residence).unwrap()
}

/// Pictures of slanting stripes, each of its own width: `[B, 3, s, s]`.
fn pictures(count: i64) -> Tensor {
    let each = (1..=count).map(|i| (Tensor::arange(3 * 64 * 64, (Kind::Float, Device::Cpu)) * i).sin());
    Tensor::stack(&each.collect::<Vec<_>>(), 0).view([count, 3, 64, 64])
}

fn latents(networks: &mut ResidentNetworks, images: &Tensor, seeds: &[u64]) -> Result<Tensor, Error> {
    let config = networks.checkpoint().config.clone();
    let context = networks.conditioner()?.encode(images)?;
    let noise = batch_noise(seeds, &[config.vae.num_latents, config.vae.embed_dim])?;
    let sigmas = config.schedule.sigmas(4);
    let start = Start { noise: &noise, context: &context, sigmas: &sigmas, guidance_scale: 5.0 };
    sample(networks.denoiser()?, &start, &mut Unwatched)
}

fn decode(
    networks: &mut ResidentNetworks,
    latents: &Tensor,
    method: Method,
    watch: &mut dyn Watch,
) -> Result<volume::Volume, Error> {
    let _no_grad = tch::no_grad_guard();
    let vae = networks.vae()?;
    let field = vae.field(&vae.decode(latents));
    let request = Request { bound: 1.01, resolution: RESOLUTION, level: 0.0, chunk_points: 1000, method };
    volume::decode(&field, &request, watch)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.contiguous().view(-1)).unwrap()
}

#[test]
fn a_batch_gives_each_picture_what_it_gives_alone() {
    let mut networks = networks(Residence::Together);
    let images = pictures(3);
    let together = latents(&mut networks, &images, &[5, 6, 7]).unwrap();
    for (i, seed) in [5, 6, 7].into_iter().enumerate() {
        let alone = latents(&mut networks, &images.narrow(0, i as i64, 1), &[seed]).unwrap();
        let difference = (together.get(i as i64) - alone.get(0)).abs().max().double_value(&[]);
        assert!(difference < 1e-4, "picture {i} differs by {difference}");
    }
}

#[test]
fn a_seed_gives_the_same_field_again_and_another_seed_another() {
    let mut networks = networks(Residence::Together);
    let images = pictures(1);
    let mut field = |seed| {
        let latents = latents(&mut networks, &images, &[seed]).unwrap();
        values(&decode(&mut networks, &latents, Method::Dense, &mut Unwatched).unwrap().logits)
    };
    assert_eq!(field(3), field(3));
    assert_ne!(field(3), field(4));
}

#[test]
fn networks_in_turn_give_what_they_give_together() {
    let images = pictures(1);
    let field = |residence| {
        let mut networks = networks(residence);
        let latents = latents(&mut networks, &images, &[1]).unwrap();
        values(&decode(&mut networks, &latents, Method::Dense, &mut Unwatched).unwrap().logits)
    };
    assert_eq!(field(Residence::InTurn), field(Residence::Together));
}

#[test]
fn each_view_of_a_subject_counts_and_knows_its_side() {
    let mut networks = networks(Residence::Together);
    let conditioner = networks.conditioner().unwrap();
    let images = pictures(2);
    let context = |images: &Tensor, views: &[View]| conditioner.encode_views(images, views).unwrap();
    let both = context(&images, &[View::Front, View::Back]);
    assert_eq!(both.size()[1], 2 * context(&images.narrow(0, 0, 1), &[View::Front]).size()[1]);
    assert_ne!(values(&both), values(&context(&images, &[View::Front, View::Left])));
    assert!(conditioner.encode_views(&images, &[View::Front]).is_err(), "two pictures, one view");
}

#[test]
fn cancelling_stops_within_one_chunk_of_each_method() {
    let mut networks = networks(Residence::Together);
    let latents = noise(1, &[1, 16, 8]).unwrap();
    let flash = volume::FlashConfig { min_resolution: 15, ..volume::FlashConfig::default() };
    for method in [Method::Dense, Method::Hierarchical { min_resolution: 16 }, Method::Flash(flash)] {
        let mut ticks = 0;
        let mut watch = |_: usize, _: usize| {
            ticks += 1;
            if ticks == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let outcome = decode(&mut networks, &latents, method.clone(), &mut watch);
        assert!(matches!(outcome, Err(Error::Cancelled)), "{method:?}");
        assert_eq!(ticks, 3, "{method:?} went on");
    }
}

#[test]
fn latents_that_are_not_numbers_give_a_typed_error_and_leave_the_networks_usable() {
    let mut networks = networks(Residence::Together);
    let broken = Tensor::full([1, 16, 8], f64::NAN, (Kind::Float, Device::Cpu));
    for method in [Method::Dense, Method::Hierarchical { min_resolution: 16 }] {
        let outcome = decode(&mut networks, &broken, method, &mut Unwatched);
        assert!(matches!(outcome, Err(Error::NonFinite { .. })));
    }
    let infinite = pictures(1) / 0.0;
    assert!(matches!(networks.conditioner().unwrap().encode(&infinite), Err(Error::NonFinite { .. })));
    let latents = latents(&mut networks, &pictures(1), &[1]).unwrap();
    assert!(decode(&mut networks, &latents, Method::Dense, &mut Unwatched).is_ok());
}
