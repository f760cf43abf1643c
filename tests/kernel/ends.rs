//! A host and a peer with open flows of every kind, and what must be true of
//! them while a policy is in force that lets the peer open TCP 8000 and nothing
//! else.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;
use std::time::Duration;

use palisade::datapath::kernel::WantedDevice;
use palisade::datapath::netns;
use palisade::datapath::{Datapath, Generation};

use super::build::{generation, tcp_ports};
use super::guard::{World, run, wanted};

const HOST: &str = "10.3.0.1";
const PEER: &str = "10.3.0.2";
const OPEN: u16 = 8_000;
const CLOSED: u16 = 7_000;
const PATIENCE: Duration = Duration::from_secs(5);

/// The policy: no matter which revision it is, its verdicts are these.
pub(crate) fn policy(revision: u64) -> Generation {
    generation(revision, Some(tcp_ports(&[OPEN])), None)
}

/// Stages and commits the policy.
pub(crate) fn enforce(datapath: &mut dyn Datapath, revision: u64) {
    datapath.stage(&policy(revision)).expect("stage");
    datapath.commit().expect("commit");
}

/// Both ends of everything.
pub(crate) struct Ends {
    pub(crate) device: WantedDevice,
    listener: TcpListener,
    /// Must never hear anything.
    closed: UdpSocket,
    /// Opened by the host before anything else; answered.
    old: UdpSocket,
    old_in_peer: UdpSocket,
    /// Opened by the peer before anything else.
    inbound: (TcpStream, TcpStream),
    connect: Sender<()>,
    connected: Receiver<TcpStream>,
}

impl Ends {
    /// Makes devices, addresses and sockets; no flow is open yet.
    pub(crate) fn build<'scope>(world: &World, scope: &'scope Scope<'scope, '_>) -> Built {
        world.veth("v0", "v1");
        run(&format!("ip addr add {HOST}/24 dev v0"));
        let listener = TcpListener::bind((HOST, OPEN)).expect("bind");
        let (connect, asked) = channel();
        let (tell, connected) = channel();
        let (tell_socket, socket) = channel();
        let (tell_number, number) = channel();
        let (moved, wait) = channel::<()>();
        scope.spawn(move || {
            netns::enter_new().expect("a new network");
            let tid = rustix::thread::gettid().as_raw_nonzero();
            tell_number.send(tid).expect("the test listens");
            wait.recv().expect("the device is here");
            run(&format!("ip addr add {PEER}/24 dev v1"));
            run("ip link set v1 up");
            let socket = UdpSocket::bind((PEER, 53)).expect("bind");
            tell_socket.send(socket).expect("the test listens");
            while asked.recv() == Ok(()) {
                let stream = TcpStream::connect((HOST, OPEN)).expect("connect");
                if tell.send(stream).is_err() {
                    return;
                }
            }
        });
        run(&format!(
            "ip link set v1 netns {}",
            number.recv().expect("a number")
        ));
        moved.send(()).expect("the peer listens");
        let old_in_peer = socket.recv_timeout(PATIENCE).expect("a peer");
        let closed = UdpSocket::bind((HOST, CLOSED)).expect("bind");
        let old = UdpSocket::bind((HOST, 0)).expect("bind");
        for socket in [&old_in_peer, &old] {
            socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        }
        closed.set_nonblocking(true).expect("nonblocking");
        Built {
            device: wanted("v0"),
            listener,
            closed,
            old,
            old_in_peer,
            connect,
            connected,
        }
    }
}

/// Sockets without flows.
pub(crate) struct Built {
    pub(crate) device: WantedDevice,
    listener: TcpListener,
    closed: UdpSocket,
    old: UdpSocket,
    old_in_peer: UdpSocket,
    connect: Sender<()>,
    connected: Receiver<TcpStream>,
}

impl Built {
    /// Opens the flows that must live from here on.
    pub(crate) fn open_flows(self) -> Ends {
        self.connect.send(()).expect("the peer listens");
        let in_peer = self.connected.recv_timeout(PATIENCE).expect("connected");
        let (in_host, _) = self.listener.accept().expect("accept");
        for stream in [&in_host, &in_peer] {
            stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        }
        let ends = Ends {
            device: self.device,
            listener: self.listener,
            closed: self.closed,
            old: self.old,
            old_in_peer: self.old_in_peer,
            inbound: (in_host, in_peer),
            connect: self.connect,
            connected: self.connected,
        };
        ends.hold("at first");
        ends
    }
}

impl Ends {
    /// Old flows go on in both directions, new ones are judged by the policy.
    #[track_caller]
    pub(crate) fn hold(&self, when: &str) {
        let fresh = UdpSocket::bind((HOST, 0)).expect("bind");
        fresh.set_read_timeout(Some(PATIENCE)).expect("timeout");
        for socket in [&self.old, &fresh] {
            self.is_answered(socket, when);
        }
        let (mut in_host, mut in_peer) = (&self.inbound.0, &self.inbound.1);
        talk(&mut in_host, &mut in_peer, when);
        talk(&mut in_peer, &mut in_host, when);
        self.connect.send(()).expect("the peer listens");
        let fresh = self.connected.recv_timeout(PATIENCE).expect(when);
        let (mut accepted, _) = self.listener.accept().expect("accept");
        talk(&mut &fresh, &mut accepted, when);
    }

    /// Asks and is answered until told to stop, in old flows and in new ones by
    /// turns; how often. Nobody else may use the ends meanwhile.
    pub(crate) fn hold_on(&self, stop: &AtomicBool) -> u32 {
        let mut answered = 0;
        while !stop.load(Ordering::SeqCst) {
            let fresh = UdpSocket::bind((HOST, 0)).expect("bind");
            fresh.set_read_timeout(Some(PATIENCE)).expect("timeout");
            for socket in [&self.old, &fresh] {
                self.is_answered(socket, "meanwhile");
                answered += 1;
            }
            let (mut in_host, mut in_peer) = (&self.inbound.0, &self.inbound.1);
            talk(&mut in_host, &mut in_peer, "meanwhile");
            talk(&mut in_peer, &mut in_host, "meanwhile");
        }
        answered
    }

    /// The answer comes, and what the peer sent to a closed port before it does not.
    #[track_caller]
    fn is_answered(&self, socket: &UdpSocket, when: &str) {
        let mut buffer = [0; 8];
        socket.send_to(b"question", (PEER, 53)).expect("send");
        let (_, from) = self
            .old_in_peer
            .recv_from(&mut buffer)
            .unwrap_or_else(|error| panic!("{when}: the question is lost: {error}"));
        self.old_in_peer
            .send_to(b"denied", (HOST, CLOSED))
            .expect("send");
        self.old_in_peer.send_to(b"answer", from).expect("send");
        let answer = socket.recv(&mut buffer);
        assert!(answer.is_ok(), "{when}: the answer is lost: {answer:?}");
        let denied = self.closed.recv(&mut buffer);
        let error = denied.expect_err(when);
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{when}");
    }
}

#[track_caller]
fn talk(from: &mut impl Write, to: &mut impl Read, when: &str) {
    let mut byte = [0];
    from.write_all(b"x").expect(when);
    if let Err(error) = to.read_exact(&mut byte) {
        panic!("{when}: a TCP flow is cut: {error}");
    }
}
