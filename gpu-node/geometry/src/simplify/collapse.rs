//! A surface that loses edges: half-edges, quadrics, and the one operation on them.
//!
//! ```text
//!          c                      c
//!        ╱ │ ╲                    │
//!       ╱  │  ╲                   │         half-edge h = a → b in face (a, b, c), its twin t = b → a in
//!      a ──h─▶ b      ──▶         a         face (b, a, d): both faces go, b's others become a's, and
//!       ╲  │  ╱                   │         the faces across from the two that went become neighbours
//!        ╲ │ ╱                    │
//!          d                      d
//! ```

use std::collections::HashSet;

use glam::DVec3;

use super::quadric::Quadric;
use crate::mesh::{Bounds, Mesh, MeshError, position_f64};
use crate::topology::{HalfEdges, NONE, is_collapsed, next, origin, previous, target};
use crate::watch::{Watch, before, part};

/// Weight of a border's own planes against those of the faces: an open edge keeps its outline.
const BORDER_WEIGHT: f64 = 100.0;
/// Weight of the pull to where a vertex was. It decides where planes do not: on flat ground it keeps the
/// triangles well-shaped.
const POINT_WEIGHT: f64 = 1e-5;

/// The surface.
pub(super) struct Surface {
    positions: Vec<DVec3>,
    quadrics: Vec<Quadric>,
    colours: Option<Vec<[u8; 4]>>,
    triangles: Vec<[u32; 3]>,
    topology: HalfEdges,
    /// A half-edge that leaves each vertex; [`NONE`] for vertices that are gone or must stay.
    leaving: Vec<u32>,
    on_border: Vec<bool>,
    versions: Vec<u32>,
    removed: Vec<bool>,
    faces: usize,
    /// Where the positions' own origin is: near it, sums of squares keep their digits.
    centre: DVec3,
    marks: Vec<u32>,
    mark: u32,
}

impl Surface {
    pub(super) fn new<E>(mesh: &Mesh, watch: &mut Watch<'_, E>) -> Result<Self, E> {
        let triangles = mesh.triangles().to_vec();
        let count = mesh.positions().len();
        let topology = HalfEdges::new_watched(&triangles, count, &mut part(watch, 0.0, 0.5))?;
        let centre = mesh.bounds().as_ref().map(Bounds::centre).map_or(DVec3::ZERO, position_f64);
        let mut surface = Self {
            positions: mesh.positions().iter().map(|&position| position_f64(position) - centre).collect(),
            quadrics: vec![Quadric::default(); count],
            colours: mesh.colours().map(<[_]>::to_vec),
            removed: vec![false; triangles.len()],
            faces: triangles.len(),
            leaving: vec![NONE; count],
            on_border: vec![false; count],
            versions: vec![0; count],
            marks: vec![0; count],
            mark: 0,
            triangles,
            topology,
            centre,
        };
        surface.find_fans(&mut part(watch, 0.5, 0.75))?;
        surface.sum_quadrics(&mut part(watch, 0.75, 1.0))?;
        Ok(surface)
    }

    /// Notes a half-edge of each vertex that has one fan of faces and no irregular edge; the others stay.
    fn find_fans<E>(&mut self, watch: &mut Watch<'_, E>) -> Result<(), E> {
        let fans = self.topology.fans_watched(&self.triangles, watch)?;
        let mut fans_of = vec![0u32; self.positions.len()];
        fans.vertices.iter().for_each(|&vertex| fans_of[vertex as usize] += 1);
        for half_edge in 0..self.topology.twins.len() as u32 {
            if is_collapsed(self.triangles[half_edge as usize / 3]) {
                continue;
            }
            let (from, to) = (origin(&self.triangles, half_edge), target(&self.triangles, half_edge));
            if fans_of[from as usize] == 1 {
                self.leaving[from as usize] = half_edge;
            }
            if self.topology.twins[half_edge as usize] == NONE {
                self.on_border[from as usize] = true;
                self.on_border[to as usize] = true;
            }
        }
        Ok(())
    }

