//! The one EXIF field that matters before decoding: the orientation (EXIF 2.32, tag 0x0112).
//!
//! EXIF blocks in the wild are often damaged; a block that cannot be read counts as absent, because no
//! decoder refuses a picture for it.

/// How the stored picture has to be turned to stand upright: the EXIF value, 1 to 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Orientation(u8);

impl Orientation {
    /// Stored upright.
    pub const UPRIGHT: Self = Self(1);

    /// The orientation with this EXIF value, if it is one of 1 to 8.
    pub fn from_exif(value: u8) -> Option<Self> {
        (1..=8).contains(&value).then_some(Self(value))
    }

    /// The EXIF value, 1 to 8.
    pub fn to_exif(self) -> u8 {
        self.0
    }

    /// Whether width and height change places when the picture is turned upright.
    pub fn swaps_sides(self) -> bool {
        self.0 >= 5
    }
}

impl Default for Orientation {
    fn default() -> Self {
        Self::UPRIGHT
    }
}

/// The identifier in front of the TIFF structure: always in JPEG, sometimes in WebP.
pub(crate) const EXIF_IDENTIFIER: &[u8] = b"Exif\0\0";

const TAG_ORIENTATION: u16 = 0x0112;
const TYPE_SHORT: u16 = 3;
const ENTRY_BYTES: usize = 12;

/// Reads the orientation from an EXIF block, with or without its identifier.
pub(crate) fn orientation(block: &[u8]) -> Option<Orientation> {
    let tiff = Tiff::open(block.strip_prefix(EXIF_IDENTIFIER).unwrap_or(block))?;
    let directory = tiff.u32_at(4)? as usize;
    let entries = usize::from(tiff.u16_at(directory)?);
    (0..entries).map_while(|i| directory.checked_add(2 + i * ENTRY_BYTES)).find_map(|entry| {
        let is_orientation = tiff.u16_at(entry)? == TAG_ORIENTATION
            && tiff.u16_at(entry + 2)? == TYPE_SHORT
            && tiff.u32_at(entry + 4)? == 1;
        let value = is_orientation.then(|| tiff.u16_at(entry + 8))??;
        Orientation::from_exif(u8::try_from(value).ok()?)
    })
}

struct Tiff<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl<'a> Tiff<'a> {
    fn open(bytes: &'a [u8]) -> Option<Self> {
        let big_endian = match bytes.get(..4)? {
            b"MM\0*" => true,
            b"II*\0" => false,
            _ => return None,
        };
        Some(Self { bytes, big_endian })
    }

    fn u16_at(&self, at: usize) -> Option<u16> {
        let bytes = self.bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn u32_at(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(big_endian: bool, tag: u16, kind: u16, value: u16) -> Vec<u8> {
        let u16_bytes = |v: u16| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() };
        let u32_bytes = |v: u32| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() };
        let mut out = if big_endian { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
        out.extend(u32_bytes(8));
        out.extend(u16_bytes(2));
        for (tag, kind, value) in [(0x0100, TYPE_SHORT, 7), (tag, kind, value)] {
            out.extend(u16_bytes(tag));
            out.extend(u16_bytes(kind));
            out.extend(u32_bytes(1));
            out.extend(u16_bytes(value));
            out.extend([0, 0]);
        }
        out
    }

    #[test]
    fn orientation_is_read_in_both_byte_orders() {
        for big_endian in [false, true] {
            for value in 1..=8 {
                let bare = block(big_endian, TAG_ORIENTATION, TYPE_SHORT, value);
                assert_eq!(orientation(&bare).map(Orientation::to_exif), Some(value as u8));
                let with_identifier = [EXIF_IDENTIFIER, &bare].concat();
                assert_eq!(orientation(&with_identifier), orientation(&bare));
            }
        }
    }

    #[test]
    fn an_orientation_that_is_none_counts_as_absent() {
        for value in [0, 9, 256 + 3] {
            assert_eq!(orientation(&block(true, TAG_ORIENTATION, TYPE_SHORT, value)), None);
        }
        assert_eq!(orientation(&block(true, TAG_ORIENTATION, 4, 6)), None);
        assert_eq!(orientation(&block(true, 0x0113, TYPE_SHORT, 6)), None);
    }

    #[test]
    fn turned_pictures_swap_their_sides() {
        let swapping: Vec<u8> =
            (1..=8).filter(|&v| Orientation::from_exif(v).unwrap().swaps_sides()).collect();
        assert_eq!(swapping, [5, 6, 7, 8]);
    }

    proptest! {
        #[test]
        fn damaged_blocks_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..64), little in any::<bool>()) {
            let header = if little { b"II*\0" } else { b"MM\0*" };
            bytes.splice(0..0, *header);
            orientation(&bytes);
        }
    }
}
