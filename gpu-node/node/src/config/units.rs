//! Values with units, as people write them: `30s`, `7d`, `20GiB`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use orfeas_protocol::NodeId;
use serde::Deserialize;

/// A length of time: `250ms`, `30s`, `1h 30m`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(Duration);

impl Span {
    /// The duration.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = humantime::DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text).map(Self)
    }
}

impl TryFrom<String> for Span {
    type Error = humantime::DurationError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// A number of bytes: `1048576`, `512MB` (10⁶), `20GiB` (2³⁰).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct ByteSize(u64);

impl ByteSize {
    /// The number.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// A text that is not a number of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidByteSize(String);

impl std::error::Error for InvalidByteSize {}

impl fmt::Display for InvalidByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a size such as 512MB or 20GiB", self.0)
    }
}

impl FromStr for ByteSize {
    type Err = InvalidByteSize;

    fn from_str(text: &str) -> Result<Self, InvalidByteSize> {
        let invalid = || InvalidByteSize(text.chars().take(32).collect());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor: u64 = match unit.trim_start() {
            "" | "B" => 1,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(invalid()),
        };
        let number: u64 = number.parse().map_err(|_| invalid())?;
        number.checked_mul(factor).map(Self).ok_or_else(invalid)
    }
}

impl TryFrom<String> for ByteSize {
    type Error = InvalidByteSize;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// The machine's name, with what a node id cannot hold replaced by `-`.
pub(super) fn node_id_of_this_machine() -> Option<NodeId> {
    let name = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let name = name.or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())?;
    node_id_from(name.trim())
}

/// The folder that systemd gives a service, or else the user's (XDG base directories); `None` without either.
pub(super) fn usual_state_folder() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(given) = folder("STATE_DIRECTORY") {
        return Some(given);
    }
    let user = folder("XDG_STATE_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/state")))?;
    Some(user.join("orfeas"))
}

fn node_id_from(machine: &str) -> Option<NodeId> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let id: String = machine.chars().map(|c| if allowed(c) { c } else { '-' }).take(64).collect();
    id.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_decimal_and_binary_units() {
        let cases = [("7", 7), ("512MB", 512_000_000), ("20 GiB", 20 << 30), ("1KiB", 1024)];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "MB", "-1", "1.5GB", "1gb", "99999999999999999999", "18446744073709551615KiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_read_with_their_units() {
        assert_eq!("1h 30m".parse(), Ok(Span(Duration::from_secs(5_400))));
        assert!("30".parse::<Span>().is_err(), "a number without a unit");
    }

    #[test]
    fn machine_names_become_node_ids() {
        assert_eq!(node_id_from("gpu-1.rack.example").unwrap().as_str(), "gpu-1-rack-example");
        assert_eq!(node_id_from(&"x".repeat(200)).unwrap().as_str().len(), 64);
        assert_eq!(node_id_from(""), None);
    }
}
