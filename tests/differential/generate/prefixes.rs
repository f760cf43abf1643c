//! Prefixes that nest, meet and touch.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::random::Random;

/// Where most prefixes come from.
const BASES: [&str; 16] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.1.0/24",
    "10.1.1.1/32",
    "10.128.0.0/9",
    "172.16.0.0/12",
    "192.0.2.0/24",
    "255.255.255.0/24",
    "::/0",
    "fd00::/8",
    "fd00:1::/32",
    "fd00:1:2::/48",
    "fd00:1::1/128",
    "2001:db8::/32",
    "ffff:ffff::/32",
];

/// Any prefix.
pub(crate) fn prefix(random: &mut Random) -> IpNet {
    let base: IpNet = random.pick(&BASES).parse().expect("a prefix");
    if random.chance(50) {
        base
    } else {
        within(base, random)
    }
}

/// A prefix in another one; often itself, or a direct neighbour of a border.
pub(crate) fn within(outer: IpNet, random: &mut Random) -> IpNet {
    let most = outer.max_prefix_len();
    let free = usize::from(most - outer.prefix_len());
    let more = match random.below(6) {
        0 => 0,
        1 => free,
        2 => free.min(1),
        3 => free.min(8),
        _ => random.below(free + 1),
    };
    let length = outer.prefix_len() + u8::try_from(more).expect("at most 128");
    IpNet::new(address(outer, random), length)
        .expect("a length of the family")
        .trunc()
}

/// An address in a prefix: the first, the last, or any.
pub(crate) fn address(outer: IpNet, random: &mut Random) -> IpAddr {
    match random.below(4) {
        0 => outer.network(),
        1 => outer.broadcast(),
        _ => any(outer, random),
    }
}

fn any(outer: IpNet, random: &mut Random) -> IpAddr {
    let word = |random: &mut Random| u32::try_from(random.below(1 << 32)).expect("32 bits");
    match outer {
        IpNet::V4(net) => {
            let bits = net.network().to_bits() | word(random) & net.hostmask().to_bits();
            IpAddr::V4(Ipv4Addr::from_bits(bits))
        }
        IpNet::V6(net) => {
            let noise = (0..4).fold(0_u128, |noise, _| noise << 32 | u128::from(word(random)));
            let bits = net.network().to_bits() | noise & net.hostmask().to_bits();
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
    }
}
