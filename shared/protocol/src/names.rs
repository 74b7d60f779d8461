//! Values that have one name each, wherever callers and stores meet them.

/// Gives the values of an enum their names: the list of all, and the ways between value and text.
macro_rules! names {
    ($name:ident, $kind:literal { $($variant:ident = $text:literal,)+ }) => {
        impl $name {
            /// Every value, in order.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            /// Its name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::ids::InvalidId;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text { $($text => Ok(Self::$variant),)+ _ => Err($crate::ids::InvalidId { kind: $kind }) }
            }
        }
    };
}

pub(crate) use names;

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Display};
    use std::str::FromStr;

    use serde::Serialize;

    use crate::options::{BackgroundRemoval, JobType, ModelFormat};
    use crate::{Channel, Scope};

    fn check<T: Copy + Debug + Display + FromStr<Err: Debug> + PartialEq + Serialize>(all: &[T]) {
        for value in all {
            assert_eq!(value.to_string().parse::<T>().unwrap(), *value);
            assert_eq!(serde_json::to_value(value).unwrap(), value.to_string());
        }
        assert!("another".parse::<T>().is_err());
    }

    #[test]
    fn a_value_has_one_name_in_texts_and_in_json() {
        check(&Channel::ALL);
        check(&Scope::ALL);
        check(&JobType::ALL);
        check(&ModelFormat::ALL);
        check(&BackgroundRemoval::ALL);
    }
}
