//! `Accept` (RFC 9110, 12.5.1): whether a caller who waits for a model wants the file or the job object.

use orfeas_protocol::Code;

use crate::failure::Failure;

/// What a finished `generate-3d` answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The model's file.
    File,
    /// The job object.
    Job,
}

/// Chooses what to answer with; the file unless the caller likes JSON better.
///
/// # Errors
/// Neither is acceptable (406).
pub fn choose(accept: Option<&str>, file_type: &str) -> Result<Wanted, Failure> {
    let Some(accept) = accept else { return Ok(Wanted::File) };
    let (file, job) = (quality(accept, file_type), quality(accept, "application/json"));
    if job > file {
        return Ok(Wanted::Job);
    }
    if file > 0 {
        return Ok(Wanted::File);
    }
    Err(Failure::new(Code::NotAcceptable, format!("the answer is {file_type} or application/json")))
}

/// How much a media type is liked, in thousandths: the quality of the most specific range that matches it.
fn quality(accept: &str, media_type: &str) -> u16 {
    let main = media_type.split('/').next().unwrap_or_default();
    let mut best = (0, 0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let specificity = if name.eq_ignore_ascii_case(media_type) {
            3
        } else if name.split_once('/').is_some_and(|(m, sub)| sub == "*" && m.eq_ignore_ascii_case(main)) {
            2
        } else if name == "*/*" {
            1
        } else {
            continue;
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let weight = weight.map_or(1.0, |text| text.parse::<f32>().unwrap_or(0.0)).clamp(0.0, 1.0);
        // A weight has three decimals; the cast cannot overflow after the clamp.
        best = best.max((specificity, (weight * 1000.0).round() as u16));
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_given_to_those_who_prefer_it() {
        let cases = [
            (None, Some(Wanted::File)),
            (Some("*/*"), Some(Wanted::File)),
            (Some("model/gltf-binary"), Some(Wanted::File)),
            (Some("model/*;q=0.5"), Some(Wanted::File)),
            (Some("application/json"), Some(Wanted::Job)),
            (Some("Application/JSON, */*;q=0.1"), Some(Wanted::Job)),
            (Some("application/json, model/gltf-binary"), Some(Wanted::File)),
            (Some("application/json;q=0.9, model/*; q=0.8"), Some(Wanted::Job)),
            (Some("text/html, */*;q=0.8, model/gltf-binary;q=0"), Some(Wanted::Job)),
            (Some("text/html"), None),
            (Some("model/gltf-binary;q=0"), None),
            (Some("*/*;q=x"), None),
            (Some(""), None),
        ];
        for (accept, expected) in cases {
            assert_eq!(choose(accept, "model/gltf-binary").ok(), expected, "{accept:?}");
        }
    }
}
