//! Which corners of a cell are joined within it: the connectivity of the trilinear interpolant, swept along one axis.
//!
//! A slice of the interpolant across z is bilinear, so it has no extremum within: each part of the slice that is
//! inside reaches one of the four edges along z. Which parts there are changes only where one of these edges passes
//! through the level, or where the slice's own ambiguity turns: at the roots of four linear and one quadratic
//! function. Between two such heights the parts are constant, and a part goes on from one interval to the next if
//! one of its edges does. So a union over the intervals is the exact connectivity in the cell.

use crate::surface::cube::CORNERS;
use crate::topology::DisjointSets;

/// The edges along z: edge `2·x + y` runs from corner `4·x + 2·y`. Round the slice they go 0, 1, 3, 2.
const POSTS: usize = 4;
/// Four linear roots and two quadratic ones leave at most seven intervals.
const INTERVALS_MAX: usize = 7;

/// For each corner the least corner that the same side of the surface joins it to within the cell. `heights` are the
/// corners' samples above the level.
pub(super) fn joined_corners(heights: &[f64; CORNERS]) -> [u8; CORNERS] {
    let bounds = interval_bounds(heights);
    let intervals = bounds.len() - 1;
    // Node of interval i and post p: CORNERS + 4·i + p. The corners come first, so they represent their sets.
    let mut sets = DisjointSets::new(CORNERS + INTERVALS_MAX * POSTS);
    let node = |interval: usize, post: usize| (CORNERS + POSTS * interval + post) as u32;
    let mut below: Option<[f64; POSTS]> = None;
    for interval in 0..intervals {
        let here = slice(heights, 0.5 * (bounds[interval] + bounds[interval + 1]));
        join_within_slice(&here, |a, b| sets.join(node(interval, a), node(interval, b)));
        if let Some(below) = below {
            let goes_on = |post: &usize| (below[*post] > 0.0) == (here[*post] > 0.0);
            (0..POSTS).filter(goes_on).for_each(|p| sets.join(node(interval - 1, p), node(interval, p)));
        }
        below = Some(here);
    }
    for post in 0..POSTS {
        sets.join(2 * post as u32, node(0, post));
        sets.join(2 * post as u32 + 1, node(intervals - 1, post));
    }
    std::array::from_fn(|corner| sets.find(corner as u32) as u8)
}

/// The heights on the posts at `z`.
fn slice(heights: &[f64; CORNERS], z: f64) -> [f64; POSTS] {
    std::array::from_fn(|post| heights[2 * post] * (1.0 - z) + heights[2 * post + 1] * z)
}

fn join_within_slice(posts: &[f64; POSTS], mut join: impl FnMut(usize, usize)) {
    for (a, b) in [(0, 1), (1, 3), (3, 2), (2, 0)] {
        if (posts[a] > 0.0) == (posts[b] > 0.0) {
            join(a, b);
        }
    }
    let alternates = (posts[0] > 0.0) == (posts[3] > 0.0) && (posts[0] > 0.0) != (posts[1] > 0.0);
    if alternates {
        // The saddle of a bilinear function has the sign of the diagonal with the greater product.
        let first_diagonal = posts[0] * posts[3] > posts[1] * posts[2];
        if first_diagonal { join(0, 3) } else { join(1, 2) }
    }
}

/// 0, the heights at which the slices change, and 1, ascending.
fn interval_bounds(heights: &[f64; CORNERS]) -> Vec<f64> {
    let rises: [f64; POSTS] = std::array::from_fn(|post| heights[2 * post + 1] - heights[2 * post]);
    let starts: [f64; POSTS] = std::array::from_fn(|post| heights[2 * post]);
    let mut bounds = vec![0.0, 1.0];
    bounds.extend((0..POSTS).map(|post| -starts[post] / rises[post]));
    // The difference of the diagonals' products, a quadratic of z.
    let square = rises[0] * rises[3] - rises[1] * rises[2];
    let linear = starts[0] * rises[3] + starts[3] * rises[0] - starts[1] * rises[2] - starts[2] * rises[1];
    let constant = starts[0] * starts[3] - starts[1] * starts[2];
    bounds.extend(quadratic_roots(square, linear, constant));
    bounds.retain(|z| (0.0..=1.0).contains(z));
    bounds.sort_by(f64::total_cmp);
    bounds
}

/// The real roots, without cancellation; what is no number is no root.
fn quadratic_roots(a: f64, b: f64, c: f64) -> [f64; 2] {
    let q = -0.5 * (b + b.signum() * (b * b - 4.0 * a * c).sqrt());
    [q / a, c / q]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opposite corners inside, all others at `outside`.
    fn opposite_corners(outside: f64) -> [u8; CORNERS] {
        let mut heights = [outside; CORNERS];
        heights[0] = 1.0;
        heights[7] = 1.0;
        joined_corners(&heights)
    }

    #[test]
    fn opposite_corners_are_joined_by_a_tunnel_when_the_middle_is_inside() {
        assert_eq!(opposite_corners(-0.3)[7], 0);
    }

    #[test]
    fn opposite_corners_are_apart_when_the_middle_is_outside() {
        assert_eq!(opposite_corners(-0.4)[7], 7);
    }

    #[test]
    fn corners_that_are_all_alike_are_one() {
        assert_eq!(joined_corners(&[1.0; CORNERS]), [0; CORNERS]);
    }

    #[test]
    fn samples_that_are_no_numbers_do_no_harm() {
        let mut heights = [f64::NAN; CORNERS];
        heights[0] = f64::INFINITY;
        heights[3] = 1.0;
        assert_eq!(joined_corners(&heights)[0], 0);
    }
}
