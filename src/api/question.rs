//! A flow as people write it, for `policy explain`.

use std::net::IpAddr;

use palisade_abi::proto;

use crate::policy::{Direction, Packet, Query, protocol_number};

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
    let proto = protocol_number(protocol).ok_or_else(|| {
        format!(
            "protocol `{protocol}`: expected tcp, udp, sctp, icmp, icmpv6, another protocol's \
             name or its number (0 to 255)"
        )
    })?;
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
