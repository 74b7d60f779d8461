//! The HTTP side: connections in, requests to a component, answers and problems out.
//!
//! ```text
//! server ── accepts, bounds connections and slow clients (io), answers what is no request (unparsed)
//!    └▶ service ── admit: identity, limits, route, class ──▶ dispatch ──▶ guest
//!          └──── refusal (what the host itself answers), body (both directions), record (log, metrics)
//! ```

pub(crate) mod admin;
mod admit;
pub(crate) mod body;
pub(crate) mod dispatch;
mod identity;
mod io;
mod record;
mod refusal;
pub(crate) mod server;
mod service;
mod unparsed;

pub(crate) use admit::HeadLimits;
pub(crate) use service::Service;