    fn sum_quadrics<E>(&mut self, watch: &mut Watch<'_, E>) -> Result<(), E> {
        for triangle in 0..self.triangles.len() {
            before(watch, triangle, self.triangles.len())?;
            let corners = self.triangles[triangle];
            let [a, b, c] = corners.map(|vertex| self.positions[vertex as usize]);
            let doubled = (b - a).cross(c - a);
            let Some(normal) = doubled.try_normalize() else { continue };
            let area = 0.5 * doubled.length();
            let plane = Quadric::plane(normal, a, area);
            for vertex in corners {
                self.quadrics[vertex as usize] += plane;
                self.quadrics[vertex as usize] +=
                    Quadric::point(self.positions[vertex as usize], area * POINT_WEIGHT);
            }
            for corner in 0..3 {
                if self.topology.twins[3 * triangle + corner] == NONE {
                    self.add_border(corners[corner], corners[(corner + 1) % 3], normal);
                }
            }
        }
        Ok(())
    }

    fn add_border(&mut self, from: u32, to: u32, normal: DVec3) {
        let (a, b) = (self.positions[from as usize], self.positions[to as usize]);
        let along = b - a;
        if let Some(across) = along.cross(normal).try_normalize() {
            let plane = Quadric::plane(across, a, along.length_squared() * BORDER_WEIGHT);
            self.quadrics[from as usize] += plane;
            self.quadrics[to as usize] += plane;
        }
    }

    /// How many faces are left.
    pub(super) fn faces(&self) -> usize {
        self.faces
    }

    /// A half-edge for each edge that could be collapsed.
    pub(super) fn edges(&self) -> Vec<u32> {
        (0..self.topology.twins.len() as u32).filter(|&half_edge| self.is_candidate(half_edge)).collect()
    }

    /// How many half-edges there were at first: all that there are have lesser numbers.
    pub(super) fn half_edges(&self) -> usize {
        self.topology.twins.len()
    }

    /// Whether a half-edge stands for an edge that could be collapsed.
    pub(super) fn is_candidate(&self, half_edge: u32) -> bool {
        let twin = self.topology.twins[half_edge as usize];
        let (a, b) = self.ends(half_edge);
        // Each edge once: by the lesser half-edge of the two.
        half_edge < twin
            && !self.removed[half_edge as usize / 3]
            && self.leaving[a as usize] != NONE
            && self.leaving[b as usize] != NONE
    }

    fn ends(&self, half_edge: u32) -> (u32, u32) {
        (origin(&self.triangles, half_edge), target(&self.triangles, half_edge))
    }

    /// A number that grows with every move of either end.
    pub(super) fn stamp(&self, half_edge: u32) -> u32 {
        let (a, b) = self.ends(half_edge);
        self.versions[a as usize] + self.versions[b as usize]
    }

    /// The harm of collapsing an edge.
    pub(super) fn error(&self, half_edge: u32) -> f64 {
        let (quadric, place) = self.best_place(half_edge);
        quadric.error(place)
    }

    /// The edge's quadric, and where its one vertex would go.
    fn best_place(&self, half_edge: u32) -> (Quadric, DVec3) {
        let (a, b) = self.ends(half_edge);
        let mut quadric = self.quadrics[a as usize];
        quadric += self.quadrics[b as usize];
        let (from, to) = (self.positions[a as usize], self.positions[b as usize]);
        let middle = 0.5 * (from + to);
        // A minimum far from its edge is the work of rounding, or of a fold.
        let reach = 2.0 * from.distance_squared(to);
        if let Some(minimum) = quadric.minimum().filter(|place| place.distance_squared(middle) <= reach) {
            return (quadric, minimum);
        }
        let mut best = middle;
        for place in [from, to] {
            if quadric.error(place) < quadric.error(best) {
                best = place;
            }
        }
        (quadric, best)
    }

