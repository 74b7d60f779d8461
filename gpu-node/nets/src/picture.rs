//! The image front end: a cut-out picture to the tensors that the conditioner takes.
//!
//! ```text
//! RGBA ─▶ box of the subject ─▶ scaled (area) to the middle of a square, on white ─▶ cubic to size ─▶ -1..1
//! ```
//!
//! The published models were trained on pictures prepared with OpenCV, so the
//! resampling is OpenCV's, to a level in 255 ([`resize`]).

pub mod resize;

use crate::Error;
use crate::error::require;
use orfeas_torch::attempt;
use resize::{area, cubic, nearest};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

/// Eight-bit pixels, row by row, channels interleaved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes of a pixel: 1, 3 or 4.
    pub channels: usize,
    /// `height · width · channels` bytes.
    pub pixels: Vec<u8>,
}

/// How pictures are prepared, as in `config.yaml` under `image_processor.params`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Side of the prepared picture, in pixels.
    pub size: usize,
    /// Share of the square that stays free around the subject.
    pub border_ratio: Option<f64>,
}

impl Default for Config {
    fn default() -> Self {
        Self { size: 512, border_ratio: None }
    }
}

/// Free share where the configuration gives none.
const DEFAULT_BORDER_RATIO: f64 = 0.15;

impl Config {
    /// Checks the ranges.
    pub fn validate(&self) -> Result<(), Error> {
        require((1..=4096).contains(&self.size), "image_processor", || format!("size is {}", self.size))?;
        let border = self.border_ratio();
        require((0.0..1.0).contains(&border), "image_processor", || format!("border_ratio is {border}"))
    }

    fn border_ratio(&self) -> f64 {
        self.border_ratio.unwrap_or(DEFAULT_BORDER_RATIO)
    }
}

/// A picture as the conditioner takes it.
#[derive(Debug)]
pub struct Prepared {
    /// `[1, 3, s, s]` in -1..1.
    pub image: Tensor,
    /// `[1, 1, s, s]` in -1..1.
    pub mask: Tensor,
}

/// Prepares a cut-out picture (RGBA, or RGB that is all subject).
///
/// # Errors
/// [`Error::NoSubject`] if the subject is less than two pixels wide or high.
pub fn prepare(picture: &Picture, config: &Config) -> Result<Prepared, Error> {
    config.validate()?;
    let (rgb, mask) = recentre(picture, config.border_ratio())?;
    let size = config.size;
    Ok(attempt(|| Prepared {
        image: signed(&cubic(&rgb, size, size)),
        mask: signed(&nearest(&mask, size, size)),
    })?)
}

/// Bytes to -1..1, `[1, channels, height, width]`.
fn signed(picture: &Picture) -> Tensor {
    let shape = [picture.height as i64, picture.width as i64, picture.channels as i64];
    let bytes = Tensor::from_slice(&picture.pixels).view(shape);
    let unit = bytes.permute([2, 0, 1]).unsqueeze(0).to_kind(Kind::Float) / 255.0;
    (unit * 2.0 - 1.0).to_device(Device::Cpu).contiguous()
}

/// Scales the subject to the middle of a square, on white. Returns colour and mask.
///
/// The box leaves out the subject's last row and column, as the reference's does.
pub fn recentre(picture: &Picture, border_ratio: f64) -> Result<(Picture, Picture), Error> {
    let rgba = picture.to_rgba();
    let (rows, columns) = rgba.subject_box().ok_or(Error::NoSubject)?;
    let (height, width) = (rows.1 - rows.0, columns.1 - columns.0);
    if height == 0 || width == 0 {
        return Err(Error::NoSubject);
    }
    let side = rgba.width.max(rgba.height);
    let target = (side as f64 * (1.0 - border_ratio)).floor();
    let scale = target / height.max(width) as f64;
    let scaled = |length: usize| ((length as f64 * scale) as usize).max(1);
    let (height, width) = (scaled(height), scaled(width));
    let subject = area(&rgba.crop(rows, columns), width, height);
    let (top, left) = ((side - height) / 2, (side - width) / 2);

    let mut rgb = Picture { width: side, height: side, channels: 3, pixels: vec![255; side * side * 3] };
    let mut mask = Picture { width: side, height: side, channels: 1, pixels: vec![0; side * side] };
    for (i, pixel) in subject.pixels.chunks_exact(4).enumerate() {
        let at = (top + i / width) * side + left + i % width;
        let alpha = f32::from(pixel[3]) / 255.0;
        for (out, &value) in rgb.pixels[3 * at..].iter_mut().zip(&pixel[..3]) {
            let colour = f32::from(value) * alpha + 255.0 * (1.0 - alpha);
            *out = colour.clamp(0.0, 255.0) as u8;
        }
        mask.pixels[at] = (alpha * 255.0).clamp(0.0, 255.0) as u8;
    }
    Ok((rgb, mask))
}

