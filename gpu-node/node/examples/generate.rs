//! Makes models of pictures and looks at them: `generate OUT_DIR FILE…` writes NAME.glb and NAME.png, a contact sheet
//! of the picture's model from eight sides.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use orfeas_geometry::import::read_glb;
use orfeas_geometry::render::{contact_sheet, turntable_views};
use orfeas_node::pipeline::{self, GenerationRequest, Inference, InferenceConfig, Settings, Unwatched};
use orfeas_protocol::options::{JobOptions, JobType};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().context("usage: generate OUT_DIR FILE…")?);
    let inference = Inference::start(InferenceConfig::default())?;
    for file in arguments {
        let image = std::fs::read(&file).with_context(|| format!("read {file}"))?.into();
        let request = GenerationRequest {
            image,
            job_type: JobType::default(),
            settings: Settings::decide(&JobOptions::default()),
        };
        let start = Instant::now();
        let name = file.rsplit('/').next().unwrap_or(&file).to_owned();
        let generated = match pipeline::generate(&inference, None, request, Box::new(Unwatched)).await.outcome
        {
            Ok(generated) => generated,
            Err(error) => {
                println!("{name}: {error}");
                continue;
            }
        };
        let stages: Vec<String> =
            generated.stage_seconds.iter().map(|(stage, s)| format!("{stage} {:.0}", 1000.0 * s)).collect();
        println!("{name}: {:.0} ms ({})", 1000.0 * start.elapsed().as_secs_f64(), stages.join(", "));
        let r = &generated.report;
        println!(
            "  {} bytes, {} faces, watertight {}, manifold {}, {} parts, genus {:?}, box {:?}",
            generated.file.len(),
            r.faces,
            r.watertight,
            r.manifold,
            r.components,
            r.genus,
            r.bounds.map(|b| b.size()),
        );
        let model = read_glb(&generated.file)?;
        std::fs::write(folder.join(format!("{name}.glb")), &generated.file)?;
        let sheet = contact_sheet(&turntable_views(&model, 8, 360)?, 4)?;
        let pixels = sheet.pixels().as_flattened();
        let path = folder.join(format!("{name}.sheet.png"));
        image::save_buffer(path, pixels, sheet.width(), sheet.height(), image::ExtendedColorType::Rgba8)?;
    }
    Ok(())
}
