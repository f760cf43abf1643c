//! First enforcement: running connections keep their true direction.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::time::Duration;

use palisade::datapath::Datapath;
use palisade::datapath::kernel::{KernelDatapath, Unwanted};
use palisade::datapath::netns;
use palisade_abi::conntrack::flags;

use super::build::{generation, tcp_ports};
use super::guard::{World, in_world, run};

const HOST: &str = "10.2.0.1";
const PEER: &str = "10.2.0.2";

/// Sockets of the peer: a listener, and a way to connect out of its namespace.
struct Peer {
    listener: TcpListener,
    udp: UdpSocket,
    /// A connection to the host's port 8000.
    inbound: TcpStream,
}

/// A peer in a namespace of its own, whose sockets are used from here.
fn peer(world: &World, serve: &TcpListener) -> Peer {
    let (to_peer, ready) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let device = world.veth("v0", "v1");
    assert!(device.ethernet);
    run(&format!("ip addr add {HOST}/24 dev v0"));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            netns::enter_new().expect("a new network");
            let tid = rustix::thread::gettid().as_raw_nonzero();
            tell.send(Err(tid)).expect("the test listens");
            ready.recv().expect("the device is here");
            run(&format!("ip addr add {PEER}/24 dev v1"));
            run("ip link set v1 up");
            let peer = Peer {
                listener: TcpListener::bind((PEER, 9_000)).expect("bind"),
                udp: UdpSocket::bind((PEER, 53)).expect("bind"),
                inbound: TcpStream::connect((HOST, 8_000)).expect("connect"),
            };
            tell.send(Ok(peer)).expect("the test listens");
        });
        let Err(tid) = told.recv().expect("a number") else {
            panic!("the number comes first");
        };
        run(&format!("ip link set v1 netns {tid}"));
        to_peer.send(()).expect("the peer listens");
        let Ok(peer) = told.recv_timeout(Duration::from_secs(20)).expect("a peer") else {
            panic!("the sockets come second");
        };
        let _ = serve;
        peer
    })
}

/// Port 8000 was opened by the peer, ports 9000 and 53 by the host, and all
/// count as answered.
fn directions_are_true(datapath: &KernelDatapath) {
    let mut found = Vec::new();
    let all = datapath.inspector().for_each_flow(|flow| {
        let egress = flow.flags & flags::OPENED_EGRESS != 0;
        let port = if egress {
            flow.remote_port
        } else {
            flow.local_port
        };
        found.push((flow.proto, port, egress, flow.half));
        true
    });
    all.expect("flows");
    for expected in [
        (6, 8_000, false, false),
        (6, 9_000, true, false),
        (17, 53, true, false),
    ] {
        assert!(found.contains(&expected), "{expected:?} in {found:?}");
    }
}

fn talks(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    let timeout = Some(Duration::from_millis(700));
    to.set_read_timeout(timeout).expect("timeout");
    let mut byte = [0];
    from.write_all(b"x").is_ok() && to.read_exact(&mut byte).is_ok()
}

#[test]
fn connections_opened_before_the_agent_live_on_when_policy_allows_their_opener() {
    in_world(|world| {
        let serve = TcpListener::bind("[::]:8000").expect("bind");
        let peer = peer(world, &serve);
        let (mut in_host, _) = serve.accept().expect("accept");
        let mut in_peer = peer.inbound;
        let mut out_host = TcpStream::connect((PEER, 9_000)).expect("connect");
        let (mut out_peer, _) = peer.listener.accept().expect("accept");
        let dns = UdpSocket::bind((HOST, 0)).expect("bind");
        dns.connect((PEER, 53)).expect("connect");

        let (mut datapath, _) = world.open();
        let device = super::guard::wanted("v0");
        datapath
            .attachments()
            .sync_devices(&[device], Unwanted::Keep)
            .expect("sync");
        // A packet of the inbound flow seen mid-stream: its direction is a guess.
        assert!(talks(&mut in_host, &mut in_peer));
        // In: only port 8000. Out: only port 9000.
        let policy = generation(1, Some(tcp_ports(&[8_000])), Some(tcp_ports(&[9_000])));
        datapath.stage(&policy).expect("stage");
        datapath.commit().expect("commit");
        let report = datapath.adoption().expect("a report");
        assert_eq!(report.warnings, [""; 0]);
        assert_eq!(
            report.inserted + report.corrected + report.known,
            3,
            "{report:?}"
        );

        directions_are_true(&datapath);
        assert!(talks(&mut in_host, &mut in_peer) && talks(&mut in_peer, &mut in_host));
        assert!(talks(&mut out_host, &mut out_peer) && talks(&mut out_peer, &mut out_host));

        // Revoking cuts both at the next packet, in both directions.
        datapath
            .stage(&generation(2, Some(tcp_ports(&[])), Some(tcp_ports(&[]))))
            .expect("stage");
        datapath.commit().expect("commit");
        assert!(!talks(&mut in_host, &mut in_peer), "the server's answer");
        assert!(
            !talks(&mut out_peer, &mut out_host),
            "the answer to the client"
        );
        drop(peer.udp);
    });
}
