//! Which port a server gets: the one that the user named, the friendly default, or any free one.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};

/// A wish for a port on the loopback address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    /// This one or none: the user said so.
    Exactly(u16),
    /// This one if it is free, else any.
    Preferably(u16),
    /// Any free one.
    Any,
}

impl Port {
    /// What a flag means: a value is binding, no value leaves the default.
    pub(crate) fn from_flag(flag: Option<u16>, default: u16) -> Self {
        match flag {
            Some(0) => Self::Any,
            Some(port) => Self::Exactly(port),
            None => Self::Preferably(default),
        }
    }

    /// The port to start the server with; 0 leaves the choice to the system.
    pub(crate) fn resolve(self, server: &str) -> Result<u16> {
        match self {
            Self::Any => Ok(0),
            Self::Exactly(port) => try_bind(port)
                .map(|()| port)
                .with_context(|| format!("port {port} for {server} cannot be used")),
            Self::Preferably(port) if try_bind(port).is_ok() => Ok(port),
            Self::Preferably(port) => {
                eprintln!("  port {port} is taken: {server} gets another one");
                Ok(0)
            }
        }
    }
}

/// The server binds later by itself: a race that at worst makes its start fail with a clear log.
fn try_bind(port: u16) -> std::io::Result<()> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_default_gives_way_but_a_taken_choice_fails() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = holder.local_addr().unwrap().port();
        assert_eq!(Port::Preferably(taken).resolve("it").unwrap(), 0);
        let error = Port::Exactly(taken).resolve("it").unwrap_err();
        assert!(error.to_string().contains("cannot be used"));
    }

    #[test]
    fn flag_decides_how_binding_a_port_is() {
        assert_eq!(Port::from_flag(None, 8080), Port::Preferably(8080));
        assert_eq!(Port::from_flag(Some(81), 8080), Port::Exactly(81));
        assert_eq!(Port::from_flag(Some(0), 8080), Port::Any);
    }
}
