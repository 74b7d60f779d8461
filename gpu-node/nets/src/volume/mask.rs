//! Morphology on boolean grids `[n, n, n]`. A grid of points has a grid of cells, one less to a side.

use tch::Tensor;

/// Whether any corner of each cell is set: `[n, n, n] → [n-1, n-1, n-1]`.
pub(super) fn any_corner(points: &Tensor) -> Tensor {
    (0..3).fold(points.shallow_clone(), |mask, axis| {
        let cells = mask.size()[axis as usize] - 1;
        mask.narrow(axis, 0, cells).logical_or(&mask.narrow(axis, 1, cells))
    })
}

/// Cells with corners on both sides.
pub(super) fn crossed_cells(inside: &Tensor) -> Tensor {
    any_corner(inside).logical_and(&any_corner(&inside.logical_not()))
}

/// The corners of the set cells: `[n-1, n-1, n-1] → [n, n, n]`.
pub(super) fn corners(cells: &Tensor) -> Tensor {
    any_corner(&cells.constant_pad_nd([1, 1, 1, 1, 1, 1]))
}

/// Each cell as eight: `[m, m, m] → [2m, 2m, 2m]`.
pub(super) fn subdivide(cells: &Tensor) -> Tensor {
    (0..3).fold(cells.shallow_clone(), |mask, axis| mask.repeat_interleave_self_int(2, axis, None))
}

/// Adds the 26 neighbours of the set points.
pub(super) fn dilate(points: &Tensor) -> Tensor {
    (0..3).fold(points.shallow_clone(), |mask, axis| {
        let length = mask.size()[axis as usize];
        let (head, tail) = (mask.narrow(axis, 0, length - 1), mask.narrow(axis, 1, length - 1));
        let grown = mask.copy();
        let _ = grown.narrow(axis, 0, length - 1).logical_or_(&tail);
        let _ = grown.narrow(axis, 1, length - 1).logical_or_(&head);
        grown
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn one_point(side: i64, at: [i64; 3]) -> Tensor {
        let mask = Tensor::zeros([side; 3], (Kind::Bool, Device::Cpu));
        let _ = mask.get(at[0]).get(at[1]).get(at[2]).fill_(1);
        mask
    }

    fn count(mask: &Tensor) -> i64 {
        mask.to_kind(Kind::Int64).sum(None).int64_value(&[])
    }

    #[test]
    fn a_point_touches_eight_cells_and_a_cell_has_eight_corners() {
        assert_eq!(count(&any_corner(&one_point(5, [2, 2, 2]))), 8);
        assert_eq!(count(&any_corner(&one_point(5, [0, 0, 0]))), 1);
        assert_eq!(count(&corners(&one_point(4, [1, 2, 3]))), 8);
    }

    #[test]
    fn only_cells_with_both_signs_are_crossed() {
        assert_eq!(count(&crossed_cells(&one_point(5, [2, 2, 2]))), 8);
        assert_eq!(count(&crossed_cells(&one_point(5, [2, 2, 2]).logical_not())), 8);
        assert_eq!(count(&crossed_cells(&Tensor::ones([5; 3], (Kind::Bool, Device::Cpu)))), 0);
    }

    #[test]
    fn dilating_adds_the_26_neighbours_that_there_are() {
        assert_eq!(count(&dilate(&one_point(5, [2, 2, 2]))), 27);
        assert_eq!(count(&dilate(&one_point(5, [0, 0, 4]))), 8);
    }

    #[test]
    fn subdividing_keeps_the_place() {
        let fine = subdivide(&one_point(3, [0, 1, 2]));
        assert_eq!(count(&fine), 8);
        assert_eq!(fine.get(1).get(3).get(5).int64_value(&[]), 1);
    }
}
