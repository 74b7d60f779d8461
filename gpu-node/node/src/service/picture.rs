//! The checks that every picture passes, whichever way it came: those of `orfeas_intake`, and the block list. What goes
//! on from here has lost its metadata; its name stays the digest of what was sent.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::jetstream::kv::{self, Operation};
use bytes::Bytes;
use orfeas_intake::{Declared, Limits, Rejection, ValidImage, inspect, redact};
use orfeas_protocol::Sha256Digest;
use orfeas_protocol::options::JobOptions;
use orfeas_protocol::picture::is_made_from;
use orfeas_protocol::problem::{Code, Problem};
use orfeas_protocol::subjects::blocklist_key;
use orfeas_protocol::view::InputImage;
use thiserror::Error;

use super::objects::{ObjectError, Objects};
use crate::pipeline::Views;

/// Why a picture is not used.
#[derive(Debug, Error)]
pub(crate) enum PictureError {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error("the file is on the block list")]
    Flagged,
    #[error("no picture with this digest is stored")]
    NotStored,
    #[error("the stored picture is not the one that its name says")]
    Mismatch,
    #[error("cannot check the picture")]
    Unavailable(#[source] async_nats::Error),
}

impl PictureError {
    /// The code that callers see.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Rejected(rejection) => rejection.code(),
            Self::Flagged => Code::FileFlagged,
            Self::NotStored => Code::NotFound,
            Self::Mismatch => Code::InvalidImage,
            Self::Unavailable(_) => Code::UpstreamUnavailable,
        }
    }

    /// The problem that callers see. None of the texts repeats what a caller sent.
    pub(crate) fn problem(&self) -> Problem {
        let problem = Problem::new(self.code(), self.to_string());
        match self {
            Self::Rejected(Rejection::TooLarge { limit_bytes }) => problem.with("limit_bytes", *limit_bytes),
            _ => problem,
        }
    }
}

/// A picture that passed every check.
#[derive(Debug, Clone)]
pub(crate) struct CheckedPicture {
    /// Without metadata.
    pub(crate) bytes: Bytes,
    /// As it was sent.
    pub(crate) input: InputImage,
    /// Of the subject's other sides.
    pub(crate) views: Views,
}

/// Memory for pictures that may be wanted again soon: a job's picture is checked when the job is taken in, and wanted
/// when it starts; and callers try one picture with several options.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// Pictures that are kept at most, however small they are.
const KEPT_MAX: usize = 256;

/// The checks, and the store that pictures lie in.
#[derive(Debug, Clone)]
pub(crate) struct Pictures {
    blocklist: kv::Store,
    uploads: Objects,
    kept: Arc<Mutex<Kept>>,
}

/// Pictures that passed every check but the block list's, which is asked each time. The one unused for longest goes
/// first.
#[derive(Debug, Default)]
struct Kept {
    /// The one used last is at the back.
    pictures: VecDeque<(Bytes, InputImage)>,
    bytes: usize,
}

impl Kept {
    fn get(&mut self, digest: &Sha256Digest) -> Option<(Bytes, InputImage)> {
        let at = self.pictures.iter().position(|(_, input)| input.sha256 == *digest)?;
        let found = self.pictures.remove(at)?;
        self.pictures.push_back(found.clone());
        Some(found)
    }

    fn keep(&mut self, bytes: Bytes, input: InputImage) {
        if bytes.len() > KEPT_BYTES_MAX || self.get(&input.sha256).is_some() {
            return;
        }
        self.bytes += bytes.len();
        self.pictures.push_back((bytes, input));
        while self.bytes > KEPT_BYTES_MAX || self.pictures.len() > KEPT_MAX {
            let Some((gone, _)) = self.pictures.pop_front() else { return };
            self.bytes -= gone.len();
        }
    }
}

impl Pictures {
    pub(crate) fn new(blocklist: kv::Store, uploads: Objects) -> Self {
        Self { blocklist, uploads, kept: Arc::default() }
    }

    /// Checks the bytes of a picture, as they were sent.
    pub(crate) async fn check(&self, sent: Bytes) -> Result<CheckedPicture, PictureError> {
        let Inspected { valid, bytes, .. } = inspected(sent).await?;
        let picture = self.keep(bytes, input_image(&valid));
        if self.is_blocked(&picture.input.sha256).await? { Err(PictureError::Flagged) } else { Ok(picture) }
    }

    /// Fetches a stored picture and checks it.
    pub(crate) async fn fetch(&self, digest: Sha256Digest) -> Result<CheckedPicture, PictureError> {
        let kept = self.kept().get(&digest);
        if let Some((bytes, input)) = kept {
            let is_blocked = self.is_blocked(&digest).await?;
            let picture = CheckedPicture { bytes, input, views: Views::default() };
            return if is_blocked { Err(PictureError::Flagged) } else { Ok(picture) };
        }
        let name = digest.to_string();
        // Its name says what to look up in the block list before its bytes are here.
        let (stored, is_blocked) = tokio::join!(
            self.uploads.get_described(&name, Limits::default().bytes_max),
            self.is_blocked(&digest)
        );
        let (stored, info) = stored.map_err(|error| match error {
            ObjectError::NotFound => PictureError::NotStored,
            ObjectError::TooLarge { limit_bytes } => Rejection::TooLarge { limit_bytes }.into(),
            other => PictureError::Unavailable(other.into()),
        })?;
        if is_blocked? {
            return Err(PictureError::Flagged);
        }
        let inspected = inspected(stored).await?;
        if !inspected.is_of(&digest, is_made_from(&digest, &info.metadata)) {
            return Err(PictureError::Mismatch);
        }
        let input = InputImage { sha256: digest, ..input_image(&inspected.valid) };
        Ok(self.keep(inspected.bytes, input))
    }

