//! Problem codes and their HTTP status in one table, and the problem object of RFC 9457.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::RequestId;

/// Defines the codes from one table: name on the wire, HTTP status, title, whether a retry can help.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:literal, $title:literal, retry: $retry:literal;)*) => {
        /// Why a request or a job failed. The wire names are part of the contract.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl Code {
            /// Every code, in the table's order.
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// The name on the wire, in snake case.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $name),* }
            }

            /// The HTTP status of a response with this code.
            pub const fn http_status(self) -> u16 {
                match self { $(Code::$variant => $status),* }
            }

            /// A short title, the same for every problem of this code.
            pub const fn title(self) -> &'static str {
                match self { $(Code::$variant => $title),* }
            }

            /// Whether the same request can succeed later.
            pub const fn retryable(self) -> bool {
                match self { $(Code::$variant => $retry),* }
            }
        }
    };
}

codes! {
    /// A malformed multipart body, JSON or path.
    InvalidRequest = "invalid_request", 400, "The request is malformed", retry: false;
    /// An unknown option, or a value out of its range.
    InvalidOption = "invalid_option", 400, "An option is unknown or out of range", retry: false;
    /// No key, or one that is not known.
    Unauthorized = "unauthorized", 401, "A valid key is needed", retry: false;
    /// The key lacks the scope.
    Forbidden = "forbidden", 403, "The key does not allow this", retry: false;
    /// No such job, object or path.
    NotFound = "not_found", 404, "Not found", retry: false;
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", 405, "The method is not allowed here", retry: false;
    /// None of the accepted media types can be produced.
    NotAcceptable = "not_acceptable", 406, "No acceptable representation", retry: false;
    /// The client sent its body too slowly.
    RequestTimeout = "request_timeout", 408, "The request body came too slowly", retry: true;
    /// A terminal job cannot be cancelled.
    JobAlreadyEnded = "job_already_ended", 409, "The job has already ended", retry: false;
    /// The result was asked for before the job completed.
    JobNotFinished = "job_not_finished", 409, "The job has not finished", retry: true;
    /// The job ended without a result.
    JobHasNoResult = "job_has_no_result", 409, "The job ended without a result", retry: false;
    /// The result was removed after its retention.
    ResultExpired = "result_expired", 410, "The result has expired", retry: false;
    /// Over the upload limit.
    ImageTooLarge = "image_too_large", 413, "The image is too large", retry: false;
    /// Not a JPEG, PNG or WebP, or not what it claims to be.
    InvalidImageFormat = "invalid_image_format", 415, "The image format is not accepted", retry: false;
    /// The range of a result request lies outside of it.
    RangeNotSatisfiable = "range_not_satisfiable", 416, "The range cannot be served", retry: false;
    /// Too many or too few pixels.
    ImageDimensions = "image_dimensions", 422, "The image dimensions are out of range", retry: false;
    /// Truncated, corrupt, polyglot, or more than one frame.
    InvalidImage = "invalid_image", 422, "The image is damaged", retry: false;
    /// On the block list.
    FileFlagged = "file_flagged", 422, "The file is blocked", retry: false;
    /// The same idempotency key came with another request.
    IdempotencyConflict = "idempotency_conflict", 422, "The idempotency key was used for another request", retry: false;
    /// The picture has no subject that can be told from its background.
    NoSubject = "no_subject", 422, "No subject was found in the image", retry: false;
    /// Over the tenant's request rate.
    RateLimited = "rate_limited", 429, "Too many requests", retry: true;
    /// Over the tenant's concurrent jobs.
    TooManyJobs = "too_many_jobs", 429, "Too many concurrent jobs", retry: true;
    /// Request headers over the edge's bounds.
    HeadersTooLarge = "headers_too_large", 431, "The request headers are too large", retry: false;
    /// A defect on our side.
    Internal = "internal", 500, "Something went wrong on our side", retry: true;
    /// The requested family or job type is not served here.
    NotSupported = "not_supported", 501, "Not supported by this deployment", retry: false;
    /// The edge component ended without an answer.
    ComponentFailed = "component_failed", 502, "The edge component failed", retry: true;
    /// No node in the region has the memory for the job.
    GpuMemoryInsufficient = "gpu_memory_insufficient", 503, "Not enough GPU memory", retry: true;
    /// The queue's bound is met.
    QueueFull = "queue_full", 503, "The queue is full", retry: true;
    /// The edge has no capacity for another request.
    Overloaded = "overloaded", 503, "The edge is at capacity", retry: true;
    /// The message bus cannot be reached.
    UpstreamUnavailable = "upstream_unavailable", 503, "The service is temporarily unavailable", retry: true;
    /// The model's weights are not installed.
    WeightsMissing = "weights_missing", 503, "The model weights are not installed", retry: false;
    /// The job or the request passed its deadline.
    DeadlineExceeded = "deadline_exceeded", 504, "The deadline has passed", retry: true;
}

/// A problem details object (RFC 9457) with the contract's extensions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// A URI reference that names the kind of problem; relative, so that it is stable across deployments.
    #[serde(rename = "type")]
    pub kind: String,
    /// A short title, the same for every problem of this code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, without internal texts.
    pub detail: String,
    /// The code.
    pub code: Code,
    /// The request's correlation id.
    pub request_id: Option<RequestId>,
    /// Fields that help: `limit_bytes`, `retry_after_seconds`, `option`, …
    #[serde(flatten)]
    pub extensions: Map<String, Value>,
}

impl Problem {
    /// A problem with the table's title and status.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/problems/{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.http_status(),
            detail: detail.into(),
            code,
            request_id: None,
            extensions: Map::new(),
        }
    }

    /// Adds a field that helps the caller.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extensions.insert(name.to_owned(), value.into());
        self
    }

    /// Says when to come back: the same number goes into the `Retry-After` header.
    pub fn retry_after(self, seconds: u32) -> Self {
        self.with("retry_after_seconds", seconds)
    }

    /// The value for the `Retry-After` header, if there is one.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.extensions.get("retry_after_seconds").and_then(Value::as_u64)
    }

    /// Sets the request's correlation id.
    pub fn with_request_id(mut self, id: RequestId) -> Self {
        self.request_id = Some(id);
        self
    }
}

/// The media type of a problem object.
pub const MEDIA_TYPE: &str = "application/problem+json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_an_error_status_and_the_same_name_in_json() {
        for code in Code::ALL {
            assert!((400..600).contains(&code.http_status()), "{code:?}");
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn extensions_stand_beside_the_standard_members() {
        let problem = Problem::new(Code::ImageTooLarge, "over 50 MB").with("limit_bytes", 52_428_800);
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["limit_bytes"], 52_428_800);
        assert_eq!(json["status"], 413);
        assert_eq!(json["type"], "/problems/image_too_large");
        assert_eq!(serde_json::from_value::<Problem>(json).unwrap(), problem);
    }
}
