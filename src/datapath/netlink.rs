//! A small netlink client: requests, dumps, attributes, events.
//!
//! Own code instead of a message library, because a parser that knows every
//! attribute fails on the one it does not know; this one reads what is asked
//! for and steps over the rest. A socket belongs to the network namespace of
//! the thread that opened it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, Timespec};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
/// Create what is missing.
pub(crate) const NLM_F_CREATE: u16 = 0x400;
/// Fail where something is.
pub(crate) const NLM_F_EXCL: u16 = 0x200;
/// Replace what is there.
pub(crate) const NLM_F_REPLACE: u16 = 0x100;

const HEADER_BYTES: usize = 16;
/// Times that a dump is begun again because the kernel's table changed under it.
const DUMP_ATTEMPTS_MAX: usize = 8;

/// Attribute types may carry flag bits on top.
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;

/// One message of the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    pub(crate) body: Vec<u8>,
}

/// A connection to one netlink family.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Netlink({})", self.socket.as_raw_fd())
    }
}

impl Netlink {
    /// `protocol` is one of `netlink_sys::protocols`; `groups` a mask of
    /// multicast groups to listen to.
    pub(crate) fn open(protocol: isize, groups: u32) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind(&SocketAddr::new(0, groups))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    fn send(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER_BYTES + body.len()).map_err(io::Error::other)?;
        let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&0u32.to_ne_bytes());
        message.extend_from_slice(body);
        self.socket.send_to(&message, &SocketAddr::new(0, 0), 0)?;
        Ok(())
    }

    /// Sends a request that changes something and waits for its acknowledgement.
    pub(crate) fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.send(kind, flags | NLM_F_ACK, body)?;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for part in Parts(&datagram) {
                if part.kind == NLMSG_ERROR && part.sequence == self.sequence {
                    return error_of(part.body);
                }
            }
        }
    }

    /// Every message of a dump. Begun again when the kernel says that its table
    /// changed meanwhile.
    pub(crate) fn dump(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<Message>> {
        for _ in 0..DUMP_ATTEMPTS_MAX {
            self.send(kind, NLM_F_DUMP, body)?;
            if let Some(messages) = self.collect()? {
                return Ok(messages);
            }
        }
        Err(io::Error::other(
            "the kernel's table changes faster than it can be read",
        ))
    }

    fn collect(&mut self) -> io::Result<Option<Vec<Message>>> {
        let mut messages = Vec::new();
        let mut whole = true;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for part in Parts(&datagram) {
                if part.sequence != self.sequence {
                    continue;
                }
                whole &= part.flags & NLM_F_DUMP_INTR == 0;
                match part.kind {
                    NLMSG_DONE => {
                        error_of(part.body)?;
                        return Ok(whole.then_some(messages));
                    }
                    NLMSG_ERROR => {
                        error_of(part.body)?;
                        return Ok(Some(messages));
                    }
                    _ => messages.push(Message {
                        kind: part.kind,
                        body: part.body.to_vec(),
                    }),
                }
            }
        }
    }

    /// Events that arrived, after waiting at most `timeout` for the first one.
    /// `None` where the kernel had to throw some away (read everything again).
    pub(crate) fn events(&mut self, timeout: Duration) -> io::Result<Option<Vec<Message>>> {
        // SAFETY: the descriptor is open as long as `self.socket`, which outlives the call.
        let fd = unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) };
        let mut messages = Vec::new();
        let mut wait = Timespec::try_from(timeout).map_err(io::Error::other)?;
        loop {
            let mut poll = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
            match rustix::event::poll(&mut poll, Some(&wait)) {
                Ok(0) => return Ok(Some(messages)),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            wait = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let datagram = match self.socket.recv_from_full() {
                Ok((datagram, _)) => datagram,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(None),
                Err(error) => return Err(error),
            };
            messages.extend(Parts(&datagram).map(|part| Message {
                kind: part.kind,
                body: part.body.to_vec(),
            }));
        }
    }
}

/// The bodies of a datagram's messages.
pub(crate) fn bodies(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    Parts(datagram).map(|part| part.body)
}

struct Part<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

/// The messages of one datagram; stops at the first that is cut short.
struct Parts<'a>(&'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let length = word(self.0, 0)? as usize;
        let body = self.0.get(HEADER_BYTES..length)?;
        let part = Part {
            kind: half(self.0, 4)?,
            flags: half(self.0, 6)?,
            sequence: word(self.0, 8)?,
            body,
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(part)
    }
}

/// The result in an NLMSG_ERROR or NLMSG_DONE body: 0 or a negative errno.
fn error_of(body: &[u8]) -> io::Result<()> {
    let code = word(body, 0).map_or(0, u32::cast_signed);
    if code < 0 {
        return Err(io::Error::from_raw_os_error(-code));
    }
    Ok(())
}

/// The attributes of a message or of a nested attribute, as (type, value).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = half(self.0, 0)? as usize;
        let kind = half(self.0, 2)? & ATTRIBUTE_TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

impl<'a> Attributes<'a> {
    /// The value of the first attribute of a type.
    pub(crate) fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        Iterator::find(&mut self, |(is, _)| *is == kind).map(|(_, value)| value)
    }
}

/// A word of the host's byte order at `offset`.
pub(crate) fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// A half-word of the host's byte order at `offset`.
pub(crate) fn half(bytes: &[u8], offset: usize) -> Option<u16> {
    let bytes = bytes.get(offset..offset + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

/// A half-word of network byte order.
pub(crate) fn half_be(bytes: &[u8]) -> Option<u16> {
    let bytes = bytes.get(..2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

/// A string attribute without its NUL.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// An address of 4 or 16 bytes.
pub(crate) fn address(value: &[u8]) -> Option<std::net::IpAddr> {
    match value.len() {
        4 => Some(<[u8; 4]>::try_from(value).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(value).ok()?.into()),
        _ => None,
    }
}

/// Appends an attribute, padded to four bytes.
pub(crate) fn push_attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // Attributes of ours are far below 64 KiB.
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    to.extend_from_slice(&length.to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_stop_at_the_first_that_is_cut_short() {
        let mut bytes = Vec::new();
        push_attribute(&mut bytes, 3, b"lo\0");
        push_attribute(&mut bytes, 4 | 0x8000, &7u32.to_ne_bytes());
        bytes.extend_from_slice(&[200, 0, 9, 0, 1]);
        let all: Vec<_> = Attributes(&bytes).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(text(all[0].1), "lo");
        assert_eq!(
            Attributes(&bytes).find(4).and_then(|value| word(value, 0)),
            Some(7)
        );
        assert_eq!(Attributes(&bytes).find(9), None);
    }

    #[test]
    fn a_length_below_the_header_ends_the_walk() {
        assert_eq!(Attributes(&[3, 0, 1, 0, 0, 0, 0, 0]).count(), 0);
        assert_eq!(
            Parts(&[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).count(),
            0
        );
    }
}
