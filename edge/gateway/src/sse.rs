//! Server-sent events (WHATWG HTML, 9.2).

use http::HeaderName;
use orfeas_protocol::view::Job;

use crate::head::Head;

/// What the client saw last before it came back.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The revision of the record that the client saw last.
pub fn last_event_id(head: &Head) -> Option<u64> {
    head.header(LAST_EVENT_ID)?.parse().ok()
}

/// The job object as an event; its id is the record's revision.
pub fn job_event(revision: u64, job: &Job) -> String {
    // A JSON text of one line: no line of it can be taken for a field.
    let data = serde_json::to_string(job).unwrap_or_default();
    format!("id: {revision}\nevent: job\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};
    use orfeas_protocol::job::NewJob;
    use orfeas_protocol::options::{JobOptions, JobType};
    use orfeas_protocol::view::InputImage;
    use orfeas_protocol::{Channel, JobId, JobRecord, Region, Sha256Digest, TenantId, Timestamp};

    use super::*;

    #[test]
    fn an_event_is_three_fields_and_a_blank_line() {
        let now = Timestamp::from_unix_ms(1);
        let sha256 = Sha256Digest::of("x");
        let new = NewJob {
            id: JobId::new(now, [0; 10]),
            job_type: JobType::Generation3d,
            tenant: TenantId::anonymous(),
            region: Region::default(),
            channel: Channel::Stable,
            options: JobOptions::default(),
            input: InputImage { sha256, format: "png\nx".to_owned(), width: 1, height: 1, bytes: 1 },
            request_id: None,
            traceparent: None,
        };
        let job = JobRecord::new(new, now).job;
        let event = job_event(7, &job);
        let lines: Vec<_> = event.split('\n').collect();
        assert_eq!((lines.len(), lines[0], lines[1], lines[3], lines[4]), (5, "id: 7", "event: job", "", ""));
        let read: Job = serde_json::from_str(lines[2].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(read, job);
    }

    #[test]
    fn the_last_event_id_is_a_revision() {
        let head = |value: &str| {
            let headers = HeaderMap::from_iter([(LAST_EVENT_ID, value.parse().unwrap())]);
            Head::new(Method::GET, "/", headers, [0; 16])
        };
        assert_eq!(last_event_id(&head("7")), Some(7));
        assert_eq!(last_event_id(&head("x")), None);
    }
}
