//! Corners, edges and faces of a cell, by number.
//!
//! Corner `4·x + 2·y + z` is at (x, y, z). Edge `4·axis + 2·u + v` runs along an axis from the corner that has u and v
//! along the two other axes, in their order. Face `2·axis + side` is the one at 0 or 1 along an axis.

/// Corners of a cell.
pub(super) const CORNERS: usize = 8;
/// Edges of a cell.
pub(super) const EDGES: usize = 12;
/// Faces of a cell.
pub(super) const FACES: usize = 6;

/// The coordinates of a corner, each 0 or 1.
pub(super) const fn corner_position(corner: usize) -> [usize; 3] {
    [corner >> 2 & 1, corner >> 1 & 1, corner & 1]
}

const fn corner_at([x, y, z]: [usize; 3]) -> usize {
    4 * x + 2 * y + z
}

/// The corners at the two ends of an edge, the one at 0 along its axis first.
pub(super) const fn edge_corners(edge: usize) -> [usize; 2] {
    let axis = edge / 4;
    let (u_axis, v_axis) = other_axes(axis);
    let mut start = [0; 3];
    start[u_axis] = edge >> 1 & 1;
    start[v_axis] = edge & 1;
    let mut end = start;
    end[axis] = 1;
    [corner_at(start), corner_at(end)]
}

/// The corners of a face, counter-clockwise seen from outside the cell.
pub(super) const fn face_corners(face: usize) -> [usize; 4] {
    let (axis, side) = (face / 2, face % 2);
    // x → (y, z), y → (z, x), z → (x, y): counter-clockwise seen from the positive end of the axis.
    let (u_axis, v_axis) = ((axis + 1) % 3, (axis + 2) % 3);
    let steps = if side == 1 { [[0, 0], [1, 0], [1, 1], [0, 1]] } else { [[0, 0], [0, 1], [1, 1], [1, 0]] };
    let mut corners = [0; 4];
    let mut place = 0;
    while place < 4 {
        let mut position = [0; 3];
        position[axis] = side;
        position[u_axis] = steps[place][0];
        position[v_axis] = steps[place][1];
        corners[place] = corner_at(position);
        place += 1;
    }
    corners
}

/// The edge between two corners that have one.
pub(super) fn edge_between(a: usize, b: usize) -> usize {
    (0..EDGES).find(|&edge| edge_corners(edge) == [a.min(b), a.max(b)]).unwrap_or(EDGES)
}

/// Which faces an edge lies on, as bits.
pub(super) fn edge_faces(edge: usize) -> u8 {
    let [start, end] = edge_corners(edge).map(corner_position);
    let on_both = |face: usize| start[face / 2] == face % 2 && end[face / 2] == face % 2;
    (0..FACES).filter(|&face| on_both(face)).fold(0, |faces, face| faces | 1 << face)
}

/// The middle of an edge.
pub(super) fn edge_middle(edge: usize) -> glam::DVec3 {
    let [start, end] = edge_corners(edge).map(corner_position);
    glam::DVec3::from_array(std::array::from_fn(|axis| 0.5 * (start[axis] + end[axis]) as f64))
}

const fn other_axes(axis: usize) -> (usize, usize) {
    match axis {
        0 => (1, 2),
        1 => (0, 2),
        _ => (0, 1),
    }
}
