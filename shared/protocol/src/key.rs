//! API keys as they are stored: bucket `orfeas_keys`, under the SHA-256 of the key, so that reading the bucket
//! gives nobody a key. The node's command line writes the records, the edge reads them.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::ids::TenantId;
use crate::names::names;
use crate::timestamp::Timestamp;

/// Something that a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Uploading, submitting, cancelling.
    Submit,
    /// Reading one's jobs, and the region's figures.
    Read,
    /// Everything, of every tenant.
    Admin,
}

names!(Scope, "scope (submit, read or admin)" { Submit = "submit", Read = "read", Admin = "admin", });

/// What a key's tenant may use at the most; what is left out is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyLimits {
    /// Jobs that have not ended, at one time; up to [`KeyLimits::JOBS_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<NonZeroU32>,
    /// Uploads and submissions in a minute, which may come all at once; up to [`KeyLimits::PER_MINUTE_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<NonZeroU32>,
}

impl KeyLimits {
    /// The tenant's open jobs are listed in one value of a bucket.
    pub const JOBS_MAX: u32 = 256;
    /// Rates are kept in milliseconds per request.
    pub const PER_MINUTE_MAX: u32 = 60_000;
}

/// The record of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Whose key it is.
    pub tenant: TenantId,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// What its tenant may use.
    #[serde(default)]
    pub limits: KeyLimits,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// What its maker wants to remember of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_needs_a_tenant_and_scopes_and_nothing_else() {
        let record: KeyRecord =
            serde_json::from_str(r#"{"tenant":"acme","scopes":["submit","read"]}"#).unwrap();
        assert_eq!(record.scopes, [Scope::Submit, Scope::Read]);
        assert_eq!(record.limits, KeyLimits::default());
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(json, r#"{"tenant":"acme","scopes":["submit","read"],"limits":{}}"#);
        for bad in
            [r#"{"tenant":"a b","scopes":[]}"#, r#"{"tenant":"a","scopes":["root"]}"#, r#"{"scopes":[]}"#]
        {
            assert!(serde_json::from_str::<KeyRecord>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_limit_of_nothing_is_no_limit_but_an_error() {
        assert!(serde_json::from_str::<KeyLimits>(r#"{"jobs":0}"#).is_err());
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
        }
    }
}
