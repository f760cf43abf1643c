//! The agent's own traffic: by mark and destination it passes whatever policy says,
//! and so do its answers; either alone does not.

use std::net::{IpAddr, SocketAddr};

use palisade::datapath::{ControlDoor as _, ControlEndpoint, ControlMark};
use palisade::policy::Direction;
use palisade_abi::reason::{MISSED_TAIL_CALL_PASSED, OWN};

use crate::frames::{ACK, Ip, SYN, frame, ip, tcp, udp};
use crate::host::{
    DROP_MISSED, DROP_POLICY, Expect, HOST4, HOST6, Host, OUTSIDER4, OUTSIDER6, PEER4, PEER6, pass,
    passes_as,
};

/// Denies all, both ways.
const DENY_ALL: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: deny-all}
spec:
  nodeSelector: {}
  ingress: [{}]
  egress: [{}]
"#;

/// The same, and another one that changes nothing for what is sent here.
const DENY_MORE: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: deny-more}
spec:
  nodeSelector: {}
  ingress: [{}]
  egress: [{}]
  egressDeny:
  - toPorts: [{ports: [{port: "7", protocol: UDP}]}]
"#;

/// Denies the very endpoint by a rule.
const DENY_SERVER: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: deny-server}
spec:
  nodeSelector: {}
  egressDeny:
  - toEntities: [all]
  ingressDeny:
  - fromEntities: [all]
"#;

/// Lets the host go everywhere.
const ALLOW_OUT: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: allow-out}
spec:
  nodeSelector: {}
  ingress: [{}]
  egress:
  - toEntities: [all]
"#;

const MARK: u32 = ControlMark::DEFAULT.0.value;
const API: u16 = 6_443;
const DNS: u16 = 53;

/// Own address, the server's, another one's.
const FAMILIES: [(IpAddr, IpAddr, IpAddr); 2] =
    [(HOST4, OUTSIDER4, PEER4), (HOST6, OUTSIDER6, PEER6)];

fn endpoint(address: IpAddr, port: u16, proto: u8) -> ControlEndpoint {
    ControlEndpoint {
        address: SocketAddr::new(address, port),
        proto,
        unmarked_while_degraded: false,
    }
}

/// A host that denies all, with the servers of both families on its list.
fn host() -> Option<Host> {
    let mut host = Host::new()?;
    let control = host.control();
    control.set_mark(ControlMark::DEFAULT).expect("written");
    let servers = FAMILIES.iter().flat_map(|(_, server, _)| {
        let udp = endpoint(*server, DNS, 17);
        [endpoint(*server, API, 6), udp, endpoint(*server, DNS, 6)]
    });
    let servers: Vec<_> = servers.collect();
    control.replace(&servers).expect("written");
    host.apply(DENY_ALL);
    Some(host)
}

#[test]
fn mark_and_destination_together_pass_and_either_alone_does_not() {
    let Some(mut host) = host() else { return };
    let shape = Ip::default();
    for (own, server, other) in FAMILIES {
        let syn = |from, to, port| frame(&ip(own, to, &shape, &tcp(from, port, SYN)));
        let query = |port| frame(&ip(own, server, &shape, &udp(4_000, port)));
        let cases = [
            (MARK, server, API, true),
            // Bits of others do not matter.
            (MARK | 0x0c00 | 0x4000, server, API, true),
            (MARK, server, DNS, true),
            (0, server, API, false),
            (0x0c00, server, API, false),
            (MARK | 0x01, server, API, false),
            (MARK, other, API, false),
            (MARK, server, API + 1, false),
        ];
        for (from, (mark, to, port, passes)) in (5_000..).zip(cases) {
            host.mark(mark);
            let expected = if passes {
                passes_as(OWN)
            } else {
                Expect::Drop(DROP_POLICY)
            };
            let what = format!("mark {mark:#x} to {to}:{port}");
            host.egress(&what, &syn(from, to, port), expected);
            host.mark(0);
            let answer = frame(&ip(to, own, &shape, &tcp(port, from, SYN | ACK)));
            let answered = if passes { pass() } else { Expect::AnyDrop };
            host.ingress(&format!("answer: {what}"), &answer, answered);
        }
        host.mark(MARK);
        host.egress("a name is asked", &query(DNS), passes_as(OWN));
        host.egress("no server of that", &query(API), Expect::Drop(DROP_POLICY));
        host.mark(0);
        let answer = frame(&ip(server, own, &shape, &udp(DNS, 4_000)));
        host.ingress("the name is answered", &answer, pass());
        let stray = frame(&ip(server, own, &shape, &udp(DNS, 4_001)));
        host.ingress("nobody asked", &stray, Expect::Drop(DROP_POLICY));
        // A mark on what comes in says nothing.
        host.mark(MARK);
        let opens = frame(&ip(server, own, &shape, &tcp(API, 4_002, SYN)));
        host.ingress("the server opens", &opens, Expect::Drop(DROP_POLICY));
    }
}

