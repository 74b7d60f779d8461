//! Who calls, and what they may do. Keys are kept as their SHA-256, so that reading the bucket gives nobody a key.

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use orfeas_protocol::{Code, KeyLimits, KeyRecord, Scope, Sha256Digest, TenantId};

use crate::failure::Failure;
use crate::head::Head;

/// Longer than any key that we hand out; hashing is not free.
const KEY_BYTES_MAX: usize = 512;

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Whose jobs the caller's jobs are.
    pub tenant: TenantId,
    /// Whether the tenant was proven by a key, so that a rollout can stick to it.
    pub is_authenticated: bool,
    /// What the tenant may use.
    pub limits: KeyLimits,
    scopes: Vec<Scope>,
}

impl Caller {
    /// Whoever reaches an edge that asks for no keys. Such an edge answers on the loopback alone, where the
    /// caller is its operator.
    pub fn operator() -> Self {
        Self {
            tenant: TenantId::anonymous(),
            is_authenticated: false,
            limits: KeyLimits::default(),
            scopes: vec![Scope::Admin],
        }
    }

    /// Whom a key's record names; `None` if the key is not known.
    ///
    /// # Errors
    /// The key is not known (401), or its record cannot be read.
    pub fn from_record(record: Option<&[u8]>) -> Result<Self, Failure> {
        let record = record.ok_or_else(|| unauthorized("the key is not known"))?;
        let KeyRecord { tenant, scopes, limits, .. } = serde_json::from_slice(record)
            .map_err(|error| Failure::internal(format!("key record is not readable: {error}")))?;
        Ok(Self { tenant, is_authenticated: true, limits, scopes })
    }

    /// Whether the caller has a scope.
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|held| *held == scope || *held == Scope::Admin)
    }

    /// Demands a scope.
    ///
    /// # Errors
    /// The caller lacks it (403).
    pub fn demand(&self, scope: Scope) -> Result<(), Failure> {
        if self.has(scope) {
            return Ok(());
        }
        let detail = match scope {
            Scope::Submit => "the key lacks the scope `submit`",
            Scope::Read => "the key lacks the scope `read`",
            Scope::Admin => "the key lacks the scope `admin`",
        };
        Err(Failure::new(Code::Forbidden, detail))
    }

    /// Whether the caller may know of this tenant's jobs.
    pub fn owns(&self, tenant: &TenantId) -> bool {
        self.tenant == *tenant || self.has(Scope::Admin)
    }
}

/// The digest of the request's key: its name in the bucket of keys.
///
/// # Errors
/// There is no bearer key (401).
pub fn key_digest(head: &Head) -> Result<Sha256Digest, Failure> {
    let value = head.header(AUTHORIZATION).ok_or_else(|| unauthorized("a key is needed"))?;
    let (scheme, key) = value.split_once(' ').unwrap_or((value, ""));
    let key = key.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(unauthorized("the authorization is not `Bearer <key>`"));
    }
    Ok(Sha256Digest::of(key))
}

fn unauthorized(detail: &str) -> Failure {
    Failure::new(Code::Unauthorized, detail).with_header(WWW_AUTHENTICATE, "Bearer")
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;

    fn digest(authorization: Option<&str>) -> Result<Sha256Digest, Code> {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        key_digest(&Head::new(Method::GET, "/", headers, [0; 16])).map_err(|failure| failure.code())
    }

    #[test]
    fn a_key_is_known_by_its_digest_alone() {
        assert_eq!(digest(Some("Bearer secret")), Ok(Sha256Digest::of("secret")));
        assert_eq!(digest(Some("bearer  secret ")), Ok(Sha256Digest::of("secret")));
        let long = format!("Bearer {}", "x".repeat(KEY_BYTES_MAX + 1));
        for bad in [None, Some("secret"), Some("Bearer "), Some("Basic c2VjcmV0"), Some(&long)] {
            assert_eq!(digest(bad), Err(Code::Unauthorized), "{bad:?}");
        }
    }

    #[test]
    fn a_caller_may_what_the_record_says() {
        let record = br#"{"tenant":"acme","scopes":["submit"],"limits":{"jobs":3}}"#;
        let caller = Caller::from_record(Some(record)).unwrap();
        assert!(caller.demand(Scope::Submit).is_ok());
        assert_eq!(caller.demand(Scope::Read).unwrap_err().code(), Code::Forbidden);
        assert!(caller.owns(&"acme".parse().unwrap()) && !caller.owns(&"other".parse().unwrap()));
        assert_eq!(Caller::from_record(None).unwrap_err().code(), Code::Unauthorized);
        assert_eq!(Caller::from_record(Some(b"{}")).unwrap_err().code(), Code::Internal);
    }

    #[test]
    fn an_admin_may_everything_of_everybody() {
        let caller = Caller::operator();
        assert!(caller.demand(Scope::Submit).is_ok() && caller.demand(Scope::Read).is_ok());
        assert!(caller.owns(&"other".parse().unwrap()));
    }
}
