//! Numbers that are the same in every run, and the addresses made of them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// SplitMix64.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let scaled = (u128::from(self.next()) * end as u128) >> 64;
        usize::try_from(scaled).expect("below a usize")
    }
}

/// Lengths of IPv4 networks as a cluster and its threat lists have them, in
/// percent; the rest is spread over 8 to 31.
const LENGTHS4: [(u8, usize); 4] = [(32, 40), (24, 35), (16, 5), (28, 5)];
/// The same for IPv6; the rest is spread over 24 to 127.
const LENGTHS6: [(u8, usize); 5] = [(128, 40), (64, 30), (56, 5), (48, 15), (32, 5)];

fn length(random: &mut Random, weights: &[(u8, usize)], rest: std::ops::Range<u8>) -> u8 {
    let mut at = random.below(100);
    for (length, weight) in weights {
        if at < *weight {
            return *length;
        }
        at -= weight;
    }
    rest.start + u8::try_from(random.below(rest.len())).unwrap_or(0)
}

/// Distinct networks, outside of those that the benchmark uses itself.
pub(crate) fn networks4(random: &mut Random, count: usize) -> Vec<Ipv4Net> {
    let mut taken = BTreeSet::new();
    let mut out = Vec::new();
    while out.len() < count {
        let length = length(random, &LENGTHS4, 8..32);
        let address = Ipv4Addr::from((random.next() >> 32) as u32);
        let net = Ipv4Net::new(address, length).expect("a length").trunc();
        let first = net.network().octets()[0];
        let used = [0, 10, 60, 127].contains(&first) || first >= 224;
        if !used && taken.insert(net) {
            out.push(net);
        }
    }
    out
}

/// The same for IPv6.
pub(crate) fn networks6(random: &mut Random, count: usize) -> Vec<Ipv6Net> {
    let mut taken = BTreeSet::new();
    let mut out = Vec::new();
    while out.len() < count {
        let length = length(random, &LENGTHS6, 24..128);
        let bits = (u128::from(random.next()) << 64) | u128::from(random.next());
        // Allocated unicast: 2400::/8.
        let address = Ipv6Addr::from((bits >> 8) | (0x24 << 120));
        let net = Ipv6Net::new(address, length).expect("a length").trunc();
        if taken.insert(net) {
            out.push(net);
        }
    }
    out
}

/// An address inside.
pub(crate) fn within4(random: &mut Random, net: Ipv4Net) -> [u32; 4] {
    let host = (random.next() >> 32) as u32 & u32::from(net.hostmask());
    let address = Ipv4Addr::from(u32::from(net.network()) | host);
    [u32::from_ne_bytes(address.octets()), 0, 0, 0]
}

pub(crate) fn within6(random: &mut Random, net: Ipv6Net) -> [u32; 4] {
    let bits = (u128::from(random.next()) << 64) | u128::from(random.next());
    let host = bits & u128::from(net.hostmask());
    words6(Ipv6Addr::from(u128::from(net.network()) | host))
}

/// An address as it stands in the packet, in words.
pub(crate) fn words6(address: Ipv6Addr) -> [u32; 4] {
    let octets = address.octets();
    let word = |at: usize| {
        u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
    };
    [word(0), word(4), word(8), word(12)]
}
