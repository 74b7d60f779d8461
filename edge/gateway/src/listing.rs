//! The query of `GET /api/jobs`, as the request that a node answers.

use orfeas_protocol::options::OptionError;
use orfeas_protocol::{JobId, JobStatus, TenantId};
use serde::Serialize;

use crate::failure::Failure;

/// Jobs on a page that asks for no number.
const LIMIT_DEFAULT: u16 = 20;
/// The most on a page.
const LIMIT_MAX: u16 = 100;

/// What is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listing {
    tenant: TenantId,
    status: Option<JobStatus>,
    limit: u16,
    /// The last job of the page before.
    cursor: Option<JobId>,
}

impl Listing {
    /// Reads a query.
    ///
    /// # Errors
    /// A parameter is unknown, given twice, or out of its range.
    pub fn parse(query: &str, tenant: TenantId) -> Result<Self, Failure> {
        let mut listing = Self { tenant, status: None, limit: LIMIT_DEFAULT, cursor: None };
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let refuse = |reason: &str| -> Failure {
                let name = name.chars().take(64).collect();
                OptionError { name, reason: reason.to_owned() }.into()
            };
            if seen.contains(&name) {
                return Err(refuse("given twice"));
            }
            match &*name {
                "status" => {
                    let status = JobStatus::ALL.into_iter().find(|status| status.as_str() == value);
                    let names = "not one of queued, processing, completed, failed, cancelled";
                    listing.status = Some(status.ok_or_else(|| refuse(names))?);
                }
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                    listing.limit = limit.ok_or_else(|| refuse("not a number from 1 to 100"))?;
                }
                "cursor" => {
                    let cursor = value.parse().map_err(|_| refuse("not the `next_cursor` of a page"))?;
                    listing.cursor = Some(cursor);
                }
                _ => return Err(refuse("unknown; a list has `status`, `limit` and `cursor`")),
            }
            seen.push(name);
        }
        Ok(listing)
    }
}

#[cfg(test)]
mod tests {
    use orfeas_protocol::Code;

    use super::*;

    fn parse(query: &str) -> Result<String, Code> {
        let listing = Listing::parse(query, "acme".parse().unwrap());
        listing.map(|listing| serde_json::to_string(&listing).unwrap()).map_err(|failure| failure.code())
    }

    #[test]
    fn a_query_becomes_a_request_for_the_callers_own_jobs() {
        let all = r#"{"tenant":"acme","status":null,"limit":20,"cursor":null}"#;
        assert_eq!(parse(""), Ok(all.to_owned()));
        let some = parse("status=failed&limit=100&cursor=01900000-0000-7000-8000-000000000000").unwrap();
        let expected = r#"{"tenant":"acme","status":"failed","limit":100,"cursor":"01900000-0000-7000-8000-000000000000"}"#;
        assert_eq!(some, expected);
    }

    #[test]
    fn what_is_unknown_doubled_or_out_of_range_is_refused() {
        for query in
            ["tenant=other", "limit=0", "limit=101", "limit=1&limit=2", "status=done", "cursor=7", "x"]
        {
            assert_eq!(parse(query), Err(Code::InvalidOption), "{query}");
        }
    }
}