    /// Collapses an edge if the surface stays what it is; adds the edges whose errors have changed to `changed`.
    pub(super) fn try_collapse(&mut self, h: u32, least_cosine: f64, changed: &mut Vec<u32>) {
        let (a, b) = self.ends(h);
        let (quadric, place) = self.best_place(h);
        // What counts is the place that the file can hold.
        let place = position_f64((place + self.centre).as_vec3().into()) - self.centre;
        if !self.keeps_topology(h) || !self.keeps_shape(h, place, least_cosine) {
            return;
        }
        self.mix_colours(a, b, place);
        self.quadrics[a as usize] = quadric;
        self.positions[a as usize] = place;
        // Above both, so that no stamp of an edge of either comes back.
        self.versions[a as usize] = self.versions[a as usize].max(self.versions[b as usize]) + 1;
        self.on_border[a as usize] |= self.on_border[b as usize];
        self.remove_edge(h);
        self.topology.visit_fan(self.leaving[a as usize], |leaving| {
            for half_edge in [leaving, previous(leaving)] {
                if self.is_candidate(half_edge) {
                    changed.push(half_edge);
                }
            }
        });
    }

    /// The link condition: the ends share exactly the vertices across from the edge, and a border is crossed by
    /// no edge.
    fn keeps_topology(&mut self, h: u32) -> bool {
        let (a, b) = self.ends(h);
        let twin = self.topology.twins[h as usize];
        if twin != NONE && self.on_border[a as usize] && self.on_border[b as usize] {
            return false;
        }
        let sides = if twin == NONE { 1 } else { 2 };
        if [h, twin].into_iter().any(|side| side != NONE && self.would_fold(side)) {
            return false;
        }
        self.mark += 2;
        let (seen, shared) = (self.mark, self.mark + 1);
        let (topology, triangles, marks) = (&self.topology, &self.triangles, &mut self.marks);
        let neighbours =
            |half_edge: u32| [target(triangles, half_edge), origin(triangles, previous(half_edge))];
        topology.visit_fan(self.leaving[a as usize], |half_edge| {
            neighbours(half_edge).into_iter().for_each(|vertex| marks[vertex as usize] = seen);
        });
        let mut common = 0;
        topology.visit_fan(self.leaving[b as usize], |half_edge| {
            for vertex in neighbours(half_edge) {
                if marks[vertex as usize] == seen {
                    marks[vertex as usize] = shared;
                    common += 1;
                }
            }
        });
        common == sides
    }

    /// Whether the faces beyond the other two edges of a face lie on the same three vertices once it is gone.
    fn would_fold(&self, side: u32) -> bool {
        let across = [next(side), previous(side)].map(|half_edge| self.topology.twins[half_edge as usize]);
        match across {
            [NONE, NONE] => true,
            [NONE, _] | [_, NONE] => false,
            [x, y] => origin(&self.triangles, previous(x)) == origin(&self.triangles, previous(y)),
        }
    }

    /// Whether no face that stays turns by too much or shrinks to nothing.
    fn keeps_shape(&self, h: u32, place: DVec3, least_cosine: f64) -> bool {
        let (a, b) = self.ends(h);
        let mut fine = true;
        for centre in [a, b] {
            self.topology.visit_fan(self.leaving[centre as usize], |half_edge| {
                let corners = self.triangles[half_edge as usize / 3];
                if !fine || (corners.contains(&a) && corners.contains(&b)) {
                    return;
                }
                let before = self.doubled_normal(corners, centre, self.positions[centre as usize]);
                let after = self.doubled_normal(corners, centre, place);
                let lengths = before.length() * after.length();
                fine = after.length_squared() > 0.0 && before.dot(after) >= least_cosine * lengths;
            });
        }
        fine
    }

