//! Which face lies across an edge: half-edges over a triangle list, and the fans of faces round each vertex.
//!
//! Half-edge `3·t + k` runs along triangle `t` from its corner `k` to the next one. Two half-edges are twins if
//! they are the only two on their edge and run against each other, so the same edge of a consistent surface.

use std::convert::Infallible;
use std::ops::Range;

use crate::watch::{Watch, before, part};

/// No half-edge, triangle or fan.
pub const NONE: u32 = u32::MAX;

/// The next half-edge of the same triangle.
pub fn next(half_edge: u32) -> u32 {
    if half_edge % 3 == 2 { half_edge - 2 } else { half_edge + 1 }
}

/// The half-edge before, of the same triangle.
pub fn previous(half_edge: u32) -> u32 {
    if half_edge.is_multiple_of(3) { half_edge + 2 } else { half_edge - 1 }
}

/// Whether a triangle names a vertex twice.
pub fn is_collapsed([a, b, c]: [u32; 3]) -> bool {
    a == b || b == c || c == a
}

/// The half-edges of a triangle list. Triangles that name a vertex twice take no part.
#[derive(Debug, Clone)]
pub struct HalfEdges {
    /// The twin of each half-edge, or [`NONE`].
    pub twins: Vec<u32>,
    /// How many distinct edges there are.
    pub edges: usize,
    /// Edges with one face.
    pub boundary_edges: usize,
    /// Edges with more than two faces, or with two that look to different sides.
    pub irregular_edges: usize,
}

impl HalfEdges {
    /// Finds the twins of `triangles` over `vertices` vertices.
    pub fn new(triangles: &[[u32; 3]], vertices: usize) -> Self {
        let Ok(found) = Self::new_watched::<Infallible>(triangles, vertices, &mut |_| Ok(()));
        found
    }

    /// As [`Self::new`], watched.
    ///
    /// # Errors
    /// The watch's.
    pub fn new_watched<E>(
        triangles: &[[u32; 3]],
        vertices: usize,
        watch: &mut Watch<'_, E>,
    ) -> Result<Self, E> {
        let by_vertex = BucketedHalfEdges::new(triangles, vertices, &mut part(watch, 0.0, 0.5))?;
        let mut watch = part(watch, 0.5, 1.0);
        let mut found =
            Self { twins: vec![NONE; triangles.len() * 3], edges: 0, boundary_edges: 0, irregular_edges: 0 };
        let mut bucket: Vec<(u32, u32)> = Vec::new();
        for vertex in 0..vertices {
            before(&mut watch, vertex, vertices)?;
            bucket.clear();
            bucket.extend(by_vertex.bucket(vertex).iter().map(|&h| (farther_end(triangles, h), h)));
            bucket.sort_unstable();
            for edge in bucket.chunk_by(|a, b| a.0 == b.0) {
                found.add_edge(edge, triangles);
            }
        }
        Ok(found)
    }

    fn add_edge(&mut self, half_edges: &[(u32, u32)], triangles: &[[u32; 3]]) {
        self.edges += 1;
        match *half_edges {
            [_] => self.boundary_edges += 1,
            [(_, a), (_, b)] if origin(triangles, a) != origin(triangles, b) => {
                self.twins[a as usize] = b;
                self.twins[b as usize] = a;
            }
            _ => self.irregular_edges += 1,
        }
    }

    /// The fans of faces: for each half-edge the number of the fan round its origin, and for each fan its vertex.
    /// A manifold vertex has one fan. Triangles that name a vertex twice have [`NONE`].
    pub fn fans(&self, triangles: &[[u32; 3]]) -> Fans {
        let Ok(fans) = self.fans_watched::<Infallible>(triangles, &mut |_| Ok(()));
        fans
    }

    /// As [`Self::fans`], watched.
    ///
    /// # Errors
    /// The watch's.
    pub fn fans_watched<E>(&self, triangles: &[[u32; 3]], watch: &mut Watch<'_, E>) -> Result<Fans, E> {
        let mut fans = Fans { of_half_edge: vec![NONE; self.twins.len()], vertices: Vec::new() };
        for start in 0..self.twins.len() as u32 {
            before(watch, start as usize, self.twins.len())?;
            let taken = fans.of_half_edge[start as usize] != NONE;
            if taken || is_collapsed(triangles[start as usize / 3]) {
                continue;
            }
            let fan = fans.vertices.len() as u32;
            fans.vertices.push(origin(triangles, start));
            self.visit_fan(start, |half_edge| fans.of_half_edge[half_edge as usize] = fan);
        }
        Ok(fans)
    }

