//! `cargo bench -p orfeas-geometry`: one line of JSON for each case, as `cargo xtask bench` reads them.

use std::hint::black_box;
use std::time::Instant;

use orfeas_geometry::Mesh;
use orfeas_geometry::cleanup::{CleanOptions, clean};
use orfeas_geometry::normals::vertex_normals;
use orfeas_geometry::simplify::simplify;
use orfeas_geometry::surface::{DenseVolume, GridFrame, SurfaceOptions, extract_surface};

const RUNS: usize = 15;

fn main() {
    for side in [128, 256] {
        let samples = bumpy_ball(side);
        measure(&format!("surface_{side}"), || extract(&samples, side));
    }
    let noise = noise(64);
    measure("surface_noise_64", || extract(&noise, 64));
    let fine = extract(&bumpy_ball(256), 256);
    let mesh = simplify(&fine, 200_000).unwrap_or_default();
    measure("simplify_200k_to_50k", || simplify(&mesh, 50_000));
    measure("clean_200k", || clean(&mesh, &CleanOptions::default()));
    measure("vertex_normals_200k", || vertex_normals(&mesh));
}

fn extract(samples: &[f32], side: usize) -> Mesh {
    let frame = GridFrame::spanning([-1.0; 3], [1.0; 3], [side; 3]);
    let volume = DenseVolume::new([side; 3], samples);
    volume.and_then(|volume| extract_surface(&volume, &SurfaceOptions::new(0.0, frame))).unwrap_or_default()
}

/// A ball with waves on it, well within a volume of `side` samples along each axis.
fn bumpy_ball(side: usize) -> Vec<f32> {
    let place = |index: usize| 2.0 * index as f32 / (side - 1) as f32 - 1.0;
    let field = |x: f32, y: f32, z: f32| {
        0.75 + 0.06 * (9.0 * x).sin() * (7.0 * y).cos() * (8.0 * z).sin() - x.hypot(y).hypot(z)
    };
    let rows = (0..side * side).map(|row| (place(row / side), place(row % side)));
    rows.flat_map(|(x, y)| (0..side).map(move |z| field(x, y, place(z)))).collect()
}

/// The worst case: the surface passes through every cell.
fn noise(side: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..side * side * side).map(|_| next()).collect()
}

fn measure<T>(name: &str, mut run: impl FnMut() -> T) {
    black_box(run());
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            black_box(run());
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let rank = |quantile: f64| times[((quantile * RUNS as f64).ceil() as usize).clamp(1, RUNS) - 1];
    println!(
        r#"{{"bench": "{name}", "n": {RUNS}, "p50_ms": {:.3}, "p99_ms": {:.3}}}"#,
        rank(0.50),
        rank(0.99)
    );
}
