//! Triangles to samples: a depth buffer and interpolation by barycentric coordinates.

use glam::Vec3;

use crate::mesh::Mesh;
use crate::model::Texture;

/// What faces that look away show, in linear light: dark red.
const INSIDE: [f32; 3] = [0.08, 0.0, 0.0];

/// A triangle on the canvas.
pub(super) struct Triangle {
    /// Samples right and down; depth grows towards the camera.
    pub(super) corners: [Vec3; 3],
    /// Normals at the corners, in the camera's frame.
    pub(super) normals: [Vec3; 3],
    pub(super) looks_away: bool,
    pub(super) vertices: [u32; 3],
}

/// Where a face's colour comes from: the texture, or the vertices, or neither.
pub(super) struct Paint<'a> {
    pub(super) mesh: &'a Mesh,
    pub(super) texture: Option<&'a Texture>,
    pub(super) plain: [f32; 4],
}

impl Paint<'_> {
    /// sRGB, 0 to 255.
    fn colour(&self, vertices: [u32; 3], weights: [f32; 3]) -> [f32; 4] {
        if let (Some(texture), Some(uvs)) = (self.texture, self.mesh.uvs()) {
            return texture.sample(mix(vertices.map(|vertex| uvs[vertex as usize]), weights));
        }
        match self.mesh.colours() {
            Some(colours) => mix(vertices.map(|vertex| colours[vertex as usize].map(f32::from)), weights),
            None => self.plain,
        }
    }
}

fn mix<const N: usize>(values: [[f32; N]; 3], weights: [f32; 3]) -> [f32; N] {
    std::array::from_fn(|n| (0..3).map(|corner| values[corner][n] * weights[corner]).sum())
}

/// Samples and their depths.
pub(super) struct Canvas {
    size: u32,
    /// Linear light and coverage.
    samples: Vec<[f32; 4]>,
    depths: Vec<f32>,
}

impl Canvas {
    /// A canvas of `size` × `size` samples of a background.
    pub(super) fn new(size: u32, background: [u8; 4]) -> Self {
        let count = size as usize * size as usize;
        let [r, g, b, alpha] = background.map(f32::from);
        let sample = [linear(r), linear(g), linear(b), alpha / 255.0];
        Self { size, samples: vec![sample; count], depths: vec![f32::NEG_INFINITY; count] }
    }

    /// Draws a triangle where nothing drawn before is nearer.
    pub(super) fn draw(&mut self, triangle: &Triangle, paint: &Paint, light: impl Fn(Vec3) -> f32) {
        let [a, b, c] = triangle.corners;
        let area = edge(a, b, c);
        if area == 0.0 {
            return;
        }
        let range = |values: [f32; 3]| {
            let least = values.into_iter().fold(f32::INFINITY, f32::min).floor().max(0.0);
            let greatest = values.into_iter().fold(0.0, f32::max).ceil().min(self.size as f32);
            least as u32..greatest as u32
        };
        for y in range([a.y, b.y, c.y]) {
            for x in range([a.x, b.x, c.x]) {
                let point = Vec3::new(x as f32 + 0.5, y as f32 + 0.5, 0.0);
                let weights = [edge(b, c, point) / area, edge(c, a, point) / area, edge(a, b, point) / area];
                if weights.iter().any(|&weight| weight < 0.0) {
                    continue;
                }
                let depth = weights[0] * a.z + weights[1] * b.z + weights[2] * c.z;
                let at = (y * self.size + x) as usize;
                if depth > self.depths[at] {
                    self.depths[at] = depth;
                    self.samples[at] = shade(triangle, paint, weights, &light);
                }
            }
        }
    }

    /// The picture: means of `oversampling` × `oversampling` samples.
    pub(super) fn into_pixels(self, oversampling: u32) -> Vec<[u8; 4]> {
        let side = self.size / oversampling;
        let weight = 1.0 / (oversampling * oversampling) as f32;
        let mut pixels = Vec::with_capacity(side as usize * side as usize);
        for (x, y) in (0..side).flat_map(|y| (0..side).map(move |x| (x, y))) {
            let mut mean = [0.0; 4];
            for (i, j) in (0..oversampling).flat_map(|j| (0..oversampling).map(move |i| (i, j))) {
                let sample =
                    self.samples[((y * oversampling + j) * self.size + x * oversampling + i) as usize];
                for (sum, value) in mean.iter_mut().zip(sample) {
                    *sum += value * weight;
                }
            }
            let [r, g, b, alpha] = mean;
            pixels.push([encoded(r), encoded(g), encoded(b), (alpha * 255.0).round() as u8]);
        }
        pixels
    }
}

fn shade(triangle: &Triangle, paint: &Paint, weights: [f32; 3], light: &impl Fn(Vec3) -> f32) -> [f32; 4] {
    if triangle.looks_away {
        return [INSIDE[0], INSIDE[1], INSIDE[2], 1.0];
    }
    let [a, b, c] = triangle.normals;
    let brightness = light(a * weights[0] + b * weights[1] + c * weights[2]);
    let [r, g, b, _] = paint.colour(triangle.vertices, weights);
    [linear(r) * brightness, linear(g) * brightness, linear(b) * brightness, 1.0]
}

/// Twice the signed area of a triangle on the canvas.
fn edge(a: Vec3, b: Vec3, c: Vec3) -> f32 {
    (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x)
}

/// IEC 61966-2-1, from 0 to 255.
fn linear(value: f32) -> f32 {
    let encoded = value / 255.0;
    if encoded <= 0.04045 { encoded / 12.92 } else { ((encoded + 0.055) / 1.055).powf(2.4) }
}

fn encoded(linear: f32) -> u8 {
    let value = if linear <= 0.003_130_8 { linear * 12.92 } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 };
    (value.clamp(0.0, 1.0) * 255.0).round() as u8
}