impl Picture {
    /// A picture of the given size.
    ///
    /// # Errors
    /// The bytes are not `height · width · channels`, or the channels not 1, 3 or 4.
    pub fn new(width: usize, height: usize, channels: usize, pixels: Vec<u8>) -> Result<Self, Error> {
        let fits = matches!(channels, 1 | 3 | 4) && pixels.len() == width * height * channels;
        require(fits, "picture", || {
            format!("{} bytes are no picture of {width}×{height}×{channels}", pixels.len())
        })?;
        Ok(Self { width, height, channels, pixels })
    }

    fn to_rgba(&self) -> Picture {
        let pixels = match self.channels {
            4 => self.pixels.clone(),
            3 => self.pixels.chunks_exact(3).flat_map(|rgb| [rgb[0], rgb[1], rgb[2], 255]).collect(),
            _ => self.pixels.iter().flat_map(|&grey| [grey, grey, grey, 255]).collect(),
        };
        Picture { channels: 4, pixels, ..*self }
    }

    /// First and last row, first and last column with any alpha.
    fn subject_box(&self) -> Option<((usize, usize), (usize, usize))> {
        let (mut rows, mut columns) = ((usize::MAX, 0), (usize::MAX, 0));
        for (i, pixel) in self.pixels.chunks_exact(4).enumerate() {
            if pixel[3] != 0 {
                let (row, column) = (i / self.width, i % self.width);
                rows = (rows.0.min(row), rows.1.max(row));
                columns = (columns.0.min(column), columns.1.max(column));
            }
        }
        (rows.0 != usize::MAX).then_some((rows, columns))
    }

    /// Rows and columns from the first up to the last, the last excluded.
    fn crop(&self, rows: (usize, usize), columns: (usize, usize)) -> Picture {
        let (width, channels) = (columns.1 - columns.0, self.channels);
        let pixels = (rows.0..rows.1).flat_map(|row| {
            let first = (row * self.width + columns.0) * channels;
            &self.pixels[first..first + width * channels]
        });
        Picture { width, height: rows.1 - rows.0, channels, pixels: pixels.copied().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A square of opaque red in a transparent picture.
    fn square(side: usize, from: usize, to: usize) -> Picture {
        let mut pixels = vec![0; side * side * 4];
        for row in from..to {
            for column in from..to {
                let at = (row * side + column) * 4;
                pixels[at..at + 4].copy_from_slice(&[255, 0, 0, 255]);
            }
        }
        Picture::new(side, side, 4, pixels).unwrap()
    }

    #[test]
    fn the_subject_ends_in_the_middle_with_the_border_asked_for() {
        let (rgb, mask) = recentre(&square(100, 3, 24), 0.2).unwrap();
        assert_eq!((rgb.width, rgb.height), (100, 100));
        let inside = |row: usize, column: usize| mask.pixels[row * 100 + column] == 255;
        assert!(inside(10, 10) && inside(89, 89) && !inside(9, 50) && !inside(50, 90));
        assert_eq!(rgb.pixels[..3], [255, 255, 255]);
        assert_eq!(rgb.pixels[(50 * 100 + 50) * 3..][..3], [255, 0, 0]);
    }

    #[test]
    fn a_picture_without_subject_is_an_error() {
        for picture in [square(32, 5, 5), square(32, 5, 6)] {
            assert!(matches!(recentre(&picture, 0.15), Err(Error::NoSubject)));
        }
    }

    #[test]
    fn a_hair_keeps_a_pixel() {
        let mut pixels = vec![0; 64 * 64 * 4];
        for row in 0..64 {
            pixels[row * 64 * 4 + 3] = 255;
            pixels[row * 64 * 4 + 7] = 255;
        }
        let hair = Picture::new(64, 64, 4, pixels).unwrap();
        let (_, mask) = recentre(&hair, 0.9).unwrap();
        assert!(mask.pixels.iter().any(|&alpha| alpha > 0));
    }

    #[test]
    fn prepared_pictures_have_the_size_and_range_of_the_config() {
        let config = Config { size: 48, border_ratio: None };
        let prepared = prepare(&square(100, 10, 60), &config).unwrap();
        assert_eq!(prepared.image.size(), [1, 3, 48, 48]);
        assert_eq!(prepared.mask.size(), [1, 1, 48, 48]);
        let (least, greatest) = prepared.image.aminmax(None, false);
        assert_eq!((least.double_value(&[]), greatest.double_value(&[])), (-1.0, 1.0));
    }

    #[test]
    fn bytes_that_are_no_picture_are_refused() {
        assert!(Picture::new(4, 4, 3, vec![0; 47]).is_err());
        assert!(Picture::new(4, 4, 2, vec![0; 32]).is_err());
        let config = Config { size: 0, border_ratio: None };
        assert!(prepare(&square(10, 1, 9), &config).is_err());
    }
}
