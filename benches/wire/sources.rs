//! Who is allowed: 10,000 prefixes all over the address space, and random
//! addresses inside and outside of them.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::net::PEER;

const PREFIXES: u32 = 10_000;
/// The first prefix is 1.0.0.0; the last ends below 127.0.0.0.
const FIRST: u32 = 1 << 24;
const STEP: u32 = 3 << 16;
/// From each prefix's address on; no prefix is longer than this.
const BLOCK: u32 = 1 << 10;

/// The prefixes, /22 to /32, no two of which touch; the last is the peer.
pub(crate) fn prefixes() -> Vec<Ipv4Net> {
    let host = |address| Ipv4Net::new(address, 32).expect("a length");
    let spread = (0..PREFIXES - 1).map(|number| {
        let length = 22 + (number % 11) as u8;
        Ipv4Net::new(base(number).into(), length).expect("a length")
    });
    spread.chain([host(PEER)]).collect()
}

fn base(number: u32) -> u32 {
    FIRST + number * STEP
}

/// Numbers that look random, the same in each run (xorshift64*).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// Below `end`.
    fn below(&mut self, end: u32) -> u32 {
        ((u64::from(self.next()) * u64::from(end)) >> 32) as u32
    }

    pub(crate) fn port(&mut self) -> u16 {
        1_024 + (self.next() >> 17) as u16
    }

    /// An address of a prefix, other than the peer's.
    pub(crate) fn allowed(&mut self) -> Ipv4Addr {
        let number = self.below(PREFIXES - 1);
        let size = 1 << (10 - number % 11);
        (base(number) + self.below(size)).into()
    }

    /// An address between two prefixes.
    pub(crate) fn denied(&mut self) -> Ipv4Addr {
        let number = self.below(PREFIXES - 1);
        (base(number) + BLOCK + self.below(STEP - BLOCK)).into()
    }
}
