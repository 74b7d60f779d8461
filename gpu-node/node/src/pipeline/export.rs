//! The `export` stage: a painted mesh to the bytes of the requested format.
//!
//! Whatever the format: +Y up, the picture's front toward +Z, the middle of the box at the origin, and the longest
//! side of the box one metre.

use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use orfeas_geometry::export::{ExportError, glb, obj, ply, stl};
use orfeas_geometry::{EncodedImage, ImageFormat, Model, Texture};
use orfeas_protocol::options::ModelFormat;

use super::PipelineError;
use super::stage::Tick;

/// The longest side of a model's box, in metres.
pub(super) const EXTENT_M: f32 = 1.0;

/// At this quality, blocks cannot be seen on a model that fills a screen.
const JPEG_QUALITY: u8 = 90;

/// Textures up to this size are tried as PNG as well: flat drawings come out smaller, and exact.
const PNG_PIXELS_MAX: u32 = 512 * 512;

/// Writes the file.
pub(super) fn write(model: &Model, format: ModelFormat) -> Result<Vec<u8>, PipelineError> {
    let written: Result<Vec<u8>, ExportError> = match format {
        ModelFormat::Glb => glb(model),
        ModelFormat::Obj => obj(model),
        ModelFormat::Ply => ply(model),
        ModelFormat::Stl => stl(&model.mesh),
    };
    written.map_err(|error| PipelineError::Export(error.to_string()))
}

/// The texture in whichever format is smaller.
pub(super) fn encode(texture: &Texture, tick: &mut Tick<'_>) -> Result<EncodedImage, PipelineError> {
    let failed = |error: &dyn std::error::Error| PipelineError::Export(error.to_string());
    let rgb: Vec<u8> = texture.pixels().iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect();
    let (width, height) = (texture.width(), texture.height());
    tick(0.2)?;
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY)
        .encode(&rgb, width, height, ExtendedColorType::Rgb8)
        .map_err(|error| failed(&error))?;
    tick(0.6)?;
    if width * height <= PNG_PIXELS_MAX {
        let png = texture.encode(ImageFormat::Png).map_err(|error| failed(&error))?;
        if png.bytes.len() <= jpeg.len() {
            return Ok(png);
        }
    }
    Ok(EncodedImage { format: ImageFormat::Jpeg, bytes: jpeg })
}
