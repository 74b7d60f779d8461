//! Plain HTTP to our own loopback servers.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

/// The largest answer that is taken into memory: a model file.
const BODY_LIMIT_BYTES: u64 = 512 << 20;

/// A client whose every request has the same time limit.
pub(crate) struct Client(ureq::Agent);

/// An answer with its body.
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: ureq::http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn new(limit: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(limit))
            .http_status_as_error(false)
            // A proxy from the environment has no business on the loopback address.
            .proxy(None)
            .build();
        Self(config.new_agent())
    }

    pub(crate) fn get(&self, url: &str) -> Result<Response> {
        read(self.0.get(url).call()).with_context(|| format!("GET {url}"))
    }

    pub(crate) fn post(&self, url: &str, content_type: &str, body: &[u8]) -> Result<Response> {
        let answer = self.0.post(url).header("content-type", content_type).send(body);
        read(answer).with_context(|| format!("POST {url}"))
    }
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).with_context(|| format!("parse the answer `{}`", self.text()))
    }
}

fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Response> {
    let (parts, mut body) = answer?.into_parts();
    Ok(Response {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: body.with_config().limit(BODY_LIMIT_BYTES).read_to_vec()?,
    })
}
