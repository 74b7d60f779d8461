//! Clients that connect and then do not read, or do not go on: what a bus and an edge must not wait for.

use std::net::SocketAddr;

use async_nats::Client;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// More than the server keeps for a client (`max_pending`, 64 MB) and the two sockets' buffers.
const FLOOD_MESSAGES: usize = 90;
/// One message of the flood.
const FLOOD_MESSAGE_BYTES: usize = 1 << 20;
/// Answers to so many requests do not fit the buffers of a connection that is not read.
const PIPELINED: usize = 4_000;

/// Connections that stand until this is dropped.
#[derive(Debug)]
pub struct SlowClients {
    _streams: Vec<TcpStream>,
}

impl SlowClients {
    /// Opens one of each kind: a subscriber to everything, which is flooded; a caller that asks for one job
    /// thousands of times and reads no answer; an upload that stops in the middle; a header that never ends.
    pub async fn open(bus: SocketAddr, edge: SocketAddr, client: &Client) -> std::io::Result<Self> {
        let mut subscriber = TcpStream::connect(bus).await?;
        subscriber.write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB > 1\r\n").await?;
        let payload = bytes::Bytes::from(vec![0x5a; FLOOD_MESSAGE_BYTES]);
        for _ in 0..FLOOD_MESSAGES {
            client.publish("flood", payload.clone()).await.map_err(std::io::Error::other)?;
        }
        client.flush().await.map_err(std::io::Error::other)?;

        let mut caller = TcpStream::connect(edge).await?;
        let ask = b"GET /api/job/01900000-0000-7000-8000-000000000000 HTTP/1.1\r\nhost: edge\r\n\r\n"
            .repeat(PIPELINED);
        // The edge stops reading when it cannot write, so this too must not wait for the end.
        let asking = caller.write_all(&ask);
        let _ = tokio::time::timeout(std::time::Duration::from_millis(300), asking).await;

        let mut upload = TcpStream::connect(edge).await?;
        upload
            .write_all(b"POST /api/uploads HTTP/1.1\r\nhost: edge\r\ncontent-type: image/png\r\ncontent-length: 1000000\r\n\r\n\x89PNG")
            .await?;
        let mut header = TcpStream::connect(edge).await?;
        header.write_all(b"GET /livez HTTP/1.1\r\nhost: ed").await?;
        Ok(Self { _streams: vec![subscriber, caller, upload, header] })
    }
}
