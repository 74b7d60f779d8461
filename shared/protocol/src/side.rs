//! The sides of a subject that pictures may show beside its front.

use std::fmt;
use std::str::FromStr;

use crate::ids::InvalidId;

/// A side of the subject beside its front, clockwise from above. The job's own picture is the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Its left.
    Left,
    /// Its back.
    Back,
    /// Its right.
    Right,
}

impl Side {
    /// In their order.
    pub const ALL: [Self; 3] = [Self::Left, Self::Back, Self::Right];

    /// The name of the form's part that brings its picture.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Back => "back",
            Self::Right => "right",
        }
    }

    /// The option that names a stored picture of it.
    pub const fn option(self) -> &'static str {
        match self {
            Self::Left => "left_sha256",
            Self::Back => "back_sha256",
            Self::Right => "right_sha256",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Side {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let side = Self::ALL.into_iter().find(|side| side.as_str() == text);
        side.ok_or(InvalidId { kind: "side (left, back or right; the front is the picture itself)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::OPTION_NAMES;

    #[test]
    fn sides_are_known_by_their_names_and_options() {
        for side in Side::ALL {
            assert_eq!(side.to_string().parse(), Ok(side));
            assert!(OPTION_NAMES.contains(&side.option()));
        }
        assert!("front".parse::<Side>().is_err());
    }
}
