//! What the environment says, in the names of the OpenTelemetry specification.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `OTEL_EXPORTER_OTLP_ENDPOINT` | `http://HOST:PORT` of the collector; `/v1/traces` is added | none: off |
//! | `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` | the whole URL for traces; wins | |
//! | `OTEL_EXPORTER_OTLP_HEADERS` | `name=value,…`, sent with each batch | none |
//! | `OTEL_SERVICE_NAME` | what the process calls itself | the program's name |
//! | `OTEL_BSP_SCHEDULE_DELAY` | milliseconds between batches | 5000 |
//! | `OTEL_SDK_DISABLED`, `OTEL_TRACES_EXPORTER` | `true`, or `none`: off | |

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use thiserror::Error;

/// The specification's.
const DELAY_DEFAULT: Duration = Duration::from_secs(5);
/// A busy loop is no schedule.
const DELAY_MIN: Duration = Duration::from_millis(10);

/// Traces were asked for and cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TracesError {
    /// A collector that speaks TLS is reached by way of one beside this process.
    #[error("{variable} is `{endpoint}`: traces are sent in plain HTTP, so it has to be http://HOST[:PORT]")]
    Endpoint {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        endpoint: String,
    },
    /// A value that is no such thing.
    #[error("{variable} cannot be read")]
    Value {
        /// The environment variable; its value may be a secret.
        variable: &'static str,
    },
}

/// How spans are sent.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to.
    pub endpoint: Uri,
    /// What goes with each batch.
    pub headers: HeaderMap,
    /// What the process calls itself.
    pub service: String,
    /// The program, and its version.
    pub program: (String, String),
    /// The time between batches.
    pub delay: Duration,
}

impl Settings {
    /// Reads the environment; `None` if traces are not asked for.
    ///
    /// # Errors
    /// A value cannot be used.
    pub fn read(
        program: &str,
        version: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, TracesError> {
        // Set to nothing is not set, says the specification.
        let set = |name: &str| {
            environment(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let is_off = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || set("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        if is_off {
            return Ok(None);
        }
        let (traces, general) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT");
        let (variable, endpoint) = match (set(traces), set(general)) {
            (Some(endpoint), _) => (traces, endpoint),
            (None, Some(endpoint)) => (general, format!("{}/v1/traces", endpoint.trim_end_matches('/'))),
            (None, None) => return Ok(None),
        };
        let uri = endpoint.parse::<Uri>().ok();
        let uri = uri.filter(|uri| uri.scheme_str() == Some("http") && uri.host().is_some());
        let headers = "OTEL_EXPORTER_OTLP_HEADERS";
        let delay = "OTEL_BSP_SCHEDULE_DELAY";
        Ok(Some(Self {
            endpoint: uri.ok_or(TracesError::Endpoint { variable, endpoint })?,
            headers: match set(headers) {
                Some(text) => parse_headers(&text).ok_or(TracesError::Value { variable: headers })?,
                None => HeaderMap::new(),
            },
            service: set("OTEL_SERVICE_NAME").unwrap_or_else(|| program.to_owned()),
            program: (program.to_owned(), version.to_owned()),
            delay: match set(delay) {
                Some(text) => {
                    let ms = text.parse().map_err(|_| TracesError::Value { variable: delay })?;
                    Duration::from_millis(ms).max(DELAY_MIN)
                }
                None => DELAY_DEFAULT,
            },
        }))
    }
}

/// `name=value,…`
fn parse_headers(text: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        let (name, value) = pair.split_once('=')?;
        headers.insert(HeaderName::try_from(name.trim()).ok()?, HeaderValue::try_from(value.trim()).ok()?);
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, TracesError> {
        let value = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Settings::read("orfeas-edge", "0.1.0", value)
    }

    #[test]
    fn without_an_endpoint_or_with_an_off_switch_nothing_is_sent() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        for variables in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
            &[endpoint, ("OTEL_SDK_DISABLED", "TRUE")],
            &[endpoint, ("OTEL_TRACES_EXPORTER", "none")],
        ] {
            assert!(read(variables).unwrap().is_none(), "{variables:?}");
        }
    }

    #[test]
    fn the_specifications_names_are_read() {
        let settings = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-team = a, x-other=b=c"),
            ("OTEL_SERVICE_NAME", "edge-7"),
            ("OTEL_BSP_SCHEDULE_DELAY", "250"),
        ]);
        let settings = settings.unwrap().unwrap();
        assert_eq!(settings.endpoint, "http://collector:4318/v1/traces");
        assert_eq!(
            (&settings.headers["x-team"], &settings.headers["x-other"]),
            (&"a".parse().unwrap(), &"b=c".parse().unwrap())
        );
        assert_eq!((settings.service.as_str(), settings.delay), ("edge-7", Duration::from_millis(250)));
        let whole = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b/x"),
        ]);
        assert_eq!(whole.unwrap().unwrap().endpoint, "http://b/x");
    }

    #[test]
    fn what_cannot_be_used_stops_the_start() {
        for endpoint in ["https://collector", "collector:4318", "grpc://x", "http://"] {
            let refused = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)]);
            assert!(matches!(refused, Err(TracesError::Endpoint { .. })), "{endpoint}: {refused:?}");
        }
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a");
        for bad in [("OTEL_EXPORTER_OTLP_HEADERS", "nonsense"), ("OTEL_BSP_SCHEDULE_DELAY", "soon")] {
            assert!(matches!(read(&[endpoint, bad]), Err(TracesError::Value { .. })), "{bad:?}");
        }
    }
}
