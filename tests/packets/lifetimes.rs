//! Conntrack: which lifetime counts when, how flows close and open again, and
//! how a change of policy reaches them.

use palisade::datapath::kernel::CtFlow;
use palisade::policy::Direction;
use palisade_abi::reason;

use crate::classes::{Strangers, allowing, ends, own};
use crate::frames::{ACK, FIN, Ip, L4, RST, SYN, frame, icmp, ip, raw, sctp, tcp, udp};
use crate::host::{DROP_POLICY, Expect, Host, passes_as};

/// One port and GRE, from either side.
const OPEN: &str = r#"toPorts: [{ports: [{port: "7001"}, {protocol: GRE}]}]"#;
const LONG: [u32; 4] = [1_000; 4];

fn passes() -> Expect {
    passes_as(reason::FORWARDED)
}

fn denied() -> Expect {
    Expect::Drop(DROP_POLICY)
}

fn back(direction: Direction) -> Direction {
    match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    }
}

/// A TCP connection that one side opens to port 7001 of the other.
struct Call {
    opens: Direction,
    /// From the opener, and to it.
    ways: [(std::net::IpAddr, std::net::IpAddr); 2],
}

impl Call {
    fn new(strangers: &mut Strangers, opens: Direction, v4: bool) -> Self {
        let (from, to) = ends(opens, own(v4), strangers.next(v4));
        Self {
            opens,
            ways: [(from, to), (to, from)],
        }
    }

    /// The opener's packet.
    fn forth(&self, host: &mut Host, what: &str, flags: u8, expected: Expect) {
        let (from, to) = self.ways[0];
        let packet = frame(&ip(from, to, &Ip::default(), &tcp(52_000, 7_001, flags)));
        host.send(what, self.opens, &packet, expected);
    }

    /// The other side's packet.
    fn back(&self, host: &mut Host, what: &str, flags: u8, expected: Expect) {
        let (from, to) = self.ways[1];
        let packet = frame(&ip(from, to, &Ip::default(), &tcp(7_001, 52_000, flags)));
        host.send(what, back(self.opens), &packet, expected);
    }

    fn shake_hands(&self, host: &mut Host) {
        self.forth(host, "SYN", SYN, passes());
        self.back(host, "SYN, ACK", SYN | ACK, passes());
        self.forth(host, "ACK", ACK, passes());
    }
}

/// Runs `check` for calls from each side in each family.
fn each_call(host: &mut Host, strangers: &mut Strangers, mut check: impl FnMut(&mut Host, &Call)) {
    for opens in Direction::BOTH {
        for v4 in [true, false] {
            check(host, &Call::new(strangers, opens, v4));
        }
    }
}

/// A lifetime of 0 shows which one a packet has left in the entry: answers to a
/// flow that is over are judged like any packet, and denied.
#[test]
fn a_flow_has_the_lifetime_of_its_state() {
    let Some(mut host) = Host::new() else { return };
    let mut strangers = Strangers::default();
    let live = |established, syn, close| [established, syn, close, 1_000];
    host.lifetimes(live(1_000, 0, 1_000));
    host.apply(&allowing(OPEN));
    each_call(&mut host, &mut strangers, |host, call| {
        call.forth(host, "SYN", SYN, passes());
        call.back(host, "after an unanswered one's life", SYN | ACK, denied());
    });
    host.lifetimes(live(0, 1_000, 1_000));
    host.apply(&allowing(OPEN));
    each_call(&mut host, &mut strangers, |host, call| {
        call.forth(host, "SYN", SYN, passes());
        call.back(
            host,
            "a SYN with ACK is none but a SYN",
            SYN | ACK,
            passes(),
        );
        call.back(host, "and lives on", SYN | ACK, passes());
        call.forth(host, "established", ACK, passes());
        call.back(host, "after an established one's life", ACK, denied());
    });
    host.lifetimes(live(1_000, 1_000, 0));
    host.apply(&allowing(OPEN));
    each_call(&mut host, &mut strangers, |host, call| {
        call.shake_hands(host);
        call.forth(host, "FIN", FIN | ACK, passes());
        call.back(host, "half closed lives on", ACK, passes());
        call.back(host, "FIN", FIN | ACK, passes());
        call.back(host, "after a closed one's life", ACK, denied());
    });
    each_call(&mut host, &mut strangers, |host, call| {
        call.shake_hands(host);
        call.back(host, "RST", RST, passes());
        call.back(host, "after a reset one's life", ACK, denied());
    });
}

