//! Protocols as people write them: `tcp`, `icmpv6`, `112`.

use palisade_abi::proto;

/// Names of protocols, and their IP protocol numbers.
const NAMES: [(&str, u8); 12] = [
    ("tcp", proto::TCP),
    ("udp", proto::UDP),
    ("sctp", proto::SCTP),
    ("icmp", proto::ICMP),
    ("icmpv6", proto::ICMPV6),
    ("igmp", proto::IGMP),
    ("ipip", proto::IPIP),
    ("ipv6", proto::IPV6),
    ("gre", proto::GRE),
    ("esp", proto::ESP),
    ("ah", proto::AH),
    ("vrrp", proto::VRRP),
];

/// Number of a protocol by its name, in any case, or by its number.
#[must_use]
pub fn protocol_number(text: &str) -> Option<u8> {
    let named = NAMES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text));
    match named {
        Some((_, number)) => Some(*number),
        None => text.parse().ok(),
    }
}

/// Name of a protocol, or its number.
#[must_use]
pub fn protocol_name(number: u8) -> String {
    let named = NAMES.iter().find(|(_, known)| *known == number);
    named.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_is_read_back_as_it_is_written() {
        for number in 0..=u8::MAX {
            let name = protocol_name(number);
            assert_eq!(protocol_number(&name), Some(number), "{name}");
            assert_eq!(protocol_number(&name.to_uppercase()), Some(number));
            assert_eq!(protocol_number(&number.to_string()), Some(number));
        }
        for text in ["", "any", "tcp ", "256", "-1", "0x6"] {
            assert_eq!(protocol_number(text), None, "{text}");
        }
    }
}
