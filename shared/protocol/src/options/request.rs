//! The options of a request while they are read, one by one and from wherever they stand in it.

use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use super::values::{JSON_INTEGER_MAX, family, flag, guidance_scale, named, priority, within};
use super::{JobOptions, JobType};
use crate::ids::Sha256Digest;
use crate::problem::{Code, Problem};

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
            "priority" => job.priority = priority(text)?,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side::Side;

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
