//! `parity`: the networks and the surface against reference results.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use orfeas_geometry::surface::{DenseVolume, GridFrame, SurfaceOptions, extract_surface};
use orfeas_nets::parity::{self, Row, SurfaceCase};

#[derive(Debug, Args)]
pub(super) struct Parity {
    /// A folder of reference cases: safetensors files with weights, inputs and results
    folder: PathBuf,
    /// CPU threads of the tensor library
    #[arg(long, default_value_t = 1)]
    threads: i32,
}

impl Parity {
    pub(super) fn run(self) -> anyhow::Result<()> {
        tch::set_num_threads(self.threads);
        let rows = rows(&self.folder).with_context(|| format!("cannot run {}", self.folder.display()))?;
        for row in &rows {
            println!("{row}");
        }
        let bad = rows.iter().filter(|row| !row.ok()).count();
        if rows.is_empty() {
            bail!("no case was found in {}", self.folder.display());
        }
        if bad > 0 {
            bail!("{bad} of {} tensors are not as the reference has them", rows.len());
        }
        println!("all {} tensors are as the reference has them", rows.len());
        Ok(())
    }
}

fn rows(folder: &Path) -> anyhow::Result<Vec<Row>> {
    let mut rows = parity::run(folder)?;
    for case in parity::surfaces(folder)? {
        let positions = surface(&case).with_context(|| format!("cannot extract {}", case.name))?;
        rows.push(case.compare(&positions));
    }
    Ok(rows)
}

/// The vertices in the reference's frame, which divides by one cell too many.
fn surface(case: &SurfaceCase) -> anyhow::Result<Vec<[f32; 3]>> {
    let cell = (2.0 * case.bound / case.samples_per_side as f64) as f32;
    let frame = GridFrame { origin: [-case.bound as f32; 3], cell_size: [cell; 3] };
    let volume = DenseVolume::new([case.samples_per_side; 3], &case.samples)?;
    let options = SurfaceOptions { iso: case.level, frame, edge_margin: 0.0 };
    Ok(extract_surface(&volume, &options)?.positions().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surfaces_have_the_references_vertices() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nets/tests/golden");
        let cases = parity::surfaces(&folder).unwrap();
        assert!(cases.len() >= 3, "{} surfaces", cases.len());
        for case in cases {
            let row = case.compare(&surface(&case).unwrap());
            assert!(row.ok(), "{row}");
        }
    }
}
