//! Does JetStream keep what it acknowledges? Looked at once, when the node starts.
//!
//! ```text
//!   streams: storage, persist mode, replicas ◀── $JS.API        ┐
//!   server: sync interval ◀── /varz of its monitoring port, or  ├─▶ findings ─▶ warn, or refuse to serve
//!                             $SYS.REQ.SERVER.<id>.VARZ          ┘
//! ```
//! A client cannot see how often a server flushes to its disk: that stands in the monitoring port's answer, and on a
//! subject of the system account, which an ordinary account cannot use. If neither answers, that is a finding too.

use std::time::Duration;

use async_nats::jetstream::stream::{Info, PersistenceMode, StorageType};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::HOST;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::bus::Connection;
use super::provision::stream_names;
use crate::config::Config;

/// The server answers from memory.
const LOOK_LIMIT: Duration = Duration::from_secs(3);
/// A server's figures are a few KiB.
const VARZ_BYTES_MAX: usize = 1024 * 1024;
/// The monitoring port, where a URL names none.
const MONITOR_PORT: u16 = 8222;

/// When the server flushes what it stores to its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Flush {
    /// Before it acknowledges.
    BeforeAck,
    /// Every so often: what was acknowledged since is lost with the machine's power.
    Every(Duration),
    /// Nobody says.
    Unknown(String),
}

/// What counts of a stream's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    stream: String,
    on_disk: bool,
    acknowledged_early: bool,
    replicas: usize,
    clustered: bool,
}

/// Looks at the streams and the server; what it finds wrong, a sentence each.
///
/// # Errors
/// A stream cannot be looked up.
pub async fn check_durability(
    connection: &Connection,
    config: &Config,
) -> Result<Vec<String>, async_nats::jetstream::context::GetStreamError> {
    let mut streams = Vec::new();
    for name in stream_names(config) {
        let stream = connection.jetstream().get_stream(&name).await?;
        streams.push(Kept::of(stream.cached_info()));
    }
    Ok(findings(&streams, &flush(connection, config.nats.monitor.as_ref()).await))
}

impl Kept {
    fn of(info: &Info) -> Self {
        Self {
            stream: info.config.name.clone(),
            on_disk: info.config.storage == StorageType::File,
            acknowledged_early: info.config.persist_mode == Some(PersistenceMode::Async),
            replicas: info.config.num_replicas,
            // A server by itself names itself as the leader, of no cluster.
            clustered: info.cluster.as_ref().is_some_and(|cluster| cluster.name.is_some()),
        }
    }
}

/// The decision: what can be lost although it was acknowledged.
fn findings(streams: &[Kept], flush: &Flush) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |is_bad: fn(&Kept) -> bool, what: &str| {
        let named: Vec<_> =
            streams.iter().filter(|kept| is_bad(kept)).map(|kept| kept.stream.as_str()).collect();
        if !named.is_empty() {
            found.push(format!("{what}: {}", named.join(", ")));
        }
    };
    note(|kept| !kept.on_disk, "streams are kept in memory and end with the server");
    note(|kept| kept.acknowledged_early, "streams acknowledge before they store (persist_mode async)");
    note(
        |kept| kept.clustered && kept.replicas < 2,
        "streams of a cluster have one copy and end with its disk",
    );
    match flush {
        Flush::BeforeAck => {}
        Flush::Every(interval) => found.push(format!(
            "the server flushes to its disk every {} s, so that a loss of power takes what was acknowledged since: set \
             `jetstream {{ sync_interval: always }}`",
            interval.as_secs_f64()
        )),
        Flush::Unknown(reason) => found.push(format!(
            "whether the server flushes before it acknowledges cannot be seen ({reason}): name its monitoring port in \
             `nats.monitor`"
        )),
    }
    found
}

async fn flush(connection: &Connection, monitor: Option<&Uri>) -> Flush {
    let answered = match monitor {
        Some(monitor) => varz_over_http(monitor).await,
        None => varz_over_nats(connection).await,
    };
    match answered {
        Ok(varz) => read_flush(&varz),
        Err(reason) => Flush::Unknown(reason),
    }
}

/// Answered to connections of the system account only; for all others there is nobody on the subject.
async fn varz_over_nats(connection: &Connection) -> Result<Bytes, String> {
    let client = connection.client();
    let subject = format!("$SYS.REQ.SERVER.{}.VARZ", client.server_info().server_id);
    match timeout(LOOK_LIMIT, client.request(subject, Bytes::new())).await {
        Ok(Ok(message)) => Ok(message.payload),
        Ok(Err(_)) | Err(_) => {
            Err("no monitoring port is configured, and this is not the system account".to_owned())
        }
    }
}

