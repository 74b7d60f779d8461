//! A TCP socket of WASI 0.3. It has no TLS and no TCP_NODELAY: the way outside is a local leaf node's business,
//! and writes are coalesced above.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::sockets::types::{
    ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress, TcpSocket,
};
use wasip3::wit_bindgen::{StreamReader, StreamResult, StreamWriter};
use wasip3::wit_stream;

use crate::error::{Error, Unavailable};
use crate::transport::{ReadOutcome, Transport};

/// A connected socket.
#[derive(Debug)]
pub struct TcpTransport {
    writer: StreamWriter<u8>,
    reader: StreamReader<u8>,
    /// Closes the connection when it goes; the streams alone would keep it half open.
    _socket: TcpSocket,
}

impl TcpTransport {
    /// Connects.
    ///
    /// # Errors
    /// The peer refuses, the host does not allow the address, or the deadline passes.
    pub async fn connect(address: SocketAddr, deadline: Instant) -> Result<Self, Error> {
        let refused = |code: ErrorCode| Unavailable::Connect(format!("{code:?}"));
        let (family, address) = wasi_address(address);
        let socket = TcpSocket::create(family).map_err(refused)?;
        match by(deadline, socket.connect(address)).await {
            Some(outcome) => outcome.map_err(refused)?,
            None => return Err(Unavailable::Deadline("connecting").into()),
        }
        let (writer, outgoing) = wit_stream::new();
        // Failures of the two directions show as closed streams.
        let _ = socket.send(outgoing);
        let (reader, _) = socket.receive();
        Ok(Self { writer, reader, _socket: socket })
    }
}

impl Transport for TcpTransport {
    async fn write(&mut self, bytes: Vec<u8>, deadline: Instant) -> Result<Vec<u8>, Error> {
        match by(deadline, self.writer.write_all(bytes)).await {
            Some(unwritten) if unwritten.is_empty() => Ok(unwritten),
            Some(_) => Err(Unavailable::Lost("writing").into()),
            None => Err(Unavailable::Deadline("writing").into()),
        }
    }

    async fn read(&mut self, buffer: Vec<u8>, deadline: Instant) -> (ReadOutcome, Vec<u8>) {
        let mut read = pin!(self.reader.read(buffer));
        let timer = pin!(wait_for(nanoseconds_until(deadline)));
        let at_deadline = match select(read.as_mut(), timer).await {
            Either::Left(((result, buffer), _)) => return (outcome(result, ReadOutcome::Closed), buffer),
            Either::Right(((), _)) => read.as_mut().cancel(),
        };
        // The cancellation may have lost the race against bytes: they count.
        let (result, buffer) = at_deadline;
        (outcome(result, ReadOutcome::Deadline), buffer)
    }
}

fn outcome(result: StreamResult, when_cancelled: ReadOutcome) -> ReadOutcome {
    match result {
        StreamResult::Complete(_) => ReadOutcome::Bytes,
        StreamResult::Dropped => ReadOutcome::Closed,
        StreamResult::Cancelled => when_cancelled,
    }
}

/// The future's output, or `None` at the deadline.
async fn by<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    let timer = pin!(wait_for(nanoseconds_until(deadline)));
    match select(pin!(future), timer).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

fn nanoseconds_until(deadline: Instant) -> u64 {
    let left: Duration = deadline.saturating_duration_since(Instant::now());
    u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)
}

fn wasi_address(address: SocketAddr) -> (IpAddressFamily, IpSocketAddress) {
    match address {
        SocketAddr::V4(v4) => {
            let [a, b, c, d] = v4.ip().octets();
            let address = Ipv4SocketAddress { port: v4.port(), address: (a, b, c, d) };
            (IpAddressFamily::Ipv4, IpSocketAddress::Ipv4(address))
        }
        SocketAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = v6.ip().segments();
            let address = Ipv6SocketAddress {
                port: v6.port(),
                flow_info: v6.flowinfo(),
                address: (a, b, c, d, e, f, g, h),
                scope_id: v6.scope_id(),
            };
            (IpAddressFamily::Ipv6, IpSocketAddress::Ipv6(address))
        }
    }
}
