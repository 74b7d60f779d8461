//! The `texture` stage: the picture, projected.
//!
//! ```text
//!  front chart   the picture's own colours, bled outwards over the outline, softened where the surface turns away
//!  back chart    at half the resolution: the colours near the outline, continued over the back
//! ```
//!
//! Both charts show the same rectangle of the picture, and they agree at the outline, where the two halves of the
//! surface meet; so the seam cannot be seen. Coordinates are plain projection: no distortion where the surface
//! faces the camera, and a softened picture where it stretches.

mod back_view;
mod front_view;
mod pyramid;

use orfeas_geometry::normals::vertex_normals;
use orfeas_geometry::{Mesh, Texture};

use super::PipelineError;
use super::distance::signed_distance;
use super::family::{Projection, Subject};
use super::raster::{self, Raster, Sample};
use super::stage::{Tick, within};
use pyramid::Pyramid;

/// The longest side of the front chart.
const CHART_SIDE_MAX: usize = 1024;

/// Pixels around the subject: coarser mip levels reach over the outline.
const PADDING: usize = 8;

/// The back chart has this part of the front's resolution.
const BACK_SCALE: usize = 2;

/// Pixels next to the outline mix with the background; colours are taken from further in.
const MIXED_PIXELS: f32 = 2.5;

/// Weight of a mixed pixel: only where a part is so thin that it has nothing else.
const MIXED_WEIGHT: f32 = 0.01;

/// A surface that is seen at a slant shows 1 / cos pixels where the picture has one; this much of them is averaged,
/// across the slant as well as along it, so that single pixels do not become streaks.
const STREAK_BLUR: f32 = 1.0;

/// How softly the back repeats its surroundings: averages over 2^2 pixels, each of which is two of the back chart's.
const BACK_BLUR: usize = 2;
const SPREAD_SCALE: usize = 2;

/// Weight of the middle of the front for the back: it fills only what is far from every belt.
const MIDDLE_WEIGHT: f32 = 1e-4;

/// A mesh with coordinates and the picture that they refer to.
pub(super) struct Textured {
    pub(super) mesh: Mesh,
    pub(super) texture: Texture,
}

/// Paints a mesh from the picture that it was made from; `mesh` has no attributes yet and gets normals as well.
///
/// # Errors
/// What `tick` answers, which is asked between the steps of the work.
pub(super) fn paint(
    mesh: &Mesh,
    projection: &Projection,
    subject: &Subject,
    tick: &mut Tick<'_>,
) -> Result<Textured, PipelineError> {
    let normals = vertex_normals(mesh);
    let charts = Charts::around(mesh, projection, subject);
    let size = (charts.width, charts.height);
    let place = |p| charts.pixel(projection.uv(p));
    let facing = front_view::facing(mesh, &normals, size, place, &mut within(tick, 0.0, 0.2))?;
    let colours = charts.colours(subject);
    tick(0.3)?;
    let coverage = charts.coverage(subject);
    tick(0.4)?;

    let front_pyramid = Pyramid::new(&colours.zip(&coverage, |colour, weight| (colour, weight)));
    tick(0.5)?;
    let front = front_chart(&front_pyramid, &facing);
    tick(0.6)?;
    let back = back_chart(&front_pyramid, &colours, &coverage, &facing, &mut within(tick, 0.6, 0.9))?;
    let atlas = charts.atlas(&front, &back);
    tick(0.95)?;
    let mesh = charts.split(mesh, &normals, projection)?;
    let (width, height) = (atlas.width() as u32, atlas.height() as u32);
    let texture = Texture::new(width, height, atlas.samples().to_vec())
        .map_err(|error| PipelineError::Export(error.to_string()))?;
    Ok(Textured { mesh, texture })
}

fn streak_blur(facing: f32) -> f32 {
    (STREAK_BLUR / facing.max(0.02)).log2().clamp(0.0, 5.0)
}

fn front_chart(pyramid: &Pyramid, facing: &Raster<f32>) -> Raster<[f32; 3]> {
    let filled = pyramid.filled();
    Raster::from_fn(filled.width(), filled.height(), |x, y| {
        let blur = match facing.at(x, y) {
            0.0 => streak_blur(0.1),
            facing => streak_blur(facing),
        };
        if blur > 0.0 { pyramid.sample(x as f32 + 0.5, y as f32 + 0.5, blur) } else { filled.at(x, y) }
    })
}