    /// Calls `visit` with each half-edge that leaves the origin of `start` within its fan.
    pub fn visit_fan(&self, start: u32, mut visit: impl FnMut(u32)) {
        let mut half_edge = start;
        loop {
            visit(half_edge);
            half_edge = self.twins[previous(half_edge) as usize];
            if half_edge == start {
                return;
            }
            if half_edge == NONE {
                break;
            }
        }
        // An open fan: what lies on the other side of the start.
        half_edge = start;
        while self.twins[half_edge as usize] != NONE {
            half_edge = next(self.twins[half_edge as usize]);
            visit(half_edge);
        }
    }
}

/// What [`HalfEdges::fans`] finds.
#[derive(Debug, Clone)]
pub struct Fans {
    /// The fan round the origin of each half-edge.
    pub of_half_edge: Vec<u32>,
    /// The vertex of each fan.
    pub vertices: Vec<u32>,
}

/// The vertex that a half-edge leaves.
pub fn origin(triangles: &[[u32; 3]], half_edge: u32) -> u32 {
    triangles[half_edge as usize / 3][half_edge as usize % 3]
}

/// The vertex that a half-edge reaches.
pub fn target(triangles: &[[u32; 3]], half_edge: u32) -> u32 {
    origin(triangles, next(half_edge))
}

fn farther_end(triangles: &[[u32; 3]], half_edge: u32) -> u32 {
    origin(triangles, half_edge).max(target(triangles, half_edge))
}

/// Half-edges grouped by the lesser of their two vertices: a counting sort.
struct BucketedHalfEdges {
    starts: Vec<u32>,
    half_edges: Vec<u32>,
}

impl BucketedHalfEdges {
    fn new<E>(triangles: &[[u32; 3]], vertices: usize, watch: &mut Watch<'_, E>) -> Result<Self, E> {
        let lesser = |h: u32| origin(triangles, h).min(target(triangles, h)) as usize;
        let proper = || {
            let kept = (0..triangles.len()).filter(|&t| !is_collapsed(triangles[t]));
            kept.flat_map(|t| (3 * t as u32)..(3 * t as u32 + 3))
        };
        let mut starts = vec![0u32; vertices + 1];
        for (count, half_edge) in proper().enumerate() {
            before(&mut part(watch, 0.0, 0.5), count, 3 * triangles.len())?;
            starts[lesser(half_edge) + 1] += 1;
        }
        for vertex in 0..vertices {
            starts[vertex + 1] += starts[vertex];
        }
        let mut half_edges = vec![0u32; starts[vertices] as usize];
        let mut cursors = starts.clone();
        for (count, half_edge) in proper().enumerate() {
            before(&mut part(watch, 0.5, 1.0), count, 3 * triangles.len())?;
            let cursor = &mut cursors[lesser(half_edge)];
            half_edges[*cursor as usize] = half_edge;
            *cursor += 1;
        }
        Ok(Self { starts, half_edges })
    }

    fn bucket(&self, vertex: usize) -> &[u32] {
        let range: Range<usize> = self.starts[vertex] as usize..self.starts[vertex + 1] as usize;
        &self.half_edges[range]
    }
}

/// Sets that grow together: which things are connected.
#[derive(Debug, Clone)]
pub struct DisjointSets {
    parents: Vec<u32>,
}

impl DisjointSets {
    /// `len` sets of one.
    pub fn new(len: usize) -> Self {
        Self { parents: (0..len as u32).collect() }
    }

    /// The representative of the set that `member` is in.
    pub fn find(&mut self, member: u32) -> u32 {
        let mut member = member;
        while self.parents[member as usize] != member {
            let grandparent = self.parents[self.parents[member as usize] as usize];
            self.parents[member as usize] = grandparent;
            member = grandparent;
        }
        member
    }

    /// Makes one set of two.
    pub fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.find(a), self.find(b));
        // The least member represents its set: results do not depend on the order of calls.
        let (least, greatest) = if a < b { (a, b) } else { (b, a) };
        self.parents[greatest as usize] = least;
    }
}
