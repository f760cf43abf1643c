//! Sockets that tests need besides the lab's: raw ones of any protocol, and
//! datagrams between two places.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::time::Duration;

use palisade::datapath::netns;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{recv, sendto, socket_with};

use super::harness::World;

/// How long silence lasts until it counts.
const SILENCE: Duration = Duration::from_millis(700);

/// A raw socket of one protocol in a namespace.
#[derive(Debug)]
pub(crate) struct Raw {
    socket: OwnedFd,
    v4: bool,
}

impl Raw {
    pub(crate) fn open(world: &World, at: &str, v4: bool, proto: u8) -> Self {
        let family = if v4 {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let proto = NonZeroU32::new(u32::from(proto)).expect("no hop-by-hop options");
        let opened = netns::run_in(&world.sandbox.namespace(at), || {
            let proto = Some(Protocol::from_raw(proto));
            socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, proto)
        });
        let socket = opened.expect("a namespace").expect("a raw socket");
        set_socket_timeout(&socket, Timeout::Recv, Some(SILENCE)).expect("a timeout");
        Self { socket, v4 }
    }

    /// Sends what stands behind the IP header.
    pub(crate) fn send(&self, to: IpAddr, payload: &[u8]) {
        let to = SocketAddr::new(to, 0);
        // What a program drops on its way out is told as a full queue.
        let sent = sendto(&self.socket, payload, SendFlags::empty(), &to);
        let dropped = sent == Err(Errno::NOBUFS);
        assert!(dropped || sent == Ok(payload.len()), "{sent:?}");
    }

    /// Whether a packet with this payload comes before a silence.
    pub(crate) fn receives(&self, payload: &[u8]) -> bool {
        let mut buffer = [0; 2_048];
        // Raw sockets of IPv4 see the header.
        let skip = if self.v4 { 20 } else { 0 };
        loop {
            let received = recv(&self.socket, &mut buffer[..], RecvFlags::empty());
            let Ok((length, _)) = received else {
                return false;
            };
            if buffer.get(skip..length) == Some(payload) {
                return true;
            }
        }
    }
}

/// A UDP socket in a namespace that gives up after a silence.
pub(crate) fn datagrams(world: &World, at: &str, address: SocketAddr) -> UdpSocket {
    let socket = super::streams::bind(world, at, address);
    socket.set_read_timeout(Some(SILENCE)).expect("a timeout");
    socket
}

/// Whether exactly these bytes come before a silence.
pub(crate) fn receives(socket: &UdpSocket, payload: &[u8]) -> bool {
    let mut buffer = vec![0; 65_536];
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) if buffer[..length] == *payload => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

/// Whether the other side says that nobody listens.
pub(crate) fn is_refused(socket: &UdpSocket) -> bool {
    let mut buffer = [0; 64];
    let answer = socket.recv(&mut buffer);
    answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