/// Near the outline what the front shows there, further in a soft continuation of the colours around.
fn back_chart(
    front: &Pyramid,
    colours: &Raster<[f32; 3]>,
    coverage: &Raster<f32>,
    facing: &Raster<f32>,
    tick: &mut Tick<'_>,
) -> Result<Raster<[f32; 3]>, PipelineError> {
    let (width, height) = (colours.width().div_ceil(BACK_SCALE), colours.height().div_ceil(BACK_SCALE));
    let small = |field: &Raster<f32>| field.resized(width, height);
    let facing = small(facing);
    // The belt between an outline that may be drawn and the middle that may be a face.
    let belt = small(coverage).zip(&facing, |coverage, facing| {
        coverage * (smoothstep(0.25, 0.45, facing) * (1.0 - smoothstep(0.6, 0.9, facing)) + MIDDLE_WEIGHT)
    });
    let (spread_width, spread_height) = (width.div_ceil(SPREAD_SCALE), height.div_ceil(SPREAD_SCALE));
    let around = back_view::spread(
        &colours.resized(spread_width, spread_height),
        &belt.resized(spread_width, spread_height),
        BACK_BLUR,
        &mut within(tick, 0.1, 0.8),
    )?;
    let (spread_x, spread_y) = (spread_width as f32 / width as f32, spread_height as f32 / height as f32);
    let scale = BACK_SCALE as f32;
    tick(0.8)?;
    Ok(Raster::from_fn(width, height, |x, y| {
        let facing = facing.at(x, y);
        let (front_x, front_y) = ((x as f32 + 0.5) * scale, (y as f32 + 0.5) * scale);
        let rim = front.sample(front_x, front_y, streak_blur(facing.max(0.05)));
        let around = around.bilinear((x as f32 + 0.5) * spread_x, (y as f32 + 0.5) * spread_y);
        rim.lerp(around, smoothstep(0.1, 0.55, facing))
    }))
}

