//! The sides of a subject that pictures may show beside its front.

use crate::names::names;

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
    /// The option that names a stored picture of it.
    pub const fn option(self) -> &'static str {
        match self {
            Self::Left => "left_sha256",
            Self::Back => "back_sha256",
            Self::Right => "right_sha256",
        }
    }
}

names!(
    Side, "side (left, back or right; the front is the picture itself)" {
        Left = "left",
        Back = "back",
        Right = "right",
    }
);

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
