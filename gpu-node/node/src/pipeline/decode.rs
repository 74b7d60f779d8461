//! The `decode` stage: file bytes to an upright picture of working size.

use std::io::{self, BufRead, Cursor, Read, Seek, SeekFrom};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, ImageResult, Limits};

use super::PipelineError;
use super::raster::{self, Raster};
use super::stage::Tick;

/// Texture detail beyond this is lost on a model of this kind, and costs time in every stage.
const PICTURE_SIDE_MAX: usize = 2048;

/// What decoding may allocate: 64 megapixels of 16-bit RGBA, the most that the upload checks let through.
const DECODE_BYTES_MAX: u64 = 512 << 20;

/// The largest side that the upload checks let through.
const SOURCE_SIDE_MAX: u32 = 16_384;

/// The picture, upright: RGB and straight alpha in sRGB, 0 to 255.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Picture {
    pub(crate) colour: Raster<[u8; 4]>,
}

/// Decodes, turns upright after the EXIF orientation, and scales down to at most 2048 pixels a side.
///
/// # Errors
/// [`PipelineError::InvalidImage`] when the decoder refuses the file or it exceeds the limits; what `tick` answers.
pub(crate) fn decode(file: &[u8], tick: &mut Tick<'_>) -> Result<Picture, PipelineError> {
    let mut stopped = None;
    let decoded = decoded(AskingReader { file, position: 0, unasked: 0, tick, stopped: &mut stopped });
    if let Some(stopped) = stopped {
        return Err(stopped);
    }
    let (mut image, orientation) = decoded.map_err(|error| PipelineError::InvalidImage(error.to_string()))?;
    tick(0.6)?;
    image.apply_orientation(orientation);
    tick(0.7)?;
    Ok(Picture { colour: scaled_down(image) })
}

fn decoded(file: AskingReader<'_, '_, '_>) -> ImageResult<(DynamicImage, Orientation)> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(SOURCE_SIDE_MAX);
    limits.max_image_height = Some(SOURCE_SIDE_MAX);
    limits.max_alloc = Some(DECODE_BYTES_MAX);
    let mut reader = ImageReader::new(file).with_guessed_format()?;
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    // A picture with a damaged EXIF block is shown as it is stored, as browsers do.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    Ok((DynamicImage::from_decoder(decoder)?, orientation))
}

/// The file for a decoder, which asks on its way whether to go on. PNG is decoded as it is read, so it stops where the
/// answer is no. JPEG and WebP are read whole before they are decoded: the largest picture that the upload checks let
/// through takes about a second then.
struct AskingReader<'f, 't, 'u> {
    file: &'f [u8],
    position: usize,
    /// Bytes since the last question.
    unasked: usize,
    tick: &'t mut Tick<'u>,
    /// The answer that was no.
    stopped: &'t mut Option<PipelineError>,
}

/// Bytes between two questions: at most a few milliseconds of decoding, as pictures compress.
const BYTES_PER_TICK: usize = 1 << 14;

impl BufRead for AskingReader<'_, '_, '_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.unasked >= BYTES_PER_TICK {
            self.unasked = 0;
            let done = self.position as f32 / self.file.len().max(1) as f32;
            if let Err(stopped) = (self.tick)(0.6 * done.min(1.0)) {
                *self.stopped = Some(stopped);
                return Err(io::Error::other("the job is cancelled"));
            }
        }
        let rest = self.file.get(self.position..).unwrap_or_default();
        Ok(rest.get(..BYTES_PER_TICK).unwrap_or(rest))
    }

    fn consume(&mut self, bytes: usize) {
        self.position += bytes;
        self.unasked += bytes;
    }
}

impl Read for AskingReader<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?.read(buffer)?;
        self.consume(bytes);
        Ok(bytes)
    }
}

impl Seek for AskingReader<'_, '_, '_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = Cursor::new(self.file).seek(match to {
            SeekFrom::Current(by) => SeekFrom::Start((self.position as u64).saturating_add_signed(by)),
            absolute => absolute,
        })?;
        self.position = usize::try_from(position).unwrap_or(usize::MAX);
        Ok(position)
    }
}

