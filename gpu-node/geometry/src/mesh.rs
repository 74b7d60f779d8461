//! The indexed triangle mesh that every stage hands to the next, and what can be measured on it alone.

use glam::{DMat4, DVec3, Mat4, Vec3};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a mesh cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MeshError {
    /// A triangle names a vertex that is not there.
    #[error("triangle {triangle} names vertex {vertex} of {vertices}")]
    IndexOutOfRange {
        /// The triangle's place.
        triangle: usize,
        /// The vertex it names.
        vertex: u32,
        /// How many there are.
        vertices: usize,
    },
    /// A position, normal or texture coordinate is infinite or not a number.
    #[error("{attribute} {vertex} is not finite")]
    NotFinite {
        /// What it is.
        attribute: &'static str,
        /// Whose it is.
        vertex: usize,
    },
    /// An attribute has not one value for each vertex.
    #[error("{found} values of {attribute} for {vertices} vertices")]
    AttributeLength {
        /// What it is.
        attribute: &'static str,
        /// How many values there are.
        found: usize,
        /// How many there should be.
        vertices: usize,
    },
    /// More vertices than a 32-bit index can name.
    #[error("{0} vertices are more than an index can name")]
    TooManyVertices(usize),
}

/// An axis-aligned box.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// The least corner.
    pub min: [f32; 3],
    /// The greatest corner.
    pub max: [f32; 3],
}

impl Bounds {
    /// The length of each side.
    pub fn size(&self) -> [f32; 3] {
        std::array::from_fn(|axis| self.max[axis] - self.min[axis])
    }

    /// The middle.
    pub fn centre(&self) -> [f32; 3] {
        std::array::from_fn(|axis| 0.5 * (self.min[axis] + self.max[axis]))
    }

    /// The length of the diagonal.
    pub fn diagonal(&self) -> f32 {
        Vec3::from(self.size()).length()
    }
}

/// Triangles over shared vertices.
///
/// Each triangle's indices are in range, each attribute has one value for each vertex, and each value is finite.
/// Triangles may be degenerate, and the surface open or non-manifold: [`crate::report::MeshReport`] tells.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mesh {
    positions: Vec<[f32; 3]>,
    triangles: Vec<[u32; 3]>,
    normals: Option<Vec<[f32; 3]>>,
    uvs: Option<Vec<[f32; 2]>>,
    colours: Option<Vec<[u8; 4]>>,
}

impl Mesh {
    /// A mesh of `positions` and `triangles`, which are counter-clockwise seen from outside.
    pub fn new(positions: Vec<[f32; 3]>, triangles: Vec<[u32; 3]>) -> Result<Self, MeshError> {
        if u32::try_from(positions.len()).is_err() {
            return Err(MeshError::TooManyVertices(positions.len()));
        }
        check_finite("position", &positions)?;
        for (triangle, corners) in triangles.iter().enumerate() {
            if let Some(&vertex) = corners.iter().find(|&&vertex| vertex as usize >= positions.len()) {
                return Err(MeshError::IndexOutOfRange { triangle, vertex, vertices: positions.len() });
            }
        }
        Ok(Self { positions, triangles, ..Self::default() })
    }

    /// The mesh with these vertex normals, which should have unit length.
    pub fn with_normals(mut self, normals: Vec<[f32; 3]>) -> Result<Self, MeshError> {
        self.check_length("normal", normals.len())?;
        check_finite("normal", &normals)?;
        self.normals = Some(normals);
        Ok(self)
    }

    /// The mesh with these texture coordinates; (0, 0) is the picture's upper left corner.
    pub fn with_uvs(mut self, uvs: Vec<[f32; 2]>) -> Result<Self, MeshError> {
        self.check_length("texture coordinate", uvs.len())?;
        check_finite("texture coordinate", &uvs)?;
        self.uvs = Some(uvs);
        Ok(self)
    }

    /// The mesh with these vertex colours: sRGB and straight alpha.
    pub fn with_colours(mut self, colours: Vec<[u8; 4]>) -> Result<Self, MeshError> {
        self.check_length("colour", colours.len())?;
        self.colours = Some(colours);
        Ok(self)
    }

    /// Where each vertex is.
    pub fn positions(&self) -> &[[f32; 3]] {
        &self.positions
    }

    /// The vertices of each triangle, counter-clockwise seen from outside.
    pub fn triangles(&self) -> &[[u32; 3]] {
        &self.triangles
    }

    /// The normal of each vertex.
    pub fn normals(&self) -> Option<&[[f32; 3]]> {
        self.normals.as_deref()
    }

    /// The texture coordinate of each vertex.
    pub fn uvs(&self) -> Option<&[[f32; 2]]> {
        self.uvs.as_deref()
    }

    /// The colour of each vertex: sRGB and straight alpha.
    pub fn colours(&self) -> Option<&[[u8; 4]]> {
        self.colours.as_deref()
    }

    /// Whether there is nothing to see.
    pub fn is_empty(&self) -> bool {
        self.triangles.is_empty()
    }

    /// The corners of triangle `triangle`.
    pub fn corners(&self, triangle: usize) -> [DVec3; 3] {
        self.triangles[triangle].map(|vertex| position_f64(self.positions[vertex as usize]))
    }

    /// The box around all vertices; `None` without vertices.
    pub fn bounds(&self) -> Option<Bounds> {
        let mut least = Vec3::from(*self.positions.first()?);
        let mut greatest = least;
        for &position in &self.positions {
            least = least.min(position.into());
            greatest = greatest.max(position.into());
        }
        Some(Bounds { min: least.into(), max: greatest.into() })
    }