async fn varz_over_http(monitor: &Uri) -> Result<Bytes, String> {
    let asked = timeout(LOOK_LIMIT, get_varz(monitor)).await;
    let asked = asked.unwrap_or_else(|_| Err("it does not answer".into()));
    asked.map_err(|error| format!("{monitor}: {error}"))
}

async fn get_varz(monitor: &Uri) -> Result<Bytes, async_nats::Error> {
    let host = monitor.host().ok_or("it has no host")?;
    let authority = (host.trim_matches(['[', ']']), monitor.port_u16().unwrap_or(MONITOR_PORT));
    let stream = TcpStream::connect(authority).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let path = format!("{}/varz", monitor.path().trim_end_matches('/'));
    let request = Request::get(path).header(HOST, host).body(Empty::<Bytes>::new())?;
    let answered = async {
        let response = sender.send_request(request).await?;
        if !response.status().is_success() {
            return Err(format!("status {}", response.status()).into());
        }
        Ok::<_, async_nats::Error>(
            Limited::new(response.into_body(), VARZ_BYTES_MAX).collect().await?.to_bytes(),
        )
    };
    // The connection is driven for as long as the answer takes, and no longer.
    tokio::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        ended = connection => {
            ended?;
            answered.await
        }
    }
}

/// The part of `/varz` that is looked at; the message on the system account has it under `data`.
#[derive(Debug, Default, Deserialize)]
struct Varz {
    #[serde(default)]
    jetstream: JetStreamVarz,
    data: Option<Box<Varz>>,
}

#[derive(Debug, Default, Deserialize)]
struct JetStreamVarz {
    config: Option<JetStreamConfig>,
}

#[derive(Debug, Deserialize)]
struct JetStreamConfig {
    /// Nanoseconds.
    #[serde(default)]
    sync_interval: u64,
    #[serde(default)]
    sync_always: bool,
}

fn read_flush(varz: &[u8]) -> Flush {
    let unreadable = || Flush::Unknown("its answer has no jetstream settings".to_owned());
    let Ok(varz) = serde_json::from_slice::<Varz>(varz) else { return unreadable() };
    let varz = match varz.data {
        Some(inner) => *inner,
        None => varz,
    };
    match varz.jetstream.config {
        Some(JetStreamConfig { sync_always: true, .. }) => Flush::BeforeAck,
        // Servers before 2.10 do not say.
        Some(JetStreamConfig { sync_interval: 0, .. }) | None => unreadable(),
        Some(JetStreamConfig { sync_interval, .. }) => Flush::Every(Duration::from_nanos(sync_interval)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(stream: &str) -> Kept {
        Kept {
            stream: stream.to_owned(),
            on_disk: true,
            acknowledged_early: false,
            replicas: 1,
            clustered: false,
        }
    }

    #[test]
    fn a_server_that_flushes_first_and_keeps_everything_on_disk_has_no_findings() {
        assert!(findings(&[kept("A"), kept("B")], &Flush::BeforeAck).is_empty());
        let replicated = Kept { replicas: 3, clustered: true, ..kept("A") };
        assert!(findings(&[replicated], &Flush::BeforeAck).is_empty());
    }

    #[test]
    fn each_way_to_lose_what_was_acknowledged_is_a_finding_that_names_the_streams() {
        let streams = [
            Kept { on_disk: false, ..kept("A") },
            Kept { acknowledged_early: true, ..kept("B") },
            Kept { clustered: true, ..kept("C") },
        ];
        let found = findings(&streams, &Flush::Every(Duration::from_secs(120)));
        assert_eq!(found.len(), 4, "{found:?}");
        for (finding, named) in found.iter().zip([": A", ": B", ": C", "every 120 s"]) {
            assert!(finding.contains(named), "{finding}");
        }
        assert_eq!(findings(&[], &Flush::Unknown("x".to_owned())).len(), 1, "not to know is a finding");
    }

    #[test]
    fn the_servers_figures_are_read_from_either_way() {
        let always = r#"{"jetstream":{"config":{"sync_interval":120000000000,"sync_always":true}}}"#;
        assert_eq!(read_flush(always.as_bytes()), Flush::BeforeAck);
        let wrapped = r#"{"server":{},"data":{"jetstream":{"config":{"sync_interval":120000000000}}}}"#;
        assert_eq!(read_flush(wrapped.as_bytes()), Flush::Every(Duration::from_secs(120)));
        for unknown in ["", "{}", r#"{"jetstream":{}}"#, r#"{"jetstream":{"config":{}}}"#] {
            assert!(matches!(read_flush(unknown.as_bytes()), Flush::Unknown(_)), "{unknown}");
        }
    }
}
