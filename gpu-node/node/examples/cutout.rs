//! Scores the background removal on drawn and given cut-outs: `cutout [--dump DIR] [FILE…]`.
//! The subject of a FILE with an alpha channel is composed over generated backgrounds; any other FILE is cut out
//! into DIR, as are the drawn ones that fail.

#[path = "../tests/specimens/mod.rs"]
mod specimens;

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use image::{ImageFormat, RgbaImage};
use orfeas_node::pipeline::{CutOut, cut_out};
use orfeas_protocol::options::BackgroundRemoval;

fn main() -> anyhow::Result<()> {
    let mut dump: Option<PathBuf> = None;
    let mut files = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--dump" { dump = arguments.next().map(PathBuf::from) } else { files.push(argument) }
    }
    let mut cut_outs: Vec<(String, RgbaImage)> = Vec::new();
    for (index, name) in specimens::SUBJECTS.iter().enumerate() {
        cut_outs.push(((*name).to_owned(), specimens::draw(name, 640, index as u64 + 1)));
    }
    for file in files {
        let name = file.rsplit('/').next().unwrap_or("file").to_owned();
        let image = image::open(&file)?;
        if image.color().has_alpha() {
            cut_outs.push((name, image.into_rgba8()));
        } else if let Some(folder) = &dump {
            let start = Instant::now();
            let found = cut_out(&std::fs::read(&file)?, BackgroundRemoval::Auto)?;
            println!("{name}: {:.0} ms", 1000.0 * start.elapsed().as_secs_f64());
            save(found, &folder.join(format!("{name}.cut.png")))?;
        }
    }
    for (kind, threshold) in specimens::BACKGROUNDS {
        let (mut sum, mut count, mut worst) = (0.0, 0, (1.0, String::new()));
        let mut seconds = 0.0;
        for (index, (name, truth)) in cut_outs.iter().enumerate() {
            for round in 0..4_u64 {
                let picture = specimens::compose(truth, kind, 1000 * round + index as u64);
                let mut file = Cursor::new(Vec::new());
                picture.write_to(&mut file, ImageFormat::Png)?;
                let start = Instant::now();
                let found = cut_out(file.get_ref(), BackgroundRemoval::Auto);
                seconds += start.elapsed().as_secs_f64();
                let score =
                    found.as_ref().map_or(0.0, |f| specimens::intersection_over_union(&f.rgba, truth));
                sum += score;
                count += 1;
                if score < worst.0 {
                    worst = (score, format!("{name}/{round}"));
                }
                if score < threshold
                    && let Some(folder) = &dump
                {
                    let stem = format!("{kind}-{name}-{round}-{score:.3}");
                    picture.save(folder.join(format!("{stem}.png")))?;
                    if let Ok(found) = found {
                        save(found, &folder.join(format!("{stem}-mask.png")))?;
                    }
                }
            }
        }
        println!(
            "{kind}: mean IoU {:.4} over {count}, least {:.4} ({}), {:.0} ms each",
            sum / f64::from(count),
            worst.0,
            worst.1,
            1000.0 * seconds / f64::from(count)
        );
    }
    Ok(())
}

fn save(cut_out: CutOut, path: &Path) -> anyhow::Result<()> {
    let (width, height) = (cut_out.width as u32, cut_out.height as u32);
    let image = RgbaImage::from_raw(width, height, cut_out.rgba);
    image.context("the cut-out has another size than it says")?.save(path)?;
    Ok(())
}
