//! Pictures of models, drawn on the CPU: for tests that look at a model from all sides, and for turntables.
//!
//! An orthographic camera looks at the middle of the model's bounding sphere, which fills the picture from every
//! side. Faces are lit by a lamp beside the camera (Lambert) and by the sky; colours are mixed in linear light.

mod raster;

use glam::{Mat3, Vec3};

use crate::model::{Model, Texture, TextureError};
use raster::{Canvas, Paint, Triangle};

/// Samples along each side of a pixel: edges are smooth at four samples a pixel.
const OVERSAMPLING: u32 = 2;
/// Light that comes from everywhere.
const AMBIENT: f32 = 0.35;
/// The lamp, in the camera's frame: to the left, above, and behind the camera.
const LAMP: Vec3 = Vec3::new(-0.40, 0.50, 0.77);
/// The colour of faces without any paint.
const PLAIN: [f32; 4] = [190.0, 190.0, 190.0, 255.0];

/// From where a model is looked at, and how large the picture is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// How far the camera went round the model, in radians: 0 is in front (+Z), a quarter turn is at its +X side.
    pub azimuth: f32,
    /// How far the camera went up, in radians.
    pub elevation: f32,
    /// Width and height of the picture in pixels.
    pub size: u32,
    /// What is behind the model: sRGB and straight alpha.
    pub background: [u8; 4],
}

impl View {
    /// From the front, on a light ground.
    pub fn front(size: u32) -> Self {
        Self { azimuth: 0.0, elevation: 0.0, size, background: [245, 245, 245, 255] }
    }

    /// World to camera: +X right, +Y up, +Z towards the camera.
    fn rotation(&self) -> Mat3 {
        Mat3::from_rotation_x(self.elevation) * Mat3::from_rotation_y(-self.azimuth)
    }
}

/// A picture of a model. Faces that look away are drawn in dark red: on a closed model none is seen.
///
/// # Errors
/// The texture cannot be read, or the picture has no pixels.
pub fn render(model: &Model, view: &View) -> Result<Texture, TextureError> {
    let texture = model.texture.as_ref().map(Texture::decode).transpose()?;
    render_with(model, texture.as_ref(), view)
}

/// Pictures from `count` sides, once round the model, a little from above.
///
/// # Errors
/// As [`render`].
pub fn turntable_views(model: &Model, count: u32, size: u32) -> Result<Vec<Texture>, TextureError> {
    let texture = model.texture.as_ref().map(Texture::decode).transpose()?;
    let step = std::f32::consts::TAU / count.max(1) as f32;
    let view = |n: u32| View { azimuth: step * n as f32, elevation: 0.2, ..View::front(size) };
    (0..count).map(|n| render_with(model, texture.as_ref(), &view(n))).collect()
}

/// Pictures of one size side by side, row by row.
///
/// # Errors
/// There is no picture.
pub fn contact_sheet(pictures: &[Texture], columns: u32) -> Result<Texture, TextureError> {
    let (width, height) = pictures.first().map_or((0, 0), |first| (first.width(), first.height()));
    let columns = columns.clamp(1, pictures.len().max(1) as u32);
    let rows = (pictures.len() as u32).div_ceil(columns);
    let (sheet_width, sheet_height) = (width * columns, height * rows);
    let mut pixels = vec![[255; 4]; sheet_width as usize * sheet_height as usize];
    for (n, picture) in pictures.iter().enumerate() {
        let (column, row) = (n as u32 % columns, n as u32 / columns);
        let width = width.min(picture.width()) as usize;
        for (y, line) in picture.pixels().chunks(picture.width() as usize).take(height as usize).enumerate() {
            let start = (row * height + y as u32) as usize * sheet_width as usize + (column as usize * width);
            pixels[start..start + width].copy_from_slice(&line[..width]);
        }
    }
    Texture::new(sheet_width, sheet_height, pixels)
}