fn smoothstep(from: f32, to: f32, value: f32) -> f32 {
    let t = ((value - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// The rectangle of the picture that both charts show, and where they are in the atlas.
struct Charts {
    /// Upper left corner, from 0 to 1 over the picture; may lie outside.
    corner: [f32; 2],
    /// Width and height over the picture.
    extent: [f32; 2],
    /// Pixels of the front chart.
    width: usize,
    height: usize,
}

impl Charts {
    fn around(mesh: &Mesh, projection: &Projection, subject: &Subject) -> Charts {
        let (mut low, mut high) = ([f32::MAX; 2], [f32::MIN; 2]);
        for position in mesh.positions() {
            for (axis, value) in projection.uv(*position).into_iter().enumerate() {
                low[axis] = low[axis].min(value);
                high[axis] = high[axis].max(value);
            }
        }
        let picture = [subject.picture.colour.width() as f32, subject.picture.colour.height() as f32];
        let pixels = [0, 1].map(|axis| ((high[axis] - low[axis]) * picture[axis]).ceil().max(1.0) as usize);
        let (width, height) = raster::fit(pixels[0], pixels[1], CHART_SIDE_MAX - 2 * PADDING);
        let pad_x = (high[0] - low[0]) / width as f32 * PADDING as f32;
        let pad_y = (high[1] - low[1]) / height as f32 * PADDING as f32;
        Charts {
            corner: [low[0] - pad_x, low[1] - pad_y],
            extent: [high[0] - low[0] + 2.0 * pad_x, high[1] - low[1] + 2.0 * pad_y],
            width: width + 2 * PADDING,
            height: height + 2 * PADDING,
        }
    }

    /// Position in pixels of the front chart.
    fn pixel(&self, [u, v]: [f32; 2]) -> [f32; 2] {
        [
            (u - self.corner[0]) / self.extent[0] * self.width as f32,
            (v - self.corner[1]) / self.extent[1] * self.height as f32,
        ]
    }

    /// Reads a field that covers the picture at each pixel of the front chart.
    fn read<T: Sample>(&self, field: &Raster<T>) -> Raster<T> {
        // Where the chart is coarser than the field, an averaged copy of the field is read.
        let (width, height) = (field.width() as f32, field.height() as f32);
        let shrink = (self.width as f32 / (self.extent[0] * width)).min(1.0);
        let reduced = (shrink < 0.9).then(|| {
            field.resized(
                (width * shrink).round().max(1.0) as usize,
                (height * shrink).round().max(1.0) as usize,
            )
        });
        let field = reduced.as_ref().unwrap_or(field);
        let (width, height) = (field.width() as f32, field.height() as f32);
        Raster::from_fn(self.width, self.height, |x, y| {
            let u = self.corner[0] + (x as f32 + 0.5) / self.width as f32 * self.extent[0];
            let v = self.corner[1] + (y as f32 + 0.5) / self.height as f32 * self.extent[1];
            field.bilinear(u * width, v * height)
        })
    }

    fn colours(&self, subject: &Subject) -> Raster<[f32; 3]> {
        self.read(&subject.picture.colour.map(|[r, g, b, _]| [r, g, b].map(f32::from)))
    }

    /// How far each pixel's colour can be trusted to be the subject's.
    fn coverage(&self, subject: &Subject) -> Raster<f32> {
        let mask = self.read(&subject.mask);
        let distance = signed_distance(&mask);
        mask.zip(&distance, |mask, distance| {
            let trusted = smoothstep(MIXED_PIXELS - 1.0, MIXED_PIXELS + 1.0, distance);
            if mask < 0.5 { 0.0 } else { trusted.max(MIXED_WEIGHT) }
        })
    }

    /// Whether the back chart stands to the right of the front chart, or below it.
    fn beside(&self) -> bool {
        self.width <= self.height
    }

    fn atlas_size(&self) -> (usize, usize) {
        let (back_width, back_height) = (self.width.div_ceil(BACK_SCALE), self.height.div_ceil(BACK_SCALE));
        if self.beside() {
            (self.width + back_width, self.height)
        } else {
            (self.width, self.height + back_height)
        }
    }

    fn back_corner(&self) -> (usize, usize) {
        if self.beside() { (self.width, 0) } else { (0, self.height) }
    }

    fn atlas(&self, front: &Raster<[f32; 3]>, back: &Raster<[f32; 3]>) -> Raster<[u8; 4]> {
        let (width, height) = self.atlas_size();
        let (back_x, back_y) = self.back_corner();
        Raster::from_fn(width, height, |x, y| {
            let [r, g, b] = if x < front.width() && y < front.height() {
                front.at(x, y)
            } else {
                // The unused corner repeats the back's border: smooth, so it costs few bytes.
                back.at_clamped(x as isize - back_x as isize, y as isize - back_y as isize)
            };
            [r, g, b, 255.0].map(|value| value.round().clamp(0.0, 255.0) as u8)
        })
    }

    /// The mesh with coordinates: vertices between a front and a back face are there twice.
    fn split(
        &self,
        mesh: &Mesh,
        normals: &[[f32; 3]],
        projection: &Projection,
    ) -> Result<Mesh, PipelineError> {
        const FRONT: usize = 0;
        const BACK: usize = 1;
        let mut copies: [Vec<Option<u32>>; 2] = [vec![None; normals.len()], vec![None; normals.len()]];
        let (mut positions, mut split_normals, mut uvs) = (Vec::new(), Vec::new(), Vec::new());
        let mut triangles = Vec::with_capacity(mesh.triangles().len());
        for (index, triangle) in mesh.triangles().iter().enumerate() {
            let [a, b, c] = mesh.corners(index);
            let side = if (b - a).cross(c - a).z >= 0.0 { FRONT } else { BACK };
            triangles.push(triangle.map(|vertex| {
                *copies[side][vertex as usize].get_or_insert_with(|| {
                    let position = mesh.positions()[vertex as usize];
                    positions.push(position);
                    split_normals.push(normals[vertex as usize]);
                    uvs.push(self.atlas_uv(projection.uv(position), side == FRONT));
                    positions.len() as u32 - 1
                })
            }));
        }
        Mesh::new(positions, triangles)
            .and_then(|mesh| mesh.with_normals(split_normals))
            .and_then(|mesh| mesh.with_uvs(uvs))
            .map_err(|error| PipelineError::Export(error.to_string()))
    }

    fn atlas_uv(&self, uv: [f32; 2], front: bool) -> [f32; 2] {
        let [x, y] = self.pixel(uv);
        let (width, height) = self.atlas_size();
        let (x, y) = if front {
            (x, y)
        } else {
            let (back_x, back_y) = self.back_corner();
            (back_x as f32 + x / BACK_SCALE as f32, back_y as f32 + y / BACK_SCALE as f32)
        };
        [x / width as f32, y / height as f32]
    }
}
