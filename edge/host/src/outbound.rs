//! The outbound allow list: which TCP addresses a component may connect to.
//!
//! Reads Spin's `allowed_outbound_hosts` and, as Spin does for sockets, matches the resolved
//! address. Entries that Spin accepts but that can never match a socket (host names, other
//! schemes) are refused, so that a manifest does not promise what does not work.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

/// The addresses that a component may connect to; empty allows none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AllowList {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    network: Option<Network>,
    ports: RangeInclusive<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Network {
    base: IpAddr,
    prefix_bits: u8,
}

impl AllowList {
    /// Adds an entry such as `tcp://10.0.0.0/8:4222`. An empty entry (a template whose variable is
    /// empty) adds nothing. The error says what is wrong with the entry.
    pub(crate) fn add(&mut self, entry: &str) -> Result<(), &'static str> {
        let entry = entry.trim();
        if entry.is_empty() {
            return Ok(());
        }
        let (scheme, rest) = entry.split_once("://").ok_or("it needs the form tcp://ADDRESS:PORT")?;
        if scheme != "tcp" && scheme != "*" {
            return Err("only tcp:// is offered: components get sockets, not an HTTP or database client");
        }
        let (host, port) = rest.rsplit_once(':').ok_or("it needs a port (or \":*\")")?;
        self.rules.push(Rule { network: parse_network(host)?, ports: parse_ports(port)? });
        Ok(())
    }

    /// Whether a connection to `address` is allowed.
    pub(crate) fn allows(&self, address: SocketAddr) -> bool {
        self.rules.iter().any(|rule| {
            rule.ports.contains(&address.port())
                && rule.network.as_ref().is_none_or(|network| network.contains(address.ip()))
        })
    }
}

fn parse_network(host: &str) -> Result<Option<Network>, &'static str> {
    const NOT_AN_ADDRESS: &str =
        "sockets are matched on the resolved address: give an IP address, a CIDR block or \"*\"";
    if host == "*" {
        return Ok(None);
    }
    let (address, prefix_bits) = match host.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| NOT_AN_ADDRESS)?)),
        None => (host, None),
    };
    let address = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
    let base: IpAddr = address.parse().map_err(|_| NOT_AN_ADDRESS)?;
    let width = if base.is_ipv4() { 32 } else { 128 };
    let prefix_bits = prefix_bits.unwrap_or(width);
    if prefix_bits > width {
        return Err("the CIDR prefix is longer than the address");
    }
    Ok(Some(Network { base, prefix_bits }))
}

/// A port, `*`, or Spin's `first..end` without `end`.
fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    const NOT_A_PORT: &str = "the port must be a number, FIRST..END or \"*\"";
    if text == "*" {
        return Ok(0..=u16::MAX);
    }
    let number = |digits: &str| digits.parse::<u16>().map_err(|_| NOT_A_PORT);
    match text.split_once("..") {
        Some((first, end)) => {
            let (first, end) = (number(first)?, number(end)?);
            if first >= end {
                return Err("the port range is empty");
            }
            Ok(first..=end - 1)
        }
        None => number(text).map(|port| port..=port),
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_bits)).unwrap_or(0);
                base.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix_bits)).unwrap_or(0);
                base.to_bits() & mask == address.to_bits() & mask
            }
            // An IPv4-mapped IPv6 address is not its IPv4 address: Spin does not allow it either.
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(entry: &str, address: &str, expected: bool) {
        let mut list = AllowList::default();
        list.add(entry).unwrap();
        assert_eq!(list.allows(address.parse().unwrap()), expected, "{entry} for {address}");
    }

    #[test]
    fn nothing_is_allowed_by_default() {
        assert!(!AllowList::default().allows("127.0.0.1:4222".parse().unwrap()));
        check("", "127.0.0.1:4222", false);
    }

    #[test]
    fn an_address_allows_itself_only() {
        check("tcp://127.0.0.1:4222", "127.0.0.1:4222", true);
        check("tcp://127.0.0.1:4222", "127.0.0.1:4223", false);
        check("tcp://127.0.0.1:4222", "127.0.0.2:4222", false);
        check("tcp://127.0.0.1:4222", "[::ffff:127.0.0.1]:4222", false);
        check("tcp://[::1]:4222", "[::1]:4222", true);
    }

    #[test]
    fn blocks_and_wildcards_match_on_the_address() {
        check("tcp://10.1.2.3/8:4222", "10.200.0.1:4222", true);
        check("tcp://10.0.0.0/8:4222", "11.0.0.1:4222", false);
        check("tcp://0.0.0.0/0:*", "8.8.8.8:53", true);
        check("tcp://0.0.0.0/0:*", "[::1]:53", false);
        check("tcp://fd00::/8:1", "[fd12::1]:1", true);
        check("tcp://*:4222", "[fd12::1]:4222", true);
        check("*://*:*", "1.2.3.4:5", true);
    }

    #[test]
    fn a_port_range_excludes_its_end() {
        check("tcp://127.0.0.1:10..20", "127.0.0.1:19", true);
        check("tcp://127.0.0.1:10..20", "127.0.0.1:20", false);
    }

    #[test]
    fn entries_that_could_never_match_are_refused() {
        for entry in [
            "127.0.0.1:4222",
            "nats://127.0.0.1:4222",
            "https://example.com",
            "tcp://localhost:4222",
            "tcp://127.0.0.1",
            "tcp://127.0.0.1:",
            "tcp://127.0.0.1:x",
            "tcp://127.0.0.1:20..10",
            "tcp://10.0.0.0/33:1",
            "tcp://self:80",
        ] {
            assert!(AllowList::default().add(entry).is_err(), "{entry}");
        }
    }
}
