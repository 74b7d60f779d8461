//! `Idempotency-Key`: the same key and the same request give the same job.

use http::HeaderName;
use orfeas_protocol::options::{JobOptions, JobType};
use orfeas_protocol::{Code, JobId, Sha256Digest, TenantId};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::head::Head;

/// The header.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// UUIDs and their like are far shorter.
const KEY_BYTES_MAX: usize = 255;

/// What the bucket of idempotency keys holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The job that the key stands for.
    pub job_id: JobId,
    /// The request that it came with first.
    pub fingerprint: Sha256Digest,
}

impl Claim {
    /// The claim of a stored entry, if it was made by the same request.
    ///
    /// # Errors
    /// It was made by another one (422), or is not readable.
    pub fn read(json: &[u8], fingerprint: &Sha256Digest) -> Result<Self, Failure> {
        let claim: Self = serde_json::from_slice(json)
            .map_err(|error| Failure::internal(format!("idempotency entry is not readable: {error}")))?;
        if claim.fingerprint != *fingerprint {
            let detail = "this idempotency key came with another request before";
            return Err(Failure::new(Code::IdempotencyConflict, detail));
        }
        Ok(claim)
    }
}

/// The bucket key of the request's idempotency key, if it has one. Hashed with the tenant: callers choose any
/// characters, and cannot meet each other's keys.
///
/// # Errors
/// The key is empty or too long.
pub fn entry_key(head: &Head, tenant: &TenantId) -> Result<Option<String>, Failure> {
    let Some(value) = head.headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.as_bytes();
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Failure::invalid("an idempotency key has 1 to 255 characters"));
    }
    let scoped = [tenant.as_str().as_bytes(), key].join(&0);
    Ok(Some(Sha256Digest::of(scoped).to_string()))
}

/// What makes two requests the same: the picture, and what is asked of it.
pub fn fingerprint(image: &Sha256Digest, job_type: JobType, options: &JobOptions) -> Sha256Digest {
    let request = serde_json::json!({ "image": image, "type": job_type, "options": options });
    Sha256Digest::of(request.to_string())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};
    use orfeas_protocol::Timestamp;

    use super::*;

    fn key(value: Option<&str>, tenant: &str) -> Result<Option<String>, Code> {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(IDEMPOTENCY_KEY, value.parse().unwrap());
        }
        let head = Head::new(Method::POST, "/", headers, [0; 16]);
        entry_key(&head, &tenant.parse().unwrap()).map_err(|failure| failure.code())
    }

    #[test]
    fn tenants_do_not_meet_each_others_keys() {
        let ours = key(Some("order 17/ä"), "a").unwrap().unwrap();
        assert_eq!(ours.len(), 64);
        assert_eq!(key(Some("order 17/ä"), "a").unwrap().unwrap(), ours);
        assert_ne!(key(Some("order 17/ä"), "b").unwrap().unwrap(), ours);
        assert_eq!(key(None, "a"), Ok(None));
        assert_eq!(key(Some(""), "a"), Err(Code::InvalidRequest));
        assert_eq!(key(Some(&"x".repeat(256)), "a"), Err(Code::InvalidRequest));
    }

    #[test]
    fn another_picture_or_option_is_another_request() {
        let image = Sha256Digest::of("a");
        let plain = fingerprint(&image, JobType::Generation3d, &JobOptions::default());
        assert_eq!(plain, fingerprint(&image, JobType::Generation3d, &JobOptions::default()));
        let seeded = JobOptions { seed: Some(1), ..JobOptions::default() };
        let others = [
            fingerprint(&Sha256Digest::of("b"), JobType::Generation3d, &JobOptions::default()),
            fingerprint(&image, JobType::VideoGeneration, &JobOptions::default()),
            fingerprint(&image, JobType::Generation3d, &seeded),
        ];
        assert!(!others.contains(&plain));

        let claim = Claim { job_id: JobId::new(Timestamp::from_unix_ms(1), [0; 10]), fingerprint: plain };
        let json = serde_json::to_vec(&claim).unwrap();
        assert_eq!(Claim::read(&json, &plain).unwrap(), claim);
        assert_eq!(Claim::read(&json, &others[0]).unwrap_err().code(), Code::IdempotencyConflict);
    }
}
