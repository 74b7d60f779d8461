//! A component that behaves as badly as the tests of the edge host ask it to: each path is one
//! behaviour, with its parameters in the query.
#![cfg(target_family = "wasm")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a trap is what the host must cope with")]

use bytes::Bytes;
use http_body_util::BodyExt;
use spin_sdk::http::{FullBody, HeaderMap, IntoResponse, Request, Response, StatusCode};
use spin_sdk::http_service;
use spin_sdk::wasip3::clocks::monotonic_clock::wait_for;
use spin_sdk::wasip3::http::types as wasi;
use spin_sdk::wasip3::sockets::types::{IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket};
use spin_sdk::wasip3::wit_bindgen::StreamWriter;
use spin_sdk::wasip3::{wit_future, wit_stream};
use std::net::SocketAddrV4;

#[http_service]
async fn handle(request: Request) -> Result<wasi::Response, spin_sdk::http::Error> {
    let query = Query(request.uri().query().unwrap_or_default().to_owned());
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/hello" => text("hello"),
        "/headers" => text(headers(request.headers())),
        "/url" => text(request.uri().to_string()),
        "/length" => text(body_length(request).await),
        "/file" => text(file(query.get("path"))),
        "/variable" => text(variable(query.get("name")).await),
        "/environment" => text(std::env::var(query.get("name")).unwrap_or_default()),
        "/connect" => text(connect(query.get("to")).await),
        "/sleep" => {
            sleep_ms(query.number("ms")).await;
            text("slept")
        }
        "/busy" => loop {
            std::hint::black_box(());
        },
        "/compute" => text(compute(query.number("ms"))),
        "/allocate" => text(allocate(query.number("mib"))),
        "/panic" => panic!("asked to"),
        "/print" => {
            eprintln!("a line from the guest");
            text("printed")
        }
        "/refuse" => refuse(),
        "/stream" => Ok(stream(query.number("lines"), query.number("ms"), query.get("then") == "panic")),
        "/blob" => text("x".repeat(query.number("bytes") as usize)),
        _ => Ok(Response::builder()
            .status(StatusCode::NOT_FOUND)
            .body(FullBody::new(Bytes::new()))?
            .into_response()?),
    }
}

fn text(text: impl Into<String>) -> Result<wasi::Response, spin_sdk::http::Error> {
    let text: String = text.into();
    let response = Response::builder().header("content-length", text.len());
    Ok(response.body(FullBody::new(Bytes::from(text)))?.into_response()?)
}

fn headers(headers: &HeaderMap) -> String {
    headers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap_or("?"))).collect()
}

async fn body_length(request: Request) -> String {
    let mut body = request.into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes += frame.data_ref().map_or(0, Bytes::len),
            Err(error) => return format!("error after {bytes}: {error:?}"),
        }
    }
    bytes.to_string()
}

fn file(path: &str) -> String {
    match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => format!("error: {error}"),
    }
}

async fn variable(name: &str) -> String {
    match spin_sdk::variables::get(name).await {
        Ok(value) => value,
        Err(error) => format!("error: {error:?}"),
    }
}

async fn connect(to: &str) -> String {
    let address: SocketAddrV4 = to.parse().unwrap();
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).unwrap();
    let octets = address.ip().octets();
    let remote = Ipv4SocketAddress { port: address.port(), address: octets.into() };
    match socket.connect(IpSocketAddress::Ipv4(remote)).await {
        Ok(()) => "connected".to_owned(),
        Err(error) => format!("error: {error:?}"),
    }
}

async fn sleep_ms(ms: u64) {
    wait_for(ms * 1_000_000).await;
}

/// Computes for a while without waiting once.
fn compute(ms: u64) -> String {
    let started = std::time::Instant::now();
    while started.elapsed().as_millis() < u128::from(ms) {
        std::hint::black_box(started);
    }
    "computed".to_owned()
}

fn allocate(mib: u64) -> String {
    let block = vec![1_u8; (mib as usize) << 20];
    std::hint::black_box(&block).len().to_string()
}

fn refuse() -> Result<wasi::Response, spin_sdk::http::Error> {
    let response = Response::builder()
        .status(StatusCode::UNPROCESSABLE_ENTITY)
        .header("x-orfeas-code", "invalid_image")
        .header("x-orfeas-channel", "canary");
    Ok(response.body(FullBody::new(Bytes::from_static(b"refused")))?.into_response()?)
}

/// Writes `lines` lines, `ms` apart, without a content-length.
fn stream(lines: u64, ms: u64, then_panic: bool) -> wasi::Response {
    let headers = wasi::Fields::new();
    headers.set("content-type", &[b"text/event-stream".to_vec()]).unwrap();
    let (mut writer, reader): (StreamWriter<u8>, _) = wit_stream::new();
    let (_trailers_writer, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = wasi::Response::new(headers, Some(reader), trailers);
    spin_sdk::wasip3::spawn(async move {
        for line in 0..lines {
            if !writer.write_all(format!("data: {line}\n\n").into_bytes()).await.is_empty() {
                return;
            }
            sleep_ms(ms).await;
        }
        assert!(!then_panic, "asked to");
    });
    response
}

struct Query(String);

impl Query {
    fn get(&self, name: &str) -> &str {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    fn number(&self, name: &str) -> u64 {
        self.get(name).parse().unwrap_or(0)
    }
}
