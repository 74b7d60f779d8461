use super::mask::{corners, crossed_cells};
use super::*;
use crate::watch::Unwatched;
use proptest::prelude::*;
use std::ops::ControlFlow;

/// A field given by a formula of `[1, P, 3]`.
struct Formula<F>(F);

impl<F: Fn(&Tensor) -> Tensor> ScalarField for Formula<F> {
    fn device(&self) -> Device {
        Device::Cpu
    }

    fn values(&self, points: &Tensor) -> Tensor {
        self.0(points)
    }
}

fn distance(points: &Tensor, centre: [f64; 3]) -> Tensor {
    let centre = Tensor::from_slice(&centre).to_kind(Kind::Float);
    (points - centre).square().sum_dim_intlist([-1].as_slice(), false, None).sqrt()
}

fn sphere(points: &Tensor, centre: [f64; 3], radius: f64) -> Tensor {
    radius - distance(points, centre)
}

fn request(resolution: i64) -> Request {
    Request { bound: 1.01, resolution, level: 0.0, chunk_points: 5000, method: Method::Dense }
}

fn hierarchical(field: &dyn ScalarField, resolution: i64, min_resolution: i64) -> Volume {
    hierarchical::decode(field, &request(resolution), min_resolution, &mut Unwatched).unwrap()
}

fn dense(field: &dyn ScalarField, resolution: i64) -> Volume {
    dense::decode(field, &request(resolution), &mut Unwatched).unwrap()
}

fn crossed(volume: &Volume) -> Tensor {
    crossed_cells(&volume.logits.gt(0.0))
}

fn count(mask: &Tensor) -> i64 {
    mask.to_kind(Kind::Int64).sum(None).int64_value(&[])
}

/// Cells that the surface crosses in one volume and not in the other.
fn surface_differs(a: &Volume, b: &Volume) -> i64 {
    count(&crossed(a).logical_xor(&crossed(b)))
}

/// Greatest difference at the corners of the crossed cells, where the surface gets its vertices from.
fn corner_error(ours: &Volume, reference: &Volume) -> f64 {
    let corners = corners(&crossed(ours));
    (&ours.logits - &reference.logits).abs().masked_fill(&corners.logical_not(), 0.0).max().double_value(&[])
}

#[test]
fn the_surface_is_the_dense_one_at_a_fraction_of_the_points() {
    let field =
        Formula(|p: &Tensor| sphere(p, [0.3, 0.1, -0.2], 0.5).maximum(&sphere(p, [-0.5, -0.4, 0.4], 0.25)));
    let (ours, reference) = (hierarchical(&field, 128, 32), dense(&field, 128));
    assert_eq!(ours.resolution(), 128);
    assert_eq!(surface_differs(&ours, &reference), 0);
    assert_eq!(corner_error(&ours, &reference), 0.0);
    assert!(ours.evaluated_points * 10 < reference.evaluated_points, "{}", ours.evaluated_points);
}

#[test]
fn a_sheet_thinner_than_the_coarse_cells_is_followed_from_where_it_is_attached() {
    let sheet = |p: &Tensor| {
        // 0.02 thick, where a coarse cell is 0.126.
        let slab: Tensor = 0.01 - (p.select(2, 2) - 0.313).abs();
        slab.minimum(&sphere(p, [0.0, 0.0, 0.313], 0.8))
    };
    let field = Formula(move |p: &Tensor| sheet(p).maximum(&sphere(p, [0.0, 0.0, 0.3], 0.2)) * 10.0);
    let (ours, reference) = (hierarchical(&field, 128, 16), dense(&field, 128));
    assert!(count(&crossed(&dense(&field, 16))) < 200, "the coarse grid must not show the sheet");
    assert_eq!(surface_differs(&ours, &reference), 0);
    assert_eq!(corner_error(&ours, &reference), 0.0);
}

#[test]
fn a_ball_that_falls_between_the_coarse_points_is_found_by_the_slope() {
    // The centre of a coarse cell; the radius keeps all its corners outside.
    let centre = 1.01 / 16.0;
    let field = Formula(move |p: &Tensor| sphere(p, [centre; 3], 0.1));
    assert_eq!(count(&dense(&field, 16).logits.gt(0.0)), 0);
    let (ours, reference) = (hierarchical(&field, 64, 16), dense(&field, 64));
    assert!(count(&crossed(&reference)) > 0);
    assert_eq!(surface_differs(&ours, &reference), 0);
}

