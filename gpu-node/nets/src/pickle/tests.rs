use super::*;
use orfeas_torch::WeightsFile;
use proptest::prelude::*;
use tch::Kind;

/// Files that PyTorch 2.11 wrote: `state` and `legacy` the same dictionary in both forms, `nested` with dictionaries
/// inside, `transposed` not in one piece, `code` with an object that would run a program when it is loaded.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pickles").join(name)
}

fn converted(name: &str) -> Result<(tempfile::TempDir, WeightsFile), Error> {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out.safetensors");
    convert(&file(name), &to)?;
    let weights = WeightsFile::open(&to).unwrap();
    Ok((folder, weights))
}

fn values(weights: &WeightsFile, name: &str) -> Vec<f32> {
    Vec::try_from(weights.view(name).unwrap().to_kind(Kind::Float).view(-1)).unwrap()
}

#[test]
fn both_forms_of_a_state_dictionary_are_converted() {
    for name in ["state.pth", "legacy.pth"] {
        let (_folder, weights) = converted(name).unwrap();
        assert_eq!(weights.tensors().count(), 7, "{name}");
        let conv = weights.info("stage1.conv.weight").unwrap();
        assert_eq!((conv.shape.as_slice(), conv.kind), ([3, 2, 2].as_slice(), Ok(Kind::Float)));
        assert_eq!(values(&weights, "stage1.conv.weight"), (0..12).map(|i| i as f32).collect::<Vec<_>>());
        assert_eq!(values(&weights, "stage1.conv.bias"), [1.5, -2.0]);
        assert_eq!(values(&weights, "stage1.bn.num_batches_tracked"), [7.0]);
        assert_eq!(values(&weights, "view"), [4.0, 5.0, 6.0, 7.0], "a part of a storage");
        assert_eq!(values(&weights, "half"), [0.5, -1.0]);
        assert_eq!(values(&weights, "bf16"), [3.0]);
        assert_eq!(values(&weights, "flags"), [1.0, 0.0]);
    }
}

#[test]
fn dictionaries_inside_become_prefixes() {
    let (_folder, weights) = converted("nested.ckpt").unwrap();
    let mut names: Vec<String> = weights.tensors().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, ["model.a.weight", "vae.b"]);
}

#[test]
fn code_in_a_pickle_is_refused_by_name_and_not_run() {
    let text = converted("code.pth").map(|_| "converted").unwrap_err().to_string();
    assert!(text.contains("posix.system") && text.contains("not run"), "{text}");
    assert!(!Path::new("/tmp/orfeas-pickle-ran").exists());
}

#[test]
fn what_cannot_be_converted_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out.safetensors");
    for name in ["transposed.pth", "code.pth"] {
        assert!(matches!(convert(&file(name), &to), Err(Error::NotConvertible { .. })));
    }
    let whole = std::fs::read(file("state.pth")).unwrap();
    let cut = folder.path().join("cut.pth");
    for length in [0, 3, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&cut, &whole[..length]).unwrap();
        assert!(matches!(convert(&cut, &to), Err(Error::NotConvertible { .. })), "{length}");
    }
    std::fs::remove_file(&cut).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the bytes: an error or a file, never a panic.
    #[test]
    fn damaged_files_are_errors(
        legacy in any::<bool>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = std::fs::read(file(if legacy { "legacy.pth" } else { "state.pth" })).unwrap();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("damaged.pth");
        std::fs::write(&from, &bytes).unwrap();
        let _ = convert(&from, &folder.path().join("out.safetensors"));
    }

    /// The machine alone, on anything.
    #[test]
    fn the_machine_stops_on_any_program(program in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = machine::run(&program);
    }
}
