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

/// Reads the orientation from an EXIF block, with or without its identifier. The first entry of that tag decides, as
/// for the decoder that shows the picture.
pub(crate) fn orientation(block: &[u8]) -> Option<Orientation> {
    let tiff = Tiff::open(block.strip_prefix(EXIF_IDENTIFIER).unwrap_or(block))?;
    let directory = tiff.u32_at(4)? as usize;
    let entries = usize::from(tiff.u16_at(directory)?);
    let value = (0..entries)
        .map_while(|i| tiff.entry_at(directory.checked_add(2 + i * ENTRY_BYTES)?))
        .find(|entry| entry.tag == TAG_ORIENTATION && entry.kind == TYPE_SHORT && entry.count == 1)?
        .value;
    Orientation::from_exif(u8::try_from(value).ok()?)
}

/// The block with nothing but its orientation in it, of the same length and with its identifier if it had one; `None`
/// if it has no orientation to keep.
pub(crate) fn only_orientation(block: &[u8]) -> Option<Vec<u8>> {
    let orientation = orientation(block)?;
    let identifier = if block.starts_with(EXIF_IDENTIFIER) { EXIF_IDENTIFIER } else { &[] };
    let header = b"MM\0*\0\0\0\x08";
    let directory = [0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation.to_exif(), 0, 0];
    let mut only = [identifier, header, &directory].concat();
    if only.len() > block.len() {
        // Its directory and its header share bytes: there is no room for anything else.
        return Some(block.to_vec());
    }
    // The first four zeros say that no other directory follows; a block too short for them had no room for one.
    only.resize(block.len(), 0);
    Some(only)
}

/// One field of a directory, as far as numbers of 16 bits matter.
struct Entry {
    tag: u16,
    kind: u16,
    count: u32,
    value: u16,
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

    /// The entry at `at`, if the whole of it is there.
    fn entry_at(&self, at: usize) -> Option<Entry> {
        let end = at.checked_add(ENTRY_BYTES)?;
        self.bytes.get(at..end)?;
        Some(Entry {
            tag: self.u16_at(at)?,
            kind: self.u16_at(at + 2)?,
            count: self.u32_at(at + 4)?,
            value: self.u16_at(at + 8)?,
        })
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
    fn the_first_entry_of_the_tag_decides() {
        let mut twice = block(true, TAG_ORIENTATION, TYPE_SHORT, 6);
        twice[10..22].copy_from_slice(&[0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 99, 0, 0]);
        assert_eq!(orientation(&twice), None);
        twice[19] = 3;
        assert_eq!(orientation(&twice), Orientation::from_exif(3));
    }

    #[test]
    fn a_block_is_left_with_its_orientation_alone() {
        for big_endian in [false, true] {
            let bare = [&block(big_endian, TAG_ORIENTATION, TYPE_SHORT, 6), b"52.5200N".as_slice()].concat();
            for block in [bare.clone(), [EXIF_IDENTIFIER, &bare].concat()] {
                let only = only_orientation(&block).unwrap();
                assert_eq!((only.len(), orientation(&only)), (block.len(), Orientation::from_exif(6)));
                assert_eq!(only.starts_with(EXIF_IDENTIFIER), block.starts_with(EXIF_IDENTIFIER));
                assert!(!only.windows(3).any(|window| window == b"52."));
                let values = only.iter().filter(|&&byte| byte != 0).count();
                assert!(values <= 4 + 10, "nothing but the header and one entry: {only:?}");
            }
        }
        assert_eq!(only_orientation(&block(true, 0x013b, TYPE_SHORT, 6)), None);
    }

    #[test]
    fn a_directory_that_overlaps_its_header_stays() {
        // Big-endian: the offset's low half, 6, is the number of entries too.
        let overlapping = b"MM\0*\0\0\0\x06\x01\x12\0\x03\0\0\0\x01\0\x08\0\0";
        assert_eq!(orientation(overlapping), Orientation::from_exif(8));
        assert_eq!(only_orientation(overlapping).as_deref(), Some(overlapping.as_slice()));
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

        /// Any layout that is readable keeps its orientation and its length, and comes to rest.
        #[test]
        fn stripping_a_block_changes_neither_orientation_nor_length(
            offset in 0u8..40,
            filling in prop::collection::vec(any::<u8>(), 0..80),
            value in 1u8..9,
            little in any::<bool>(),
        ) {
            let mut bytes = if little { b"II*\0".to_vec() } else { b"MM\0*".to_vec() };
            bytes.extend(if little { [offset, 0, 0, 0] } else { [0, 0, 0, offset] });
            bytes.extend(filling);
            let entry = if little {
                [1, 0, 0x12, 0x01, 3, 0, 1, 0, 0, 0, value, 0, 0, 0]
            } else {
                [0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, value, 0, 0]
            };
            if let Some(room) = bytes.get_mut(usize::from(offset.max(8))..).and_then(|b| b.get_mut(..14)) {
                room.copy_from_slice(&entry);
            }
            if let Some(only) = only_orientation(&bytes) {
                prop_assert_eq!(only.len(), bytes.len());
                prop_assert_eq!(orientation(&only), orientation(&bytes));
                prop_assert_eq!(only_orientation(&only), Some(only.clone()));
            } else {
                prop_assert_eq!(orientation(&bytes), None);
            }
        }
    }
}
