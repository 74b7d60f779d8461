//! Messages as requests: who asks, for what.

use async_nats::Message;
use orfeas_protocol::options::{OptionError, RequestOptions};
use orfeas_protocol::problem::{Code, Problem};
use orfeas_protocol::subjects::{HEADER_OPTIONS, HEADER_REQUEST_ID, HEADER_TRACEPARENT};
use orfeas_protocol::{JobId, RequestId};
use orfeas_traces::TraceParent;
use serde::Deserialize;
use serde_json::Value;

use crate::service::entropy;
use crate::service::submission::Submission;

/// Options are a few hundred bytes.
const OPTIONS_BYTES_MAX: usize = 8 * 1024;

/// `{id}`, the request of `status` and `cancel`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JobRequest {
    id: String,
}

pub(super) fn job_id(message: &Message) -> Result<JobId, Problem> {
    let request: JobRequest = serde_json::from_slice(&message.payload)
        .map_err(|_| Problem::new(Code::InvalidRequest, "the payload is not a JSON object `{\"id\": …}`"))?;
    request.id.parse().map_err(|_| Problem::new(Code::NotFound, "no such job"))
}

/// The request of `list` or `convert`.
pub(super) fn request<T: for<'de> Deserialize<'de>>(message: &Message) -> Result<T, Problem> {
    let malformed = |error: serde_json::Error| {
        Problem::new(
            Code::InvalidRequest,
            format!("the payload is not the JSON object that this takes: {error}"),
        )
    };
    serde_json::from_slice(&message.payload).map_err(malformed)
}

/// Who asks, for what the request leads to.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) request_id: Option<RequestId>,
    pub(super) trace: Option<TraceParent>,
}

pub(super) fn traceparent(message: &Message) -> Option<TraceParent> {
    header(message, HEADER_TRACEPARENT)?.parse().ok()
}

pub(super) fn submission(message: &Message, caller: Caller) -> Result<Submission, Problem> {
    let options = match header(message, HEADER_OPTIONS) {
        Some(text) => options(text)?,
        None => RequestOptions::default(),
    };
    Ok(Submission {
        options,
        image: message.payload.clone(),
        request_id: caller.request_id,
        traceparent: caller.trace.map(|trace| trace.to_string()),
    })
}

fn options(text: &str) -> Result<RequestOptions, Problem> {
    let malformed = || {
        let detail =
            format!("header {HEADER_OPTIONS} is not a JSON object of at most {OPTIONS_BYTES_MAX} bytes");
        Problem::new(Code::InvalidRequest, detail)
    };
    if text.len() > OPTIONS_BYTES_MAX {
        return Err(malformed());
    }
    let Ok(Value::Object(members)) = serde_json::from_str(text) else { return Err(malformed()) };
    let mut options = RequestOptions::default();
    options.set_json(&members).map_err(|error: OptionError| Problem::from(error))?;
    Ok(options)
}

fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(|value| value.as_str())
}

/// The caller's id, or a fresh one.
pub(super) fn request_id(message: &Message) -> Option<RequestId> {
    let given = header(message, HEADER_REQUEST_ID).and_then(|id| id.parse().ok());
    given.or_else(|| entropy::job_id().ok()?.to_string().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_a_json_object_with_known_names() {
        let parsed = options(r#"{"quality": 5, "format": "stl"}"#).unwrap();
        assert_eq!(parsed.job.quality, Some(5));
        for (text, code) in [
            ("", Code::InvalidRequest),
            ("[]", Code::InvalidRequest),
            ("{\"quality\": 12}", Code::InvalidOption),
            ("{\"colour\": 1}", Code::InvalidOption),
        ] {
            assert_eq!(options(text).unwrap_err().code, code, "{text}");
        }
        let long = format!("{{\"model\": \"{}\"}}", "x".repeat(OPTIONS_BYTES_MAX));
        assert_eq!(options(&long).unwrap_err().code, Code::InvalidRequest);
    }
}
