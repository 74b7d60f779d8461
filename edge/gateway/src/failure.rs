//! Why a request fails: the problem that the caller sees, and what only the log may say. The one place where
//! errors of other layers become problem codes.

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, StatusCode};
use orfeas_edge_nats::Error as BusError;
use orfeas_intake::Rejection;
use orfeas_protocol::options::OptionError;
use orfeas_protocol::problem::MEDIA_TYPE;
use orfeas_protocol::view::JobError;
use orfeas_protocol::{Code, Problem, RequestId};

use crate::reply::{CODE, Reply};

/// When to come back after the message bus was away: it restarts within seconds.
const RETRY_AFTER_SECONDS: u32 = 2;

/// When to come back to a full queue: a job takes seconds.
const RETRY_AFTER_FULL_SECONDS: u32 = 10;

/// A failed request.
#[derive(Debug)]
pub struct Failure {
    problem: Box<Problem>,
    headers: Vec<(HeaderName, String)>,
    cause: Option<String>,
}

impl Failure {
    /// A failure that the caller is told about in these words.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { problem: Box::new(Problem::new(code, detail)), headers: Vec::new(), cause: None }
    }

    /// The bus, or something on it, is away.
    pub fn unavailable(cause: impl Into<String>) -> Self {
        let failure =
            Self::new(Code::UpstreamUnavailable, "the service cannot reach its message bus; try again");
        let problem = failure.problem.retry_after(RETRY_AFTER_SECONDS);
        Self { problem: Box::new(problem), headers: failure.headers, cause: Some(cause.into()) }
    }

    /// The bus is there, and no node that could answer.
    pub fn no_node(cause: impl Into<String>) -> Self {
        let problem = Problem::new(Code::UpstreamUnavailable, "no GPU node answers; try again");
        let failure = Self::from(problem.retry_after(RETRY_AFTER_SECONDS));
        Self { cause: Some(cause.into()), ..failure }
    }

    /// The region's queue takes no more.
    pub fn queue_full() -> Self {
        let problem = Problem::new(Code::QueueFull, "the queue of this region is full; try again later");
        problem.retry_after(RETRY_AFTER_FULL_SECONDS).into()
    }

    /// A defect on our side; the cause is for the log.
    pub fn internal(cause: impl Into<String>) -> Self {
        Self { cause: Some(cause.into()), ..Self::new(Code::Internal, "the request could not be handled") }
    }

    /// A malformed request.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, detail)
    }

    /// No such job, or none that the caller may know of.
    pub fn no_such_job() -> Self {
        Self::new(Code::NotFound, "there is no such job")
    }

    /// Adds a header to the response.
    pub fn with_header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds a field to the problem that helps the caller.
    pub fn with_field(mut self, name: &str, value: &str) -> Self {
        self.problem = Box::new(self.problem.with(name, value));
        self
    }

    /// The problem's code.
    pub fn code(&self) -> Code {
        self.problem.code
    }

    /// What the log should say beside the problem.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The response.
    pub fn into_reply(self, request_id: RequestId) -> Reply {
        let problem = self.problem.with_request_id(request_id);
        // Every code of the table has a valid status.
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut reply = Reply::json(status, &problem)
            .with_header(CONTENT_TYPE, MEDIA_TYPE)
            .with_header(CODE, problem.code.as_str());
        if let Some(seconds) = problem.retry_after_seconds() {
            reply = reply.with_header(RETRY_AFTER, seconds.to_string());
        }
        for (name, value) in self.headers {
            reply = reply.with_header(name, value);
        }
        reply
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { problem: Box::new(problem), headers: Vec::new(), cause: None }
    }
}

impl From<OptionError> for Failure {
    fn from(error: OptionError) -> Self {
        Problem::from(error).into()
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        let problem = Problem::new(rejection.code(), rejection.to_string());
        match rejection {
            Rejection::TooLarge { limit_bytes } => problem.with("limit_bytes", limit_bytes),
            Rejection::Dimensions { width, height, .. } => {
                problem.with("width", width).with("height", height)
            }
            _ => problem,
        }
        .into()
    }
}

impl From<BusError> for Failure {
    /// A stream or bucket that is missing has not been provisioned yet, or is moving: waiting can help.
    fn from(error: BusError) -> Self {
        let cause = with_sources(&error);
        match error {
            BusError::Conflict => Self::internal(cause),
            BusError::Api { code, .. } if code < 500 => Self::internal(cause),
            _ => Self::unavailable(cause),
        }
    }
}

impl From<JobError> for Failure {
    /// A job's failure, as the answer of a request that waited for it.
    fn from(error: JobError) -> Self {
        let problem = Problem::new(error.code, error.message);
        let problem = if error.retryable { problem.retry_after(RETRY_AFTER_SECONDS) } else { problem };
        problem.into()
    }
}

/// An error with its sources, for the log.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use orfeas_edge_nats::Unavailable;

    use super::*;

    fn reply(failure: Failure) -> (Reply, serde_json::Value) {
        let reply = failure.into_reply("r-1".parse().unwrap());
        let json = serde_json::from_slice(&reply.body).unwrap();
        (reply, json)
    }

    #[test]
    fn problems_carry_code_request_id_and_media_type() {
        let (reply, json) = reply(Rejection::TooLarge { limit_bytes: 7 }.into());
        assert_eq!(reply.status, 413);
        assert_eq!(reply.headers["content-type"], "application/problem+json");
        assert_eq!(reply.headers["x-orfeas-code"], "image_too_large");
        assert_eq!((&json["limit_bytes"], &json["request_id"]), (&7.into(), &"r-1".into()));
    }

    #[test]
    fn a_bus_that_is_away_says_when_to_come_back_and_nothing_internal() {
        let failure = Failure::from(BusError::from(Unavailable::Connect("10.0.0.7 refused".to_owned())));
        assert!(failure.cause().unwrap().contains("10.0.0.7"));
        let (reply, json) = reply(failure);
        assert_eq!((reply.status.as_u16(), &json["code"]), (503, &"upstream_unavailable".into()));
        assert_eq!(reply.headers["retry-after"], json["retry_after_seconds"].to_string().as_str());
        assert!(!json.to_string().contains("10.0.0.7"));
    }

    #[test]
    fn errors_of_the_bus_are_waited_for_or_ours() {
        let missing = BusError::NoResponders { subject: "x".to_owned() };
        assert_eq!(Failure::from(missing).code(), Code::UpstreamUnavailable);
        assert_eq!(Failure::from(BusError::NotFound).code(), Code::UpstreamUnavailable);
        assert_eq!(Failure::from(BusError::Conflict).code(), Code::Internal);
        let refused = BusError::Api { code: 400, err_code: 10_003, description: "bad request".to_owned() };
        assert_eq!(Failure::from(refused).code(), Code::Internal);
    }
}
