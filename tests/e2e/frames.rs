//! Sends raw frames on a wire: what no well-behaved socket would.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use palisade::datapath::netns;
use palisade::lab::network::DEVICE;

use super::harness::World;

/// A packet socket on a device of a namespace.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: OwnedFd,
    address: libc::sockaddr_ll,
    /// Ethernet addresses: of the host, our own.
    pub(crate) host: [u8; 6],
    pub(crate) own: [u8; 6],
}

impl Wire {
    /// Opens the device of `from`; frames are addressed to the host.
    pub(crate) fn open(world: &World, from: &str) -> Self {
        let index: i32 = world
            .tool(from, &format!("ip -o link show dev {DEVICE}"))
            .split(':')
            .next()
            .and_then(|number| number.trim().parse().ok())
            .expect("an index");
        let socket = netns::run_in(&world.sandbox.namespace(from), || {
            // SAFETY: socket(2) takes no pointers.
            let fd =
                unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
            // SAFETY: a non-negative result is a new descriptor that nobody else owns.
            (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
        });
        let address = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).expect("a small number"),
            sll_protocol: 0,
            sll_ifindex: index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        Self {
            socket: socket.expect("a namespace").expect("a packet socket"),
            address,
            host: ethernet_address(world, "host"),
            own: ethernet_address(world, from),
        }
    }

    /// Sends a whole frame.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        let address = (&raw const self.address).cast::<libc::sockaddr>();
        let length = size_of::<libc::sockaddr_ll>();
        let length = libc::socklen_t::try_from(length).expect("a small structure");
        // SAFETY: the frame and the address are valid for their lengths for
        // the duration of the call, which only reads them.
        let sent = unsafe {
            let fd = self.socket.as_raw_fd();
            libc::sendto(fd, frame.as_ptr().cast(), frame.len(), 0, address, length)
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// A frame to the host: Ethernet header, then `payload`.
    pub(crate) fn frame(&self, ethertype: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(14 + payload.len());
        frame.extend_from_slice(&self.host);
        frame.extend_from_slice(&self.own);
        frame.extend_from_slice(&ethertype.to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }
}

fn ethernet_address(world: &World, place: &str) -> [u8; 6] {
    let text = world.tool(place, &format!("ip -o link show dev {DEVICE}"));
    let mut words = text
        .split_whitespace()
        .skip_while(|word| *word != "link/ether");
    let address = words.nth(1).expect("an Ethernet address");
    let mut bytes = [0; 6];
    for (byte, part) in bytes.iter_mut().zip(address.split(':')) {
        *byte = u8::from_str_radix(part, 16).expect("hexadecimal digits");
    }
    bytes
}
