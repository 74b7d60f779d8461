//! The demo's own picture: a toy rocket before a gradient, ray-marched through a distance field.
//!
//! The solid is given by its signed distance (J. C. Hart, "Sphere tracing", 1996) in a frame with
//! +y up, the viewer at +z; lengths are in units of half the picture's height.

use anyhow::{Context, Result};

/// Pixels along each side.
pub(crate) const SIDE: u32 = 1024;

/// Rays for each pixel, along each axis; edges come out smooth enough for segmentation to matter.
const SUPERSAMPLING: u32 = 2;

/// Rays that graze the plates need the most.
const MARCH_STEPS: u32 = 192;
const SURFACE: f32 = 5e-4;
const NEAR: f32 = 1.2;
const FAR: f32 = -1.2;

type Vec3 = [f32; 3];

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Body,
    Nose,
    Band,
    Fin,
    Window,
    Rim,
    Nozzle,
}

/// The picture as a PNG file.
pub(crate) fn rocket_png() -> Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, SIDE, SIDE);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().context("write the PNG header")?;
    writer.write_image_data(&rocket_rgb(SIDE)).context("write the PNG's pixels")?;
    writer.finish().context("finish the PNG")?;
    Ok(file)
}

/// Rows from the top, three bytes for each pixel.
fn rocket_rgb(side: u32) -> Vec<u8> {
    let mut pixels = Vec::with_capacity((side * side * 3) as usize);
    let samples = (SUPERSAMPLING * SUPERSAMPLING) as f32;
    for row in 0..side {
        for column in 0..side {
            let mut sum = [0.0; 3];
            for sub in 0..SUPERSAMPLING * SUPERSAMPLING {
                let at = |pixel: u32, sub: u32| {
                    let offset = (sub as f32 + 0.5) / SUPERSAMPLING as f32;
                    (pixel as f32 + offset) / side as f32 * 2.0 - 1.0
                };
                let x = at(column, sub % SUPERSAMPLING);
                let y = -at(row, sub / SUPERSAMPLING);
                sum = add(sum, colour_at(x, y));
            }
            pixels.extend(sum.map(|value| to_srgb(value / samples)));
        }
    }
    pixels
}

/// Linear light along the ray that meets the picture's plane in (x, y).
fn colour_at(x: f32, y: f32) -> Vec3 {
    let mut z = NEAR;
    for _ in 0..MARCH_STEPS {
        let (distance, part) = rocket([x, y, z]);
        if distance < SURFACE {
            return shade([x, y, z], part);
        }
        z -= distance;
        if z < FAR {
            break;
        }
    }
    background(x, y)
}

fn background(x: f32, y: f32) -> Vec3 {
    let glow = (1.0 - 0.5 * (x * x + (y - 0.2) * (y - 0.2))).clamp(0.0, 1.0);
    mix([0.045, 0.15, 0.24], [0.16, 0.38, 0.47], 0.6 * glow + 0.2 * (y + 1.0))
}

/// Signed distance to the rocket, and the part that is nearest.
fn rocket(p: Vec3) -> (f32, Part) {
    let [x, y, z] = p;
    let radial = (x * x + z * z).sqrt();

    // An ogive: the hull's radius over its height, as a circle's arc about the axis.
    let hull = ogive(radial, y - HULL_MIDDLE, HULL_RADIUS, HULL_HALF_HEIGHT);
    let hull = hull.max(HULL_BOTTOM - y);
    let part = if y > 0.42 {
        Part::Nose
    } else if (-0.42..-0.33).contains(&y) {
        Part::Band
    } else {
        Part::Body
    };
    let mut nearest = (hull, part);

    let nozzle = (radial - 0.15 + 0.25 * (y + 0.7)).max((y + 0.70).abs() - 0.08) * 0.9;
    nearest = closer(nearest, (nozzle, Part::Nozzle));

    // A window in front: a ring around a dome of glass.
    let window_y = 0.12;
    let across = (x * x + (y - window_y) * (y - window_y)).sqrt();
    let hull_front = 0.325;
    let ring = ((across - 0.13).powi(2) + (z - hull_front).powi(2)).sqrt() - 0.035;
    nearest = closer(nearest, (ring, Part::Rim));
    let glass = length([x, y - window_y, (z - hull_front + 0.03) * 2.0]) - 0.12;
    nearest = closer(nearest, (glass * 0.5, Part::Window));

    // Three fins: left, right, and one towards the viewer.
    for (outward, sideways) in [(x.abs(), z), (z, x)] {
        nearest = closer(nearest, (fin(outward, y, sideways), Part::Fin));
    }
    nearest
}

const HULL_RADIUS: f32 = 0.34;
const HULL_HALF_HEIGHT: f32 = 0.98;
const HULL_MIDDLE: f32 = -0.12;
const HULL_BOTTOM: f32 = -0.66;

