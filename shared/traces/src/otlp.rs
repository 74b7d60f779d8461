//! The messages of OTLP that a span needs (opentelemetry-proto 1.x, `collector/trace/v1`, `trace/v1`, `resource/v1`,
//! `common/v1`). Names and numbers are the specification's. The published Rust messages come with the whole SDK,
//! whose features would be everybody's; these are the few that we send.

use prost::Message;

/// What is posted to `/v1/traces`.
#[derive(Clone, PartialEq, Message)]
pub struct ExportTraceServiceRequest {
    /// Spans by the process that made them.
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

/// The spans of one process.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceSpans {
    /// The process.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// Its spans by the code that made them.
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
}

/// A process.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// `service.name` and others.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

/// The spans of one part of a program.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeSpans {
    /// The part.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<InstrumentationScope>,
    /// Its spans.
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}

/// A part of a program.
#[derive(Clone, PartialEq, Message)]
pub struct InstrumentationScope {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// A span.
#[derive(Clone, PartialEq, Message)]
pub struct Span {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    /// 8 bytes; empty at the root.
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    /// Its name.
    #[prost(string, tag = "5")]
    pub name: String,
    /// 1 internal, 2 server, 5 consumer.
    #[prost(int32, tag = "6")]
    pub kind: i32,
    /// When it began, since the epoch.
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    /// When it ended.
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    /// What was noted of it.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    /// How it ended.
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
}

/// How a span ended.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// Why it went wrong.
    #[prost(string, tag = "2")]
    pub message: String,
    /// 2: it went wrong.
    #[prost(int32, tag = "3")]
    pub code: i32,
}

/// An attribute.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// A value; exactly one field is set.
#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    /// A text.
    #[prost(string, optional, tag = "1")]
    pub string_value: Option<String>,
    /// A number.
    #[prost(int64, optional, tag = "3")]
    pub int_value: Option<i64>,
}

impl KeyValue {
    /// A text under a name.
    pub fn text(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: Some(AnyValue { string_value: Some(value.into()), int_value: None }) }
    }

    /// A number under a name.
    pub fn number(key: impl Into<String>, value: i64) -> Self {
        Self { key: key.into(), value: Some(AnyValue { string_value: None, int_value: Some(value) }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serialised by the OpenTelemetry project's own package for Python (opentelemetry-proto 1.45).
    const PUBLISHED: &str = "0acf010a1f0a1d0a0c736572766963652e6e616d65120d0a0b6f72666561732d6564676512ab010a140a0b6f72666561732d656467651205302e312e301292010a100102030405060708090a0b0c0d0e0f101208010203040506070822080b0c0d0e0f1011122a0a474554202f6c6976657a30023901002a36fe9c9717410265f753fe9c97174a1c0a13687474702e726571756573742e6d6574686f6412050a034745544a200a19687474702e726573706f6e73652e7374617475735f636f6465120318f7037a0a120662726f6b656e1802";

    #[test]
    fn the_bytes_are_those_of_the_published_messages() {
        let span = Span {
            trace_id: (1..=16).collect(),
            span_id: (1..=8).collect(),
            parent_span_id: (11..=18).collect(),
            name: "GET /livez".to_owned(),
            kind: 2,
            start_time_unix_nano: 1_700_000_000_000_000_001,
            end_time_unix_nano: 1_700_000_000_500_000_002,
            attributes: vec![
                KeyValue::text("http.request.method", "GET"),
                KeyValue::number("http.response.status_code", 503),
            ],
            status: Some(Status { message: "broken".to_owned(), code: 2 }),
        };
        let scope = InstrumentationScope { name: "orfeas-edge".to_owned(), version: "0.1.0".to_owned() };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource { attributes: vec![KeyValue::text("service.name", "orfeas-edge")] }),
                scope_spans: vec![ScopeSpans { scope: Some(scope), spans: vec![span] }],
            }],
        };
        let bytes = request.encode_to_vec();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, PUBLISHED);
        assert_eq!(ExportTraceServiceRequest::decode(bytes.as_slice()).unwrap(), request);
    }
}
