//! The checks that every picture passes, whichever way it came: those of `orfeas_intake`, and the block list.

use async_nats::jetstream::kv::{self, Operation};
use bytes::Bytes;
use orfeas_intake::{Declared, Limits, Rejection, ValidImage, inspect};
use orfeas_protocol::Sha256Digest;
use orfeas_protocol::options::JobOptions;
use orfeas_protocol::problem::{Code, Problem};
use orfeas_protocol::subjects::blocklist_key;
use orfeas_protocol::view::InputImage;
use thiserror::Error;

use super::objects::{ObjectError, Objects};
use crate::pipeline::{Side, Views};

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
    pub(crate) bytes: Bytes,
    pub(crate) input: InputImage,
    /// Of the subject's other sides.
    pub(crate) views: Views,
}

/// The checks, and the store that pictures lie in.
#[derive(Debug, Clone)]
pub(crate) struct Pictures {
    blocklist: kv::Store,
    uploads: Objects,
}

impl Pictures {
    pub(crate) fn new(blocklist: kv::Store, uploads: Objects) -> Self {
        Self { blocklist, uploads }
    }

    /// Checks the bytes of a picture.
    pub(crate) async fn check(&self, bytes: Bytes) -> Result<CheckedPicture, PictureError> {
        let picture = Self::inspect(bytes).await?;
        if self.is_blocked(&picture.input.sha256).await? { Err(PictureError::Flagged) } else { Ok(picture) }
    }

    async fn inspect(bytes: Bytes) -> Result<CheckedPicture, PictureError> {
        let shared = bytes.clone();
        // Up to hundreds of milliseconds of entropy decoding: not on a thread that others wait for.
        let inspected =
            tokio::task::spawn_blocking(move || inspect(&shared, Declared::default(), Limits::default()));
        let valid = inspected.await.map_err(|error| PictureError::Unavailable(error.into()))??;
        Ok(CheckedPicture { bytes, input: input_image(&valid), views: Views::default() })
    }

    /// Fetches a stored picture and checks it.
    pub(crate) async fn fetch(&self, digest: Sha256Digest) -> Result<CheckedPicture, PictureError> {
        let name = digest.to_string();
        // Its name says what to look up in the block list before its bytes are here.
        let (bytes, is_blocked) =
            tokio::join!(self.uploads.get(&name, Limits::default().bytes_max), self.is_blocked(&digest));
        let bytes = bytes.map_err(|error| match error {
            ObjectError::NotFound => PictureError::NotStored,
            ObjectError::TooLarge { limit_bytes } => Rejection::TooLarge { limit_bytes }.into(),
            other => PictureError::Unavailable(other.into()),
        })?;
        if is_blocked? {
            return Err(PictureError::Flagged);
        }
        let picture = Self::inspect(bytes).await?;
        if picture.input.sha256 == digest { Ok(picture) } else { Err(PictureError::Mismatch) }
    }

    /// Fetches a job's stored picture, with those of the other sides that its options name, and checks them all.
    pub(crate) async fn fetch_all(
        &self,
        digest: Sha256Digest,
        options: &JobOptions,
    ) -> Result<CheckedPicture, PictureError> {
        let picture = self.fetch(digest).await?;
        Ok(CheckedPicture { views: self.fetch_views(options).await?, ..picture })
    }

    /// Fetches and checks the pictures of a subject's other sides that a job's options name.
    async fn fetch_views(&self, options: &JobOptions) -> Result<Views, PictureError> {
        let named = [
            (Side::Left, options.left_sha256),
            (Side::Back, options.back_sha256),
            (Side::Right, options.right_sha256),
        ];
        let mut pictures = Vec::new();
        for (side, digest) in named {
            if let Some(digest) = digest {
                pictures.push((side, self.fetch(digest).await?.bytes));
            }
        }
        // A side is one option, so none comes twice.
        Ok(Views::new(pictures).unwrap_or_default())
    }

    /// Looks a digest up in the block list. No answer is no permission.
    async fn is_blocked(&self, digest: &Sha256Digest) -> Result<bool, PictureError> {
        let entry = self.blocklist.entry(blocklist_key(digest)).await;
        let entry = entry.map_err(|error| PictureError::Unavailable(error.into()))?;
        Ok(entry.is_some_and(|entry| entry.operation == Operation::Put))
    }
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
