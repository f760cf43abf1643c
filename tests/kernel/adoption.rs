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

/// A namespace behind the host, whose traffic leaves under the host's address;
/// a UDP socket in it.
fn container() -> UdpSocket {
    run("ip link add c0 type veth peer name c1");
    run("ip addr add 10.3.0.1/24 dev c0");
    run("ip link set c0 up");
    let (to_container, ready) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        let container = scope.spawn(move || {
            netns::enter_new().expect("a new network");
            tell.send(rustix::thread::gettid().as_raw_nonzero())
                .expect("the test listens");
            ready.recv().expect("the device is here");
            run("ip addr add 10.3.0.2/24 dev c1");
            run("ip link set c1 up");
            run("ip route add default via 10.3.0.1");
            UdpSocket::bind("10.3.0.2:7000").expect("bind")
        });
        let tid = told.recv().expect("a number");
        run(&format!("ip link set c1 netns {tid}"));
        to_container.send(()).expect("the container listens");
        container.join().expect("the container")
    })
}

#[test]
fn flows_of_the_kernels_own_conntrack_are_adopted_masqueraded_ones_unjudged() {
    in_world(|world| {
        if std::process::Command::new("nft")
            .arg("-v")
            .output()
            .is_err()
        {
            super::guard::skip("`nft` of nftables is missing");
            return;
        }
        let serve = TcpListener::bind("0.0.0.0:8000").expect("bind");
        let peer = peer(world, &serve);
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("forwarding");
        run("nft add table ip test");
        run("nft add chain ip test post { type nat hook postrouting priority 100 ; }");
        run("nft add rule ip test post oifname v0 meta l4proto udp masquerade to :40000-40010");
        let timeout = Some(Duration::from_secs(5));
        peer.udp.set_read_timeout(timeout).expect("timeout");
        let ask = |from: &UdpSocket| {
            from.set_read_timeout(timeout).expect("timeout");
            from.send_to(b"?", (PEER, 53)).expect("send");
            let mut buffer = [0; 8];
            let (_, source) = peer.udp.recv_from(&mut buffer).expect("a question");
            peer.udp.send_to(b"!", source).expect("send");
            from.recv_from(&mut buffer).expect("an answer");
            source.port()
        };
        let container = container();
        let masqueraded = ask(&container);
        let unconnected = ask(&UdpSocket::bind((HOST, 0)).expect("bind"));

        let (mut datapath, _) = world.open();
        datapath
            .stage(&generation(1, Some(tcp_ports(&[])), Some(tcp_ports(&[]))))
            .expect("stage");
        datapath.commit().expect("commit");
        assert_eq!(datapath.adoption().expect("a report").warnings, [""; 0]);
        let mut found = Vec::new();
        let all = datapath.inspector().for_each_flow(|flow| {
            let unjudged = flow.flags & flags::UNJUDGED != 0;
            let egress = flow.flags & flags::OPENED_EGRESS != 0;
            found.push((
                flow.proto,
                flow.local.to_string(),
                flow.local_port,
                flow.remote_port,
                egress,
                unjudged,
            ));
            true
        });
        all.expect("flows");
        let host = HOST.to_owned();
        let expected = [
            (17, host.clone(), masqueraded, 53, true, true),
            (17, host, unconnected, 53, true, false),
        ];
        for flow in expected {
            assert!(found.contains(&flow), "{flow:?} in {found:?}");
        }
        drop((peer.listener, peer.inbound));
    });
}
