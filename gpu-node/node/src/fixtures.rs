//! Jobs for tests to begin with.

use orfeas_protocol::job::NewJob;
use orfeas_protocol::options::JobType;
use orfeas_protocol::view::InputImage;
use orfeas_protocol::{Channel, JobId, JobOptions, Region, Sha256Digest, TenantId, Timestamp};

/// A job that asks for nothing in particular.
pub(crate) fn new_job(created_at: Timestamp) -> NewJob {
    NewJob {
        id: JobId::new(created_at, [7; 10]),
        job_type: JobType::Generation3d,
        tenant: TenantId::anonymous(),
        region: Region::default(),
        channel: Channel::Stable,
        options: JobOptions::default(),
        input: InputImage {
            sha256: Sha256Digest::of("x"),
            format: "png".to_owned(),
            width: 16,
            height: 16,
            bytes: 1,
        },
        request_id: None,
        traceparent: None,
    }
}
