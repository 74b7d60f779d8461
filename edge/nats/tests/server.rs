//! The client against a real `nats-server`, over an ordinary socket. Only the transport differs from the
//! component's. The server is `$ORFEAS_NATS_SERVER`, else `nats-server` on the PATH.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail by panicking, like the test")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::executor::block_on;
use orfeas_edge_nats::jetstream::kv::{self, Expected};
use orfeas_edge_nats::jetstream::object::{CHUNK_BYTES, GetInfo, PutInfo, nuid};
use orfeas_edge_nats::jetstream::{Call, ObjectReader, ObjectWriter, Publish, Request, StreamInfo};
use orfeas_edge_nats::{
    Connection, Credentials, Error, Headers, Message, ReadOutcome, Transport, Unavailable,
};
use sha2::{Digest, Sha256};

/// Blocks instead of suspending: good enough for one connection in a test.
struct Socket(TcpStream);

impl Transport for Socket {
    async fn write(&mut self, mut bytes: Vec<u8>, deadline: Instant) -> Result<Vec<u8>, Error> {
        self.0.set_write_timeout(Some(left(deadline))).unwrap();
        self.0.write_all(&bytes).map_err(|_| Unavailable::Lost("writing"))?;
        bytes.clear();
        Ok(bytes)
    }

