//! Which release channel a request belongs to: a hash against a percentage, so that the choice is the same
//! each time (sticky) and a caller that is on the canary stays there as the weight grows (monotone).

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::{Sha256Digest, TenantId};
use crate::names::names;

/// A release channel. It is a token of the job's subject; a node serves the channels of its config.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// What everybody gets.
    #[default]
    Stable,
    /// What is being tried out.
    Canary,
}

names!(Channel, "channel (stable or canary)" { Stable = "stable", Canary = "canary", });

/// What a request is bucketed by.
#[derive(Debug, Clone, Copy)]
pub enum RolloutKey<'a> {
    /// A known caller: all its requests go the same way.
    Tenant(&'a TenantId),
    /// An anonymous caller: the same picture goes the same way.
    Content(&'a Sha256Digest),
}

/// The rollout's state, the value of key [`Rollout::KEY`] in the bucket `orfeas_rollout`. No value means 0 %.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// How much of the traffic the canary gets, 0 to 100, in steps of 0.01.
    pub canary_percent: f64,
    /// Part of the hash: another salt draws another tenth of the callers for the next rollout.
    #[serde(default)]
    pub salt: String,
}

impl Rollout {
    /// The key of the state in its bucket.
    pub const KEY: &'static str = "canary";

    /// Hundredths of a percent: the resolution of the weight.
    const BUCKETS: u64 = 10_000;

    /// The channel of a request.
    pub fn channel(&self, key: RolloutKey<'_>) -> Channel {
        let weight = (self.canary_percent.clamp(0.0, 100.0) * 100.0).round();
        if (self.bucket(key) as f64) < weight { Channel::Canary } else { Channel::Stable }
    }

    /// A uniform number below [`Self::BUCKETS`]. Domain-separated, so that a tenant named like a digest
    /// does not share its draw with that content.
    fn bucket(&self, key: RolloutKey<'_>) -> u64 {
        let mut hash = Sha256::new();
        hash.update(b"orfeas rollout\0");
        hash.update(self.salt.as_bytes());
        match key {
            RolloutKey::Tenant(tenant) => {
                hash.update(b"\0tenant\0");
                hash.update(tenant.as_str().as_bytes());
            }
            RolloutKey::Content(digest) => {
                hash.update(b"\0content\0");
                hash.update(digest.as_bytes());
            }
        }
        let digest: [u8; 32] = hash.finalize().into();
        let head = digest.iter().take(8).fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        // 2^64 is so much larger than 10,000 that the bias of the remainder is below 1e-15.
        head % Self::BUCKETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canaries(percent: f64) -> Vec<usize> {
        let rollout = Rollout { canary_percent: percent, salt: String::new() };
        (0..10_000)
            .filter(|n| {
                let tenant = format!("tenant-{n}").parse().unwrap();
                rollout.channel(RolloutKey::Tenant(&tenant)) == Channel::Canary
            })
            .collect()
    }

    #[test]
    fn ten_percent_is_ten_percent_of_ten_thousand_tenants() {
        let chosen = canaries(10.0);
        assert!((900..=1_100).contains(&chosen.len()), "{}", chosen.len());
        assert_eq!(chosen, canaries(10.0), "the same ones each time");
    }

    #[test]
    fn raising_the_weight_moves_nobody_back() {
        let mut before = Vec::new();
        for percent in [0.0, 0.5, 1.0, 10.0, 33.3, 50.0, 99.0, 100.0] {
            let now = canaries(percent);
            assert!(before.iter().all(|tenant| now.binary_search(tenant).is_ok()), "{percent}");
            before = now;
        }
        assert!(canaries(0.0).is_empty());
        assert_eq!(before.len(), 10_000);
    }

    #[test]
    fn another_salt_draws_another_tenth() {
        let digest = Sha256Digest::of("picture");
        let draws: Vec<_> = (0..64)
            .map(|n| {
                Rollout { canary_percent: 50.0, salt: n.to_string() }.channel(RolloutKey::Content(&digest))
            })
            .collect();
        assert!(draws.contains(&Channel::Stable) && draws.contains(&Channel::Canary));
    }
}