#[test]
fn what_is_no_tcp_has_a_lifetime_of_its_own() {
    let Some(mut host) = Host::new() else { return };
    let echoes = "icmps: [{fields: [{type: 8}, {family: IPv6, type: 128}]}]";
    let rules = format!("{OPEN}\n  - {echoes}");
    // Only ingress is closed: what is asked are answers to the host.
    let policy = allowing(&rules).replacen(&rules, "{}", 1);
    let mut strangers = Strangers::default();
    for (life, expected) in [(0, denied()), (1_000, passes())] {
        host.lifetimes([1_000, 1_000, 1_000, life]);
        host.apply(&policy);
        for v4 in [true, false] {
            let (ask, answer) = if v4 {
                (icmp(1, 8, 0, 3), icmp(1, 0, 0, 3))
            } else {
                (icmp(58, 128, 0, 3), icmp(58, 129, 0, 3))
            };
            let cases = [
                (udp(53_000, 7_001), udp(7_001, 53_000)),
                (sctp(53_000, 7_001), sctp(7_001, 53_000)),
                (raw(47), raw(47)),
                (ask, answer),
            ];
            for (question, answer) in cases {
                let (own, peer) = (own(v4), strangers.next(v4));
                let what = format!("protocol {}, life {life}", question.proto);
                let packet = |from, to, l4: &L4| frame(&ip(from, to, &Ip::default(), l4));
                host.egress(&what, &packet(own, peer, &question), passes());
                host.ingress(&what, &packet(peer, own, &answer), expected);
            }
        }
    }
}

/// A flow that has expired but was not swept yet is no flow, and no obstacle to
/// the one that takes its place.
#[test]
fn an_expired_flow_is_in_nobodys_way() {
    let Some(mut host) = Host::new() else { return };
    let mut strangers = Strangers::default();
    for opens in Direction::BOTH {
        for v4 in [true, false] {
            for (question, answer) in [
                (udp(54_000, 7_001), udp(7_001, 54_000)),
                (tcp(54_000, 7_001, SYN), tcp(7_001, 54_000, SYN | ACK)),
                (raw(47), raw(47)),
            ] {
                let (from, to) = ends(opens, own(v4), strangers.next(v4));
                let ask = frame(&ip(from, to, &Ip::default(), &question));
                let answer = frame(&ip(to, from, &Ip::default(), &answer));
                let what = format!("protocol {}", question.proto);
                host.lifetimes(LONG);
                host.apply(&allowing(OPEN));
                for _ in 0..2 {
                    host.send(&what, opens, &ask, passes());
                    host.send(&what, back(opens), &answer, passes());
                }
                // The next packet leaves an entry that is over.
                host.lifetimes([0; 4]);
                host.apply(&allowing(OPEN));
                host.send(&what, opens, &ask, passes());
                host.lifetimes(LONG);
                host.apply(&allowing(OPEN));
                host.send(&format!("{what}: asked again"), opens, &ask, passes());
                for _ in 0..2 {
                    let what = format!("{what}: answered again");
                    host.send(&what, back(opens), &answer, passes());
                    host.send(&what, opens, &ask, passes());
                }
            }
        }
    }
}

#[test]
fn a_syn_on_a_closing_flow_is_judged_anew_from_either_side() {
    let Some(mut host) = Host::new() else { return };
    let mut strangers = Strangers::default();
    host.lifetimes(LONG);
    let closings: [(&str, &[(bool, u8)]); 5] = [
        (
            "both closed",
            &[(true, FIN | ACK), (false, FIN | ACK), (true, ACK)],
        ),
        ("the opener closed", &[(true, FIN | ACK), (false, ACK)]),
        ("the other side closed", &[(false, FIN | ACK), (true, ACK)]),
        ("the opener reset", &[(true, RST)]),
        ("the other side reset", &[(false, RST | ACK)]),
    ];
    for (what, closing) in closings {
        host.apply(&allowing(OPEN));
        each_call(&mut host, &mut strangers, |host, call| {
            call.shake_hands(host);
            for (forth, flags) in closing {
                if *forth {
                    call.forth(host, what, *flags, passes());
                } else {
                    call.back(host, what, *flags, passes());
                }
            }
            // The server calls back from its port to the client's: no rule.
            call.back(host, &format!("{what}: called back"), SYN, denied());
            host.events();
            call.forth(host, &format!("{what}: opened again"), SYN, passes());
            assert_eq!(host.events().len(), 1, "{what}: judged, so reported");
            call.back(
                host,
                &format!("{what}: answered again"),
                SYN | ACK,
                passes(),
            );
            call.forth(host, &format!("{what}: running again"), ACK, passes());
        });
    }
}

#[test]
fn a_running_flow_takes_no_syn_from_the_other_side() {
    let Some(mut host) = Host::new() else { return };
    let mut strangers = Strangers::default();
    host.apply(&allowing(OPEN));
    each_call(&mut host, &mut strangers, |host, call| {
        call.shake_hands(host);
        call.back(host, "called back", SYN, denied());
        call.forth(host, "sent again", SYN, passes());
        call.back(host, "running", ACK, passes());
        call.forth(host, "running", ACK, passes());
    });
}

