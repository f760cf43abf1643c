//! The loads of single packets: floods and one flow, sent as fast as one CPU
//! can send and receive them.
//!
//! All datagrams are to one socket of the host with the smallest buffer there
//! is: full after a few, it refuses the rest, which costs the same and little
//! in every setting. SYNs are to ports where nothing listens: without a
//! firewall the host answers each with a reset.
//!
//! After each burst counters must say that all packets arrived on the device,
//! and that all or none of them reached the socket.

use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use palisade::datapath::netns;
use rustix::net::sockopt::set_socket_recv_buffer_size;

use crate::cpu::{Cpu, Done};
use crate::frames::Frame;
use crate::net::{Counts, HOST, PEER, Wire};
use crate::send::Sender;
use crate::settings::{Place, Setting, UDP_PORTS};
use crate::sources::Random;

/// CPU time of a burst.
const BURST_NS: u64 = 40_000_000;
/// The one flow's port at the peer.
const FLOW_PORT: u16 = 40_000;
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Flood {
    /// Datagrams from random addresses outside of the set.
    DeniedUdp,
    /// SYNs from such addresses, to random ports.
    DeniedSyn,
    /// Datagrams from random addresses of the set, each a flow of its own.
    NewAllowed,
    /// Datagrams of one flow that was answered.
    Established,
}

/// What sends and receives on one wire.
#[derive(Debug)]
pub(crate) struct Ends {
    sender: Sender,
    socket: UdpSocket,
}

impl Ends {
    pub(crate) fn open(wire: &Wire) -> Result<Self> {
        let socket = netns::run_in(&wire.host(), || UdpSocket::bind((HOST, UDP_PORTS[0])))??;
        // The kernel makes it its minimum.
        set_socket_recv_buffer_size(socket.as_fd(), 1)?;
        Ok(Self {
            sender: Sender::open(wire)?,
            socket,
        })
    }

    /// One burst, and the proof that the setting did its job.
    pub(crate) fn burst(
        &self,
        place: &Place,
        cpu: &Cpu,
        flood: Flood,
        random: &mut Random,
    ) -> Result<Done> {
        let datagram = Frame::udp(UDP_PORTS[0]);
        let before = place.wire.counts()?;
        let burst = |frame: &Frame, next: &mut (dyn FnMut(&mut Frame) + Send)| {
            self.sender.burst(cpu, BURST_NS, frame, next)
        };
        let burst = match flood {
            Flood::DeniedUdp => burst(&datagram, &mut |frame| {
                frame.set_source(random.denied(), random.port());
            }),
            Flood::DeniedSyn => burst(&Frame::syn(), &mut |frame| {
                frame.set_source(random.denied(), random.port());
                frame.set_syn_port(10_000 + random.port() / 2);
            }),
            Flood::NewAllowed => burst(&datagram, &mut |frame| {
                frame.set_source(random.allowed(), random.port());
            }),
            Flood::Established => {
                self.establish(&place.wire)?;
                let mut frame = datagram;
                frame.set_source(PEER, FLOW_PORT);
                burst(&frame, &mut |_| {})
            }
        }?;
        check(flood, place.setting, burst, place.wire.counts()? - before)?;
        Ok(burst)
    }

    /// One datagram there and one back.
    fn establish(&self, wire: &Wire) -> Result<()> {
        self.socket.set_nonblocking(true)?;
        let mut buffer = [0; 64];
        while self.socket.recv(&mut buffer).is_ok() {}
        self.socket.set_nonblocking(false)?;
        self.socket.set_read_timeout(Some(PATIENCE))?;
        let peer = netns::run_in(&wire.peer(), || UdpSocket::bind((PEER, FLOW_PORT)))??;
        peer.set_read_timeout(Some(PATIENCE))?;
        peer.send_to(b"there", (HOST, UDP_PORTS[0]))?;
        let (_, from) = self
            .socket
            .recv_from(&mut buffer)
            .context("the way there")?;
        self.socket.send_to(b"back", from)?;
        peer.recv(&mut buffer).context("the way back")?;
        Ok(())
    }
}

fn check(flood: Flood, setting: Setting, burst: Done, counts: Counts) -> Result<()> {
    let packets = burst.units;
    ensure!(
        counts.received as f64 >= packets,
        "{packets} packets were sent, {} arrived: the figure is none",
        counts.received
    );
    let filters = setting.filters();
    let (what, seen, all) = match flood {
        Flood::DeniedUdp => ("reached the socket", counts.delivered, !filters),
        Flood::DeniedSyn => ("were answered", counts.resets, !filters),
        Flood::NewAllowed | Flood::Established => ("reached the socket", counts.delivered, true),
    };
    // The few that wait in the socket's buffer are not counted yet.
    const WAITING_MAX: f64 = 16.0;
    let as_meant = if all {
        seen as f64 + WAITING_MAX >= packets
    } else {
        seen == 0
    };
    if !as_meant {
        bail!("{flood:?}, {}: {seen} of {packets} {what}", setting.name());
    }
    Ok(())
}
