//! The values of options from their texts, each with its range. An error says what would have been right.

use std::fmt;
use std::str::FromStr;

use super::Priority;
use crate::ids::InvalidId;

/// The largest whole number that every JSON reader keeps exactly.
pub(super) const JSON_INTEGER_MAX: u64 = (1 << 53) - 1;

pub(super) fn named<T: FromStr<Err = InvalidId>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: InvalidId| error.to_string())
}

pub(super) fn within<T>(text: &str, min: T, max: T) -> Result<T, String>
where
    T: FromStr + PartialOrd + fmt::Display,
{
    match text.parse::<T>() {
        Ok(value) if min <= value && value <= max => Ok(value),
        _ => Err(format!("not a whole number from {min} to {max}")),
    }
}

pub(super) fn priority(text: &str) -> Result<Priority, String> {
    Priority::try_from(within(text, 1, 10)?).map_err(|error| error.to_string())
}

pub(super) fn guidance_scale(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (0.0..=30.0).contains(&value) => Ok(value),
        _ => Err("not a number from 0 to 30".to_owned()),
    }
}

pub(super) fn flag(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("not true or false".to_owned()),
    }
}

/// A family's name; whether a node serves it is the node's answer to give.
pub(super) fn family(text: &str) -> Result<String, String> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.' | b'_');
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("not a model family name ([a-z0-9._-], 1 to 64 characters)".to_owned())
    }
}