    async fn read(&mut self, mut buffer: Vec<u8>, deadline: Instant) -> (ReadOutcome, Vec<u8>) {
        self.0.set_read_timeout(Some(left(deadline))).unwrap();
        buffer.resize(buffer.capacity(), 0);
        let outcome = match self.0.read(&mut buffer) {
            Ok(0) => ReadOutcome::Closed,
            Ok(count) => {
                buffer.truncate(count);
                return (ReadOutcome::Bytes, buffer);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                ReadOutcome::Deadline
            }
            Err(_) => ReadOutcome::Closed,
        };
        buffer.clear();
        (outcome, buffer)
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

struct Server {
    process: Child,
    folder: PathBuf,
    address: SocketAddr,
}

impl Server {
    fn start(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("orfeas-edge-nats-{}-{name}", std::process::id()));
        let ports = folder.join("ports");
        std::fs::create_dir_all(&ports).unwrap();
        let program = std::env::var_os("ORFEAS_NATS_SERVER").unwrap_or_else(|| "nats-server".into());
        let process = Command::new(&program)
            .args(["-a", "127.0.0.1", "-p", "-1", "-js", "-sd"])
            .arg(folder.join("store"))
            .arg("--ports_file_dir")
            .arg(&ports)
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start {}: {error}; set ORFEAS_NATS_SERVER", program.display())
            });
        let mut server = Self { process, folder, address: ([127, 0, 0, 1], 0).into() };
        let deadline = soon();
        while server.address.port() == 0 {
            assert!(Instant::now() < deadline, "nats-server wrote no ports file");
            let text = std::fs::read_dir(&ports)
                .unwrap()
                .find_map(|file| std::fs::read_to_string(file.unwrap().path()).ok());
            let json = text
                .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
                .unwrap_or_default();
            if let Some(url) = json["nats"][0].as_str() {
                server.address = url.trim_start_matches("nats://").parse().unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    fn connect(&self) -> Connection<Socket> {
        let socket = TcpStream::connect(self.address).unwrap();
        block_on(Connection::open(Socket(socket), 7, Credentials::None, soon())).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Long enough for a machine that does other things too.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Creates a stream; what the node does in production.
struct Create(serde_json::Value);

impl Request for Create {
    type Reply = ();

    fn call(&self) -> Call {
        let subject = format!("$JS.API.STREAM.CREATE.{}", self.0["name"].as_str().unwrap());
        Call { subject, headers: Headers::new(), payload: Bytes::from(self.0.to_string()) }
    }

    fn decode(message: Message) -> Result<(), Error> {
        let text = String::from_utf8_lossy(&message.payload);
        assert!(!text.contains("\"error\""), "{text}");
        Ok(())
    }
}

fn create(connection: &mut Connection<Socket>, name: &str, subject: &str) {
    let config = serde_json::json!({
        "name": name, "subjects": [subject], "max_msgs_per_subject": if name.starts_with("KV_") { 1 } else { -1 },
        "allow_direct": true, "allow_rollup_hdrs": true, "deny_delete": false, "storage": "file",
    });
    block_on(connection.call(&Create(config), soon())).unwrap();
}

#[test]
fn the_greeting_is_answered_and_silence_is_noticed() {
    let server = Server::start("greeting");
    let mut connection = server.connect();
    block_on(connection.ping(soon())).unwrap();
    assert!(connection.server().unwrap().is_at_least(2, 10));
    let subscription = connection.subscribe("quiet").unwrap();
    let soon_over = Instant::now() + Duration::from_millis(20);
    assert_eq!(block_on(connection.event(subscription, soon_over)).unwrap(), None);
    assert!(!connection.is_broken(), "waiting in vain for an event is no fault");
    connection.publish("quiet", &Headers::new().with("A", "b"), b"now").unwrap();
    let event = block_on(connection.event(subscription, soon())).unwrap().unwrap();
    assert_eq!((event.payload.as_ref(), event.headers.get("a")), (&b"now"[..], Some("b")));
    assert!(block_on(connection.reset(soon())));
}

#[test]
fn a_request_without_listener_fails_at_once() {
    let server = Server::start("nobody");
    let mut connection = server.connect();
    let error = block_on(connection.call(&kv::Get { bucket: "none", key: "k" }, soon())).unwrap_err();
    assert!(matches!(error, Error::NoResponders { .. }), "{error:?}");
    let error = block_on(connection.call(&StreamInfo { stream: "NONE" }, soon())).unwrap_err();
    assert_eq!(error, Error::NotFound);
    assert!(!connection.is_broken());
}

#[test]
fn a_killed_server_is_unavailable_and_breaks_the_connection() {
    let mut server = Server::start("killed");
    let mut connection = server.connect();
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    let error = block_on(connection.ping(soon())).unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert!(connection.is_broken());
    assert!(!block_on(connection.reset(soon())));
}

#[test]
fn keys_move_only_by_compare_and_set() {
    let server = Server::start("kv");
    let mut connection = server.connect();
    create(&mut connection, "KV_b", "$KV.b.>");
    block_on(async {
        let get = kv::Get { bucket: "b", key: "k" };
        assert_eq!(connection.call(&get, soon()).await.unwrap(), None);
        let first = connection.kv_create("b", "k", Bytes::from_static(b"1"), soon()).await.unwrap();
        let again = connection.kv_create("b", "k", Bytes::from_static(b"x"), soon()).await;
        assert_eq!(again, Err(Error::Conflict));
        let put = |expected, value: Option<&'static str>| kv::Put {
            bucket: "b",
            key: "k",
            expected,
            value: value.map(Bytes::from),
        };
        let second = connection.call(&put(Expected::Revision(first), Some("2")), soon()).await.unwrap();
        let stale = connection.call(&put(Expected::Revision(first), Some("3")), soon()).await;
        assert_eq!(stale, Err(Error::Conflict));
        let entry = connection.call(&get, soon()).await.unwrap().unwrap();
        assert_eq!((entry.revision, entry.value.as_deref()), (second, Some(&b"2"[..])));
        connection.call(&put(Expected::Anything, None), soon()).await.unwrap();
        assert_eq!(connection.call(&get, soon()).await.unwrap().unwrap().value, None);
        connection.kv_create("b", "k", Bytes::from_static(b"4"), soon()).await.unwrap();
        assert!(
            connection.call(&get, soon()).await.unwrap().unwrap().value.is_some(),
            "created over a deletion"
        );
    });
}

#[test]
fn pipelined_requests_are_answered_each_to_its_own() {
    let server = Server::start("pipeline");
    let mut connection = server.connect();
    create(&mut connection, "KV_b", "$KV.b.>");
    create(&mut connection, "JOBS", "jobs.>");
    block_on(async {
        let job =
            |id: &str| Publish::once("jobs.a".to_owned(), id, Headers::new(), Bytes::from_static(b"job"));
        let absent = connection.start(&kv::Get { bucket: "b", key: "absent" }).unwrap();
        let first = connection.start(&job("1")).unwrap();
        let same = connection.start(&job("1")).unwrap();
        let abandoned = connection.start(&job("2")).unwrap();
        connection.abandon(abandoned);
        assert!(connection.finish(same, soon()).await.unwrap().duplicate);
        assert!(!connection.finish(first, soon()).await.unwrap().duplicate);
        assert_eq!(connection.finish(absent, soon()).await.unwrap(), None);
        // Nobody has waited until the one that was given up is stored.
        let limit = soon();
        while connection.call(&StreamInfo { stream: "JOBS" }, soon()).await.unwrap().messages != 2 {
            assert!(Instant::now() < limit, "not stored");
        }
        assert!(connection.reset(soon()).await);
    });
}

#[test]
fn objects_come_back_as_they_went_in() {
    let server = Server::start("object");
    let mut connection = server.connect();
    create(&mut connection, "OBJ_b", "$O.b.>");
    block_on(async {
        // Less than a chunk, chunks exactly, and more than one window and batch.
        for (n, size) in [(0u128, 1usize), (1, 2 * CHUNK_BYTES), (2, 6_000_001)] {
            let content: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
            let name = format!("object {n}");
            let digest: [u8; 32] = Sha256::digest(&content).into();
            let mut writer = ObjectWriter::new("b", nuid(n));
            for piece in content.chunks(50_000) {
                writer.write(&mut connection, piece).await.unwrap();
            }
            let info = writer.finish(&mut connection, name.clone(), &digest, String::new()).await.unwrap();
            connection.call(&PutInfo { info: &info, replaces: 0 }, soon()).await.unwrap();
            let second = connection.call(&PutInfo { info: &info, replaces: 0 }, soon()).await;
            assert_eq!(second, Err(Error::Conflict), "a faster writer is noticed");
            let stored =
                connection.call(&GetInfo { bucket: "b", name: &name }, soon()).await.unwrap().unwrap();
            let mut reader = ObjectReader::new(stored.info);
            let mut read = Vec::new();
            while let Some(chunk) = reader.next(&mut connection).await.unwrap() {
                read.extend_from_slice(&chunk);
            }
            assert_eq!(read, content);
            assert!(connection.reset(soon()).await);
        }
    });
}

#[test]
fn damage_and_loss_never_look_like_a_whole_object() {
    let server = Server::start("damage");
    let mut connection = server.connect();
    create(&mut connection, "OBJ_b", "$O.b.>");
    block_on(async {
        let content = vec![7; 2 * CHUNK_BYTES + 1];
        let mut writer = ObjectWriter::new("b", nuid(1));
        writer.write(&mut connection, &content).await.unwrap();
        let info = writer.finish(&mut connection, "x".to_owned(), &[0; 32], String::new()).await.unwrap();
        let mut reader = ObjectReader::new(info.clone());
        let mut bytes = 0;
        let error = loop {
            match reader.next(&mut connection).await {
                Ok(Some(chunk)) => bytes += chunk.len(),
                Ok(None) => panic!("a wrong digest was not noticed"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Protocol(_)), "{error:?}");
        assert!(bytes < content.len(), "the last chunk is held back");

        writer.discard(&mut connection).await.unwrap();
        assert_eq!(ObjectReader::new(info).next(&mut connection).await, Err(Error::NotFound));
        assert_eq!(connection.call(&StreamInfo { stream: "OBJ_b" }, soon()).await.unwrap().messages, 0);
    });
}
