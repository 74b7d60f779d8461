//! The client inside a component: WASI 0.3 sockets, and the idle connections of an instance.

mod pool;
mod transport;

pub use pool::{Lease, Pool};
pub use transport::TcpTransport;