    fn doubled_normal(&self, corners: [u32; 3], moved: u32, place: DVec3) -> DVec3 {
        let at = |vertex: u32| if vertex == moved { place } else { self.positions[vertex as usize] };
        let [a, b, c] = corners.map(at);
        (b - a).cross(c - a)
    }

    fn mix_colours(&mut self, a: u32, b: u32, place: DVec3) {
        let (from, to) = (self.positions[a as usize], self.positions[b as usize]);
        let Some(colours) = &mut self.colours else { return };
        let along = to - from;
        let part =
            ((place - from).dot(along) / along.length_squared().max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
        let (first, second) = (colours[a as usize], colours[b as usize]);
        colours[a as usize] = std::array::from_fn(|channel| {
            let mixed = f64::from(first[channel]) * (1.0 - part) + f64::from(second[channel]) * part;
            mixed.round() as u8
        });
    }

    /// Removes the edge's faces, and its second vertex.
    fn remove_edge(&mut self, h: u32) {
        let (a, b) = self.ends(h);
        let twin = self.topology.twins[h as usize];
        let (triangles, topology) = (&mut self.triangles, &self.topology);
        topology.visit_fan(self.leaving[b as usize], |half_edge| {
            triangles[half_edge as usize / 3][half_edge as usize % 3] = a;
        });
        self.leaving[b as usize] = NONE;
        for side in [h, twin].into_iter().filter(|&side| side != NONE) {
            self.remove_face(side, a);
        }
    }

    /// Removes a face next to the collapsed edge and joins what lies beyond its other two edges.
    fn remove_face(&mut self, side: u32, kept: u32) {
        let opposite = origin(&self.triangles, previous(side));
        let [x, y] = [next(side), previous(side)].map(|half_edge| self.topology.twins[half_edge as usize]);
        // x comes from the opposite vertex, y goes to it.
        for (one, other) in [(x, y), (y, x)] {
            if one != NONE {
                self.topology.twins[one as usize] = other;
            }
        }
        if x != NONE {
            self.leaving[opposite as usize] = x;
            self.leaving[kept as usize] = next(x);
        } else if y != NONE {
            self.leaving[opposite as usize] = next(y);
            self.leaving[kept as usize] = y;
        }
        let triangle = side as usize / 3;
        self.removed[triangle] = true;
        self.faces -= 1;
    }

    /// What is left, without gaps.
    ///
    /// # Errors
    /// A coordinate is not finite.
    pub(super) fn into_mesh(self) -> Result<Mesh, MeshError> {
        let mut names = vec![NONE; self.positions.len()];
        let mut kept = Vec::new();
        let mut triangles = Vec::with_capacity(self.faces);
        for (corners, _) in self.triangles.iter().zip(&self.removed).filter(|(_, removed)| !**removed) {
            triangles.push(corners.map(|vertex| {
                if names[vertex as usize] == NONE {
                    names[vertex as usize] = kept.len() as u32;
                    kept.push(vertex as usize);
                }
                names[vertex as usize]
            }));
        }
        let place = |vertex: usize| (self.positions[vertex] + self.centre).as_vec3().into();
        let positions = distinct(kept.iter().map(|&vertex| place(vertex)).collect());
        let mesh = Mesh::new(positions, triangles)?;
        match self.colours {
            Some(colours) => mesh.with_colours(kept.into_iter().map(|vertex| colours[vertex]).collect()),
            None => Ok(mesh),
        }
    }
}

/// Moves vertices that fell onto another one's very position by the least step there is: who reads the file
/// would weld them.
fn distinct(mut positions: Vec<[f32; 3]>) -> Vec<[f32; 3]> {
    let mut taken = HashSet::with_capacity(positions.len());
    for position in &mut positions {
        // Adding zero makes one key of 0 and −0.
        while !taken.insert(position.map(|component| (component + 0.0).to_bits())) {
            position[0] = position[0].next_up();
        }
    }
    positions
}
