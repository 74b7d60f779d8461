//! `models convert`: PyTorch's own weight files to safetensors, without running what is in them.

use std::path::{Path, PathBuf};

use anyhow::bail;
use orfeas_nets::pickle;

/// Converts a file; the new one stands beside it unless `output` says where.
pub(super) fn convert(file: &Path, output: Option<PathBuf>) -> anyhow::Result<()> {
    match file.extension().and_then(|ending| ending.to_str()) {
        Some("onnx") => bail!(
            "{} is an ONNX graph, which has folded the layers that its weights' names would tell: take the network's \
             .pth file",
            file.display()
        ),
        Some("safetensors") => bail!("{} is in the wanted form already", file.display()),
        _ => {}
    }
    let output = output.unwrap_or_else(|| file.with_extension("safetensors"));
    if output.exists() {
        bail!("{} is there already: move it away first", output.display());
    }
    let converted = pickle::convert(file, &output)?;
    println!("{}: {} tensors, {} bytes", converted.path.display(), converted.tensors, converted.bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_dictionary_is_converted_beside_itself_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("u2netp.pth");
        let state = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nets/tests/pickles/state.pth");
        std::fs::copy(state, &file).unwrap();
        convert(&file, None).unwrap();
        assert!(folder.path().join("u2netp.safetensors").is_file());
        assert!(convert(&file, None).unwrap_err().to_string().contains("there already"));
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        for (name, reason) in [("a.onnx", "ONNX"), ("a.safetensors", "already"), ("a.pth", "cannot convert")]
        {
            let error = convert(Path::new(name), None).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
