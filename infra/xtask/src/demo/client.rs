//! The public HTTP API as the demo uses it: submit, poll, fetch the result.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::http::{Client, Response};
use crate::interrupt::Interrupt;

const REQUEST_LIMIT: Duration = Duration::from_secs(60);
const POLL_EACH: Duration = Duration::from_millis(40);

/// Longer than any preset takes on a CPU.
const JOB_LIMIT: Duration = Duration::from_secs(900);

/// The parts of the job object that the demo shows.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) progress: f64,
    pub(crate) stage: Option<String>,
    pub(crate) channel: Option<String>,
    pub(crate) model: Option<Model>,
    pub(crate) result: Option<Outcome>,
    pub(crate) error: Option<Failure>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Model {
    pub(crate) family: Option<String>,
    pub(crate) version: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) bytes: Option<u64>,
    pub(crate) vertices: Option<u64>,
    pub(crate) faces: Option<u64>,
    pub(crate) watertight: Option<bool>,
    pub(crate) bounds: Option<Bounds>,
}

/// The axis-aligned box of the model, in its own units.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Bounds {
    pub(crate) min: [f64; 3],
    pub(crate) max: [f64; 3],
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Failure {
    pub(crate) code: String,
    pub(crate) message: String,
}

/// RFC 9457, with our `code`.
#[derive(Debug, Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
    code: Option<String>,
}

/// The API at one address.
pub(crate) struct Api {
    base: String,
    client: Client,
}

impl Api {
    pub(crate) fn new(base: &str) -> Self {
        Self { base: base.to_owned(), client: Client::new(REQUEST_LIMIT) }
    }

    /// Sends the picture as a multipart form, as a browser would.
    pub(crate) fn submit(&self, file_name: &str, media_type: &str, image: &[u8]) -> Result<Job> {
        let (content_type, body) = multipart(file_name, media_type, image);
        let url = format!("{}/api/submit-job", self.base);
        let response = self.client.post(&url, &content_type, &body)?;
        expect(&response, 202, "submit the picture")?.json()
    }

    /// Polls until the job has ended, and tells each state on the way.
    pub(crate) fn follow(
        &self,
        id: &str,
        interrupt: &Interrupt,
        mut on_change: impl FnMut(&Job) -> Result<()>,
    ) -> Result<Job> {
        let url = format!("{}/api/job/{id}", self.base);
        let deadline = Instant::now() + JOB_LIMIT;
        loop {
            let response = self.client.get(&url)?;
            let job: Job = expect(&response, 200, "look at the job")?.json()?;
            on_change(&job)?;
            match job.status.as_str() {
                "completed" => return Ok(job),
                "failed" | "cancelled" => {
                    let reason = job.error.as_ref().map_or_else(
                        || "no reason given".to_owned(),
                        |error| format!("{}: {}", error.code, error.message),
                    );
                    bail!("job {id} {}: {reason}", job.status);
                }
                _ => {}
            }
            interrupt.check()?;
            if Instant::now() >= deadline {
                bail!("job {id} has not ended within {} s", JOB_LIMIT.as_secs());
            }
            interrupt.wait(POLL_EACH);
        }
    }

    /// The model file.
    pub(crate) fn result(&self, id: &str) -> Result<Vec<u8>> {
        let url = format!("{}/api/job/{id}/result", self.base);
        let response = self.client.get(&url)?;
        expect(&response, 200, "fetch the model")?;
        Ok(response.body)
    }
}

fn expect<'a>(response: &'a Response, status: u16, action: &str) -> Result<&'a Response> {
    if response.status == status {
        return Ok(response);
    }
    let reason = match response.json::<Problem>() {
        Ok(problem) => {
            [problem.code, problem.title, problem.detail].into_iter().flatten().collect::<Vec<_>>().join(": ")
        }
        Err(_) => response.text(),
    };
    let request = response.header("x-request-id").unwrap_or("unknown");
    bail!("{action}: status {}, {reason} (request {request})", response.status)
}

/// RFC 7578: one file part. The boundary is one that the file does not contain.
fn multipart(file_name: &str, media_type: &str, image: &[u8]) -> (String, Vec<u8>) {
    let mut boundary = String::from("orfeas-demo");
    while image.windows(boundary.len()).any(|window| window == boundary.as_bytes()) {
        boundary.push_str("-x");
    }
    let quoted: String =
        file_name.chars().map(|c| if c == '"' || c.is_control() { '_' } else { c }).collect();
    let mut body = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"image\"; filename=\"{quoted}\"\r\n\
         content-type: {media_type}\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(image);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

/// The media type that goes with a file's first bytes; the service decides, this only labels.
pub(crate) fn media_type(image: &[u8]) -> Result<&'static str> {
    if image.starts_with(b"\x89PNG\r\n\x1a\n") {
        Ok("image/png")
    } else if image.starts_with(b"\xff\xd8\xff") {
        Ok("image/jpeg")
    } else if image.starts_with(b"RIFF") && image.get(8..12) == Some(b"WEBP") {
        Ok("image/webp")
    } else {
        None.context("the file is not a JPEG, PNG or WebP picture")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundary_never_occurs_in_the_file() {
        let image = b"..orfeas-demo..orfeas-demo-x..";
        let (content_type, body) = multipart("a\"b.png", "image/png", image);
        let boundary = content_type.split_once('=').unwrap().1;
        assert!(!image.windows(boundary.len()).any(|w| w == boundary.as_bytes()));
        let text = String::from_utf8(body).unwrap();
        assert_eq!(text.matches(&format!("--{boundary}")).count(), 2);
        assert!(text.contains("filename=\"a_b.png\""));
        assert!(text.ends_with(&format!("\r\n--{boundary}--\r\n")));
    }

    #[test]
    fn pictures_are_labelled_by_their_first_bytes() {
        assert_eq!(media_type(b"\xff\xd8\xff\xe0").unwrap(), "image/jpeg");
        assert_eq!(media_type(b"RIFF\0\0\0\0WEBPVP8 ").unwrap(), "image/webp");
        media_type(b"RIFF\0\0\0\0WAVEfmt ").unwrap_err();
        media_type(b"").unwrap_err();
    }

    #[test]
    fn job_object_may_leave_out_what_does_not_apply() {
        let job: Job = serde_json::from_str(
            r#"{"id":"x","status":"queued","progress":0,"stage":null,"result":null,"error":null}"#,
        )
        .unwrap();
        assert_eq!(job.status, "queued");
        assert!(job.channel.is_none() && job.result.is_none());
    }
}
