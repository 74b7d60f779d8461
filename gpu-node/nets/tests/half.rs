//! The networks in half types stay near the reference, which is in `f32`: within
//! 0.5 % of the greatest value in `f16`, 3 % in `bf16`, whose steps are eight times as wide.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as its assertions do")]

use orfeas_nets::weights::{self, Prefixed};
use orfeas_nets::{Error, dino, hunyuan_dit, shape_vae};
use orfeas_torch::WeightsFile;
use std::path::Path;
use tch::{Device, Kind, Tensor};

const TOLERANCES: [(Kind, f64); 2] = [(Kind::Half, 0.005), (Kind::BFloat16, 0.03)];

fn case(name: &str) -> WeightsFile {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    WeightsFile::open(&folder.join(format!("{name}.safetensors"))).unwrap()
}

fn config<T: serde::de::DeserializeOwned>(case: &WeightsFile) -> T {
    serde_json::from_str(&case.texts().unwrap()["config"]).unwrap()
}

fn load<N>(
    case: &WeightsFile,
    kind: Kind,
    build: impl FnOnce(&weights::Weights<'_>) -> N,
) -> Result<N, Error> {
    let source = Prefixed { file: case, prefix: "w." };
    weights::load(&source, "", (Device::Cpu, kind), |_| false, build)
}

fn check(what: &str, kind: Kind, ours: &Tensor, reference: &Tensor, tolerance: f64) {
    assert_eq!(ours.kind(), kind);
    let difference = (ours.to_kind(Kind::Float) - reference).abs().max().double_value(&[]);
    let relative = difference / reference.abs().max().double_value(&[]);
    println!("{what} in {kind:?}: {relative:.4}");
    assert!(relative <= tolerance, "{what} in {kind:?} is off by {relative}");
}

#[test]
fn the_denoiser_in_half_types_is_near_the_reference() {
    let case = case("dit_plain");
    for (kind, tolerance) in TOLERANCES {
        let dit = load(&case, kind, |w| hunyuan_dit::HunyuanDit::new(w, &config(&case))).unwrap();
        let input = |name| case.load(name, Device::Cpu, kind).unwrap();
        let t = case.view("in.t").unwrap();
        let out = dit.forward(&input("in.x"), &t, &input("in.context"), None);
        check("velocity", kind, &out, &case.view("out").unwrap(), tolerance);
    }
}

#[test]
fn the_shape_decoder_in_half_types_is_near_the_reference() {
    let case = case("vae");
    for (kind, tolerance) in TOLERANCES {
        let vae = load(&case, kind, |w| shape_vae::ShapeVae::new(w, &config(&case))).unwrap();
        let tokens = vae.decode(&case.load("in.latents", Device::Cpu, kind).unwrap());
        check("tokens", kind, &tokens, &case.view("mid.decoded").unwrap(), tolerance);
        let logits = vae.field(&tokens).logits(&case.view("in.queries").unwrap());
        check("logits", Kind::Float, &logits.unsqueeze(-1), &case.view("out.logits").unwrap(), tolerance);
    }
}

#[test]
fn the_picture_encoder_in_half_types_is_near_the_reference() {
    let case = case("dino_swiglu");
    for (kind, tolerance) in TOLERANCES {
        let dino = load(&case, kind, |w| dino::Dino::new(w, &config(&case))).unwrap();
        let out = dino.forward(&case.load("interp.mid.pixel_values", Device::Cpu, kind).unwrap());
        check("tokens", kind, &out, &case.view("interp.out.last_hidden_state").unwrap(), tolerance);
    }
}
