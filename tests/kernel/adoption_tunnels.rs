//! First enforcement and the flows that no socket of user space holds: tunnels
//! of the kernel, and UDP that was never connected. The kernel's own conntrack
//! knows who opened them.
//!
//! The tunnels are VXLAN with one port at both ends, which on the wire is what
//! WireGuard does too: a UDP socket of the kernel, the same two ports both ways.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use palisade::datapath::Datapath;
use palisade::datapath::kernel::{KernelDatapath, Unwanted};
use palisade_abi::conntrack::flags;

use super::adoption6::at_the_peer;
use super::build::{generation, tcp_ports};
use super::guard::{in_world, run};

/// Addresses of the host and of its peer, by family.
const ENDS: [(&str, &str); 2] = [("10.2.0.1", "10.2.0.2"), ("fd02::1", "fd02::2")];
const PORT: u16 = 7_000;

/// A tunnel between two ends.
#[derive(Clone, Copy, Debug)]
struct Tunnel {
    ends: (&'static str, &'static str),
    /// Its UDP port; by its last digits also its number and its inner network.
    port: u16,
    by_host: bool,
}

impl Tunnel {
    fn all() -> [Self; 4] {
        let tunnel = |family: usize, port, by_host| Self {
            ends: ENDS[family],
            port,
            by_host,
        };
        [
            tunnel(0, 4_801, true),
            tunnel(1, 4_802, true),
            tunnel(0, 4_803, false),
            tunnel(1, 4_804, false),
        ]
    }

    fn inner(self, last: u8) -> String {
        format!("10.9.{}.{last}", self.port % 100)
    }

    /// Builds one end in this network namespace, and a socket within it.
    fn end(self, device: &str, local: &str, remote: &str, last: u8) -> UdpSocket {
        let Self { port, .. } = self;
        let name = format!("x{port}");
        let next = port + 1;
        run(&format!(
            "ip link add {name} type vxlan id {port} local {local} remote {remote} dev {device} \
             dstport {port} srcport {port} {next} nolearning"
        ));
        // Nothing may cross it before whoever is to open it.
        let quiet = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
        std::fs::write(quiet, "1").expect("no IPv6 within");
        run(&format!("ip addr add {}/24 dev {name}", self.inner(last)));
        run(&format!("ip link set {name} up"));
        UdpSocket::bind((self.inner(last), PORT)).expect("bind")
    }

    fn at_host(self) -> UdpSocket {
        self.end("v0", self.ends.0, self.ends.1, 1)
    }

    fn at_peer(self) -> UdpSocket {
        self.end("v1", self.ends.1, self.ends.0, 2)
    }
}

/// Whether a datagram gets from one socket to another.
fn crosses(from: &UdpSocket, to: &UdpSocket) -> bool {
    let timeout = Some(Duration::from_millis(700));
    to.set_read_timeout(timeout).expect("timeout");
    let mut buffer = [0; 8];
    let address = to.local_addr().expect("an address");
    // Refused by a neighbour that cannot be found, too.
    from.send_to(b"x", address).is_ok() && to.recv_from(&mut buffer).is_ok()
}

/// (protocol, port of the peer or ours, opened by the host, adopted)
fn flows(datapath: &KernelDatapath) -> Vec<(u8, bool, u16, bool, bool)> {
    let mut found = Vec::new();
    let all = datapath.inspector().for_each_flow(|flow| {
        let ours = flow.flags & flags::OPENED_EGRESS != 0;
        let adopted = flow.flags & flags::ADOPTED != 0;
        let port = if ours {
            flow.remote_port
        } else {
            flow.local_port
        };
        found.push((flow.proto, flow.local.is_ipv6(), port, ours, adopted));
        true
    });
    all.expect("flows");
    found
}

/// What the peer has, made in its namespace.
struct Peer {
    tunnels: Vec<UdpSocket>,
    dns: UdpSocket,
    connection: TcpStream,
}

