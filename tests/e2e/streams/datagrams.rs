//! A stream of numbered datagrams: what was sent, and what arrived.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use palisade::datapath::netns;
use rustix::net::sockopt;

use crate::harness::World;

/// How sockets are used for a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    /// One socket: one flow.
    Same,
    /// A new socket for each datagram: each is judged by itself.
    Fresh,
}

/// A sender and a receiver, running.
#[derive(Debug)]
pub(crate) struct Stream {
    stop_sending: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<BTreeSet<u64>>,
}

/// What became of a stream.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) sent: u64,
    pub(crate) arrived: BTreeSet<u64>,
}

impl Outcome {
    /// Numbers that were sent and did not arrive.
    pub(crate) fn lost(&self) -> Vec<u64> {
        (0..self.sent)
            .filter(|number| !self.arrived.contains(number))
            .collect()
    }
}

const PACE: Duration = Duration::from_millis(2);
const SILENCE: Duration = Duration::from_millis(200);
/// A receiver that the machine does not run for a while loses nothing.
const BUFFER_BYTES: usize = 4 << 20;

impl Stream {
    /// Sends numbers from one namespace to `to` in another until stopped.
    pub(crate) fn start(world: &World, from: &str, at: &str, to: SocketAddr, flow: Flow) -> Self {
        Self::paced(world, from, at, to, flow, PACE)
    }

    /// The same, with a pause of one's own behind each number.
    pub(crate) fn paced(
        world: &World,
        from: &str,
        at: &str,
        to: SocketAddr,
        flow: Flow,
        pace: Duration,
    ) -> Self {
        let receiving = bind(world, at, to);
        let namespace = world.sandbox.namespace(from);
        Self::with(receiving, move |stop| {
            netns::enter(&namespace).expect("a namespace");
            send(to, flow, pace, stop)
        })
    }

    /// Sends numbers to an echo server and counts the answers.
    pub(crate) fn echo(world: &World, from: &str, to: SocketAddr, pace: Duration) -> Self {
        let socket = bind(world, from, SocketAddr::new(any(to.ip()), 0));
        socket.connect(to).expect("an address");
        let receiving = socket.try_clone().expect("a second handle");
        Self::with(receiving, move |stop| {
            let mut number: u64 = 0;
            while !stop.load(Ordering::SeqCst) {
                // A refused datagram (an ICMP error of an earlier one) is sent again.
                while socket.send(&number.to_be_bytes()).is_err() {}
                number += 1;
                sleep(pace);
            }
            number
        })
    }

    fn with(receiving: UdpSocket, send: impl FnOnce(&AtomicBool) -> u64 + Send + 'static) -> Self {
        sockopt::set_socket_recv_buffer_size_force(&receiving, BUFFER_BYTES).expect("a buffer");
        receiving
            .set_read_timeout(Some(SILENCE))
            .expect("a timeout");
        let [stop_sending, stop] = [(), ()].map(|()| Arc::new(AtomicBool::new(false)));
        let (sending, listening) = (Arc::clone(&stop_sending), Arc::clone(&stop));
        Self {
            stop_sending,
            stop,
            sender: spawn(move || send(&sending)),
            receiver: spawn(move || receive(&receiving, &listening)),
        }
    }

    /// Sends no more; the receiver still listens.
    pub(crate) fn end_sending(&self) {
        self.stop_sending.store(true, Ordering::SeqCst);
    }

    /// Ends both sides.
    pub(crate) fn finish(self) -> Outcome {
        self.end_sending();
        let sent = self.sender.join().expect("the sender");
        self.stop.store(true, Ordering::SeqCst);
        Outcome {
            sent,
            arrived: self.receiver.join().expect("the receiver"),
        }
    }
}

pub(crate) fn any(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A UDP socket in a namespace.
pub(crate) fn bind(world: &World, at: &str, address: SocketAddr) -> UdpSocket {
    netns::run_in(&world.sandbox.namespace(at), || UdpSocket::bind(address))
        .expect("a namespace")
        .expect("a socket")
}

fn send(to: SocketAddr, flow: Flow, pace: Duration, stop: &AtomicBool) -> u64 {
    let socket = || UdpSocket::bind((any(to.ip()), 0)).expect("a socket");
    let mut current = socket();
    let mut number: u64 = 0;
    while !stop.load(Ordering::SeqCst) {
        if flow == Flow::Fresh {
            current = socket();
        }
        // A refused datagram (an ICMP error of an earlier one) is sent again.
        while current.send_to(&number.to_be_bytes(), to).is_err() {}
        number += 1;
        sleep(pace);
    }
    number
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> BTreeSet<u64> {
    let mut arrived = BTreeSet::new();
    let mut buffer = [0; 64];
    loop {
        match socket.recv(&mut buffer) {
            Ok(8) => {
                let mut number = [0; 8];
                number.copy_from_slice(&buffer[..8]);
                arrived.insert(u64::from_be_bytes(number));
            }
            Ok(other) => panic!("a datagram of {other} bytes"),
            // Silence after the end: all that could arrive has.
            Err(_) if stop.load(Ordering::SeqCst) => return arrived,
            Err(_) => {}
        }
    }
}
