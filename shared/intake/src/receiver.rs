//! An upload on its way in: what was sent is checked, and what is to be stored comes out.
//!
//! ```text
//!  push(chunk) ─┬─▶ Inspector ───▶ ValidImage, with the digest of what was sent
//!               └─▶ Redactor ──┬─▶ bytes to store
//!                              └─▶ their digest
//! ```

use orfeas_protocol::Sha256Digest;
use sha2::{Digest, Sha256};

use crate::{Declared, Inspector, Limits, Redactor, Rejection, ValidImage};

/// An upload that passed every check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What was sent.
    pub image: ValidImage,
    /// SHA-256 of what is to be stored, which has the same length.
    pub stored_sha256: Sha256Digest,
}

/// Checks an upload and takes its metadata out, while it arrives.
#[derive(Debug)]
pub struct Receiver {
    inspector: Inspector,
    redactor: Redactor,
    /// The digest of all that came out so far.
    stored: Sha256,
}

impl Receiver {
    /// Begins an upload.
    pub fn new(declared: Declared<'_>, limits: Limits) -> Self {
        Self { inspector: Inspector::new(declared, limits), redactor: Redactor::new(), stored: Sha256::new() }
    }

    /// Takes the next bytes, and adds to `out` what can be stored by now.
    ///
    /// # Errors
    /// The [`Rejection`] that the bytes so far prove; nothing is added then.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Result<(), Rejection> {
        self.inspector.push(chunk)?;
        let before = out.len();
        self.redactor.push(chunk, out);
        if self.redactor.is_level() {
            // Of a picture without metadata nothing is hashed twice.
            self.stored.clone_from(self.inspector.digest());
        } else {
            self.stored.update(out.get(before..).unwrap_or_default());
        }
        Ok(())
    }

    /// Ends the upload, adds the rest to `out`, and gives the verdict.
    ///
    /// # Errors
    /// The [`Rejection`] that the whole upload proves; nothing is added then.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<Received, Rejection> {
        let image = self.inspector.finish()?;
        let before = out.len();
        self.redactor.finish(out);
        self.stored.update(out.get(before..).unwrap_or_default());
        Ok(Received { image, stored_sha256: Sha256Digest::from_bytes(self.stored.finalize().into()) })
    }
}
