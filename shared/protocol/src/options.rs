//! The options of a request: one parser for query parameters, form fields, JSON members and NATS headers,
//! so that every way in has the same names, ranges and errors.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::ids::{InvalidId, Sha256Digest};
use crate::problem::{Code, Problem};
use crate::side::Side;

/// An option that is unknown, given twice, or out of its range.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("option `{name}`: {reason}")]
pub struct OptionError {
    /// The option's name as the caller wrote it, cut to a printable length.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

impl From<OptionError> for Problem {
    fn from(error: OptionError) -> Problem {
        Problem::new(Code::InvalidOption, error.to_string()).with("option", error.name)
    }
}

/// Defines an enum whose variants have one lower-case name on the wire.
macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident, $kind:literal { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)* }

        impl $name {
            /// The name on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                match text { $($text => Ok(Self::$variant),)* _ => Err(InvalidId { kind: $kind }) }
            }
        }
    };
}

named_enum!(
    /// What a job makes.
    JobType, "job type (3d_generation or video_generation)" {
        /// A textured mesh.
        #[default]
        Generation3d = "3d_generation",
        /// A turntable video of the textured mesh.
        VideoGeneration = "video_generation",
    }
);

named_enum!(
    /// The file format of a model.
    ModelFormat, "model format (glb, obj, stl or ply)" {
        /// Binary glTF 2.0, with its texture inside.
        #[default]
        Glb = "glb",
        /// Wavefront OBJ.
        Obj = "obj",
        /// Binary STL.
        Stl = "stl",
        /// Binary PLY.
        Ply = "ply",
    }
);

impl ModelFormat {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Glb, Self::Obj, Self::Stl, Self::Ply];

    /// The registered media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Glb => "model/gltf-binary",
            Self::Obj => "model/obj",
            Self::Stl => "model/stl",
            Self::Ply => "application/ply",
        }
    }
}

named_enum!(
    /// Whether to cut the subject out of its background.
    BackgroundRemoval, "background removal (auto, always or never)" {
        /// Only where the picture brings no transparency of its own.
        #[default]
        Auto = "auto",
        /// Even where there is an alpha channel.
        Always = "always",
        /// The whole picture is the subject.
        Never = "never",
    }
);

/// A job's urgency, 1 to 10; 10 goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Priority(u8);

impl Priority {
    /// From the most to the least urgent.
    pub fn descending() -> impl Iterator<Item = Priority> {
        (1..=10).rev().map(Priority)
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}

impl TryFrom<u8> for Priority {
    type Error = InvalidId;

    fn try_from(level: u8) -> Result<Self, InvalidId> {
        if (1..=10).contains(&level) {
            Ok(Self(level))
        } else {
            Err(InvalidId { kind: "priority (1 to 10)" })
        }
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> u8 {
        priority.0
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The largest whole number that every JSON reader keeps exactly.
const JSON_INTEGER_MAX: u64 = (1 << 53) - 1;

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

/// How long a synchronous request waits for its job when it does not say.
const WAIT_DEFAULT: Duration = Duration::from_secs(120);

/// A request's options while they are read: those of the job, and those of the request itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestOptions {
    /// What the pipeline needs to know.
    pub job: JobOptions,
    /// What the job makes.
    pub job_type: JobType,
    /// An image that was uploaded before, in place of one in this request.
    pub image_sha256: Option<Sha256Digest>,
    wait: Option<Duration>,
    seen: Vec<&'static str>,
}

/// Every option that [`RequestOptions::set`] knows.
pub const OPTION_NAMES: [&str; 17] = [
    "type",
    "quality",
    "priority",
    "format",
    "model",
    "steps",
    "guidance_scale",
    "seed",
    "texture",
    "target_faces",
    "remove_background",
    "exact",
    "wait_seconds",
    "image_sha256",
    "left_sha256",
    "back_sha256",
    "right_sha256",
];

impl RequestOptions {
    /// Reads one option from its text. An option may be given once.
    ///
    /// # Errors
    /// An unknown name, a second value for the same name, or a value out of range.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), OptionError> {
        let error = |reason: String| OptionError { name: name.chars().take(64).collect(), reason };
        let Some(known) = OPTION_NAMES.iter().find(|known| **known == name) else {
            return Err(error(format!("unknown; the options are {}", OPTION_NAMES.join(", "))));
        };
        if self.seen.contains(known) {
            return Err(error("given more than once".to_owned()));
        }
        self.seen.push(known);
        self.assign(known, text.trim()).map_err(error)
    }

    fn assign(&mut self, name: &str, text: &str) -> Result<(), String> {
        let job = &mut self.job;
        match name {
            "type" => self.job_type = named(text)?,
            "quality" => job.quality = Some(within(text, 1, 10)?),
            "priority" => job.priority = Priority(within(text, 1, 10)?),
            "format" => job.format = named(text)?,
            "model" => job.model = Some(family(text)?),
            "steps" => job.steps = Some(within(text, 1, 200)?),
            "guidance_scale" => job.guidance_scale = Some(guidance_scale(text)?),
            "seed" => job.seed = Some(within(text, 0, JSON_INTEGER_MAX)?),
            "texture" => job.texture = flag(text)?,
            "target_faces" => job.target_faces = Some(within(text, 100, 1_000_000)?),
            "remove_background" => job.remove_background = named(text)?,
            "exact" => job.exact = flag(text)?,
            "wait_seconds" => self.wait = Some(Duration::from_secs(within(text, 1, 600)?)),
            "image_sha256" => self.image_sha256 = Some(named(text)?),
            "left_sha256" => job.left_sha256 = Some(named(text)?),
            "back_sha256" => job.back_sha256 = Some(named(text)?),
            "right_sha256" => job.right_sha256 = Some(named(text)?),
            // `set` has looked the name up in OPTION_NAMES; a name that stands there but not here is caught by a test.
            _ => return Err("not supported".to_owned()),
        }
        Ok(())
    }

    /// Reads options from a JSON object; `null` counts as left out.
    ///
    /// # Errors
    /// As [`Self::set`], or a member that is not a scalar.
    pub fn set_json(&mut self, members: &serde_json::Map<String, Value>) -> Result<(), OptionError> {
        for (name, value) in members {
            match value {
                Value::Null => {}
                Value::String(text) => self.set(name, text)?,
                Value::Bool(_) | Value::Number(_) => self.set(name, &value.to_string())?,
                Value::Array(_) | Value::Object(_) => {
                    let name = name.chars().take(64).collect();
                    return Err(OptionError { name, reason: "not a scalar".to_owned() });
                }
            }
        }
        Ok(())
    }

    /// How long a synchronous request waits for its job.
    pub fn wait(&self) -> Duration {
        self.wait.unwrap_or(WAIT_DEFAULT)
    }

    /// Whether an option was given.
    pub fn has(&self, name: &str) -> bool {
        self.seen.contains(&name)
    }
}

fn named<T: FromStr<Err = InvalidId>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: InvalidId| error.to_string())
}

