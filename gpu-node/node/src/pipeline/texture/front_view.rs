//! What the picture's camera sees of a mesh: how much each pixel's surface faces it.

use orfeas_geometry::Mesh;

use crate::pipeline::PipelineError;
use crate::pipeline::raster::Raster;
use crate::pipeline::stage::Tick;

/// Triangles between two looks at whether to go on: some milliseconds where each covers a few pixels.
const TRIANGLES_PER_TICK: usize = 4096;

/// The z of the unit normal where the mesh is seen from the front, zero where it is not.
///
/// `place` gives a position's pixel; the nearest surface, of greatest z, is the one that is seen.
///
/// # Errors
/// What `tick` answers.
pub(super) fn facing(
    mesh: &Mesh,
    normals: &[[f32; 3]],
    (width, height): (usize, usize),
    place: impl Fn([f32; 3]) -> [f32; 2],
    tick: &mut Tick<'_>,
) -> Result<Raster<f32>, PipelineError> {
    let mut facing = Raster::filled(width, height, 0.0_f32);
    let mut depth = Raster::filled(width, height, f32::NEG_INFINITY);
    let places: Vec<[f32; 2]> = mesh.positions().iter().map(|p| place(*p)).collect();
    for (index, triangle) in mesh.triangles().iter().enumerate() {
        if index.is_multiple_of(TRIANGLES_PER_TICK) {
            tick(index as f32 / mesh.triangles().len() as f32)?;
        }
        let [a, b, c] = triangle.map(|v| places[v as usize]);
        let z = triangle.map(|v| mesh.positions()[v as usize][2]);
        let normal_z = triangle.map(|v| normals[v as usize][2]);
        let area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
        // Rows run downwards: what is counter-clockwise in space has a negative area here.
        if area >= 0.0 {
            continue;
        }
        let range = |axis: usize, limit: usize| {
            let low = a[axis].min(b[axis]).min(c[axis]) - 0.5;
            let high = a[axis].max(b[axis]).max(c[axis]) - 0.5;
            (low.ceil().max(0.0) as usize, ((high.floor() + 1.0).max(0.0) as usize).min(limit))
        };
        let (left, right) = range(0, width);
        let (top, bottom) = range(1, height);
        for y in top..bottom {
            for x in left..right {
                let (px, py) = (x as f32 + 0.5, y as f32 + 0.5);
                let weight_b = ((px - a[0]) * (c[1] - a[1]) - (py - a[1]) * (c[0] - a[0])) / area;
                let weight_c = ((b[0] - a[0]) * (py - a[1]) - (b[1] - a[1]) * (px - a[0])) / area;
                let weight_a = 1.0 - weight_b - weight_c;
                if weight_a < 0.0 || weight_b < 0.0 || weight_c < 0.0 {
                    continue;
                }
                let mix =
                    |values: [f32; 3]| weight_a * values[0] + weight_b * values[1] + weight_c * values[2];
                let index = y * width + x;
                let here = mix(z);
                if here > depth.samples()[index] {
                    depth.samples_mut()[index] = here;
                    facing.samples_mut()[index] = mix(normal_z).clamp(0.02, 1.0);
                }
            }
        }
    }
    Ok(facing)
}
