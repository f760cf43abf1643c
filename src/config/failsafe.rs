//! The grammar of `--failsafe`: `[in:|out:]proto/port[@cidr]`.

use std::net::IpAddr;

use ipnet::IpNet;
use palisade_abi::{direction, proto};

use crate::policy::{FailsafeEntry, protocol_name, protocol_number};

/// Why an entry is not one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseFailsafeError {
    #[error("no `proto/port` in it; write for instance `tcp/22` or `in:tcp/22@10.0.0.0/8`")]
    NoPort,
    #[error(
        "`{0}` is neither tcp, udp, sctp, icmp, icmpv6, another protocol's name nor its number (1 to 255)"
    )]
    Protocol(String),
    #[error("`{0}` is not a port (0 to 65535, 0 or * for every port)")]
    Port(String),
    #[error("`{0}` is neither an address nor a CIDR")]
    Peer(String),
    #[error("protocol {0} has no ports; write `/0` or `/*`")]
    PortOfPortless(u8),
}

/// Parses one entry; the side is `in` by default.
///
/// # Errors
/// Names the part that is wrong.
pub fn parse_failsafe(text: &str) -> Result<FailsafeEntry, ParseFailsafeError> {
    let (side, rest) = if let Some(rest) = text.strip_prefix("out:") {
        (direction::EGRESS, rest)
    } else {
        let rest = text.strip_prefix("in:").unwrap_or(text);
        (direction::INGRESS, rest)
    };
    let (flow, peer) = match rest.split_once('@') {
        Some((flow, peer)) => (flow, Some(parse_peer(peer)?)),
        None => (rest, None),
    };
    let (protocol, port) = flow.split_once('/').ok_or(ParseFailsafeError::NoPort)?;
    let proto = parse_protocol(protocol)?;
    let port = parse_port(port)?;
    if port != 0 && !matches!(proto, proto::TCP | proto::UDP | proto::SCTP) {
        return Err(ParseFailsafeError::PortOfPortless(proto));
    }
    Ok(FailsafeEntry {
        direction: side,
        proto,
        port,
        peer,
    })
}

fn parse_protocol(text: &str) -> Result<u8, ParseFailsafeError> {
    protocol_number(text)
        .filter(|number| *number != 0)
        .ok_or_else(|| ParseFailsafeError::Protocol(text.to_owned()))
}

fn parse_port(text: &str) -> Result<u16, ParseFailsafeError> {
    if text == "*" {
        return Ok(0);
    }
    text.parse()
        .map_err(|_| ParseFailsafeError::Port(text.to_owned()))
}

fn parse_peer(text: &str) -> Result<IpNet, ParseFailsafeError> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map(|net| net.trunc())
        .map_err(|_| ParseFailsafeError::Peer(text.to_owned()))
}

/// The entry as an operator writes it.
#[must_use]
pub fn format_failsafe(entry: &FailsafeEntry) -> String {
    let side = if entry.direction == direction::EGRESS {
        "out"
    } else {
        "in"
    };
    let protocol = protocol_name(entry.proto);
    let peer = entry
        .peer
        .map(|peer| format!("@{peer}"))
        .unwrap_or_default();
    format!("{side}:{protocol}/{}{peer}", entry.port)
}
