//! Points in time: milliseconds since the Unix epoch inside, RFC 3339 in UTC outside.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// A point in time with millisecond resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(u64);

impl Timestamp {
    /// Year 9999, the last that RFC 3339 can write.
    const UNIX_MS_MAX: u64 = 253_402_300_799_999;

    /// From milliseconds since the Unix epoch; later than the year 9999 is held at its end.
    pub const fn from_unix_ms(unix_ms: u64) -> Self {
        Self(if unix_ms > Self::UNIX_MS_MAX { Self::UNIX_MS_MAX } else { unix_ms })
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_ms(self) -> u64 {
        self.0
    }

    /// The time since `earlier`; zero if the clock went backwards.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The moment `by` later, in whole milliseconds.
    pub const fn plus(self, by: Duration) -> Self {
        // Longer than the calendar is held at its end.
        let by_ms = by.as_millis();
        let by_ms = if by_ms > Self::UNIX_MS_MAX as u128 { Self::UNIX_MS_MAX } else { by_ms as u64 };
        Self::from_unix_ms(self.0.saturating_add(by_ms))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.0) * 1_000_000;
        let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| fmt::Error)?;
        let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        f.write_str(&time.format(form).map_err(|_| fmt::Error)?)
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> String {
        time.to_string()
    }
}

impl TryFrom<String> for Timestamp {
    type Error = time::error::Parse;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let nanos = OffsetDateTime::parse(&text, &Rfc3339)?.unix_timestamp_nanos();
        Ok(Self::from_unix_ms(u64::try_from(nanos / 1_000_000).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339_and_read_back() {
        let time = Timestamp::from_unix_ms(1_763_931_600_007);
        assert_eq!(time.to_string(), "2025-11-23T21:00:00.007Z");
        assert_eq!(Timestamp::try_from(time.to_string()).unwrap(), time);
        assert_eq!(Timestamp::try_from("2025-11-23T22:00:00.007+01:00".to_owned()).unwrap(), time);
        assert_eq!(Timestamp::from_unix_ms(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }
}
