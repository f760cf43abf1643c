//! Flows of local sockets, by sock_diag.
//!
//! TCP: a listener on the flow's local port means that the peer opened it,
//! otherwise the host did. UDP: a connected socket belongs to the host's flow,
//! unless an unconnected socket is bound to the same port (a server that
//! connects one socket per client). Unconnected UDP sockets have no flow here.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use palisade_abi::proto;

use super::{Flow, Opener, Stage, plain};
use crate::datapath::netlink::{Netlink, address, half_be};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

// States of <net/tcp_states.h>.
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const SYN_RECV: u8 = 3;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;
const NEW_SYN_RECV: u8 = 12;
const ALL_STATES: u32 = u32::MAX;

/// One socket.
#[derive(Clone, Copy, PartialEq, Debug)]
struct SocketEntry {
    state: u8,
    local: IpAddr,
    local_port: u16,
    remote: IpAddr,
    remote_port: u16,
}

/// `struct inet_diag_req_v2`: every socket of a family and protocol.
fn request(family: u8, protocol: u8) -> Vec<u8> {
    let mut body = vec![family, protocol, 0, 0];
    body.extend_from_slice(&ALL_STATES.to_ne_bytes());
    body.resize(56, 0);
    body
}

/// `struct inet_diag_msg`.
fn parse(body: &[u8]) -> Option<SocketEntry> {
    let bytes = match *body.first()? {
        AF_INET => 4,
        AF_INET6 => 16,
        _ => return None,
    };
    Some(SocketEntry {
        state: *body.get(1)?,
        local_port: half_be(body.get(4..)?)?,
        remote_port: half_be(body.get(6..)?)?,
        local: plain(address(body.get(8..8 + bytes)?)?),
        remote: plain(address(body.get(24..24 + bytes)?)?),
    })
}

fn dump(netlink: &mut Netlink, protocol: u8) -> io::Result<Vec<SocketEntry>> {
    let mut sockets = Vec::new();
    for family in [AF_INET, AF_INET6] {
        for message in netlink.dump(SOCK_DIAG_BY_FAMILY, &request(family, protocol))? {
            sockets.extend(parse(&message.body));
        }
    }
    Ok(sockets)
}

/// The flows of sockets as the kernel describes them, one body each.
pub(super) fn decode<'a>(bodies: impl IntoIterator<Item = &'a [u8]>) -> Vec<Flow> {
    let sockets: Vec<SocketEntry> = bodies.into_iter().filter_map(parse).collect();
    let mut flows = tcp_flows(&sockets);
    flows.extend(udp_flows(&sockets));
    flows
}

/// Every flow of this namespace's sockets.
pub(crate) fn flows() -> io::Result<Vec<Flow>> {
    let mut netlink = Netlink::open(NETLINK_SOCK_DIAG, 0)?;
    let mut flows = tcp_flows(&dump(&mut netlink, proto::TCP)?);
    flows.extend(udp_flows(&dump(&mut netlink, proto::UDP)?));
    Ok(flows)
}

/// Who serves: the (address, port) pairs on which connections are awaited.
struct Servers(BTreeSet<(u16, IpAddr)>);

impl Servers {
    fn of<'a>(sockets: impl Iterator<Item = &'a SocketEntry>) -> Self {
        Self(
            sockets
                .map(|socket| (socket.local_port, socket.local))
                .collect(),
        )
    }
    fn serve(&self, address: IpAddr, port: u16) -> bool {
        // A dual-stack server on :: serves IPv4 as well.
        let any = [[0u8; 4].into(), IpAddr::from([0u8; 16]), address];
        any.into_iter()
            .any(|address| self.0.contains(&(port, address)))
    }
}

fn flow(socket: &SocketEntry, protocol: u8, servers: &Servers) -> Option<Flow> {
    let is_remote = socket.remote_port != 0
        && !socket.remote.is_unspecified()
        && !socket.remote.is_loopback()
        && !socket.local.is_loopback();
    is_remote.then(|| Flow {
        local: socket.local,
        local_port: socket.local_port,
        remote: socket.remote,
        remote_port: socket.remote_port,
        proto: protocol,
        opener: if servers.serve(socket.local, socket.local_port) {
            Opener::Peer
        } else {
            Opener::Host
        },
        answered: true,
        stage: Stage::Open,
    })
}

