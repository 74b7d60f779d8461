//! What a picture is to the rest of the system.

use orfeas_intake::ValidImage;
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
