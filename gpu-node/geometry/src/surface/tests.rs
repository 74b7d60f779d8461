use proptest::prelude::*;

use super::*;
use crate::report::MeshReport;
use crate::watch::tests::stops_at_each_look;

const UNIT: GridFrame = GridFrame { origin: [0.0; 3], cell_size: [1.0; 3] };

fn sample(dims: [usize; 3], field: impl Fn([f32; 3]) -> f32) -> Vec<f32> {
    let mut samples = Vec::with_capacity(dims.iter().product());
    for x in 0..dims[0] {
        for y in 0..dims[1] {
            for z in 0..dims[2] {
                samples.push(field([x as f32, y as f32, z as f32]));
            }
        }
    }
    samples
}

fn extract(dims: [usize; 3], samples: &[f32]) -> Mesh {
    extract_surface(&DenseVolume::new(dims, samples).unwrap(), &SurfaceOptions::new(0.0, UNIT)).unwrap()
}

fn sphere(samples: usize, radius: f32) -> Mesh {
    let middle = (samples - 1) as f32 / 2.0;
    let field = |p: [f32; 3]| radius - p.map(|c| (c - middle).powi(2)).iter().sum::<f32>().sqrt();
    extract([samples; 3], &sample([samples; 3], field))
}

#[test]
fn sphere_has_the_volume_and_the_area_of_a_sphere() {
    let report = MeshReport::of(&sphere(64, 25.0));
    let (volume, area) =
        (4.0 / 3.0 * std::f64::consts::PI * 25f64.powi(3), 4.0 * std::f64::consts::PI * 625.0);
    assert!(report.watertight && report.manifold && report.genus == Some(0), "{report:?}");
    assert!((report.volume / volume - 1.0).abs() < 2e-3, "{} for {volume}", report.volume);
    assert!((report.area / area - 1.0).abs() < 2e-3, "{} for {area}", report.area);
}

#[test]
fn torus_has_one_handle() {
    let field = |[x, y, z]: [f32; 3]| {
        let from_ring = (x - 15.5).hypot(y - 15.5) - 9.0;
        4.0 - from_ring.hypot(z - 7.5)
    };
    let report = MeshReport::of(&extract([32, 32, 16], &sample([32, 32, 16], field)));
    assert!(report.watertight && report.manifold, "{report:?}");
    assert_eq!((report.genus, report.components), (Some(1), 1));
}

#[test]
fn vertices_lie_where_linear_interpolation_passes_through_the_level() {
    let samples = sample([3; 3], |p| if p == [1.0; 3] { 3.0 } else { -1.0 });
    let mesh = extract([3; 3], &samples);
    let mut positions = mesh.positions().to_vec();
    positions.sort_by(|a, b| a.partial_cmp(b).unwrap());
    let expected = [
        [0.25, 1.0, 1.0],
        [1.0, 0.25, 1.0],
        [1.0, 1.0, 0.25],
        [1.0, 1.0, 1.75],
        [1.0, 1.75, 1.0],
        [1.75, 1.0, 1.0],
    ];
    assert_eq!(positions, expected);
    assert!(mesh.signed_volume() > 0.0);
}

#[test]
fn frame_places_the_samples() {
    let samples = sample([3; 3], |p| if p == [1.0; 3] { 1.0 } else { -1.0 });
    let frame = GridFrame::spanning([-1.0, -2.0, -4.0], [1.0, 2.0, 4.0], [3; 3]);
    let volume = DenseVolume::new([3; 3], &samples).unwrap();
    let mesh = extract_surface(&volume, &SurfaceOptions::new(0.0, frame)).unwrap();
    let bounds = mesh.bounds().unwrap();
    assert_eq!((bounds.min, bounds.max), ([-0.5, -1.0, -2.0], [0.5, 1.0, 2.0]));
}

#[test]
fn volume_without_a_crossing_gives_an_empty_mesh() {
    assert!(extract([4; 3], &[1.0; 64]).is_empty());
    assert!(extract([4; 3], &[0.0; 64]).is_empty());
}

#[test]
fn full_volume_closes_half_a_cell_outside_its_border() {
    let samples = [1.0; 64];
    let volume = DenseVolume::new([4; 3], &samples).unwrap();
    let mesh = extract_closed_surface(&volume, &SurfaceOptions::new(0.0, UNIT)).unwrap();
    let (report, bounds) = (MeshReport::of(&mesh), mesh.bounds().unwrap());
    assert!(report.watertight && report.manifold && report.genus == Some(0), "{report:?}");
    assert_eq!((bounds.min, bounds.max), ([-0.5; 3], [3.5; 3]));
}

