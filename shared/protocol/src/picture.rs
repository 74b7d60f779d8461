//! What stands beside a picture in the uploads store. Its name there is the digest of what was sent; its bytes are what
//! is left of that without its metadata, so the two need not agree, and the object's description says whose bytes they
//! are.

use std::collections::BTreeMap;

use crate::Sha256Digest;
use crate::view::InputImage;

/// The digest of what was sent, from which the object was made by taking its metadata out.
const SENT_SHA256: &str = "sent_sha256";
const FORMAT: &str = "format";
const WIDTH: &str = "width";
const HEIGHT: &str = "height";

/// The entries of a picture that was stored without its metadata, so that a later request by digest need not read it.
pub fn metadata(input: &InputImage) -> BTreeMap<String, String> {
    let entries = [
        (SENT_SHA256, input.sha256.to_string()),
        (FORMAT, input.format.clone()),
        (WIDTH, input.width.to_string()),
        (HEIGHT, input.height.to_string()),
    ];
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Reads the entries of the picture of this name back, which has `bytes` stored as sent; `None` if they do not tell
/// all of it.
pub fn from_metadata(
    sha256: Sha256Digest,
    bytes: u64,
    metadata: &BTreeMap<String, String>,
) -> Option<InputImage> {
    let number = |name: &str| metadata.get(name)?.parse().ok();
    let format = metadata.get(FORMAT)?.clone();
    Some(InputImage { sha256, format, width: number(WIDTH)?, height: number(HEIGHT)?, bytes })
}

/// Whether an object says that it was made from the picture of this name.
pub fn is_made_from(sent: &Sha256Digest, metadata: &BTreeMap<String, String>) -> bool {
    metadata.get(SENT_SHA256).is_some_and(|text| *text == sent.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_picture_is_known_by_its_metadata() {
        let sha256 = Sha256Digest::of("x");
        let input = InputImage { sha256, format: "png".to_owned(), width: 3, height: 4, bytes: 5 };
        assert_eq!(from_metadata(sha256, 5, &metadata(&input)), Some(input.clone()));
        assert_eq!(from_metadata(sha256, 5, &BTreeMap::new()), None);
        let foreign =
            BTreeMap::from([("format".to_owned(), "png".to_owned()), ("width".to_owned(), "x".to_owned())]);
        assert_eq!(from_metadata(sha256, 5, &foreign), None);
        assert!(is_made_from(&sha256, &metadata(&input)));
        assert!(!is_made_from(&Sha256Digest::of("y"), &metadata(&input)) && !is_made_from(&sha256, &foreign));
    }
}
