//! What a picture is to the rest of the system, and how that is written beside it in the object store.

use std::collections::BTreeMap;

use orfeas_intake::ValidImage;
use orfeas_protocol::Sha256Digest;
use orfeas_protocol::view::InputImage;

/// What the job object says of a picture that passed the checks.
pub fn input(valid: &ValidImage) -> InputImage {
    InputImage {
        sha256: valid.sha256,
        format: valid.format.media_type().trim_start_matches("image/").to_owned(),
        width: valid.width,
        height: valid.height,
        bytes: valid.bytes,
    }
}

/// The same as metadata of the stored object, so that a later request by digest need not read the picture.
pub fn metadata(input: &InputImage) -> BTreeMap<String, String> {
    let entries = [
        ("format", input.format.clone()),
        ("width", input.width.to_string()),
        ("height", input.height.to_string()),
    ];
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Reads the metadata back; `None` if it is not ours.
pub fn from_metadata(
    sha256: Sha256Digest,
    bytes: u64,
    metadata: &BTreeMap<String, String>,
) -> Option<InputImage> {
    let number = |name: &str| metadata.get(name)?.parse().ok();
    let format = metadata.get("format")?.clone();
    Some(InputImage { sha256, format, width: number("width")?, height: number("height")?, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_picture_is_known_by_its_metadata() {
        let sha256 = Sha256Digest::of("x");
        let input = InputImage { sha256, format: "png".to_owned(), width: 3, height: 4, bytes: 5 };
        assert_eq!(from_metadata(sha256, 5, &metadata(&input)), Some(input));
        assert_eq!(from_metadata(sha256, 5, &BTreeMap::new()), None);
        let foreign =
            BTreeMap::from([("format".to_owned(), "png".to_owned()), ("width".to_owned(), "x".to_owned())]);
        assert_eq!(from_metadata(sha256, 5, &foreign), None);
    }
}