/// Distance to a spindle: the part common to all circles of one size that pass through both tips.
fn ogive(radial: f32, y: f32, radius: f32, half_height: f32) -> f32 {
    let offset = (half_height * half_height - radius * radius) / (2.0 * radius);
    let circle = radius + offset;
    if (y.abs() - half_height) * offset > radial * half_height {
        (radial * radial + (y.abs() - half_height).powi(2)).sqrt()
    } else {
        ((radial + offset).powi(2) + y * y).sqrt() - circle
    }
}

/// A swept plate with a rounded rim, from the hull outwards.
fn fin(outward: f32, y: f32, sideways: f32) -> f32 {
    let upper = (y + 0.10 + 1.15 * (outward - 0.20)) * 0.656;
    let lower = (-0.94 - y + 0.28 * (0.62 - outward)) * 0.963;
    let outer = outward - 0.60;
    let inner = 0.12 - outward;
    let outline = upper.max(lower).max(outer).max(inner) + 0.03;
    let thickness = sideways.abs() - 0.012;
    let beyond = (outline.max(0.0).powi(2) + thickness.max(0.0).powi(2)).sqrt();
    (beyond + outline.max(thickness).min(0.0) - 0.03) * 0.9
}

fn shade(p: Vec3, part: Part) -> Vec3 {
    let normal = normal_at(p);
    let key = normalised([-0.55, 0.65, 0.75]);
    let fill = normalised([0.8, 0.1, 0.6]);
    let (base, gloss) = match part {
        Part::Body => ([0.86, 0.83, 0.76], 0.25),
        Part::Nose | Part::Fin => ([0.74, 0.07, 0.05], 0.35),
        Part::Band => ([0.90, 0.52, 0.06], 0.25),
        Part::Window => ([0.03, 0.10, 0.22], 0.9),
        Part::Rim => ([0.45, 0.47, 0.50], 0.6),
        Part::Nozzle => ([0.16, 0.16, 0.18], 0.3),
    };
    // How much sky the point sees, from one step along the normal.
    let reach = 0.12;
    let open = (rocket(add(p, scaled(normal, reach))).0 / reach).clamp(0.25, 1.0);
    let light = 0.24 * open + 0.80 * dot(normal, key).max(0.0) + 0.16 * dot(normal, fill).max(0.0);
    let half = normalised(add(key, [0.0, 0.0, 1.0]));
    let highlight = gloss * dot(normal, half).max(0.0).powi(48);
    add(scaled(base, light), [highlight; 3])
}

fn normal_at(p: Vec3) -> Vec3 {
    const STEP: f32 = 1e-3;
    let along = |axis: usize| {
        let mut ahead = p;
        let mut behind = p;
        ahead[axis] += STEP;
        behind[axis] -= STEP;
        rocket(ahead).0 - rocket(behind).0
    };
    normalised([along(0), along(1), along(2)])
}

fn closer(a: (f32, Part), b: (f32, Part)) -> (f32, Part) {
    if b.0 < a.0 { b } else { a }
}

fn add(a: Vec3, b: Vec3) -> Vec3 {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

fn scaled(a: Vec3, factor: f32) -> Vec3 {
    a.map(|value| value * factor)
}

fn mix(a: Vec3, b: Vec3, share: f32) -> Vec3 {
    add(scaled(a, 1.0 - share), scaled(b, share))
}

fn dot(a: Vec3, b: Vec3) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn length(a: Vec3) -> f32 {
    dot(a, a).sqrt()
}

fn normalised(a: Vec3) -> Vec3 {
    scaled(a, 1.0 / length(a).max(f32::MIN_POSITIVE))
}

/// IEC 61966-2-1, without its linear toe.
fn to_srgb(linear: f32) -> u8 {
    (linear.clamp(0.0, 1.0).powf(1.0 / 2.2) * 255.0).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rocket_stands_whole_inside_the_picture() {
        const SMALL: u32 = 64;
        let pixels = rocket_rgb(SMALL);
        let inside = |x: f32, y: f32| (0..200).any(|i| rocket([x, y, NEAR - i as f32 * 0.012]).0 < 0.0);
        assert_eq!(pixels.len(), (SMALL * SMALL * 3) as usize);
        assert!(inside(0.0, 0.0) && inside(0.5, -0.75) && inside(-0.5, -0.75));
        for i in 0..=100 {
            let along = i as f32 / 50.0 - 1.0;
            for (x, y) in [(along, 0.97), (along, -0.97), (0.97, along), (-0.97, along)] {
                assert!(!inside(x, y), "the rocket is cut at ({x}, {y})");
            }
        }
    }

    #[test]
    fn png_opens_with_its_size() {
        let file = rocket_png().unwrap();
        let reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        assert_eq!((reader.info().width, reader.info().height), (SIDE, SIDE));
    }
}