fn scaled_down(image: DynamicImage) -> Raster<[u8; 4]> {
    let source = (image.width() as usize, image.height() as usize);
    let size = raster::fit(source.0, source.1, PICTURE_SIDE_MAX);
    let rgb = matches!(image, DynamicImage::ImageRgb8(_));
    let (bytes, channels) =
        if rgb { (image.into_rgb8().into_raw(), 3) } else { (image.into_rgba8().into_raw(), 4) };
    let rgba = |pixel: &[u8]| match *pixel {
        [r, g, b, a] => [r, g, b, a],
        [r, g, b] => [r, g, b, 255],
        _ => [0; 4],
    };
    let stored =
        |y: usize| bytes[y * source.0 * channels..(y + 1) * source.0 * channels].chunks_exact(channels);
    if size == source {
        let samples = bytes.chunks_exact(channels).map(rgba).collect();
        return Raster::from_samples(size.0, size.1, samples).unwrap_or_else(|| Raster::filled(1, 1, [0; 4]));
    }
    // Colours are averaged by their coverage, so that what lies under full transparency does not bleed in.
    let premultiplied = raster::resample(source, size, |y, row: &mut [[f32; 4]]| {
        for (sample, pixel) in row.iter_mut().zip(stored(y)) {
            let [r, g, b, a] = rgba(pixel).map(f32::from);
            *sample = [r * a / 255.0, g * a / 255.0, b * a / 255.0, a];
        }
    });
    premultiplied.map(|[r, g, b, a]| {
        let gain = if a > 0.0 { 255.0 / a } else { 0.0 };
        [r * gain, g * gain, b * gain, a].map(|value| value.round().clamp(0.0, 255.0) as u8)
    })
}

#[cfg(test)]
mod tests {
    use image::codecs::png::PngEncoder;
    use image::{ExtendedColorType, ImageEncoder};

    use super::*;

    fn png(width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 4], exif: Option<Vec<u8>>) -> Vec<u8> {
        let pixels: Vec<u8> = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .flat_map(|(x, y)| pixel(x, y))
            .collect();
        let mut file = Vec::new();
        let mut encoder = PngEncoder::new(&mut file);
        if let Some(exif) = exif {
            encoder.set_exif_metadata(exif).unwrap();
        }
        encoder.write_image(&pixels, width, height, ExtendedColorType::Rgba8).unwrap();
        file
    }

    /// A little-endian TIFF header with one entry: orientation.
    fn orientation_block(orientation: u8) -> Vec<u8> {
        let mut block = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        block.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        block
    }

    #[test]
    fn orientation_is_applied() {
        // Stored red | blue; orientation 6 is shown turned by 90° clockwise: red above blue.
        let pixel = |x: u32, _: u32| if x < 16 { [255, 0, 0, 255] } else { [0, 0, 255, 255] };
        let picture = decode(&png(32, 16, pixel, Some(orientation_block(6))), &mut |_| Ok(())).unwrap();
        assert_eq!((picture.colour.width(), picture.colour.height()), (16, 32));
        assert_eq!(picture.colour.at(8, 2), [255, 0, 0, 255]);
        assert_eq!(picture.colour.at(8, 30), [0, 0, 255, 255]);
    }

    #[test]
    fn scaling_down_does_not_mix_hidden_colours_in() {
        let pixel =
            |x: u32, _: u32| if (x / 3).is_multiple_of(2) { [10, 200, 30, 255] } else { [255, 0, 255, 0] };
        let picture = decode(&png(4096, 16, pixel, None), &mut |_| Ok(())).unwrap();
        assert_eq!(picture.colour.width(), PICTURE_SIDE_MAX);
        for &[r, g, b, a] in picture.colour.samples() {
            assert!(
                a == 0 || (r.abs_diff(10) < 2 && g.abs_diff(200) < 2 && b.abs_diff(30) < 2),
                "{r} {g} {b} {a}"
            );
        }
    }

    #[test]
    fn a_png_stops_where_the_job_is_cancelled() {
        // Noise, so that the file has a size.
        let noise = |x: u32, y: u32| (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503)).to_le_bytes();
        let file = png(512, 256, noise, None);
        let mut looks = 0;
        decode(&file, &mut |_| {
            looks += 1;
            Ok(())
        })
        .unwrap();
        // A piece is as long, and the question comes after it.
        assert!(looks > file.len() / (2 * BYTES_PER_TICK), "{looks} looks at {} bytes", file.len());
        for stop_at in [1, looks / 2, looks] {
            let mut asked = 0;
            let outcome = decode(&file, &mut |_| {
                asked += 1;
                if asked >= stop_at { Err(PipelineError::Cancelled) } else { Ok(()) }
            });
            assert!(matches!(outcome, Err(PipelineError::Cancelled)), "{outcome:?}");
            assert_eq!(asked, stop_at);
        }
    }

    #[test]
    fn damaged_files_are_invalid_images() {
        let file = png(32, 32, |x, y| [x as u8, y as u8, 0, 255], None);
        for bad in [&file[..file.len() / 2], b"", b"GIF89a"] {
            assert!(matches!(decode(bad, &mut |_| Ok(())), Err(PipelineError::InvalidImage(_))));
        }
    }
}
