//! Pictures drawn in code, so that the tests need no file of anybody's.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageFormat, Rgba, RgbaImage};

/// A shaded ball with a dark band, cut out: transparent around it.
pub fn ball(side: u32) -> RgbaImage {
    RgbaImage::from_fn(side, side, |x, y| {
        let half = side as f32 / 2.0;
        let (u, v) = ((x as f32 + 0.5 - half) / half, (y as f32 + 0.5 - half) / half);
        let r = (u * u + v * v).sqrt() / 0.8;
        if r > 1.0 {
            return Rgba([0, 0, 0, 0]);
        }
        let light = 0.35 + 0.65 * ((1.0 - r * r).sqrt() * 0.6 - u * 0.4 - v * 0.5).clamp(0.0, 1.0);
        let base = if v.abs() < 0.12 { [40.0, 40.0, 60.0] } else { [230.0, 90.0, 40.0] };
        let [r, g, b] = base.map(|channel: f32| (channel * light) as u8);
        Rgba([r, g, b, 255])
    })
}

/// The ball as a PNG. `marker` makes the file's digest its own.
pub fn png(side: u32, marker: u8) -> Vec<u8> {
    let mut picture = ball(side);
    picture.put_pixel(side / 2, side / 2, Rgba([marker, 7, 7, 255]));
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// The ball on white as a JPEG with some grain, so that the file has a size like a photograph's.
pub fn jpeg(side: u32, quality: u8, grain: u8) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut rgb = Vec::with_capacity((side * side * 3) as usize);
    for Rgba([r, g, b, a]) in ball(side).pixels() {
        for channel in [r, g, b] {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let noise = if grain == 0 { 0 } else { (state % u64::from(grain)) as u8 };
            let base = if *a == 0 { 255 - grain } else { *channel };
            rgb.push(base.saturating_add(noise));
        }
    }
    let mut bytes = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
    encoder.write_image(&rgb, side, side, ExtendedColorType::Rgb8).unwrap();
    bytes
}

/// The ball as a JPEG that lies on its side and says so, and whose EXIF block, XMP packet, comment and tail hold
/// `secret`. `marker` makes the file's digest its own.
pub fn labelled_jpeg(side: u32, marker: u8, secret: &str) -> Vec<u8> {
    let plain = jpeg(side, 90, marker);
    // Little-endian TIFF: the orientation, then the artist, whose text lies behind the directory.
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\x3b\x01\x02\0".to_vec();
    exif.extend((secret.len() as u32 + 1).to_le_bytes());
    exif.extend(38u32.to_le_bytes());
    exif.extend([0; 4]);
    exif.extend(secret.bytes().chain([0]));
    let xmp = format!("http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>{secret}</x:xmpmeta>").into_bytes();
    let mut file = plain[..2].to_vec();
    for (marker, body) in [(0xe1, exif), (0xe1, xmp), (0xfe, secret.as_bytes().to_vec())] {
        file.extend([0xff, marker]);
        file.extend((body.len() as u16 + 2).to_be_bytes());
        file.extend(body);
    }
    file.extend_from_slice(&plain[2..]);
    file.extend(secret.bytes());
    file
}

/// The ball as a lossless WebP.
pub fn webp(side: u32) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    ball(side).write_to(&mut bytes, ImageFormat::WebP).unwrap();
    bytes.into_inner()
}

/// A valid PNG of exactly `size` bytes: an uncompressed-like small picture and one large private chunk.
/// The chunk is ancillary, private and safe to copy (PNG specification, 5.4), so decoders pass over it.
pub fn png_of_size(size: usize) -> Vec<u8> {
    let picture = png(64, 1);
    let end = picture.len() - 12; // IEND
    let payload = size - picture.len() - 12;
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(&picture[..end]);
    bytes.extend_from_slice(&(payload as u32).to_be_bytes());
    let start = bytes.len();
    bytes.extend_from_slice(b"orFs");
    bytes.resize(start + 4 + payload, 0x5a);
    let crc = crc32(&bytes[start..]);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes.extend_from_slice(&picture[end..]);
    bytes
}

/// CRC-32 as in the PNG specification, annex D.
fn crc32(bytes: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256u32)
        .map(|n| (0..8).fold(n, |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 }))
        .collect();
    !bytes.iter().fold(!0u32, |crc, byte| table[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8))
}