    /// The area of all triangles.
    pub fn area(&self) -> f64 {
        (0..self.triangles.len()).map(|triangle| triangle_area(self.corners(triangle))).sum()
    }

    /// The volume within a closed mesh; negative if its faces look inwards. Without meaning for an open mesh.
    pub fn signed_volume(&self) -> f64 {
        // About the first vertex rather than the origin: a mesh far away keeps its digits.
        let Some(&origin) = self.positions.first() else { return 0.0 };
        let origin = position_f64(origin);
        (0..self.triangles.len()).map(|triangle| tetrahedron_volume(self.corners(triangle), origin)).sum()
    }

    /// The mesh moved by `transform`. A mirroring transform also turns the triangles round, so that they still
    /// look outwards.
    pub fn transformed(mut self, transform: &Mat4) -> Result<Self, MeshError> {
        let transform: DMat4 = transform.as_dmat4();
        for position in &mut self.positions {
            *position = transform.transform_point3(position_f64(*position)).as_vec3().into();
        }
        check_finite("position", &self.positions)?;
        let mirrors = transform.determinant() < 0.0;
        if let Some(normals) = &mut self.normals {
            let of_normals = glam::DMat3::from_mat4(transform).inverse().transpose();
            for normal in normals.iter_mut() {
                *normal = (of_normals * position_f64(*normal)).normalize_or_zero().as_vec3().into();
            }
            check_finite("normal", normals)?;
        }
        if mirrors {
            self.triangles.iter_mut().for_each(|corners| corners.swap(1, 2));
        }
        Ok(self)
    }

    /// The mesh moved and scaled so that its box has its middle at the origin and its longest side is `extent`.
    /// A mesh without extent is only moved.
    pub fn centred(self, extent: f32) -> Result<Self, MeshError> {
        let Some(bounds) = self.bounds() else { return Ok(self) };
        let longest = Vec3::from(bounds.size()).max_element();
        let scale = if longest > 0.0 { extent / longest } else { 1.0 };
        let to_origin = Mat4::from_translation(-Vec3::from(bounds.centre()));
        self.transformed(&(Mat4::from_scale(Vec3::splat(scale)) * to_origin))
    }

    /// The mesh without its normals, texture coordinates and colours.
    pub fn without_attributes(self) -> Self {
        Self { positions: self.positions, triangles: self.triangles, ..Self::default() }
    }

    /// The mesh with the triangles for which `keep` holds, and the vertices that these use, both in their order.
    pub fn retain_triangles(&self, keep: impl Fn(usize) -> bool) -> Self {
        const UNUSED: u32 = u32::MAX;
        let kept: Vec<usize> = (0..self.triangles.len()).filter(|&triangle| keep(triangle)).collect();
        let mut renamed = vec![UNUSED; self.positions.len()];
        for &triangle in &kept {
            self.triangles[triangle].iter().for_each(|&vertex| renamed[vertex as usize] = 0);
        }
        let mut used = Vec::new();
        for (vertex, name) in renamed.iter_mut().enumerate() {
            if *name != UNUSED {
                *name = used.len() as u32;
                used.push(vertex as u32);
            }
        }
        let triangles = kept.iter().map(|&t| self.triangles[t].map(|v| renamed[v as usize])).collect();
        self.with_vertices(&used, triangles)
    }

    /// The mesh whose vertex `i` is a copy of this one's vertex `sources[i]`, over `triangles`.
    pub(crate) fn with_vertices(&self, sources: &[u32], triangles: Vec<[u32; 3]>) -> Self {
        debug_assert!(triangles.iter().flatten().all(|&vertex| (vertex as usize) < sources.len()));
        fn pick<T: Copy>(values: &[T], sources: &[u32]) -> Vec<T> {
            sources.iter().map(|&source| values[source as usize]).collect()
        }
        Self {
            positions: pick(&self.positions, sources),
            triangles,
            normals: self.normals.as_deref().map(|values| pick(values, sources)),
            uvs: self.uvs.as_deref().map(|values| pick(values, sources)),
            colours: self.colours.as_deref().map(|values| pick(values, sources)),
        }
    }

    fn check_length(&self, attribute: &'static str, found: usize) -> Result<(), MeshError> {
        let vertices = self.positions.len();
        if found == vertices {
            Ok(())
        } else {
            Err(MeshError::AttributeLength { attribute, found, vertices })
        }
    }
}

/// The area of a triangle.
pub fn triangle_area([a, b, c]: [DVec3; 3]) -> f64 {
    0.5 * (b - a).cross(c - a).length()
}

/// The signed volume of the tetrahedron over a triangle with its tip at `origin`.
pub(crate) fn tetrahedron_volume([a, b, c]: [DVec3; 3], origin: DVec3) -> f64 {
    (a - origin).dot((b - origin).cross(c - origin)) / 6.0
}

pub(crate) fn position_f64(position: [f32; 3]) -> DVec3 {
    Vec3::from(position).as_dvec3()
}

fn check_finite<const N: usize>(attribute: &'static str, values: &[[f32; N]]) -> Result<(), MeshError> {
    match values.iter().position(|value| !value.iter().all(|component| component.is_finite())) {
        None => Ok(()),
        Some(vertex) => Err(MeshError::NotFinite { attribute, vertex }),
    }
}

#[cfg(test)]
pub(crate) mod tests;
