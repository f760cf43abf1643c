//! Probes: real packets from one place to another, and whether an answer came.
//!
//! Each probe blocks the calling thread, which stands in the namespace that the
//! packets leave from.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{ipproto, recv, sendto, socket_with};

use crate::limits::{LAB_PROBE_TIMEOUT, LAB_PROBE_TRIES_MAX};

/// What is sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Tcp(u16),
    Udp(u16),
    Ping,
}

impl Kind {
    /// Name of the protocol, as in the table.
    #[must_use]
    pub fn protocol(self, to: IpAddr) -> &'static str {
        match (self, to) {
            (Self::Tcp(_), _) => "TCP",
            (Self::Udp(_), _) => "UDP",
            (Self::Ping, IpAddr::V4(_)) => "ICMP",
            (Self::Ping, IpAddr::V6(_)) => "ICMPv6",
        }
    }

    /// Destination port, if the protocol has one.
    #[must_use]
    pub fn port(self) -> Option<u16> {
        match self {
            Self::Tcp(port) | Self::Udp(port) => Some(port),
            Self::Ping => None,
        }
    }
}

/// What came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// The answer of the other side.
    Passed,
    /// Nothing until the timeout.
    Dropped,
    /// Something else: refused, unreachable, a bug of the lab.
    Failed(String),
}

impl fmt::Display for Seen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => formatter.write_str("passed"),
            Self::Dropped => formatter.write_str("dropped"),
            Self::Failed(reason) => formatter.write_str(reason),
        }
    }
}

/// Sends and waits for the answer.
#[must_use]
pub fn send(kind: Kind, to: IpAddr) -> Seen {
    let timeout = LAB_PROBE_TIMEOUT;
    let result = match kind {
        Kind::Tcp(port) => tcp(SocketAddr::new(to, port), timeout),
        Kind::Udp(port) => udp(SocketAddr::new(to, port), timeout),
        Kind::Ping => ping(to, timeout),
    };
    match result {
        Ok(()) => Seen::Passed,
        Err(error) if is_silence(&error) => Seen::Dropped,
        Err(error) => Seen::Failed(error.to_string()),
    }
}

/// No answer; or no buffer space, which is how some sockets learn that their
/// packet was dropped before it left.
fn is_silence(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error())
        || matches!(
            error.kind(),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
        )
}

const QUESTION: &[u8] = b"palisade";

fn tcp(to: SocketAddr, timeout: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, timeout)?;
    echo(&mut stream, timeout)
}

/// Sends a few bytes over an open connection and waits for their echo.
pub fn echo(stream: &mut TcpStream, timeout: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(QUESTION)?;
    let mut answer = [0; QUESTION.len()];
    stream.read_exact(&mut answer)?;
    if answer != QUESTION {
        return Err(io::Error::other("the echo differs from what was sent"));
    }
    Ok(())
}

fn udp(to: SocketAddr, timeout: Duration) -> io::Result<()> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(timeout / LAB_PROBE_TRIES_MAX))?;
    repeat(|| {
        socket.send(QUESTION)?;
        let mut answer = [0; 64];
        socket.recv(&mut answer).map(drop)
    })
}

fn repeat(mut attempt: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut result = attempt();
    for _ in 1..LAB_PROBE_TRIES_MAX {
        match &result {
            Err(error) if is_silence(error) => result = attempt(),
            Ok(()) | Err(_) => break,
        }
    }
    result
}

/// An echo request over a raw socket: datagram ICMP sockets are closed to
/// everybody in a new namespace.
fn ping(to: IpAddr, timeout: Duration) -> io::Result<()> {
    let (family, protocol, request, answer_type) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8, 0),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128, 129),
    };
    let socket = socket_with(
        family,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(protocol),
    )?;
    set_socket_timeout(&socket, Timeout::Recv, Some(timeout / LAB_PROBE_TRIES_MAX))?;
    // The inode of the socket tells apart the probes that run side by side.
    let inode = rustix::fs::fstat(&socket)?.st_ino;
    let [.., high, low] = inode.to_be_bytes();
    let mut packet = vec![request, 0, 0, 0, high, low, 0, 1];
    packet.extend_from_slice(QUESTION);
    // The kernel fills in the checksum of ICMPv6, not that of ICMP.
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    let address = SocketAddr::new(to, 0);
    repeat(|| {
        sendto(&socket, &packet, SendFlags::empty(), &address)?;
        wait_for_answer(&socket, to, answer_type, [high, low])
    })
}

/// Reads until the answer with our number comes, or the socket times out.
fn wait_for_answer(socket: &OwnedFd, from: IpAddr, kind: u8, id: [u8; 2]) -> io::Result<()> {
    // Other probes of this namespace arrive here too: more than a few means
    // that ours will not come.
    const OTHERS_MAX: usize = 256;
    for _ in 0..OTHERS_MAX {
        let mut buffer = [0; 256];
        let (_, length) = recv(socket, &mut buffer, RecvFlags::empty())?;
        let start = match from {
            IpAddr::V4(_) => usize::from(buffer[0] & 0x0f) * 4,
            IpAddr::V6(_) => 0,
        };
        let message = buffer.get(start..length).unwrap_or_default();
        if message.first() == Some(&kind) && message.get(4..6) == Some(&id[..]) {
            return Ok(());
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// The Internet checksum (RFC 1071).
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}
