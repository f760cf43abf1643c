//! Conntrack tables that are far too small: floods must not cut what is allowed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use palisade::policy::Direction;
use palisade_abi::reason;

use crate::classes::own;
use crate::frames::{ACK, Ip, RST, SYN, frame, ip, tcp, udp};
use crate::host::{Expect, Host, OUTSIDER4, OUTSIDER6, passes_as};
use crate::lifetimes::flows;

/// The smallest tables that the agent takes.
const ENTRIES: u32 = 1_024;
/// More new flows than fit, many times.
const FLOOD: u32 = 20_000;

/// One port in; anything out.
const SERVER: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: server}
spec:
  nodeSelector: {}
  ingress:
  - toPorts: [{ports: [{port: "7001"}]}]
"#;

fn passes() -> Expect {
    passes_as(reason::FORWARDED)
}

/// A different source for each packet of a flood.
fn forged(v4: bool, number: u32) -> IpAddr {
    if v4 {
        Ipv4Addr::from_bits(0x6440_0000 | number).into()
    } else {
        let low = u128::from(number);
        Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) | low).into()
    }
}

/// How each datagram of a flood is answered, if at all.
type Answer = fn(IpAddr, IpAddr) -> Vec<(Direction, Vec<u8>)>;

/// Flows that this host has opened and that need their entry: no rule lets the
/// answers in. They speak while the flood runs, now and then.
fn survive(host: &mut Host, what: &str, request: &crate::frames::L4, answer: Answer) {
    let shape = Ip::default();
    for (v4, peer) in [(true, OUTSIDER4), (false, OUTSIDER6)] {
        let own = own(v4);
        let ask = frame(&ip(own, peer, &shape, &udp(58_000, 53)));
        let reply = frame(&ip(peer, own, &shape, &udp(53, 58_000)));
        for _ in 0..2 {
            host.egress("question", &ask, passes());
            host.ingress("answer", &reply, passes());
        }
        for number in 0..FLOOD {
            let from = forged(v4, number);
            let call = frame(&ip(from, own, &shape, request));
            let passed = host.flood(Direction::Ingress, &call);
            assert!(passed, "{what}: a call of the flood is allowed");
            for (direction, frame) in answer(own, from) {
                let passed = host.flood(direction, &frame);
                assert!(passed, "{what}: an answer of the flood is allowed");
            }
        }
        host.recount();
        host.ingress(&format!("{what}: answer after it"), &reply, passes());
        host.egress(&format!("{what}: question after it"), &ask, passes());
    }
    let all = flows(host).len();
    // Two families, with a third more room than was asked for, in sets of seven.
    assert!(all <= 2 * (ENTRIES as usize * 4 / 3 + 14), "{all}");
    assert!(all > ENTRIES as usize / 2, "a flood: {all}");
    let evicted = host.inspector().evictions().expect("counters");
    assert!(evicted.one_sided > u64::from(FLOOD), "{evicted:?}");
    assert_eq!(evicted.answered, 0, "{evicted:?}");
}

#[test]
fn a_flood_of_unanswered_calls_evicts_no_flow_that_was_answered() {
    let Some(mut host) = Host::with_conntrack(ENTRIES) else {
        return;
    };
    host.apply(SERVER);
    let silence: Answer = |_, _| Vec::new();
    survive(&mut host, "SYN", &tcp(59_000, 7_001, SYN), silence);
    survive(&mut host, "UDP", &udp(59_000, 7_001), silence);
}

/// The kernel answers each SYN to an open port, whoever it says it is from.
#[test]
fn a_flood_of_forged_calls_that_are_answered_evicts_no_flow_either() {
    let Some(mut host) = Host::with_conntrack(ENTRIES) else {
        return;
    };
    host.apply(SERVER);
    let shake: Answer = |own, from| {
        let answer = ip(own, from, &Ip::default(), &tcp(7_001, 59_001, SYN | ACK));
        vec![(Direction::Egress, frame(&answer))]
    };
    survive(&mut host, "SYN", &tcp(59_001, 7_001, SYN), shake);
    let echo: Answer = |own, from| {
        let answer = ip(own, from, &Ip::default(), &udp(7_001, 59_001));
        vec![(Direction::Egress, frame(&answer))]
    };
    survive(&mut host, "UDP", &udp(59_001, 7_001), echo);
}

/// Those in whose name was called say that they did not.
#[test]
fn a_flood_of_forged_calls_that_are_reset_evicts_no_flow_either() {
    let Some(mut host) = Host::with_conntrack(ENTRIES) else {
        return;
    };
    host.apply(SERVER);
    let refuse: Answer = |own, from| {
        let shape = Ip::default();
        let answer = ip(own, from, &shape, &tcp(7_001, 59_002, SYN | ACK));
        let reset = ip(from, own, &shape, &tcp(59_002, 7_001, RST));
        vec![
            (Direction::Egress, frame(&answer)),
            (Direction::Ingress, frame(&reset)),
        ]
    };
    survive(&mut host, "refused SYN", &tcp(59_002, 7_001, SYN), refuse);
}