/// Each flow is judged again by its next packet, in the direction in which it
/// was opened, whichever side sends it.
#[test]
fn a_change_reaches_flows_of_every_kind_through_either_side() {
    let Some(mut host) = Host::new() else { return };
    host.lifetimes(LONG);
    let kinds = [
        (udp(55_000, 7_001), udp(7_001, 55_000)),
        (tcp(55_000, 7_001, ACK), tcp(7_001, 55_000, ACK)),
        (sctp(55_000, 7_001), sctp(7_001, 55_000)),
        (raw(47), raw(47)),
    ];
    let mut strangers = Strangers::default();
    for opens in Direction::BOTH {
        for v4 in [true, false] {
            for (question, answer) in &kinds {
                for answer_first in [true, false] {
                    let (from, to) = ends(opens, own(v4), strangers.next(v4));
                    let ask = frame(&ip(from, to, &Ip::default(), question));
                    let answer = frame(&ip(to, from, &Ip::default(), answer));
                    let what = format!("protocol {}, {opens:?}", question.proto);
                    let both = |host: &mut Host, expected| {
                        let mut packets = [(opens, &ask), (back(opens), &answer)];
                        if answer_first {
                            packets.reverse();
                        }
                        for (direction, packet) in packets {
                            host.send(&what, direction, packet, expected);
                        }
                    };
                    host.apply(&allowing(OPEN));
                    host.send(&what, opens, &ask, passes());
                    host.send(&what, back(opens), &answer, passes());
                    host.send(&what, opens, &ask, passes());
                    host.apply(&allowing(""));
                    both(&mut host, denied());
                    host.apply(&allowing(OPEN));
                    both(&mut host, passes());
                }
            }
        }
    }
}

/// Where one direction alone is enforced, its verdict holds for a flow's both ways
/// only where packets may be dropped at all.
#[test]
fn answers_go_where_their_direction_is_not_enforced() {
    let Some(mut host) = Host::new() else { return };
    let ingress_only = allowing("").replace("  egress:\n  - {}\n", "");
    host.apply(&allowing(OPEN));
    let mut strangers = Strangers::default();
    for v4 in [true, false] {
        let (own, peer) = (own(v4), strangers.next(v4));
        let ask = frame(&ip(peer, own, &Ip::default(), &udp(56_000, 7_001)));
        let answer = frame(&ip(own, peer, &Ip::default(), &udp(7_001, 56_000)));
        host.apply(&allowing(OPEN));
        host.ingress("open", &ask, passes());
        host.egress("answer", &answer, passes());
        host.apply(&ingress_only);
        host.ingress("revoked", &ask, denied());
        host.egress("answer", &answer, passes_as(reason::NOT_ENFORCED));
    }
}

/// The flows of the kernel's tables.
pub(crate) fn flows(host: &Host) -> Vec<CtFlow> {
    let mut flows = Vec::new();
    let all = host.inspector().for_each_flow(|flow| {
        flows.push(flow);
        true
    });
    all.expect("the flows");
    flows
}

#[test]
fn packets_and_bytes_of_a_flow_are_counted_by_direction() {
    let Some(mut host) = Host::new() else { return };
    host.apply(&allowing(OPEN));
    let mut strangers = Strangers::default();
    for opens in Direction::BOTH {
        for v4 in [true, false] {
            let peer = strangers.next(v4);
            let (from, to) = ends(opens, own(v4), peer);
            let ask = frame(&ip(from, to, &Ip::default(), &udp(57_000, 7_001)));
            let answer = frame(&ip(to, from, &Ip::default(), &udp(7_001, 57_000)));
            for _ in 0..3 {
                host.send("ask", opens, &ask, passes());
            }
            for _ in 0..2 {
                host.send("answer", back(opens), &answer, passes());
            }
            let flows = flows(&host);
            let flow = flows.iter().find(|flow| flow.remote == peer);
            let flow = flow.expect("the flow");
            assert_eq!(flow.packets, [3, 2]);
            let length = ask.len() as u64;
            assert_eq!(flow.bytes, [3 * length, 2 * length]);
        }
    }
}

/// What is denied leaves no trace in conntrack.
#[test]
fn a_denied_packet_makes_no_entry() {
    let Some(mut host) = Host::new() else { return };
    host.apply(&allowing(""));
    let mut strangers = Strangers::default();
    for direction in Direction::BOTH {
        for v4 in [true, false] {
            for l4 in [tcp(1, 2, SYN), tcp(1, 2, ACK), udp(1, 2), raw(47)] {
                let (from, to) = ends(direction, own(v4), strangers.next(v4));
                let packet = frame(&ip(from, to, &Ip::default(), &l4));
                host.send("denied", direction, &packet, denied());
            }
        }
    }
    assert_eq!(flows(&host), []);
}