#[test]
fn a_level_other_than_zero_moves_the_surface() {
    let field = Formula(|p: &Tensor| sphere(p, [0.0; 3], 0.5));
    let request = Request { level: 0.2, ..request(64) };
    let volume = hierarchical::decode(&field, &request, 16, &mut Unwatched).unwrap();
    let reference = dense(&field, 64);
    let inside = |volume: &Volume| volume.logits.gt(0.2);
    assert_eq!(count(&inside(&volume).logical_xor(&inside(&reference))), 0);
}

#[test]
fn odd_resolutions_are_rounded_up_to_what_can_be_halved() {
    let field = Formula(|p: &Tensor| sphere(p, [0.0; 3], 0.5));
    for (asked, given) in [(16, 16), (31, 31), (32, 32), (33, 34), (65, 68), (100, 100)] {
        assert_eq!(hierarchical(&field, asked, 16).resolution(), given);
    }
}

#[test]
fn cancelling_stops_within_a_chunk_and_progress_never_falls() {
    let field = Formula(|p: &Tensor| sphere(p, [0.0; 3], 0.5));
    let request = Request { chunk_points: 500, ..request(64) };
    let mut seen = Vec::new();
    let mut watch = |done: usize, total: usize| {
        seen.push((done, total));
        ControlFlow::Continue(())
    };
    hierarchical::decode(&field, &request, 16, &mut watch).unwrap();
    assert!(seen.is_sorted() && seen.len() > 10);
    assert_eq!(seen.first().map(|part| part.0), Some(0));
    assert!(seen.last().is_some_and(|&(done, total)| done == total));
    for stop in [0, 1, seen.len() / 2] {
        let mut ticks = 0;
        let mut watch = |_: usize, _: usize| {
            ticks += 1;
            if ticks > stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let outcome = hierarchical::decode(&field, &request, 16, &mut watch);
        assert!(matches!(outcome, Err(Error::Cancelled)));
        assert_eq!(ticks, stop + 1);
    }
}

#[test]
fn the_references_scale_is_smaller_by_a_cell() {
    // The reference's sphere of radius 0.6 at 32 cells has the extent 1.2 · 32/33.
    let volume = dense(&Formula(|p: &Tensor| sphere(p, [0.0; 3], 0.6)), 32);
    let shrink =
        volume.cell_size(Scale::ReferenceCompatible { resolution: 32 }) / volume.cell_size(Scale::Exact);
    assert!((1.2 * shrink - 1.1636).abs() < 1e-4);
    // Its fast decoder has 380 cells of the 384 that were asked for, and divides by 385.
    let compatible = Scale::ReferenceCompatible { resolution: 384 };
    assert!((volume.cell_size(compatible) * 385.0 - 2.02).abs() < 1e-12);
}

#[test]
fn fields_without_a_surface_are_refused() {
    let volume = |formula: fn(&Tensor) -> Tensor| dense(&Formula(formula), 8);
    let outside = check(&volume(|p| sphere(p, [0.0; 3], -1.0)), &request(8));
    assert!(matches!(outside, Err(Error::EmptyField { .. })));
    let inside = check(&volume(|p| sphere(p, [0.0; 3], 9.0)), &request(8));
    assert!(matches!(inside, Err(Error::EmptyField { .. })));
    let broken = check(&volume(|p| sphere(p, [f64::NAN; 3], 0.5)), &request(8));
    assert!(matches!(broken, Err(Error::NonFinite { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the shape: each crossed cell has the dense field's values at its
    /// corners, and no component that the coarsest grid shows is lost.
    #[test]
    fn the_surface_consists_of_whole_dense_components(
        balls in prop::collection::vec((prop::array::uniform3(-0.8..0.8_f64), 0.02..0.5_f64), 1..6),
    ) {
        let field = Formula(move |p: &Tensor| {
            let balls = balls.iter().map(|(centre, radius)| sphere(p, *centre, *radius));
            balls.reduce(|a, b| a.maximum(&b)).unwrap()
        });
        let (ours, reference) = (hierarchical(&field, 64, 16), dense(&field, 64));
        prop_assert_eq!(corner_error(&ours, &reference), 0.0);
        let coarse = dense(&field, 16).logits.gt(0.0);
        let fine = ours.logits.gt(0.0);
        let shared = fine.slice(0, 0, 65, 4).slice(1, 0, 65, 4).slice(2, 0, 65, 4);
        prop_assert_eq!(count(&coarse.logical_xor(&shared)), 0);
    }
}