fn within<T>(text: &str, min: T, max: T) -> Result<T, String>
where
    T: FromStr + PartialOrd + fmt::Display,
{
    match text.parse::<T>() {
        Ok(value) if min <= value && value <= max => Ok(value),
        _ => Err(format!("not a whole number from {min} to {max}")),
    }
}

fn guidance_scale(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (0.0..=30.0).contains(&value) => Ok(value),
        _ => Err("not a number from 0 to 30".to_owned()),
    }
}

fn flag(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("not true or false".to_owned()),
    }
}

/// A family's name; whether a node serves it is the node's answer to give.
fn family(text: &str) -> Result<String, String> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.' | b'_');
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("not a model family name ([a-z0-9._-], 1 to 64 characters)".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<RequestOptions, OptionError> {
        let mut options = RequestOptions::default();
        for (name, value) in pairs {
            options.set(name, value)?;
        }
        Ok(options)
    }

    #[test]
    fn every_listed_option_can_be_set() {
        let digest = Sha256Digest::of("x").to_string();
        let values = [
            "video_generation",
            "9",
            "10",
            "stl",
            "silhouette",
            "20",
            "7.5",
            "42",
            "false",
            "5000",
            "never",
            "true",
            "30",
            &digest,
            &digest,
            &digest,
            &digest,
        ];
        let pairs: Vec<_> = OPTION_NAMES.into_iter().zip(values).collect();
        let options = parse(&pairs).unwrap();
        assert_eq!(options.job.quality, Some(9));
        assert_eq!(options.wait(), Duration::from_secs(30));
        assert!(!options.job.texture);
        let json = serde_json::to_value(&options.job).unwrap();
        assert_eq!(serde_json::from_value::<JobOptions>(json).unwrap(), options.job);
    }

    #[test]
    fn views_are_the_pictures_that_the_options_of_their_sides_name() {
        let digests = Side::ALL.map(|side| (side, Sha256Digest::of(side.as_str())));
        let mut options = RequestOptions::default();
        for (side, digest) in digests.into_iter().rev() {
            options.set(side.option(), &digest.to_string()).unwrap();
        }
        assert_eq!(options.job.views().collect::<Vec<_>>(), digests);
        let mut job = JobOptions::default();
        assert_eq!(job.views().count(), 0);
        digests.into_iter().for_each(|(side, digest)| job.set_view(side, digest));
        assert_eq!(job, options.job);
    }

    #[test]
    fn values_out_of_range_name_their_option() {
        let cases = [
            ("quality", "0"),
            ("quality", "11"),
            ("quality", "7.5"),
            ("priority", "-1"),
            ("format", "fbx"),
            ("steps", "201"),
            ("guidance_scale", "NaN"),
            ("guidance_scale", "31"),
            ("seed", "9007199254740992"),
            ("texture", "yes"),
            ("target_faces", "99"),
            ("wait_seconds", "601"),
            ("model", "../x"),
            ("colour", "red"),
        ];
        for (name, value) in cases {
            let error = parse(&[(name, value)]).unwrap_err();
            assert_eq!(error.name, name);
            assert_eq!(Problem::from(error).code, Code::InvalidOption);
        }
    }

    #[test]
    fn an_option_given_twice_is_refused() {
        assert!(parse(&[("quality", "5"), ("quality", "5")]).is_err());
    }

    #[test]
    fn json_members_follow_the_same_rules() {
        let members = serde_json::json!({"quality": 7, "texture": false, "seed": null, "format": "ply"});
        let mut options = RequestOptions::default();
        options.set_json(members.as_object().unwrap()).unwrap();
        assert_eq!((options.job.quality, options.job.texture), (Some(7), false));
        let nested = serde_json::json!({"quality": [7]});
        assert!(RequestOptions::default().set_json(nested.as_object().unwrap()).is_err());
    }
}
