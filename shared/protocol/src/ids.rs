//! Identifiers, one newtype per kind, parsed once at the border.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::{Builder, Uuid};

use crate::timestamp::Timestamp;

/// A text that is not a valid identifier of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a valid {kind}")]
pub struct InvalidId {
    /// What was expected, in words.
    pub kind: &'static str,
}

/// A job's identifier: a UUIDv7 (RFC 9562), so that names sort by time of submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(Uuid);

impl JobId {
    /// Makes an id from the time of submission and 10 random bytes.
    pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
        Self(Builder::from_unix_timestamp_millis(now.unix_ms(), &random).into_uuid())
    }

    /// The time of submission that the id was made from.
    pub const fn created_at(&self) -> Timestamp {
        // RFC 9562: the first 48 bits.
        Timestamp::from_unix_ms((self.0.as_u128() >> 80) as u64)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for JobId {
    type Err = InvalidId;

    /// Only the hyphenated lower-case form: the id is also a bucket key, and a key has one spelling.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId { kind: "job id" };
        let uuid = Uuid::try_parse(text).map_err(|_| invalid.clone())?;
        let id = Self(uuid);
        if uuid.get_version_num() == 7 && id.to_string() == text { Ok(id) } else { Err(invalid) }
    }
}

/// A SHA-256 digest, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256Digest([u8; 32]);

impl Sha256Digest {
    /// Wraps a finished digest.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Digests a text or a byte string in one call.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The raw 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256Digest({self})")
    }
}

impl FromStr for Sha256Digest {
    type Err = InvalidId;

    /// Accepts either case, as hash lists in the wild use both.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId { kind: "sha-256 digest (64 hexadecimal digits)" };
        let digits = text.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 64 {
            return Err(invalid);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let (Some(high), Some(low)) = (hex_value(pair[0]), hex_value(pair[1])) else {
                return Err(invalid);
            };
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Defines a newtype over a short text with an alphabet that is safe in subjects, keys, headers and logs.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, 1..=$length_max:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let allowed: fn(u8) -> bool = $allowed;
                if (1..=$length_max).contains(&text.len()) && text.bytes().all(allowed) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidId { kind: $kind })
                }
            }
        }

        string_conversions!($name);
    };
}

macro_rules! string_conversions {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

string_conversions!(JobId);
string_conversions!(Sha256Digest);

text_id!(
    /// A deployment region: `[a-z0-9-]{1,32}`.
    Region, "region ([a-z0-9-], 1 to 32 characters)", 1..=32,
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-'
);

text_id!(
    /// A caller's account: `[A-Za-z0-9_-]{1,64}`.
    TenantId, "tenant id ([A-Za-z0-9_-], 1 to 64 characters)", 1..=64,
    |c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_'
);

text_id!(
    /// A GPU node's name: `[A-Za-z0-9_-]{1,64}`, unique in its region.
    NodeId, "node id ([A-Za-z0-9_-], 1 to 64 characters)", 1..=64,
    |c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_'
);

text_id!(
    /// A request's correlation id, chosen by the caller or by the edge: visible ASCII without spaces,
    /// quotes or separators, 1 to 128 characters, so that it can go into headers and logs as it is.
    RequestId, "request id ([A-Za-z0-9._:-], 1 to 128 characters)", 1..=128,
    |c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b':')
);

impl Default for Region {
    /// `local`: what a single machine calls itself.
    fn default() -> Self {
        Self("local".to_owned())
    }
}

impl Region {
    /// The region as a part of a bucket or stream name, where `-` is written `_`.
    pub fn bucket_suffix(&self) -> String {
        self.0.replace('-', "_")
    }
}

impl RequestId {
    /// An id for a request that came without one: the random bytes in hexadecimal.
    pub fn new(random: [u8; 16]) -> Self {
        Self(random.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl TenantId {
    /// Who a caller is while no keys are configured.
    pub fn anonymous() -> Self {
        Self("anonymous".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_ids_sort_by_time_and_have_one_spelling() {
        let early = JobId::new(Timestamp::from_unix_ms(1_000), [0xff; 10]);
        let late = JobId::new(Timestamp::from_unix_ms(2_000), [0; 10]);
        assert!(early.to_string() < late.to_string());
        assert_eq!(early.to_string().parse::<JobId>(), Ok(early));
        assert!(early.to_string().to_uppercase().parse::<JobId>().is_err());
        assert!("67e55044-10b1-426f-9247-bb680e5fe0c8".parse::<JobId>().is_err(), "a version 4 uuid");
    }

    #[test]
    fn digest_of_abc_is_the_one_in_fips_180() {
        let digest = Sha256Digest::of("abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.to_uppercase().parse(), Ok(digest));
        assert!(text[1..].parse::<Sha256Digest>().is_err());
        assert!(format!("{}é", &text[2..]).parse::<Sha256Digest>().is_err());
    }

    #[test]
    fn made_request_ids_are_valid_ones() {
        let id = RequestId::new([0xab; 16]);
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        assert_eq!(id.as_str().len(), 32);
    }

    #[test]
    fn regions_keep_to_their_alphabet() {
        assert_eq!("eu-west-1".parse::<Region>().unwrap().bucket_suffix(), "eu_west_1");
        for bad in ["", "EU", "a.b", "a*", &"x".repeat(33)] {
            assert!(bad.parse::<Region>().is_err(), "{bad:?}");
        }
    }
}