fn tcp_flows(sockets: &[SocketEntry]) -> Vec<Flow> {
    let listeners = sockets.iter().filter(|socket| socket.state == LISTEN);
    let servers = Servers::of(listeners);
    let mut flows = Vec::new();
    for socket in sockets.iter().filter(|socket| socket.state != LISTEN) {
        let Some(flow) = flow(socket, proto::TCP, &servers) else {
            continue;
        };
        let (opener, stage) = match socket.state {
            SYN_SENT => (Opener::Host, Stage::Opening),
            SYN_RECV | NEW_SYN_RECV => (Opener::Peer, Stage::Opening),
            ESTABLISHED | FIN_WAIT1 | FIN_WAIT2 | CLOSE_WAIT => (flow.opener, Stage::Open),
            _ => (flow.opener, Stage::Closing),
        };
        flows.push(Flow {
            opener,
            stage,
            answered: stage != Stage::Opening,
            ..flow
        });
    }
    flows
}

fn udp_flows(sockets: &[SocketEntry]) -> Vec<Flow> {
    let unconnected = sockets.iter().filter(|socket| socket.remote_port == 0);
    let servers = Servers::of(unconnected);
    let connected = sockets.iter().filter(|socket| socket.remote_port != 0);
    connected
        .filter_map(|socket| flow(socket, proto::UDP, &servers))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(state: u8, local: (&str, u16), remote: (&str, u16)) -> SocketEntry {
        let address = |text: &str| plain(text.parse().expect("an address"));
        SocketEntry {
            state,
            local: address(local.0),
            local_port: local.1,
            remote: address(remote.0),
            remote_port: remote.1,
        }
    }

    #[test]
    fn a_listener_on_the_local_port_means_that_the_peer_opened() {
        let flows = tcp_flows(&[
            socket(LISTEN, ("::", 22), ("::", 0)),
            socket(
                ESTABLISHED,
                ("::ffff:10.0.0.1", 22),
                ("::ffff:10.0.0.9", 40_000),
            ),
            socket(ESTABLISHED, ("10.0.0.1", 50_000), ("10.0.0.9", 443)),
            socket(SYN_SENT, ("10.0.0.1", 50_001), ("10.0.0.9", 443)),
            socket(ESTABLISHED, ("127.0.0.1", 22), ("127.0.0.1", 40_001)),
        ]);
        let summary: Vec<_> = flows
            .iter()
            .map(|flow| {
                (
                    flow.local.is_ipv4(),
                    flow.local_port,
                    flow.opener,
                    flow.stage,
                )
            })
            .collect();
        assert_eq!(
            summary,
            [
                (true, 22, Opener::Peer, Stage::Open),
                (true, 50_000, Opener::Host, Stage::Open),
                (true, 50_001, Opener::Host, Stage::Opening),
            ]
        );
    }

    #[test]
    fn a_listener_on_another_address_does_not_count() {
        let flows = tcp_flows(&[
            socket(LISTEN, ("10.0.0.2", 5_000), ("0.0.0.0", 0)),
            socket(ESTABLISHED, ("10.0.0.1", 5_000), ("10.0.0.9", 80)),
        ]);
        assert_eq!(flows[0].opener, Opener::Host);
    }

    #[test]
    fn a_connected_udp_socket_is_the_hosts_unless_its_port_is_served() {
        let flows = udp_flows(&[
            socket(7, ("0.0.0.0", 4_433), ("0.0.0.0", 0)),
            socket(1, ("10.0.0.1", 4_433), ("10.0.0.9", 1_000)),
            socket(1, ("10.0.0.1", 40_000), ("10.0.0.9", 53)),
        ]);
        let openers: Vec<_> = flows.iter().map(|flow| flow.opener).collect();
        assert_eq!(openers, [Opener::Peer, Opener::Host]);
    }
}
