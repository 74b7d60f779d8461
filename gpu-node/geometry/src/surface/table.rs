//! The triangles of each kind of cell, derived once from the cube's geometry.
//!
//! A kind is which corners are inside (256 cases) and how each ambiguous face is decided. Most cases have no
//! ambiguous face and one kind; the two in which every face alternates have 64.

use std::sync::LazyLock;

use crate::surface::contour::{Contour, ambiguous_faces, is_inside};
use crate::surface::cube::{CORNERS, FACES};
use crate::surface::patch::{Patch, disc, tube};

/// The table; deriving it takes some milliseconds.
pub(super) static CELLS: LazyLock<CellTable> = LazyLock::new(CellTable::derive);

/// How the surface can run through cells of one kind.
#[derive(Debug)]
pub(super) struct CellKind {
    /// A disc in each loop.
    pub(super) discs: Patch,
    /// What to put instead if the interior joins two regions that the faces keep apart.
    pub(super) tunnels: Vec<Tunnel>,
}

/// A patch in which two loops are joined by a tube.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// Least corners of the two regions that the tunnel joins.
    pub(super) joins: [u8; 2],
    /// The tube, and a disc in each other loop.
    pub(super) patch: Patch,
}

/// All kinds of cells.
#[derive(Debug)]
pub(super) struct CellTable {
    ambiguous: [u8; 256],
    first_kind: [u16; 256],
    kinds: Vec<CellKind>,
}

impl CellTable {
    fn derive() -> Self {
        let mut table = Self { ambiguous: [0; 256], first_kind: [0; 256], kinds: Vec::new() };
        for case in 0..=255u8 {
            let ambiguous = ambiguous_faces(case);
            table.ambiguous[case as usize] = ambiguous;
            table.first_kind[case as usize] = table.kinds.len() as u16;
            for decisions in 0..1 << ambiguous.count_ones() {
                table.kinds.push(derive_kind(case, spread(decisions, ambiguous)));
            }
        }
        table
    }

    /// The ambiguous faces of a case, as bits.
    pub(super) fn ambiguous(&self, case: u8) -> u8 {
        self.ambiguous[case as usize]
    }

    /// The kind of a case whose ambiguous faces, in their order, are decided by the bits of `decisions`.
    pub(super) fn kind(&self, case: u8, decisions: u8) -> &CellKind {
        &self.kinds[self.first_kind[case as usize] as usize + decisions as usize]
    }

    /// Every kind with its case and the faces on which the insides are joined.
    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = (u8, u8, &CellKind)> {
        (0..=255u8).flat_map(move |case| {
            let ambiguous = self.ambiguous(case);
            let decided =
                move |decisions: u8| (case, spread(decisions, ambiguous), self.kind(case, decisions));
            (0..1 << ambiguous.count_ones()).map(decided)
        })
    }
}

/// Moves the low bits of `bits` to the places that are set in `mask`.
fn spread(bits: u8, mask: u8) -> u8 {
    let places = (0..FACES).filter(|&place| mask >> place & 1 == 1);
    places.enumerate().fold(0, |spread, (rank, place)| spread | (bits >> rank & 1) << place)
}

fn derive_kind(case: u8, joined: u8) -> CellKind {
    let contour = Contour::new(case, joined);
    let filled: Vec<Patch> = contour.loops.iter().map(|cut| disc(cut)).collect();
    let mut kind = CellKind { discs: Patch::default(), tunnels: Vec::new() };
    filled.iter().for_each(|patch| kind.discs.append(patch));
    for second in 1..contour.loops.len() {
        for first in 0..second {
            let Some(joins) = regions_to_join(case, &contour, first, second) else { continue };
            let mut patch = tube(&contour.loops[first], &contour.loops[second]);
            let others = (0..filled.len()).filter(|&number| number != first && number != second);
            others.for_each(|number| patch.append(&filled[number]));
            kind.tunnels.push(Tunnel { joins, patch });
        }
    }
    kind
}

/// The two regions that a tube between two loops joins, if a trilinear function can join them: a tunnel leads through
/// a region that both loops border, and either joins opposite corners of the cell, or there are two regions on each
/// side (case 13.5 of Chernyaev). Any other would come of rounding alone, where the saddle of a face is on the level.
fn regions_to_join(case: u8, contour: &Contour, first: usize, second: usize) -> Option<[u8; 2]> {
    let (first, second) = (contour.sides(case, first), contour.sides(case, second));
    let joins = if first.1 == second.1 {
        [first.0, second.0]
    } else if first.0 == second.0 {
        [first.1, second.1]
    } else {
        return None;
    };
    let regions = &contour.regions;
    let opposite = (0..CORNERS).any(|corner| [regions[corner], regions[CORNERS - 1 - corner]] == joins);
    let count = |inside: bool| {
        let least = |&corner: &usize| regions[corner] as usize == corner && is_inside(case, corner) == inside;
        (0..CORNERS).filter(least).count()
    };
    (opposite || (count(true), count(false)) == (2, 2)).then_some(joins)
}

#[cfg(test)]
mod tests;
