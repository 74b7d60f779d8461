use super::*;
use orfeas_torch::WeightsFile;

use crate::volume::CPU_CHUNK_POINTS;

const OPTIONS: Options =
    Options { reps: 2, device: Device::Cpu, kind: Kind::Float, chunk_points: CPU_CHUNK_POINTS };

/// A reference case, as a dump of this module's form.
fn dump(
    case: &str,
    rename: impl Fn(&str) -> Option<&'static str>,
    more: &[(&str, Tensor)],
) -> tempfile::TempDir {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let file = WeightsFile::open(&golden.join(format!("{case}.safetensors"))).unwrap();
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    for (name, _) in file.tensors() {
        let renamed =
            if name.starts_with("w.") { Some(name.clone()) } else { rename(&name).map(str::to_owned) };
        tensors.extend(renamed.map(|renamed| (renamed, file.view(&name).unwrap())));
    }
    tensors.extend(more.iter().map(|(name, tensor)| (name.to_string(), tensor.shallow_clone())));
    let folder = tempfile::tempdir().unwrap();
    Tensor::write_safetensors(&tensors, folder.path().join("dump.safetensors")).unwrap();
    folder
}

#[test]
fn a_volume_dump_is_timed_and_found_right() {
    let folder = dump(
        "vae",
        |name| match name {
            "mid.unscaled" => Some("in.z"),
            "in.queries" => Some("in.queries"),
            "mid.decoded" => Some("mid.decoded"),
            "out.logits" => Some("out.logits"),
            "out.grid_logits" => Some("out.grid"),
            _ => None,
        },
        &[],
    );
    let report = volume(&folder.path().join("dump.safetensors"), &OPTIONS).unwrap();
    assert!(report.max_abs_error < 1e-3, "{report:?}");
    assert!(report.min_seconds > 0.0 && report.min_seconds <= report.median_seconds);
}

#[test]
fn a_dit_dump_is_timed_and_a_wrong_result_shows() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let case = WeightsFile::open(&golden.join("denoise_cfg5.safetensors")).unwrap();
    let (x, context) = (case.view("mid.latents0").unwrap(), case.view("in.context").unwrap());
    let velocity = case.view("mid.velocity1").unwrap();
    let inputs = |step: Tensor| {
        [("in.x", x.shallow_clone()), ("in.context", context.shallow_clone()), ("out.step", step)]
    };
    // The reference run's second step starts at σ = 0.25 with the same guidance.
    let right = dump("dit_plain", |_| None, &inputs(&x + &velocity * STEP));
    let report = dit(&right.path().join("dump.safetensors"), &OPTIONS).unwrap();
    assert!(report.max_abs_error < 1e-5, "{report:?}");
    let wrong = dump("dit_plain", |_| None, &inputs(&x + &velocity));
    let report = dit(&wrong.path().join("dump.safetensors"), &OPTIONS).unwrap();
    assert!(report.max_abs_error > 0.1, "{report:?}");
}
