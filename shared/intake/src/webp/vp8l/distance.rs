//! Distances of back-references: the short ones are given by place, in rows and columns (RFC 9649, 3.6.2.2).

/// (columns to the left, rows up) for the distance codes 1 to 120.
#[rustfmt::skip]
const PLANE: [(i8, i8); 120] = [
    (0, 1), (1, 0), (1, 1), (-1, 1), (0, 2), (2, 0), (1, 2), (-1, 2), (2, 1), (-2, 1),
    (2, 2), (-2, 2), (0, 3), (3, 0), (1, 3), (-1, 3), (3, 1), (-3, 1), (2, 3), (-2, 3),
    (3, 2), (-3, 2), (0, 4), (4, 0), (1, 4), (-1, 4), (4, 1), (-4, 1), (3, 3), (-3, 3),
    (2, 4), (-2, 4), (4, 2), (-4, 2), (0, 5), (3, 4), (-3, 4), (4, 3), (-4, 3), (5, 0),
    (1, 5), (-1, 5), (5, 1), (-5, 1), (2, 5), (-2, 5), (5, 2), (-5, 2), (4, 4), (-4, 4),
    (3, 5), (-3, 5), (5, 3), (-5, 3), (0, 6), (6, 0), (1, 6), (-1, 6), (6, 1), (-6, 1),
    (2, 6), (-2, 6), (6, 2), (-6, 2), (4, 5), (-4, 5), (5, 4), (-5, 4), (3, 6), (-3, 6),
    (6, 3), (-6, 3), (0, 7), (7, 0), (1, 7), (-1, 7), (5, 5), (-5, 5), (7, 1), (-7, 1),
    (4, 6), (-4, 6), (6, 4), (-6, 4), (2, 7), (-2, 7), (7, 2), (-7, 2), (3, 7), (-3, 7),
    (7, 3), (-7, 3), (5, 6), (-5, 6), (6, 5), (-6, 5), (8, 0), (4, 7), (-4, 7), (7, 4),
    (-7, 4), (8, 1), (8, 2), (6, 6), (-6, 6), (8, 3), (5, 7), (-5, 7), (7, 5), (-7, 5),
    (8, 4), (6, 7), (-6, 7), (7, 6), (-7, 6), (8, 5), (7, 7), (-7, 7), (8, 6), (8, 7),
];

/// How many pixels back a distance code (1 or more) reaches, in an image of this width.
pub(super) fn plane_distance(code: usize, width: usize) -> usize {
    match PLANE.get(code.wrapping_sub(1)) {
        Some(&(columns, rows)) => (rows as usize * width).saturating_add_signed(columns.into()).max(1),
        None => code - PLANE.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_codes_are_places_and_long_ones_counts() {
        assert_eq!(plane_distance(1, 100), 100);
        assert_eq!(plane_distance(2, 100), 1);
        assert_eq!(plane_distance(4, 100), 99);
        assert_eq!(plane_distance(4, 1), 1, "at least one pixel back");
        assert_eq!(plane_distance(120, 100), 708);
        assert_eq!(plane_distance(121, 100), 1);
        assert_eq!(plane_distance(1121, 100), 1001);
    }

    #[test]
    fn each_place_is_named_once() {
        let mut places = PLANE.to_vec();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 120);
        // Codes are ordered by distance, which a slip in the table would break.
        let squares = PLANE.map(|(x, y)| i32::from(x).pow(2) + i32::from(y).pow(2));
        assert!(squares.is_sorted());
    }
}
