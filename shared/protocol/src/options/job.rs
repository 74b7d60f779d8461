//! The options that go with a job to its node, as its record keeps them.

use serde::{Deserialize, Serialize};

use super::{BackgroundRemoval, ModelFormat, Priority};
use crate::ids::Sha256Digest;
use crate::side::Side;

/// What a caller asks of the pipeline, validated. `None` = the node chooses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobOptions {
    /// 1 to 10: which preset to use.
    pub quality: Option<u8>,
    /// 1 to 10: how urgent the job is.
    pub priority: Priority,
    /// The result's file format.
    pub format: ModelFormat,
    /// The model family.
    pub model: Option<String>,
    /// Denoising steps, 1 to 200, in place of the preset's.
    pub steps: Option<u16>,
    /// Guidance scale, 0 to 30, in place of the preset's.
    pub guidance_scale: Option<f32>,
    /// Seed, 0 to 2^53 - 1.
    pub seed: Option<u64>,
    /// Whether the mesh gets a texture.
    pub texture: bool,
    /// Upper bound of the mesh's faces, 100 to 1,000,000.
    pub target_faces: Option<u32>,
    /// Whether the background is removed.
    pub remove_background: BackgroundRemoval,
    /// Forbids recovery steps that lower the quality.
    pub exact: bool,
    /// A stored picture of the subject's left, for families that look at it from several sides; the job's own
    /// picture is its front. Left out of the JSON where there is none, so that nodes of before read the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_sha256: Option<Sha256Digest>,
    /// A stored picture of the subject's back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back_sha256: Option<Sha256Digest>,
    /// A stored picture of the subject's right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right_sha256: Option<Sha256Digest>,
}

impl Default for JobOptions {
    fn default() -> Self {
        Self {
            quality: None,
            priority: Priority::default(),
            format: ModelFormat::default(),
            model: None,
            steps: None,
            guidance_scale: None,
            seed: None,
            texture: true,
            target_faces: None,
            remove_background: BackgroundRemoval::default(),
            exact: false,
            left_sha256: None,
            back_sha256: None,
            right_sha256: None,
        }
    }
}

impl JobOptions {
    /// The stored pictures of the subject's sides beside its front, in the order of the sides.
    pub fn views(&self) -> impl Iterator<Item = (Side, Sha256Digest)> {
        let view = |side| {
            let digest = match side {
                Side::Left => self.left_sha256,
                Side::Back => self.back_sha256,
                Side::Right => self.right_sha256,
            };
            digest.map(|digest| (side, digest))
        };
        Side::ALL.into_iter().filter_map(view)
    }

    /// Names the stored picture of a side.
    pub fn set_view(&mut self, side: Side, digest: Sha256Digest) {
        match side {
            Side::Left => self.left_sha256 = Some(digest),
            Side::Back => self.back_sha256 = Some(digest),
            Side::Right => self.right_sha256 = Some(digest),
        }
    }
}
