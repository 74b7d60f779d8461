//! Paths and methods → resources.

use http::Method;
use orfeas_protocol::{Code, JobId};

use crate::failure::Failure;

/// A resource of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// `/api/generate-3d`
    Generate,
    /// `/api/submit-job`
    Submit,
    /// `/api/uploads`
    Uploads,
    /// `/api/jobs`
    Jobs,
    /// `/api/gpu-metrics`
    GpuMetrics,
    /// `/api/models`
    Models,
    /// `/api/job/{id}`
    Job(JobId),
    /// `/api/job/{id}/events`
    Events(JobId),
    /// `/api/job/{id}/result`
    JobResult(JobId),
    /// `/livez`
    Live,
    /// `/readyz`
    Ready,
}

/// What a request wants of its resource, after HEAD and OPTIONS are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// GET, or HEAD, whose body is dropped at the end.
    Read,
    /// POST.
    Create,
    /// DELETE.
    Delete,
    /// OPTIONS.
    Describe,
}

impl Resource {
    fn at(path: &str) -> Option<Self> {
        match path {
            "/api/generate-3d" => return Some(Self::Generate),
            "/api/submit-job" => return Some(Self::Submit),
            "/api/uploads" => return Some(Self::Uploads),
            "/api/jobs" => return Some(Self::Jobs),
            "/api/gpu-metrics" => return Some(Self::GpuMetrics),
            "/api/models" => return Some(Self::Models),
            "/livez" => return Some(Self::Live),
            "/readyz" => return Some(Self::Ready),
            _ => {}
        }
        let (id, below) = match path.strip_prefix("/api/job/")?.split_once('/') {
            Some((id, below)) => (id, Some(below)),
            None => (path.strip_prefix("/api/job/")?, None),
        };
        let id = id.parse().ok()?;
        match below {
            None => Some(Self::Job(id)),
            Some("events") => Some(Self::Events(id)),
            Some("result") => Some(Self::JobResult(id)),
            Some(_) => None,
        }
    }

    /// The value of `Allow`.
    pub const fn allow(self) -> &'static str {
        match self {
            Self::Generate | Self::Submit | Self::Uploads => "POST, OPTIONS",
            Self::Job(_) => "GET, HEAD, DELETE, OPTIONS",
            Self::Jobs
            | Self::GpuMetrics
            | Self::Models
            | Self::Events(_)
            | Self::JobResult(_)
            | Self::Live
            | Self::Ready => "GET, HEAD, OPTIONS",
        }
    }
}

/// Finds the resource and what to do with it.
///
/// # Errors
/// There is no such resource (404), or it does not know the method (405).
pub fn resolve(method: &Method, path: &str) -> Result<(Resource, Action), Failure> {
    let resource = Resource::at(path).ok_or_else(|| Failure::new(Code::NotFound, "there is no such path"))?;
    let is_creation = matches!(resource, Resource::Generate | Resource::Submit | Resource::Uploads);
    let action = match *method {
        Method::OPTIONS => Action::Describe,
        Method::GET | Method::HEAD if !is_creation => Action::Read,
        Method::POST if is_creation => Action::Create,
        Method::DELETE if matches!(resource, Resource::Job(_)) => Action::Delete,
        _ => {
            let allow = resource.allow();
            let failure = Failure::new(Code::MethodNotAllowed, format!("this path allows {allow}"));
            return Err(failure.with_header(http::header::ALLOW, allow));
        }
    };
    Ok((resource, action))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01900000-0000-7000-8000-000000000000";

    fn resolved(method: Method, path: &str) -> Result<(Resource, Action), Code> {
        resolve(&method, path).map_err(|failure| failure.code())
    }

    #[test]
    fn every_resource_has_its_methods() {
        let id = ID.parse().unwrap();
        let job = format!("/api/job/{ID}");
        assert_eq!(resolved(Method::POST, "/api/generate-3d"), Ok((Resource::Generate, Action::Create)));
        assert_eq!(resolved(Method::GET, &job), Ok((Resource::Job(id), Action::Read)));
        assert_eq!(
            resolved(Method::HEAD, &format!("{job}/result")),
            Ok((Resource::JobResult(id), Action::Read))
        );
        assert_eq!(resolved(Method::DELETE, &job), Ok((Resource::Job(id), Action::Delete)));
        for (path, resource) in [
            ("/api/jobs", Resource::Jobs),
            ("/api/gpu-metrics", Resource::GpuMetrics),
            ("/api/models", Resource::Models),
        ] {
            assert_eq!(resolved(Method::GET, path), Ok((resource, Action::Read)));
        }
        assert_eq!(resolved(Method::OPTIONS, "/readyz"), Ok((Resource::Ready, Action::Describe)));
    }

    #[test]
    fn other_methods_are_told_what_is_allowed() {
        for (method, path) in
            [(Method::GET, "/api/uploads"), (Method::POST, "/livez"), (Method::PUT, "/readyz")]
        {
            assert_eq!(resolved(method, path), Err(Code::MethodNotAllowed), "{path}");
        }
        let failure = resolve(&Method::POST, &format!("/api/job/{ID}")).unwrap_err();
        let reply = failure.into_reply("r".parse().unwrap());
        assert_eq!(reply.headers["allow"], "GET, HEAD, DELETE, OPTIONS");
    }

    #[test]
    fn paths_have_one_spelling() {
        let upper = ID.to_uppercase().replace("0190", "019A");
        for path in ["/", "/api", "/livez/", "/api/job/", "/api/job/1", "/api//uploads", "/API/uploads"] {
            assert_eq!(resolved(Method::GET, path), Err(Code::NotFound), "{path}");
        }
        for path in [format!("/api/job/{upper}"), format!("/api/job/{ID}/"), format!("/api/job/{ID}/x")] {
            assert_eq!(resolved(Method::GET, &path), Err(Code::NotFound), "{path}");
        }
    }
}
