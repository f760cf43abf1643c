//! A flow as people write it, for `policy explain`.

use std::net::IpAddr;

use palisade_abi::proto;

use crate::policy::{Direction, Packet, Query};

/// Builds the question of a flow; without a type, ICMP means an echo request.
///
/// # Errors
/// What is wrong with the flow, for the one who wrote it.
pub fn question(
    direction: &str,
    peer: IpAddr,
    protocol: &str,
    port: Option<u16>,
    icmp_type: Option<u8>,
) -> Result<Query, String> {
    let direction = Direction::BOTH
        .into_iter()
        .find(|known| known.as_str() == direction)
        .ok_or_else(|| format!("direction `{direction}`: expected ingress or egress"))?;
    let proto = protocol_number(protocol)?;
    let has_ports = matches!(proto, proto::TCP | proto::UDP | proto::SCTP);
    let is_icmp = matches!(proto, proto::ICMP | proto::ICMPV6);
    if port.is_some() && !has_ports {
        return Err(format!(
            "protocol {protocol} has no ports; leave --port out"
        ));
    }
    if icmp_type.is_some() && !is_icmp {
        return Err(format!(
            "protocol {protocol} has no types; leave --type out"
        ));
    }
    let packet = match proto {
        proto::ICMP => Packet::Icmp {
            icmp_type: icmp_type.unwrap_or(8),
        },
        proto::ICMPV6 => Packet::Icmpv6 {
            icmp_type: icmp_type.unwrap_or(128),
        },
        proto if has_ports => Packet::Port {
            proto,
            port: port.ok_or_else(|| format!("protocol {protocol} needs a --port"))?,
        },
        proto => Packet::Other { proto },
    };
    if (proto == proto::ICMP && peer.is_ipv6()) || (proto == proto::ICMPV6 && peer.is_ipv4()) {
        return Err(format!(
            "{protocol} does not belong to the family of {peer}"
        ));
    }
    Ok(Query {
        direction,
        peer,
        packet,
    })
}

/// Number of a protocol by name or number.
fn protocol_number(text: &str) -> Result<u8, String> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(proto::TCP),
        "udp" => Ok(proto::UDP),
        "sctp" => Ok(proto::SCTP),
        "icmp" => Ok(proto::ICMP),
        "icmpv6" => Ok(proto::ICMPV6),
        number => number.parse().map_err(|_| {
            format!(
                "protocol `{text}`: expected tcp, udp, sctp, icmp, icmpv6 or a number (0 to 255)"
            )
        }),
    }
}

/// Name of a protocol, or its number.
#[must_use]
pub fn protocol_name(number: u8) -> String {
    match number {
        proto::ICMP => "icmp".to_owned(),
        proto::IGMP => "igmp".to_owned(),
        proto::IPIP => "ipip".to_owned(),
        proto::TCP => "tcp".to_owned(),
        proto::UDP => "udp".to_owned(),
        proto::IPV6 => "ipv6".to_owned(),
        proto::GRE => "gre".to_owned(),
        proto::ESP => "esp".to_owned(),
        proto::AH => "ah".to_owned(),
        proto::ICMPV6 => "icmpv6".to_owned(),
        proto::VRRP => "vrrp".to_owned(),
        proto::SCTP => "sctp".to_owned(),
        other => other.to_string(),
    }
}
