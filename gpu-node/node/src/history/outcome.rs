//! What is kept of a job that has ended: its context, its times, and how the estimates that were given for it
//! turned out. Every node of a region writes these and reads those of all.

use orfeas_protocol::preset::Preset;
use orfeas_protocol::view::InputImage;
use orfeas_protocol::{Channel, JobId, JobStatus, NodeId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

use super::profile::{RunKind, SizeClass};
use crate::pipeline::Stage;

/// What of a picture makes two requests alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageTraits {
    /// How many pixels, roughly.
    pub size: SizeClass,
    /// Width over height.
    pub aspect: f32,
    /// Whether it brings its own transparency; `None` before anybody has looked.
    #[serde(default)]
    pub has_alpha: Option<bool>,
    /// `jpeg`, `png` or `webp`.
    pub format: String,
}

impl ImageTraits {
    /// What a job's record tells of its picture.
    pub fn of(input: &InputImage) -> Self {
        Self {
            size: SizeClass::of(input.width, input.height),
            aspect: input.width.max(1) as f32 / input.height.max(1) as f32,
            has_alpha: if input.format == "jpeg" { Some(false) } else { None },
            format: input.format.clone(),
        }
    }

    /// The same, with a look at the file's header.
    pub fn seen(input: &InputImage, file: &[u8]) -> Self {
        let traits = Self::of(input);
        let has_alpha = traits.has_alpha.or_else(|| has_alpha(file));
        Self { has_alpha, ..traits }
    }
}

/// Whether a PNG or WebP file says that it has transparency: the colour type of a PNG's header (PNG 11.2.2),
/// the alpha flag of an extended WebP's or the alpha bit of a lossless one's (RFC 9649, 2.7.1 and 3.4).
fn has_alpha(file: &[u8]) -> Option<bool> {
    match file {
        [0x89, b'P', b'N', b'G', ..] => {
            let transparency = || file.windows(4).take(4_096).any(|tag| tag == b"tRNS");
            file.get(25).map(|colour| matches!(colour, 4 | 6) || transparency())
        }
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', rest @ ..] => match rest.get(..4)? {
            b"VP8X" => rest.get(8).map(|flags| flags & 0x10 != 0),
            b"VP8L" => rest.get(12).map(|bits| bits & 0x10 != 0),
            _ => Some(false),
        },
        _ => None,
    }
}

/// Where a job stood when an estimate was given. Errors differ between them, so each is calibrated by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It waited.
    Queued,
    /// It ran, under a third of its way.
    Early,
    /// In the middle third.
    Middle,
    /// In the last third.
    Late,
}

impl Phase {
    /// In the order in which a job goes through them.
    pub const ALL: [Phase; 4] = [Phase::Queued, Phase::Early, Phase::Middle, Phase::Late];

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Queued => "queued",
            Phase::Early => "early",
            Phase::Middle => "middle",
            Phase::Late => "late",
        }
    }

    /// Of a running job that has done `fraction` of its way.
    pub fn of_progress(fraction: f64) -> Self {
        match fraction {
            done if done < 1.0 / 3.0 => Phase::Early,
            done if done < 2.0 / 3.0 => Phase::Middle,
            _ => Phase::Late,
        }
    }
}

/// An estimate that was given, and what came.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Verified {
    /// Where the job stood.
    pub phase: Phase,
    /// The median before calibration, in seconds.
    pub raw_p50: f64,
    /// The upper estimate before calibration, in seconds.
    pub raw_p90: f64,
    /// The median that was told.
    pub p50: f64,
    /// The upper estimate that was told.
    pub p90: f64,
    /// How long it took from then on.
    pub actual: f64,
}

