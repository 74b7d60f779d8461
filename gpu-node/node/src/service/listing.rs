//! `list`: a tenant's jobs, newest first, a page at a time.

use futures::StreamExt;
use orfeas_protocol::problem::{Code, Problem};
use orfeas_protocol::view::Job;
use orfeas_protocol::{JobId, JobStatus, TenantId};
use serde::{Deserialize, Serialize};

use super::node::NodeContext;
use super::records::Stored;
use super::submission::unavailable;

/// Jobs on a page that asks for no number.
const LIMIT_DEFAULT: usize = 20;
/// The most on a page.
const LIMIT_MAX: usize = 100;
/// A page ends early when its jobs have so much JSON: a message has an end, by default at 1 MiB.
const PAGE_BYTES_MAX: usize = 512 * 1024;
/// Records that are read at one time.
const READS_AT_ONCE: usize = 16;
/// Records that are read for one page: where many have expired or moved on, the page is short.
const READS_MAX: usize = 4 * LIMIT_MAX;

/// The request of `list`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListRequest {
    /// Left out, it is whoever comes without a key.
    #[serde(default = "TenantId::anonymous")]
    tenant: TenantId,
    #[serde(default)]
    status: Option<JobStatus>,
    #[serde(default)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    #[serde(default)]
    cursor: Option<JobId>,
}

/// The answer of `list`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Page {
    jobs: Vec<Job>,
    /// Where the next page begins; null on the last one.
    next_cursor: Option<JobId>,
}

/// Answers a request.
///
/// # Errors
/// The node has just started and does not know the region's jobs yet; NATS does not answer.
pub(crate) async fn list(node: &NodeContext, request: ListRequest) -> Result<Page, Problem> {
    let limit = request.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
    let mut page = Page { jobs: Vec::new(), next_cursor: None };
    let (mut cursor, mut reads, mut page_bytes) = (request.cursor, 0, 0);
    loop {
        let wanted = limit - page.jobs.len();
        let found = node.index.page(&request.tenant, request.status, cursor, wanted + 1);
        let mut ids = found.ok_or_else(not_complete)?;
        let has_more = ids.len() > wanted;
        ids.truncate(wanted);
        reads += ids.len();
        let mut loads = futures::stream::iter(ids)
            .map(|id| async move { (id, node.records.load(id).await) })
            .buffered(READS_AT_ONCE);
        while let Some((id, loaded)) = loads.next().await {
            match loaded.map_err(|error| unavailable("list records", &error))? {
                None => node.index.forget(id),
                Some(Stored { record, .. }) => {
                    // The page ends before a job that would make it too large, so that the next begins with it.
                    let job_bytes = serde_json::to_vec(&record.job).map_or(0, |json| json.len());
                    if page_bytes + job_bytes > PAGE_BYTES_MAX && !page.jobs.is_empty() {
                        page.next_cursor = cursor;
                        return Ok(page);
                    }
                    let is_wanted = request.status.is_none_or(|status| status == record.job.status);
                    if is_wanted && record.tenant == request.tenant {
                        page_bytes += job_bytes;
                        page.jobs.push(record.job);
                    }
                }
            }
            cursor = Some(id);
        }
        if !has_more {
            return Ok(page);
        }
        if page.jobs.len() >= limit || reads >= READS_MAX {
            page.next_cursor = cursor;
            return Ok(page);
        }
    }
}

fn not_complete() -> Problem {
    Problem::new(Code::UpstreamUnavailable, "the node is still reading the region's jobs").retry_after(1)
}
