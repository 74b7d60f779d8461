//! The way of the bytes: size, digest, type, walker, tail; and the verdict at the end.

use orfeas_protocol::Sha256Digest;
use sha2::{Digest, Sha256};

use crate::carry::Carry;
use crate::declared::Claims;
use crate::exif::Orientation;
use crate::jpeg::JpegWalker;
use crate::png::PngWalker;
use crate::sniff::{Sniffed, sniff};
use crate::trailing::Tail;
use crate::webp::WebpWalker;
use crate::{Declared, ImageFormat, Limits, Rejection};

/// An upload that passed every check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidImage {
    /// The type of the content.
    pub format: ImageFormat,
    /// Stored width in pixels, before [`orientation`](Self::orientation) is applied.
    pub width: u32,
    /// Stored height in pixels, before [`orientation`](Self::orientation) is applied.
    pub height: u32,
    /// Size of the whole upload.
    pub bytes: u64,
    /// SHA-256 of the whole upload.
    pub sha256: Sha256Digest,
    /// How the picture has to be turned to stand upright.
    pub orientation: Orientation,
}

/// Checks an upload while it arrives.
///
/// [`push`](Self::push) refuses as soon as the bytes so far cannot become a valid picture;
/// [`finish`](Self::finish) gives the verdict. The verdict does not depend on the chunk sizes.
#[derive(Debug)]
pub struct Inspector {
    claims: Claims,
    limits: Limits,
    bytes: u64,
    sha256: Sha256,
    carry: Carry,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Too few bytes to know the type.
    Sniffing,
    Walking(Walker),
    /// The picture is complete; what follows is looked at.
    Trailing(Picture, Tail),
    Rejected(Rejection),
}

/// What a walker learned about a complete picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) format: ImageFormat,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) orientation: Orientation,
}

/// The walker of one format.
///
/// `read` is shown the bytes that it has not yet read, from the first one on, and returns how many it read;
/// it is shown the rest again with more bytes behind. Once `picture` is `Some`, it is not called any more.
#[derive(Debug)]
enum Walker {
    Jpeg(Box<JpegWalker>),
    Png(Box<PngWalker>),
    Webp(Box<WebpWalker>),
}

impl Walker {
    fn new(format: ImageFormat, limits: Limits) -> Self {
        match format {
            ImageFormat::Jpeg => Self::Jpeg(Box::new(JpegWalker::new(limits))),
            ImageFormat::Png => Self::Png(Box::new(PngWalker::new(limits))),
            ImageFormat::Webp => Self::Webp(Box::new(WebpWalker::new(limits))),
        }
    }

    fn read(&mut self, window: &[u8]) -> Result<usize, Rejection> {
        match self {
            Self::Jpeg(walker) => walker.read(window),
            Self::Png(walker) => walker.read(window),
            Self::Webp(walker) => walker.read(window),
        }
    }

    fn picture(&self) -> Option<Picture> {
        match self {
            Self::Jpeg(walker) => walker.picture(),
            Self::Png(walker) => walker.picture(),
            Self::Webp(walker) => walker.picture(),
        }
    }

    /// Why the bytes so far are not a whole picture.
    fn truncation(&self) -> Rejection {
        let (format, part) = match self {
            Self::Jpeg(walker) => (ImageFormat::Jpeg, walker.part()),
            Self::Png(walker) => (ImageFormat::Png, walker.part()),
            Self::Webp(walker) => (ImageFormat::Webp, walker.part()),
        };
        Rejection::Truncated { format, part }
    }
}

impl Inspector {
    /// Starts the inspection of one upload.
    pub fn new(declared: Declared<'_>, limits: Limits) -> Self {
        Self {
            claims: Claims::read(declared),
            limits,
            bytes: 0,
            sha256: Sha256::new(),
            carry: Carry::default(),
            stage: Stage::Sniffing,
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// The [`Rejection`] that the bytes so far prove; every later call repeats it.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), Rejection> {
        let room = usize::try_from(self.limits.bytes_max - self.bytes).unwrap_or(usize::MAX);
        let within = chunk.get(..room).unwrap_or(chunk);
        let verdict = self.advance(within).and_then(|()| {
            if within.len() < chunk.len() {
                return Err(Rejection::TooLarge { limit_bytes: self.limits.bytes_max });
            }
            Ok(())
        });
        if let Err(rejection) = &verdict {
            self.carry = Carry::default();
            self.stage = Stage::Rejected(rejection.clone());
        }
        verdict
    }

    /// Ends the upload and gives the verdict.
    ///
    /// # Errors
    /// The [`Rejection`] that the whole upload proves.
    pub fn finish(self) -> Result<ValidImage, Rejection> {
        let picture = match &self.stage {
            Stage::Sniffing => match sniff(self.carry.pending(), true) {
                Sniffed::Other(found) => return Err(Rejection::UnsupportedContent { found }),
                Sniffed::Image(format) => return Err(Walker::new(format, self.limits).truncation()),
                Sniffed::Undecided => {
                    return Err(Rejection::UnsupportedContent { found: "of an unknown type" });
                }
            },
            Stage::Walking(walker) => return Err(walker.truncation()),
            Stage::Rejected(rejection) => return Err(rejection.clone()),
            Stage::Trailing(picture, tail) => {
                tail.judge(picture.format)?;
                *picture
            }
        };
        Ok(ValidImage {
            format: picture.format,
            width: picture.width,
            height: picture.height,
            bytes: self.bytes,
            sha256: Sha256Digest::from_bytes(self.sha256.finalize().into()),
            orientation: picture.orientation,
        })
    }

    /// The digest, as far as it has come.
    pub(crate) fn digest(&self) -> &Sha256 {
        &self.sha256
    }

    fn advance(&mut self, chunk: &[u8]) -> Result<(), Rejection> {
        if let Stage::Rejected(rejection) = &self.stage {
            return Err(rejection.clone());
        }
        self.bytes += chunk.len() as u64;
        self.sha256.update(chunk);
        let Self { claims, limits, carry, stage, .. } = self;
        carry.feed(chunk, |window| stage.read(window, claims, *limits))
    }
}

impl Stage {
    /// Reads what it can of `window`, through as many stages as it lasts.
    fn read(&mut self, window: &[u8], claims: &Claims, limits: Limits) -> Result<usize, Rejection> {
        let mut at = 0;
        loop {
            let rest = window.get(at..).unwrap_or_default();
            match self {
                Self::Sniffing => match sniff(rest, false) {
                    Sniffed::Undecided => return Ok(at),
                    Sniffed::Other(found) => return Err(Rejection::UnsupportedContent { found }),
                    Sniffed::Image(format) => {
                        claims.agree_with(format)?;
                        *self = Self::Walking(Walker::new(format, limits));
                    }
                },
                Self::Walking(walker) => {
                    at += walker.read(rest)?;
                    let Some(picture) = walker.picture() else { return Ok(at) };
                    *self = Self::Trailing(picture, Tail::default());
                }
                Self::Trailing(picture, tail) => {
                    tail.push(picture.format, rest)?;
                    return Ok(window.len());
                }
                Self::Rejected(rejection) => return Err(rejection.clone()),
            }
        }
    }
}

/// Checks a whole upload at once.
///
/// # Errors
/// The first [`Rejection`] that its bytes prove.
pub fn inspect(bytes: &[u8], declared: Declared<'_>, limits: Limits) -> Result<ValidImage, Rejection> {
    let mut inspector = Inspector::new(declared, limits);
    inspector.push(bytes)?;
    inspector.finish()
}
