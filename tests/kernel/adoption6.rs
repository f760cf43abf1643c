//! First enforcement in IPv6: what conntrack has not seen is entered, what it
//! has seen stays as it is.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc;

use palisade::datapath::Datapath;
use palisade::datapath::kernel::{AdoptionReport, KernelDatapath, Unwanted};
use palisade::datapath::netns;
use palisade_abi::conntrack::flags;

use super::build::{generation, tcp_ports};
use super::guard::{World, in_world, run};

const HOST: &str = "fd02::1";
const PEER: &str = "fd02::2";

/// The running flows of one host; dropped, they end.
struct Flows {
    _sockets: [TcpStream; 4],
    _question: UdpSocket,
    _listeners: [TcpListener; 2],
}

/// Runs `inside` at the other end of the wire, in a namespace of its own.
pub(crate) fn at_the_peer<T: Send>(inside: impl FnOnce() -> T + Send) -> T {
    let (tell, told) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let peer = scope.spawn(move || {
            netns::enter_new().expect("a new network");
            tell.send(rustix::thread::gettid().as_raw_nonzero())
                .expect("the test listens");
            wait.recv().expect("the device is here");
            run(&format!("ip addr add {PEER}/64 dev v1 nodad"));
            run("ip link set v1 up");
            inside()
        });
        let tid = told.recv().expect("a number");
        run(&format!("ip link set v1 netns {tid}"));
        go_on.send(()).expect("the peer listens");
        peer.join().expect("the peer")
    })
}

/// One connection in (to port 8000), one out (to port 9000), a question (to 53).
fn flows() -> Flows {
    run(&format!("ip addr add {HOST}/64 dev v0 nodad"));
    let serve = TcpListener::bind((HOST, 8_000)).expect("bind");
    let (listener, inbound) = at_the_peer(|| {
        let listener = TcpListener::bind((PEER, 9_000)).expect("bind");
        (
            listener,
            TcpStream::connect((HOST, 8_000)).expect("connect"),
        )
    });
    let (served, _) = serve.accept().expect("accept");
    let outbound = TcpStream::connect((PEER, 9_000)).expect("connect");
    let (answered, _) = listener.accept().expect("accept");
    let question = UdpSocket::bind((HOST, 0)).expect("bind");
    question.connect((PEER, 53)).expect("connect");
    Flows {
        _sockets: [inbound, served, outbound, answered],
        _question: question,
        _listeners: [serve, listener],
    }
}

fn enforce(datapath: &mut KernelDatapath) -> AdoptionReport {
    let policy = generation(1, Some(tcp_ports(&[8_000])), Some(tcp_ports(&[9_000])));
    datapath.stage(&policy).expect("stage");
    datapath.commit().expect("commit");
    datapath.adoption().expect("a report").clone()
}

/// (protocol, the server's port, opened by us, adopted), of IPv6.
fn seen(datapath: &KernelDatapath) -> Vec<(u8, u16, bool, bool)> {
    let mut found = Vec::new();
    let all = datapath.inspector().for_each_flow(|flow| {
        let ours = flow.flags & flags::OPENED_EGRESS != 0;
        let port = if ours {
            flow.remote_port
        } else {
            flow.local_port
        };
        if flow.local.is_ipv6() && matches!(flow.proto, 6 | 17) {
            found.push((flow.proto, port, ours, flow.flags & flags::ADOPTED != 0));
        }
        true
    });
    all.expect("flows");
    found.sort_unstable();
    found
}

fn wired(world: &World) -> KernelDatapath {
    world.veth("v0", "v1");
    world.open().0
}

#[test]
fn ipv6_connections_older_than_the_agent_are_entered() {
    in_world(|world| {
        let mut datapath = wired(world);
        let _flows = flows();
        let report = enforce(&mut datapath);
        assert_eq!((report.corrected, report.known), (0, 0), "{report:?}");
        for flow in [
            (6, 8_000, false, true),
            (6, 9_000, true, true),
            (17, 53, true, true),
        ] {
            assert!(
                seen(&datapath).contains(&flow),
                "{flow:?} in {:?}",
                seen(&datapath)
            );
        }
    });
}

#[test]
fn what_conntrack_has_seen_from_its_first_packet_is_left_alone() {
    in_world(|world| {
        let mut datapath = wired(world);
        let device = super::guard::wanted("v0");
        let attached = datapath
            .attachments()
            .sync_devices(&[device], Unwanted::Keep);
        assert_eq!(attached.expect("sync").failed, []);
        let _flows = flows();
        let tcp = |datapath: &KernelDatapath| {
            let mut all = seen(datapath);
            all.retain(|flow| flow.0 == 6);
            all
        };
        let before = tcp(&datapath);
        assert_eq!(before, [(6, 8_000, false, false), (6, 9_000, true, false)]);
        let report = enforce(&mut datapath);
        assert_eq!((report.corrected, report.known), (0, 2), "{report:?}");
        assert_eq!(tcp(&datapath), before, "neither entered anew nor marked");
    });
}
