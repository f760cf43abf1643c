//! The sender: whole frames through a packet socket, many with one call, past
//! the queueing discipline.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use palisade::datapath::netns;

use crate::cpu::{Cpu, Done, thread_ns};
use crate::frames::{Frame, LENGTH};
use crate::net::{DEVICE, Wire};

const BATCH: usize = 64;

/// A packet socket on the peer's side of a wire.
#[derive(Debug)]
pub(crate) struct Sender {
    socket: OwnedFd,
}

impl Sender {
    pub(crate) fn open(wire: &Wire) -> Result<Self> {
        let socket = netns::run_in(&wire.peer(), || {
            let index = rustix::net::netdevice::name_to_index(
                rustix::net::socket(
                    rustix::net::AddressFamily::INET,
                    rustix::net::SocketType::DGRAM,
                    None,
                )?,
                DEVICE,
            )?;
            packet_socket(index)
        })?
        .context("a packet socket")?;
        Ok(Self { socket })
    }

    /// Sends on `cpu` until that took `ns` of its time; `next` makes each frame
    /// the next one.
    pub(crate) fn burst(
        &self,
        cpu: &Cpu,
        ns: u64,
        first: &Frame,
        mut next: impl FnMut(&mut Frame) + Send,
    ) -> Result<Done> {
        let send = || {
            cpu.pin();
            let mut frames = vec![first.clone(); BATCH];
            let mut packets = 0;
            let softirqs = cpu.softirq_ns()?;
            let start = thread_ns();
            let mut spent = 0;
            while spent < ns {
                frames.iter_mut().for_each(&mut next);
                packets += self.send(&frames)?;
                spent = thread_ns() - start;
            }
            let cpu_ns = spent + cpu.softirq_ns()? - softirqs;
            Ok(Done {
                units: packets as f64,
                cpu_ns,
            })
        };
        std::thread::scope(|scope| scope.spawn(send).join()).expect("the sender")
    }

    /// Sends the frames; their number.
    fn send(&self, frames: &[Frame]) -> io::Result<u64> {
        let mut parts: Vec<libc::iovec> = frames
            .iter()
            .map(|frame| libc::iovec {
                iov_base: frame.0.as_ptr().cast_mut().cast(),
                iov_len: LENGTH,
            })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = parts
            .iter_mut()
            .map(|part| {
                // SAFETY: all zeros is a valid header: no name, no parts.
                let mut message: libc::mmsghdr = unsafe { zeroed() };
                message.msg_hdr.msg_iov = part;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        let mut sent = 0;
        while sent < messages.len() {
            let rest = &mut messages[sent..];
            let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
            // SAFETY: the headers point at `parts`, these at `frames`; all three
            // live until the call returns, which reads the frames only.
            let count =
                unsafe { libc::sendmmsg(self.socket.as_raw_fd(), rest.as_mut_ptr(), length, 0) };
            sent += usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        }
        Ok(sent as u64)
    }
}

fn packet_socket(index: u32) -> io::Result<OwnedFd> {
    let small = |number: libc::c_int| u16::try_from(number).map_err(io::Error::other);
    // SAFETY: socket(2) takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let yes: libc::c_int = 1;
    // SAFETY: all zeros is a valid address of no device.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = small(libc::AF_PACKET)?;
    address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    // SAFETY: `yes` is valid for its length while the call reads it.
    let set = unsafe {
        let (level, name) = (libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS);
        libc::setsockopt(fd, level, name, (&raw const yes).cast(), length_of(&yes)?)
    };
    // SAFETY: the address is valid for its length while the call reads it.
    let bound = unsafe { libc::bind(fd, (&raw const address).cast(), length_of(&address)?) };
    if set < 0 || bound < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

fn length_of<T>(value: &T) -> io::Result<libc::socklen_t> {
    size_of_val(value).try_into().map_err(io::Error::other)
}
