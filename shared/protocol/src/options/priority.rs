//! How urgent a job is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::InvalidId;

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
