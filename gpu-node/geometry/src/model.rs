//! What a model file holds: a mesh, and a picture painted on it.

use std::io::Cursor;

use thiserror::Error;

use crate::mesh::Mesh;

/// Roughness of the surfaces that we make: a matt thing without gloss, as photographs with baked light need it.
pub const DEFAULT_ROUGHNESS: f32 = 0.9;

/// The file formats in which a texture can be embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// Lossless.
    Png,
    /// Smaller.
    Jpeg,
}

impl ImageFormat {
    /// The media type that files name.
    pub const fn media_type(self) -> &'static str {
        match self {
            ImageFormat::Png => "image/png",
            ImageFormat::Jpeg => "image/jpeg",
        }
    }

    /// The format of a media type.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        [ImageFormat::Png, ImageFormat::Jpeg].into_iter().find(|format| format.media_type() == media_type)
    }
}

/// A picture in its file format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedImage {
    /// Which format.
    pub format: ImageFormat,
    /// The file.
    pub bytes: Vec<u8>,
}

/// A picture cannot be read or written.
#[derive(Debug, Error)]
pub enum TextureError {
    /// The bytes are no such picture.
    #[error("cannot decode the texture")]
    Decode(#[source] image::ImageError),
    /// The encoder failed.
    #[error("cannot encode the texture")]
    Encode(#[source] image::ImageError),
    /// The pixels are not `width · height`.
    #[error("{found} pixels for a texture of {width} × {height}")]
    Size {
        /// How many pixels there are.
        found: usize,
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
    },
}

/// Pixels: sRGB and straight alpha, row by row from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texture {
    width: u32,
    height: u32,
    pixels: Vec<[u8; 4]>,
}

impl Texture {
    /// A picture of `width · height` pixels, at least one.
    pub fn new(width: u32, height: u32, pixels: Vec<[u8; 4]>) -> Result<Self, TextureError> {
        let expected = width as usize * height as usize;
        if expected == 0 || pixels.len() != expected {
            return Err(TextureError::Size { found: pixels.len(), width, height });
        }
        Ok(Self { width, height, pixels })
    }

    /// Reads a PNG or JPEG file.
    pub fn decode(encoded: &EncodedImage) -> Result<Self, TextureError> {
        let format = codec(encoded.format);
        let decoded =
            image::load_from_memory_with_format(&encoded.bytes, format).map_err(TextureError::Decode)?;
        let decoded = decoded.into_rgba8();
        let (width, height) = decoded.dimensions();
        Self::new(width, height, decoded.pixels().map(|pixel| pixel.0).collect())
    }

    /// Writes a PNG or JPEG file; JPEG loses the alpha channel.
    pub fn encode(&self, format: ImageFormat) -> Result<EncodedImage, TextureError> {
        let mut bytes = Cursor::new(Vec::new());
        let (width, height) = (self.width, self.height);
        let written = match format {
            ImageFormat::Png => image::write_buffer_with_format(
                &mut bytes,
                self.pixels.as_flattened(),
                width,
                height,
                image::ExtendedColorType::Rgba8,
                codec(format),
            ),
            ImageFormat::Jpeg => {
                let rgb: Vec<u8> = self.pixels.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect();
                let colour = image::ExtendedColorType::Rgb8;
                image::write_buffer_with_format(&mut bytes, &rgb, width, height, colour, codec(format))
            }
        };
        written.map_err(TextureError::Encode)?;
        Ok(EncodedImage { format, bytes: bytes.into_inner() })
    }

    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// All pixels, row by row from the top.
    pub fn pixels(&self) -> &[[u8; 4]] {
        &self.pixels
    }

    /// The colour at a texture coordinate, mixed of the four nearest pixels, clamped at the border; sRGB, 0 to 255.
    pub fn sample(&self, uv: [f32; 2]) -> [f32; 4] {
        let (width, height) = (self.width as usize, self.height as usize);
        let x = (uv[0] * width as f32 - 0.5).clamp(0.0, (width - 1) as f32);
        let y = (uv[1] * height as f32 - 0.5).clamp(0.0, (height - 1) as f32);
        let (x0, y0) = (x as usize, y as usize);
        let (x1, y1) = ((x0 + 1).min(width - 1), (y0 + 1).min(height - 1));
        let (fx, fy) = (x - x0 as f32, y - y0 as f32);
        let at = |x: usize, y: usize, channel: usize| f32::from(self.pixels[y * width + x][channel]);
        std::array::from_fn(|channel| {
            let upper = at(x0, y0, channel) * (1.0 - fx) + at(x1, y0, channel) * fx;
            let lower = at(x0, y1, channel) * (1.0 - fx) + at(x1, y1, channel) * fx;
            upper * (1.0 - fy) + lower * fy
        })
    }
}

/// A mesh and its paint: what one model file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The surface.
    pub mesh: Mesh,
    /// The base colour, laid on by the mesh's texture coordinates.
    pub texture: Option<EncodedImage>,
    /// 0 is a mirror, 1 is chalk.
    pub roughness: f32,
}

impl Model {
    /// A model without a texture.
    pub fn untextured(mesh: Mesh) -> Self {
        Self { mesh, texture: None, roughness: DEFAULT_ROUGHNESS }
    }

    /// A model with a texture, which shows only on a mesh with texture coordinates.
    pub fn textured(mesh: Mesh, texture: EncodedImage) -> Self {
        Self { mesh, texture: Some(texture), roughness: DEFAULT_ROUGHNESS }
    }
}

fn codec(format: ImageFormat) -> image::ImageFormat {
    match format {
        ImageFormat::Png => image::ImageFormat::Png,
        ImageFormat::Jpeg => image::ImageFormat::Jpeg,
    }
}