#[test]
fn a_flow_goes_on_through_every_change_of_policy_from_either_side() {
    let Some(mut host) = host() else { return };
    let shape = Ip::default();
    for (own, server, _) in FAMILIES {
        let out = |flags| frame(&ip(own, server, &shape, &tcp(4_000, API, flags)));
        let back = |flags| frame(&ip(server, own, &shape, &tcp(API, 4_000, flags)));
        host.apply(DENY_ALL);
        host.mark(MARK);
        host.egress("opens", &out(SYN), passes_as(OWN));
        host.ingress("answer", &back(SYN | ACK), pass());
        host.egress("goes on", &out(ACK), pass());
        for policy in [DENY_MORE, DENY_SERVER, ALLOW_OUT, DENY_ALL] {
            host.apply(policy);
            // The server speaks first: its packets carry no mark.
            host.mark(0);
            host.ingress("server first", &back(ACK), pass());
            host.egress("host, unmarked", &out(ACK), pass());
        }
        for policy in [DENY_MORE, DENY_SERVER] {
            host.apply(policy);
            host.mark(MARK);
            host.egress("host first", &out(ACK), pass());
            host.ingress("server", &back(ACK), pass());
        }
        // No longer an endpoint: judged as all is, from the next change on.
        let list = host.control();
        let before: Vec<_> = list
            .list()
            .expect("read")
            .iter()
            .map(|it| it.endpoint)
            .collect();
        list.replace(&[]).expect("written");
        host.egress("still running", &out(ACK), pass());
        host.apply(DENY_ALL);
        host.ingress("removed", &back(ACK), Expect::Drop(DROP_POLICY));
        host.egress("removed", &out(ACK), Expect::Drop(DROP_POLICY));
        list.replace(&before).expect("written");
    }
}

#[test]
fn a_flow_that_policy_allowed_is_the_agents_own_all_the_same() {
    let Some(mut host) = host() else { return };
    let shape = &Ip::default();
    for (own, server, _) in FAMILIES {
        let frames = |port: u16| {
            let out = move |flags| frame(&ip(own, server, shape, &tcp(port, API, flags)));
            let back = move |flags| frame(&ip(server, own, shape, &tcp(API, port, flags)));
            (out, back)
        };
        let (ours, to_us) = frames(4_100);
        let (theirs, to_them) = frames(4_101);
        host.apply(ALLOW_OUT);
        host.mark(MARK);
        host.egress("ours", &ours(SYN), passes_as(OWN));
        host.mark(0);
        host.egress("theirs", &theirs(SYN), pass());
        host.ingress("to us", &to_us(SYN | ACK), pass());
        host.ingress("to them", &to_them(SYN | ACK), pass());
        host.apply(DENY_ALL);
        host.ingress("to us, denied now", &to_us(ACK), pass());
        host.ingress(
            "to them, denied now",
            &to_them(ACK),
            Expect::Drop(DROP_POLICY),
        );
    }
}

#[test]
fn a_flow_without_its_entry_comes_back_with_the_first_marked_packet() {
    let Some(mut host) = host() else { return };
    let shape = Ip::default();
    for (own, server, _) in FAMILIES {
        let out = frame(&ip(own, server, &shape, &tcp(4_200, API, ACK)));
        let back = frame(&ip(server, own, &shape, &tcp(API, 4_200, ACK)));
        host.mark(0);
        host.ingress("lost", &back, Expect::Drop(DROP_POLICY));
        host.egress("unmarked", &out, Expect::Drop(DROP_POLICY));
        host.mark(MARK);
        host.egress("a keepalive", &out, passes_as(OWN));
        host.mark(0);
        host.ingress("back", &back, pass());
    }
}