#[test]
fn volume_of_a_single_layer_is_refused() {
    let volume = DenseVolume::new([4, 1, 4], &[0.0; 16]).unwrap();
    let refused = extract_surface(&volume, &SurfaceOptions::new(0.0, UNIT));
    assert_eq!(refused, Err(SurfaceError::NoCells([4, 1, 4])));
}

#[test]
fn wrong_number_of_samples_is_refused() {
    let refused = DenseVolume::new([4, 4, 4], &[0.0; 63]).map(|_| ());
    assert_eq!(refused, Err(SurfaceError::SampleCount { found: 63, dims: [4, 4, 4] }));
}

/// Rows longer than a word of the bit sets, so that carries between words count.
#[test]
fn long_rows_are_closed_too() {
    for length in [63, 64, 65, 66, 128, 130] {
        let dims = [4, 4, length];
        let field = |[x, y, z]: [f32; 3]| {
            let border = [x, y].iter().any(|&c| c == 0.0 || c == 3.0) || z == 0.0 || z as usize == length - 1;
            if border { -1.0 } else { (z * 0.7).sin() + 0.3 * (x - y) }
        };
        let report = MeshReport::of(&extract(dims, &sample(dims, field)));
        assert!(report.watertight && report.manifold && report.volume > 0.0, "{length}: {report:?}");
    }
}

/// Parts of the inside (6-connected at least) and handles of noise are not known, but the parity of the Euler number
/// and the sign of the volume are, and nothing may be open, folded or degenerate.
fn check_closed(dims: [usize; 3], samples: &[f32]) -> Result<(), TestCaseError> {
    let volume = DenseVolume::new(dims, samples).unwrap();
    let mesh = extract_closed_surface(&volume, &SurfaceOptions::new(0.0, UNIT)).unwrap();
    let report = MeshReport::of(&mesh);
    prop_assert_eq!(report.degenerate_faces, 0);
    if mesh.is_empty() {
        prop_assert!(!samples.iter().any(|&sample| sample > 0.0));
        return Ok(());
    }
    prop_assert!(report.watertight && report.manifold, "{:?}", report);
    prop_assert!(report.volume > 0.0, "{:?}", report);
    prop_assert_eq!(report.euler_characteristic % 2, 0);
    prop_assert!(report.genus >= Some(0), "{:?}", report);
    Ok(())
}

fn volumes(sample: impl Strategy<Value = f32> + Clone) -> impl Strategy<Value = ([usize; 3], Vec<f32>)> {
    let dims = (2..7usize, 2..7usize, 2..7usize).prop_map(|(x, y, z)| [x, y, z]);
    dims.prop_flat_map(move |dims| {
        let count = dims.iter().product::<usize>();
        (Just(dims), proptest::collection::vec(sample.clone(), count))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn noise_gives_a_closed_manifold((dims, samples) in volumes(-1.0f32..1.0)) {
        check_closed(dims, &samples)?;
    }

    #[test]
    fn samples_equal_to_the_level_give_a_closed_manifold(
        (dims, samples) in volumes(prop_oneof![Just(-1.0f32), Just(0.0), Just(1.0), Just(-0.0), Just(1e-20)])
    ) {
        check_closed(dims, &samples)?;
    }

    #[test]
    fn samples_that_are_no_numbers_give_a_closed_manifold(
        (dims, samples) in volumes(prop_oneof![
            -1.0f32..1.0,
            Just(f32::NAN),
            Just(f32::NEG_INFINITY),
            Just(-f32::MAX),
        ])
    ) {
        check_closed(dims, &samples)?;
    }
}

#[test]
fn extraction_stops_at_each_slice() {
    let samples = sample([12, 7, 9], |[x, y, z]| 3.0 - (x - 5.0).abs() - (y - 3.0).abs() - (z - 4.0).abs());
    let volume = DenseVolume::new([12, 7, 9], &samples).unwrap();
    stops_at_each_look(12, |watch| {
        extract_closed_surface_watched(&volume, &SurfaceOptions::new(0.0, UNIT), watch)
    });
}