    fn keep(&self, bytes: Bytes, input: InputImage) -> CheckedPicture {
        self.kept().keep(bytes.clone(), input.clone());
        CheckedPicture { bytes, input, views: Views::default() }
    }

    /// Fetches a job's stored picture, with those of the other sides that its options name, and checks them all.
    pub(crate) async fn fetch_all(
        &self,
        digest: Sha256Digest,
        options: &JobOptions,
    ) -> Result<CheckedPicture, PictureError> {
        let picture = self.fetch(digest).await?;
        let mut views = Vec::new();
        for (side, digest) in options.views() {
            views.push((side, self.fetch(digest).await?.bytes));
        }
        // A side is one option, so none comes twice.
        Ok(CheckedPicture { views: Views::new(views).unwrap_or_default(), ..picture })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // No code that can panic leaves it half changed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks a digest up in the block list. No answer is no permission.
    async fn is_blocked(&self, digest: &Sha256Digest) -> Result<bool, PictureError> {
        let entry = self.blocklist.entry(blocklist_key(digest)).await;
        let entry = entry.map_err(|error| PictureError::Unavailable(error.into()))?;
        Ok(entry.is_some_and(|entry| entry.operation == Operation::Put))
    }
}

/// A file that is a valid picture.
#[derive(Debug)]
struct Inspected {
    /// The file as it was.
    valid: ValidImage,
    /// The file without its metadata.
    bytes: Bytes,
    /// Whether it had some.
    had_metadata: bool,
}

impl Inspected {
    /// Whether a stored file is the picture of this name: as it was sent, or what is left of that without its metadata.
    /// What was left cannot be compared with the name. So its writer must have said whose it is (`is_marked`), and it
    /// must be what a writer of ours leaves.
    fn is_of(&self, name: &Sha256Digest, is_marked: bool) -> bool {
        self.valid.sha256 == *name || (is_marked && !self.had_metadata)
    }
}

async fn inspected(file: Bytes) -> Result<Inspected, PictureError> {
    // Up to hundreds of milliseconds of entropy decoding: not on a thread that others wait for.
    let work = tokio::task::spawn_blocking(move || {
        let valid = inspect(&file, Declared::default(), Limits::default())?;
        let stripped = match redact(&file) {
            Cow::Borrowed(_) => None,
            Cow::Owned(stripped) => Some(Bytes::from(stripped)),
        };
        let had_metadata = stripped.is_some();
        Ok::<_, Rejection>(Inspected { valid, bytes: stripped.unwrap_or(file), had_metadata })
    });
    Ok(work.await.map_err(|error| PictureError::Unavailable(error.into()))??)
}

fn input_image(valid: &ValidImage) -> InputImage {
    let media_type = valid.format.media_type();
    InputImage {
        sha256: valid.sha256,
        format: media_type.strip_prefix("image/").unwrap_or(media_type).to_owned(),
        width: valid.width,
        height: valid.height,
        bytes: valid.bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(n: usize, bytes: usize) -> (Bytes, InputImage) {
        let input = InputImage {
            sha256: Sha256Digest::of(n.to_string()),
            format: "png".to_owned(),
            width: 16,
            height: 16,
            bytes: bytes as u64,
        };
        (Bytes::from(vec![0; bytes]), input)
    }

    fn digest(n: usize) -> Sha256Digest {
        Sha256Digest::of(n.to_string())
    }

    #[tokio::test]
    async fn a_stored_file_is_the_picture_of_its_name_or_what_is_left_of_it() {
        let mut plain = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(32, 32).write_to(&mut plain, image::ImageFormat::Jpeg).unwrap();
        let plain = plain.into_inner();
        let sent = [&plain[..2], b"\xff\xfe\0\x06Jane", &plain[2..]].concat();
        let (name, of_plain) = (Sha256Digest::of(&sent), Sha256Digest::of(&plain));
        let sent = inspected(sent.into()).await.unwrap();
        assert!(sent.had_metadata && sent.is_of(&name, false) && sent.is_of(&name, true));
        assert!(!sent.is_of(&of_plain, true), "marked, but nothing was taken out");
        assert!(!sent.bytes.windows(4).any(|window| window == b"Jane"));
        let left = inspected(sent.bytes).await.unwrap();
        assert!(!left.had_metadata && left.is_of(&name, true));
        assert!(!left.is_of(&name, false), "nobody said whose it is");
        let plain = inspected(plain.into()).await.unwrap();
        assert!(!plain.had_metadata && plain.is_of(&of_plain, false));
    }

    #[test]
    fn what_is_kept_is_bounded_in_number_and_bytes_and_the_longest_unused_goes_first() {
        let mut kept = Kept::default();
        for n in 0..KEPT_MAX {
            let (bytes, input) = picture(n, 1);
            kept.keep(bytes, input);
        }
        assert!(kept.get(&digest(0)).is_some());
        let (bytes, input) = picture(KEPT_MAX, 1);
        kept.keep(bytes, input);
        assert!(kept.get(&digest(0)).is_some() && kept.get(&digest(1)).is_none());
        let (bytes, input) = picture(1_000, KEPT_BYTES_MAX - 1);
        kept.keep(bytes.clone(), input.clone());
        kept.keep(bytes, input);
        assert_eq!((kept.pictures.len(), kept.bytes), (2, KEPT_BYTES_MAX));
        let (bytes, input) = picture(1_001, KEPT_BYTES_MAX + 1);
        kept.keep(bytes, input);
        assert!(kept.get(&digest(1_001)).is_none(), "too large to keep");
    }
}
