//! Pictures with metadata of every kind around them, as cameras and editors write it.

use crc32fast::Hasher;

/// What must not be in a redacted file.
pub(crate) const SECRET: &[u8] = b"Jane Doe 52.5200N 13.4050E SN-4711";

/// An EXIF block: an orientation, an artist, and a GPS directory with the degrees of a place.
pub(crate) fn exif(orientation: u8) -> Vec<u8> {
    let mut out = b"II*\0\x08\0\0\0\x03\0".to_vec();
    let mut entry = |tag: u16, kind: u16, count: u32, value: [u8; 4]| {
        out.extend(tag.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend(count.to_le_bytes());
        out.extend(value);
    };
    let text_at = 8 + 2 + 3 * 12 + 4;
    let gps_at = text_at + SECRET.len() as u32 + 1;
    entry(0x0112, 3, 1, [orientation, 0, 0, 0]);
    entry(0x013b, 2, SECRET.len() as u32 + 1, text_at.to_le_bytes());
    entry(0x8825, 4, 1, gps_at.to_le_bytes());
    out.extend([0; 4]);
    out.extend(SECRET);
    out.push(0);
    // One entry: the latitude, three fractions behind the directory.
    out.extend([1, 0, 2, 0, 5, 0, 3, 0, 0, 0]);
    out.extend((gps_at + 2 + 12 + 4).to_le_bytes());
    out.extend([0; 4]);
    out.extend(GPS);
    out
}

/// 52° 31′ 12″ as fractions.
pub(crate) const GPS: [u8; 24] =
    [52, 0, 0, 0, 1, 0, 0, 0, 31, 0, 0, 0, 1, 0, 0, 0, 0xb0, 4, 0, 0, 100, 0, 0, 0];

/// The picture with metadata in every place that its format has for it, and behind its end.
pub(crate) fn labelled(picture: &[u8], orientation: u8) -> Vec<u8> {
    let labelled = match picture {
        [0xff, 0xd8, rest @ ..] => labelled_jpeg(rest, orientation),
        [0x89, ..] => labelled_png(picture, orientation),
        _ => labelled_webp(picture, orientation),
    };
    [labelled.as_slice(), SECRET].concat()
}

fn labelled_jpeg(rest: &[u8], orientation: u8) -> Vec<u8> {
    let xmp = [b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>".as_slice(), SECRET].concat();
    let mut out = b"\xff\xd8".to_vec();
    for (marker, body) in [
        (0xe0, [b"JFXX\0\x13\x01\x01".as_slice(), SECRET].concat()),
        (0xe1, [b"Exif\0\0".as_slice(), &exif(orientation)].concat()),
        (0xe1, xmp),
        (0xe2, [b"MPF\0".as_slice(), SECRET].concat()),
        (0xed, [b"Photoshop 3.0\x008BIM".as_slice(), SECRET].concat()),
        (0xfe, SECRET.to_vec()),
    ] {
        out.extend([0xff, marker]);
        out.extend(u16::try_from(body.len() + 2).unwrap().to_be_bytes());
        out.extend(body);
    }
    out.extend_from_slice(rest);
    out
}

fn labelled_png(picture: &[u8], orientation: u8) -> Vec<u8> {
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        let mut crc = Hasher::new();
        crc.update(kind);
        crc.update(data);
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        [length.as_slice(), kind, data, &crc.finalize().to_be_bytes()].concat()
    };
    let text = [b"Author\0".as_slice(), SECRET].concat();
    let xmp = [b"XML:com.adobe.xmp\0\0\0\0\0".as_slice(), SECRET].concat();
    let (header, rest) = picture.split_at(8 + 25);
    let (pixels, end) = rest.split_at(rest.len() - 12);
    let before = [chunk(b"eXIf", &exif(orientation)), chunk(b"tEXt", &text), chunk(b"prVt", SECRET)].concat();
    let after = [chunk(b"iTXt", &xmp), chunk(b"tIME", &[7, 234, 11, 27, 20, 10, 0])].concat();
    [header, &before, pixels, &after, end].concat()
}

/// As an extended file with an `EXIF` chunk, an `XMP ` chunk and one of nobody's.
fn labelled_webp(picture: &[u8], orientation: u8) -> Vec<u8> {
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        let size = u32::try_from(data.len()).unwrap().to_le_bytes();
        [kind.as_slice(), &size, data, [0].get(..data.len() % 2).unwrap()].concat()
    };
    let decoded = image::load_from_memory(picture).unwrap();
    let mut header = vec![0x0c | if decoded.color().has_alpha() { 0x10 } else { 0 }, 0, 0, 0];
    header.extend(&(decoded.width() - 1).to_le_bytes()[..3]);
    header.extend(&(decoded.height() - 1).to_le_bytes()[..3]);
    let chunks = picture.get(12..).unwrap();
    // An extended header that is there already has said what the file holds; ours says more.
    let chunks = chunks.strip_prefix(b"VP8X\x0a\0\0\0").map_or(chunks, |rest| &rest[10..]);
    let chunks = [
        chunk(b"VP8X", &header),
        chunks.to_vec(),
        chunk(b"EXIF", &exif(orientation)),
        chunk(b"XMP ", SECRET),
        chunk(b"note", SECRET),
    ]
    .concat();
    let size = u32::try_from(chunks.len() + 4).unwrap().to_le_bytes();
    [b"RIFF".as_slice(), &size, b"WEBP", &chunks].concat()
}
