//! A caller of the public HTTP API.

use std::time::Duration;

use reqwest::multipart::{Form, Part};
use reqwest::{Response, StatusCode};
use serde_json::Value;

use crate::wait;

/// How long a job may take in a test: the machine has two cores and runs other tests.
const JOB_LIMIT: Duration = Duration::from_secs(120);

/// A caller, without a key at first.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

impl Client {
    /// A caller of the edge at `base`.
    pub fn new(base: &str) -> Self {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(150)).no_proxy().build().unwrap();
        Self { http, base: base.to_owned(), key: None }
    }

    /// The same caller with a key.
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    /// A request to a path.
    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Response {
        self.request(reqwest::Method::GET, path).send().await.unwrap()
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Response {
        self.request(reqwest::Method::DELETE, path).send().await.unwrap()
    }

    /// Sends a picture as the raw body.
    pub async fn post_raw(&self, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Response {
        let request = self.request(reqwest::Method::POST, path).header("content-type", content_type);
        request.body(body).send().await.unwrap()
    }

    /// Sends a picture as a form's part `image`, with options as fields.
    pub async fn post_form(
        &self,
        path: &str,
        file_name: &str,
        media_type: &str,
        image: Vec<u8>,
        options: &[(&str, &str)],
    ) -> Response {
        let part = Part::bytes(image).file_name(file_name.to_owned()).mime_str(media_type).unwrap();
        let mut form = Form::new().part("image", part);
        for (name, value) in options {
            form = form.text((*name).to_owned(), (*value).to_owned());
        }
        self.request(reqwest::Method::POST, path).multipart(form).send().await.unwrap()
    }

    /// Sends PNGs as parts of a form, in this order, with options as fields.
    pub async fn post_parts(
        &self,
        path: &str,
        parts: &[(&str, Vec<u8>)],
        options: &[(&str, &str)],
    ) -> Response {
        let mut form = Form::new();
        for (name, image) in parts {
            let file_name = format!("{name}.png");
            let part = Part::bytes(image.clone()).file_name(file_name).mime_str("image/png").unwrap();
            form = form.part((*name).to_owned(), part);
        }
        for (name, value) in options {
            form = form.text((*name).to_owned(), (*value).to_owned());
        }
        self.request(reqwest::Method::POST, path).multipart(form).send().await.unwrap()
    }

    /// Submits a PNG and returns the job object.
    ///
    /// # Panics
    /// When it is not accepted.
    pub async fn submit_png(&self, image: Vec<u8>, options: &[(&str, &str)]) -> Value {
        let response = self.post_form("/api/submit-job", "picture.png", "image/png", image, options).await;
        expect_json(response, StatusCode::ACCEPTED).await
    }

    /// The job object.
    pub async fn job(&self, id: &str) -> Value {
        expect_json(self.get(&format!("/api/job/{id}")).await, StatusCode::OK).await
    }

    /// Waits until the job object satisfies a condition. An edge or bus that is away for a while is waited out.
    pub async fn job_when(&self, id: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/api/job/{id}");
        wait::until(&format!("job {id} {what}"), JOB_LIMIT, || async {
            let response = self.request(reqwest::Method::GET, &path).send().await.ok()?;
            let job: Value = response.error_for_status().ok()?.json().await.ok()?;
            condition(&job).then_some(job)
        })
        .await
    }

    /// Waits until the job has ended.
    pub async fn job_ended(&self, id: &str) -> Value {
        self.job_when(id, "ends", |job| {
            matches!(job["status"].as_str(), Some("completed" | "failed" | "cancelled"))
        })
        .await
    }
}

/// Reads a JSON body and checks the status.
///
/// # Panics
/// When either is not as expected.
pub async fn expect_json(response: Response, status: StatusCode) -> Value {
    let got = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(got, status, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Checks that a response is a problem object with this code, and returns it.
///
/// # Panics
/// When it is not.
pub async fn expect_problem(response: Response, status: u16, code: &str) -> Value {
    let content_type = response.headers().get("content-type").cloned();
    let request_id = response.headers().get("x-request-id").cloned();
    let got = response.status().as_u16();
    let text = response.text().await.unwrap();
    assert_eq!(got, status, "{text}");
    assert_eq!(content_type.unwrap(), "application/problem+json", "{text}");
    let problem: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(problem["code"], code, "{text}");
    assert_eq!(problem["status"], status, "{text}");
    assert_eq!(problem["request_id"].as_str().unwrap(), request_id.unwrap().to_str().unwrap());
    problem
}
