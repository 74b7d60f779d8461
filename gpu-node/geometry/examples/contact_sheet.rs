//! Looks at models: `contact_sheet MODEL.glb SHEET.png` draws a model from eight sides; `contact_sheet FOLDER` makes
//! specimens (a sphere, a torus, noise), as GLB files and sheets, by the way that every model takes.

use std::error::Error;
use std::f32::consts::TAU;
use std::path::Path;

use orfeas_geometry::cleanup::{CleanOptions, clean};
use orfeas_geometry::export::glb;
use orfeas_geometry::import::read_glb;
use orfeas_geometry::normals::vertex_normals;
use orfeas_geometry::render::{contact_sheet, turntable_views};
use orfeas_geometry::simplify::simplify;
use orfeas_geometry::surface::{DenseVolume, GridFrame, SurfaceOptions, extract_surface};
use orfeas_geometry::{ImageFormat, MeshReport, Model, Texture};

const SIDE: usize = 96;
const FACES: usize = 12_000;

/// Positive inside.
type Field<'a> = &'a dyn Fn([f32; 3]) -> f32;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [model, sheet] => draw(&read_glb(&std::fs::read(model)?)?, Path::new(sheet)),
        [folder] => make_specimens(Path::new(folder)),
        _ => Err("usage: contact_sheet MODEL.glb SHEET.png | contact_sheet FOLDER".into()),
    }
}

fn draw(model: &Model, sheet: &Path) -> Result<(), Box<dyn Error>> {
    let pictures = turntable_views(model, 8, 256)?;
    std::fs::write(sheet, contact_sheet(&pictures, 4)?.encode(ImageFormat::Png)?.bytes)?;
    println!("{}: {:?}", sheet.display(), MeshReport::of(&model.mesh));
    Ok(())
}

fn make_specimens(folder: &Path) -> Result<(), Box<dyn Error>> {
    let sphere = |[x, y, z]: [f32; 3]| 0.8 - x.hypot(y).hypot(z);
    let torus = |[x, y, z]: [f32; 3]| 0.25 - (x.hypot(y) - 0.6).hypot(z);
    let waves = |[x, y, z]: [f32; 3]| (7.0 * x).sin() * (6.0 * y).cos() + (5.0 * z).sin() * (8.0 * x).cos();
    let noise = |p: [f32; 3]| (0.35 * waves(p) + 0.2 * (9.0 * p[1]).sin()).min(sphere(p));
    let specimens: [(&str, Field); 3] = [("sphere", &sphere), ("torus", &torus), ("noise", &noise)];
    std::fs::create_dir_all(folder)?;
    for (name, field) in specimens {
        let model = specimen(field)?;
        std::fs::write(folder.join(format!("{name}.glb")), glb(&model)?)?;
        draw(&model, &folder.join(format!("{name}.png")))?;
    }
    Ok(())
}

/// The surface of a field over the cube from −1 to 1, painted with meridians and circles of latitude.
fn specimen(field: Field) -> Result<Model, Box<dyn Error>> {
    let place = |index: usize| 2.0 * index as f32 / (SIDE - 1) as f32 - 1.0;
    let samples: Vec<f32> = (0..SIDE.pow(3))
        .map(|i| field([place(i / SIDE / SIDE), place(i / SIDE % SIDE), place(i % SIDE)]))
        .collect();
    let frame = GridFrame::spanning([-1.0; 3], [1.0; 3], [SIDE; 3]);
    let surface = extract_surface(&DenseVolume::new([SIDE; 3], &samples)?, &SurfaceOptions::new(0.0, frame))?;
    let mesh = simplify(&clean(&surface, &CleanOptions::default()), FACES)?;
    let uvs = mesh.positions().iter().map(|&[x, y, z]| [x.atan2(z) / TAU + 0.5, 0.5 - 0.5 * y]).collect();
    let normals = vertex_normals(&mesh);
    let pixels = (0..256 * 256).map(|i| chequer(i % 256, i / 256)).collect();
    let texture = Texture::new(256, 256, pixels)?.encode(ImageFormat::Png)?;
    Ok(Model::textured(mesh.with_normals(normals)?.with_uvs(uvs)?, texture))
}

/// A chequerboard that grows red to the right and blue downward.
fn chequer(x: u32, y: u32) -> [u8; 4] {
    let green = if (x / 16 + y / 16).is_multiple_of(2) { 200 } else { 90 };
    [x as u8, green, y as u8, 255]
}