/// A job that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The job.
    pub job: JobId,
    /// Who asked.
    pub tenant: TenantId,
    /// The node that ended it.
    pub node: NodeId,
    /// The release channel.
    pub channel: Channel,
    /// 1 to 10.
    pub priority: u8,
    /// The family that ran, or that was asked for.
    pub family: String,
    /// Its version; empty if it did not come to run.
    #[serde(default)]
    pub version: String,
    /// The preset that ran.
    pub preset: Preset,
    /// The quality level that the caller asked for.
    #[serde(default)]
    pub quality_requested: Option<u8>,
    /// The quality level that ran.
    pub quality: u8,
    /// Whether the mesh was painted.
    #[serde(default)]
    pub texture: bool,
    /// The picture.
    pub traits: ImageTraits,
    /// Seconds of each stage that ran, by its name.
    #[serde(default)]
    pub stages: Vec<(String, f64)>,
    /// From the start that ended it to the end of its pipeline.
    pub run_seconds: f64,
    /// From submission to the first start.
    pub queue_wait_seconds: f64,
    /// Size of the result's file.
    #[serde(default)]
    pub result_bytes: Option<u64>,
    /// Rungs of the recovery ladder that were taken.
    #[serde(default)]
    pub recoveries: u32,
    /// How often a node began it.
    #[serde(default)]
    pub attempts: u32,
    /// How it ended.
    pub status: JobStatus,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Estimates that were given for it, at most one for each phase.
    #[serde(default)]
    pub estimates: Vec<Verified>,
}

impl Outcome {
    /// What kind of run it was.
    pub fn kind(&self) -> RunKind {
        RunKind {
            family: self.family.clone(),
            version: self.version.clone(),
            preset: self.preset,
            size: self.traits.size,
            texture: self.texture,
        }
    }

    /// Seconds by stage, in the order of [`Stage::ALL`]; not a number where the stage did not run.
    pub(crate) fn stage_seconds(&self) -> [f32; Stage::ALL.len()] {
        Stage::ALL.map(|stage| {
            let found = self.stages.iter().find(|(name, _)| name == stage.as_str());
            found.map_or(f32::NAN, |(_, seconds)| *seconds as f32)
        })
    }

    /// Whether the caller got what they asked for.
    pub(crate) fn is_success(&self) -> bool {
        self.status == JobStatus::Completed
    }

    /// Whether its times tell something about other jobs: those of a job that was recovered or cut short are
    /// not the kind's own.
    pub(crate) fn is_clean_run(&self) -> bool {
        self.is_success() && self.recoveries == 0 && !self.stages.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use orfeas_protocol::Sha256Digest;

    use super::*;

    fn encoded(format: image::ImageFormat, alpha: bool) -> Vec<u8> {
        let mut file = std::io::Cursor::new(Vec::new());
        let picture = image::RgbaImage::from_fn(20, 10, |x, y| {
            image::Rgba([x as u8, y as u8, 7, if x > 5 { 255 } else { 0 }])
        });
        let picture = image::DynamicImage::from(picture);
        let picture = if alpha { picture } else { image::DynamicImage::from(picture.to_rgb8()) };
        picture.write_to(&mut file, format).unwrap();
        file.into_inner()
    }

    #[test]
    fn transparency_is_read_from_the_header() {
        use image::ImageFormat::{Jpeg, Png, WebP};
        for (format, name, alpha, expected) in [
            (Png, "png", true, Some(true)),
            (Png, "png", false, Some(false)),
            (WebP, "webp", true, Some(true)),
            (WebP, "webp", false, Some(false)),
            (Jpeg, "jpeg", false, Some(false)),
        ] {
            let file = encoded(format, alpha);
            let input = InputImage {
                sha256: Sha256Digest::of(&file),
                format: name.to_owned(),
                width: 20,
                height: 10,
                bytes: file.len() as u64,
            };
            let traits = ImageTraits::seen(&input, &file);
            assert_eq!((traits.has_alpha, traits.aspect), (expected, 2.0), "{name}");
            for cut in 0..file.len().min(64) {
                let _ = ImageTraits::seen(&input, &file[..cut]);
            }
        }
    }
}
