//! Frames of the floods: built once, then only what makes them another flow.

use std::net::Ipv4Addr;

use crate::net::{HOST, HOST_ETHERNET, PEER_ETHERNET};

/// The shortest frame of an Ethernet, without its checksum.
pub(crate) const LENGTH: usize = 60;
const IP: usize = 14;
const L4: usize = IP + 20;
const UDP: u8 = 17;
const TCP: u8 = 6;

/// One frame.
#[derive(Clone, Debug)]
pub(crate) struct Frame(pub(crate) [u8; LENGTH]);

impl Frame {
    /// A datagram of 18 bytes; its checksum is left out, as UDP allows.
    pub(crate) fn udp(port: u16) -> Self {
        let mut frame = Self::ip(UDP);
        frame.put(L4 + 2, port.to_be_bytes());
        frame.put(L4 + 4, [0, 26]);
        frame
    }

    /// A SYN without options.
    pub(crate) fn syn() -> Self {
        let mut frame = Self::ip(TCP);
        frame.put(IP + 2, [0, 40]);
        frame.put(L4 + 4, [1, 2, 3, 4]);
        frame.put(L4 + 12, [5 << 4, 2, 0xff, 0xff]);
        frame
    }

    fn ip(proto: u8) -> Self {
        let mut frame = Self([0; LENGTH]);
        frame.put(0, HOST_ETHERNET);
        frame.put(6, PEER_ETHERNET);
        frame.put(12, [8, 0, 0x45, 0, 0, 46]);
        frame.put(IP + 8, [64, proto]);
        frame.put(IP + 16, HOST.octets());
        frame
    }

    fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.0[at..at + N].copy_from_slice(&bytes);
    }

    /// Makes it come from there.
    pub(crate) fn set_source(&mut self, address: Ipv4Addr, port: u16) {
        self.put(IP + 12, address.octets());
        self.put(L4, port.to_be_bytes());
        self.put(IP + 10, [0, 0]);
        let sum = sum(&self.0[IP..L4]);
        self.put(IP + 10, folded(sum));
    }

    /// Makes a SYN go to that port; the last thing that is set.
    pub(crate) fn set_syn_port(&mut self, port: u16) {
        self.put(L4 + 2, port.to_be_bytes());
        self.put(L4 + 16, [0, 0]);
        let pseudo = sum(&self.0[IP + 12..L4]) + u32::from(TCP) + 20;
        let sum = pseudo + sum(&self.0[L4..L4 + 20]);
        self.put(L4 + 16, folded(sum));
    }
}

fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks_exact(2);
    words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum()
}

/// The Internet checksum (RFC 1071).
#[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
fn folded(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