fn render_with(model: &Model, texture: Option<&Texture>, view: &View) -> Result<Texture, TextureError> {
    let mesh = &model.mesh;
    let mut canvas = Canvas::new(view.size * OVERSAMPLING, view.background);
    if let Some(bounds) = mesh.bounds() {
        let centre = Vec3::from(bounds.centre());
        let radius = mesh
            .positions()
            .iter()
            .map(|&p| Vec3::from(p).distance(centre))
            .fold(f32::MIN_POSITIVE, f32::max);
        let rotation = view.rotation();
        let half = (view.size * OVERSAMPLING) as f32 * 0.5;
        let project = |position: [f32; 3]| {
            let seen = rotation * (Vec3::from(position) - centre) / radius;
            Vec3::new(half + seen.x * half, half - seen.y * half, seen.z)
        };
        let turned: Option<Vec<Vec3>> = mesh
            .normals()
            .map(|normals| normals.iter().map(|&normal| rotation * Vec3::from(normal)).collect());
        let paint = Paint { mesh, texture, plain: PLAIN };
        for (number, &vertices) in mesh.triangles().iter().enumerate() {
            let corners = vertices.map(|vertex| project(mesh.positions()[vertex as usize]));
            let [a, b, c] = mesh.corners(number);
            let flat = rotation * (b - a).cross(c - a).normalize_or_zero().as_vec3();
            let normals = match &turned {
                Some(turned) => vertices.map(|vertex| turned[vertex as usize]),
                None => [flat; 3],
            };
            canvas.draw(&Triangle { corners, normals, looks_away: flat.z < 0.0, vertices }, &paint, light);
        }
    }
    Texture::new(view.size, view.size, canvas.into_pixels(OVERSAMPLING))
}

/// How bright a surface with this normal is, in the camera's frame.
fn light(normal: Vec3) -> f32 {
    AMBIENT + (1.0 - AMBIENT) * normal.normalize_or_zero().dot(LAMP.normalize()).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::tests::cube;
    use crate::model::ImageFormat;

    fn pixel(picture: &Texture, x: u32, y: u32) -> [u8; 4] {
        picture.pixels()[(y * picture.width() + x) as usize]
    }

    /// A cube whose front shows a picture with a red upper left corner.
    fn painted() -> Model {
        let uvs = cube().positions().iter().map(|[x, y, _]| [*x, 1.0 - y]).collect();
        let colours = [[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255], [255, 255, 255, 255]];
        let texture = Texture::new(2, 2, colours.to_vec()).unwrap().encode(ImageFormat::Png).unwrap();
        Model::textured(cube().with_uvs(uvs).unwrap(), texture)
    }

    #[test]
    fn the_front_is_upright_and_not_mirrored() {
        let picture = render(&painted(), &View::front(90)).unwrap();
        let [r, g, b, _] = pixel(&picture, 28, 28);
        assert!(r > 90 && g < 30 && b < 30, "upper left is red: {r} {g} {b}");
        let [r, g, b, _] = pixel(&picture, 62, 28);
        assert!(g > 90 && r < 30 && b < 30, "upper right is green: {r} {g} {b}");
        assert_eq!(pixel(&picture, 1, 1), [245, 245, 245, 255]);
    }

    #[test]
    fn a_quarter_turn_shows_the_right_side_and_half_a_turn_the_back() {
        // +X is green above, blue-and-white's neighbour below; from behind, left and right change places.
        let view = |azimuth| View { azimuth, ..View::front(90) };
        let side = render(&painted(), &view(std::f32::consts::FRAC_PI_2)).unwrap();
        let [r, g, b, _] = pixel(&side, 45, 25);
        assert!(g > r && g > b, "{r} {g} {b}");
        let back = render(&painted(), &view(std::f32::consts::PI)).unwrap();
        let [r, g, _, _] = pixel(&back, 62, 28);
        assert!(r > 90 && g < 30, "{r} {g}");
    }

    #[test]
    fn a_closed_model_shows_no_inside_and_an_open_one_does() {
        let is_inside =
            |picture: &Texture| picture.pixels().iter().any(|&[r, g, b, _]| r > 60 && g < 20 && b < 20);
        let closed = Model::untextured(cube());
        assert!(turntable_views(&closed, 8, 40).unwrap().iter().all(|picture| !is_inside(picture)));
        let open = Model::untextured(cube().retain_triangles(|triangle| triangle > 3));
        assert!(turntable_views(&open, 8, 40).unwrap().iter().any(is_inside));
    }

    #[test]
    fn a_contact_sheet_holds_all_pictures_in_rows() {
        let views = turntable_views(&Model::untextured(cube()), 8, 16).unwrap();
        let sheet = contact_sheet(&views, 4).unwrap();
        assert_eq!((sheet.width(), sheet.height()), (64, 32));
        assert_eq!(pixel(&sheet, 16 + 8, 16 + 8), pixel(&views[5], 8, 8));
    }
}