fn peer(tunnels: [Tunnel; 4]) -> Peer {
    at_the_peer(move || {
        run("ip addr add 10.2.0.2/24 dev v1");
        Peer {
            tunnels: tunnels.map(Tunnel::at_peer).into(),
            dns: UdpSocket::bind((ENDS[1].1, 53)).expect("bind"),
            connection: TcpStream::connect((ENDS[1].0, 8_000)).expect("connect"),
        }
    })
}

/// What this machine lacks of what the test needs.
fn missing() -> Option<&'static str> {
    let works = |line: &str| {
        let mut words = line.split_whitespace();
        let mut command = std::process::Command::new(words.next().expect("a program"));
        let output = command.args(words).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !works("nft -v") {
        return Some("`nft` of nftables is missing");
    }
    let vxlan = works("ip link add probe type vxlan id 1 dstport 4800 dev lo");
    if !vxlan {
        return Some("the kernel has no VXLAN");
    }
    run("ip link del probe");
    None
}

#[test]
fn tunnels_and_unconnected_udp_keep_who_opened_them() {
    in_world(|world| {
        if let Some(missing) = missing() {
            super::guard::skip(missing);
            return;
        }
        world.veth("v0", "v1");
        for (local, _) in ENDS {
            let length = if local.contains(':') {
                "64 nodad"
            } else {
                "24"
            };
            run(&format!("ip addr add {local}/{length} dev v0"));
        }
        // From here on the kernel tracks the connections of this namespace.
        run("nft add table inet test");
        run("nft add chain inet test input { type filter hook input priority 0 ; }");
        run("nft add rule inet test input ct state established accept");
        let tunnels = Tunnel::all();
        let serve = TcpListener::bind((ENDS[1].0, 8_000)).expect("bind");
        let at_host = tunnels.map(Tunnel::at_host);
        let peer = peer(tunnels);
        let (served, _) = serve.accept().expect("accept");
        for (place, tunnel) in tunnels.iter().enumerate() {
            let (ours, theirs) = (&at_host[place], &peer.tunnels[place]);
            let (first, second) = if tunnel.by_host {
                (ours, theirs)
            } else {
                (theirs, ours)
            };
            assert!(
                crosses(first, second) && crosses(second, first),
                "{tunnel:?}"
            );
        }
        let asks = UdpSocket::bind((ENDS[1].0, 0)).expect("bind");
        assert!(crosses(&asks, &peer.dns) && crosses(&peer.dns, &asks));

        let (mut datapath, _) = world.open();
        let device = super::guard::wanted("v0");
        let synced = datapath
            .attachments()
            .sync_devices(&[device], Unwanted::Keep);
        assert_eq!(synced.expect("sync").failed, []);
        // Nobody may open anything to us but TCP port 8000.
        datapath
            .stage(&generation(1, Some(tcp_ports(&[8_000])), None))
            .expect("stage");
        datapath.commit().expect("commit");
        let report = datapath.adoption().expect("a report");
        assert_eq!(report.warnings, [""; 0]);
        let found = flows(&datapath);
        let dns: SocketAddr = peer.dns.local_addr().expect("an address");
        assert!(matches!(dns.ip(), IpAddr::V6(_)));
        let of_tunnels = tunnels.map(|tunnel| {
            let is_ipv6 = tunnel.ends == ENDS[1];
            (17, is_ipv6, tunnel.port, tunnel.by_host, true)
        });
        let others = [(17, true, 53, true, true), (6, true, 8_000, false, true)];
        for flow in of_tunnels.iter().chain(&others) {
            assert!(found.contains(flow), "{flow:?} in {found:?}");
        }

        for (place, tunnel) in tunnels.iter().enumerate() {
            let (ours, theirs) = (&at_host[place], &peer.tunnels[place]);
            let passes = crosses(theirs, ours);
            assert_eq!(passes, tunnel.by_host, "{tunnel:?}: from the peer");
            if tunnel.by_host {
                assert!(crosses(ours, theirs), "{tunnel:?}: to the peer");
            }
        }
        assert!(crosses(&peer.dns, &asks), "the answer to our question");
        let stranger = UdpSocket::bind((ENDS[1].0, 0)).expect("bind");
        assert!(!crosses(&peer.dns, &stranger), "what nobody asked for");
        drop((served, peer.connection));
    });
}