#[test]
fn an_endpoint_that_is_listed_late_is_reached_by_the_flow_that_stands() {
    let Some(mut host) = host() else { return };
    let shape = Ip::default();
    let control = host.control();
    control.replace(&[]).expect("written");
    for (own, server, _) in FAMILIES {
        let out = |flags| frame(&ip(own, server, &shape, &tcp(4_400, API, flags)));
        let back = |flags| frame(&ip(server, own, &shape, &tcp(API, 4_400, flags)));
        host.apply(ALLOW_OUT);
        host.mark(MARK);
        host.egress("opens", &out(SYN), pass());
        host.ingress("answer", &back(SYN | ACK), pass());
        host.apply(DENY_ALL);
        control
            .replace(&[endpoint(server, API, 6)])
            .expect("written");
        host.mark(0);
        host.ingress("not ours yet", &back(ACK), Expect::Drop(DROP_POLICY));
        host.egress("unmarked", &out(ACK), Expect::Drop(DROP_POLICY));
        host.mark(0x0c00);
        host.egress("another's mark", &out(ACK), Expect::Drop(DROP_POLICY));
        host.mark(MARK);
        host.egress("a keepalive", &out(ACK), pass());
        host.mark(0);
        host.ingress("back", &back(ACK), pass());
        host.apply(DENY_MORE);
        host.ingress("and it stays", &back(ACK), pass());
    }
}

#[test]
fn flows_are_counted_and_what_is_listed_stays_through_generations() {
    let Some(mut host) = host() else { return };
    let shape = Ip::default();
    host.mark(MARK);
    for port in 0..3 {
        let syn = frame(&ip(HOST4, OUTSIDER4, &shape, &tcp(4_300 + port, API, SYN)));
        host.egress("opens", &syn, passes_as(OWN));
        host.apply(if port == 0 { DENY_MORE } else { DENY_ALL });
    }
    let listed = host.control().list().expect("read");
    assert_eq!(listed.len(), 6);
    for it in listed {
        let counted = it.endpoint == endpoint(OUTSIDER4, API, 6);
        assert_eq!(it.flows, if counted { 3 } else { 0 }, "{}", it.endpoint);
    }
    assert_eq!(host.count(OWN, Direction::Egress), 3);
}

#[test]
fn a_slot_without_programs_lets_the_agent_through_without_state() {
    let Some(mut host) = host() else { return };
    let shape = Ip::default();
    let mut servers = Vec::new();
    for (_, server, other) in FAMILIES {
        servers.push(endpoint(server, API, 6));
        servers.push(endpoint(server, DNS, 17));
        servers.push(ControlEndpoint {
            unmarked_while_degraded: true,
            ..endpoint(other, API, 6)
        });
    }
    host.control().replace(&servers).expect("written");
    host.remove_programs();
    let degraded = passes_as(MISSED_TAIL_CALL_PASSED);
    let dropped = Expect::Drop(DROP_MISSED);
    for (own, server, other) in FAMILIES {
        let out = |to, port| frame(&ip(own, to, &shape, &tcp(4_000, port, SYN)));
        let back = |from, port, flags| frame(&ip(from, own, &shape, &tcp(port, 4_000, flags)));
        host.mark(MARK);
        host.egress("marked", &out(server, API), degraded);
        let query = frame(&ip(own, server, &shape, &udp(4_000, DNS)));
        host.egress("a name is asked", &query, degraded);
        host.egress("marked, elsewhere", &out(server, API + 1), dropped);
        host.mark(0);
        host.egress("not marked", &out(server, API), dropped);
        host.egress("needs no mark", &out(other, API), degraded);
        host.ingress("answer", &back(server, API, SYN | ACK), degraded);
        host.ingress("answer", &back(other, API, SYN | ACK), degraded);
        let answer = frame(&ip(server, own, &shape, &udp(DNS, 4_000)));
        host.ingress("the name is answered", &answer, degraded);
        host.ingress("no answer", &back(server, API, SYN), dropped);
        host.ingress("from elsewhere", &back(server, API + 1, ACK), dropped);
    }
}
