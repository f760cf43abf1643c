//! A direction that only policies in audit are about: every verdict is told,
//! and nothing is dropped, neither by verdict nor for any other reason.

use palisade_abi::event::{Event, flags, kind};
use palisade_abi::reason;

use crate::frames::{ACK, Ip, L4, RST, SYN, frame, frame_of, icmp, ip, raw, tagged, tcp, udp};
use crate::host::{
    As, DROP_DENY, DROP_FRAGMENT, DROP_POLICY, Expect, FAILSAFE, HOST4, HOST6, Host, OUTSIDER4,
    OUTSIDER6, SEED, pass, passes_as,
};

const WATCHED: [As; 2] = [As::Watched; 2];

/// ssh in from everywhere; of TCP 8080 it is said that it is denied; one TCP
/// port out.
const BOTH: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: both}
spec:
  nodeSelector: {}
  ingress:
  - toPorts: [{ports: [{port: "22", protocol: TCP}]}]
  ingressDeny:
  - toPorts: [{ports: [{port: "8080", protocol: TCP}]}]
  egress:
  - toPorts: [{ports: [{port: "443", protocol: TCP}]}]
"#;

fn to_host(l4: &L4) -> Vec<u8> {
    frame(&ip(OUTSIDER4, HOST4, &Ip::default(), l4))
}

fn from_host(l4: &L4) -> Vec<u8> {
    frame(&ip(HOST4, OUTSIDER4, &Ip::default(), l4))
}

/// The one event since the last look: (kind, reason, flags, whether a rule decided).
fn one(host: &Host, what: &str) -> (u8, u8, u8, bool) {
    let events = host.events();
    let [event] = &events[..] else {
        panic!("{what}: not one event: {events:?}");
    };
    (event.kind, event.reason, event.flags, event.rule != 0)
}

fn nothing(host: &Host, what: &str) {
    let events: Vec<Event> = host.events();
    assert!(events.is_empty(), "{what}: {events:?}");
}

#[test]
fn each_flow_is_judged_and_told_once_and_passes() {
    let Some(mut host) = Host::new() else { return };
    let audited = passes_as(reason::AUDITED);
    let allowed = passes_as(reason::FORWARDED);
    host.apply_as(BOTH, WATCHED);
    for (port, exit, expected, rule) in [
        (22, allowed, (kind::ALLOW, 0), true),
        (80, audited, (kind::AUDIT, DROP_POLICY), false),
        (8_080, audited, (kind::AUDIT, DROP_DENY), true),
    ] {
        let what = format!("port {port}");
        host.ingress(&what, &to_host(&tcp(4_000, port, SYN)), exit);
        let events = host.events();
        assert_eq!(events.len(), 1, "{what}: {events:?}");
        assert_eq!((events[0].kind, events[0].reason), expected, "{what}");
        assert_eq!(events[0].rule != 0, rule, "{what}");
        if rule {
            assert_eq!(host.hits(events[0].rule), 1, "{what}");
        }
        host.egress("answer", &from_host(&tcp(port, 4_000, SYN | ACK)), allowed);
        host.ingress("running", &to_host(&tcp(4_000, port, ACK)), exit);
        nothing(&host, &what);
    }
    host.egress("out", &from_host(&tcp(4_001, 443, SYN)), allowed);
    assert_eq!(one(&host, "out").0, kind::ALLOW);
    host.egress("out", &from_host(&udp(4_001, 53)), audited);
    assert_eq!(one(&host, "out").0, kind::AUDIT);
    host.ingress("its answer", &to_host(&udp(53, 4_001)), allowed);
    nothing(&host, "an answer");
}

#[test]
fn what_conntrack_cannot_hold_is_told_packet_by_packet() {
    let Some(mut host) = Host::new() else { return };
    host.apply_as(BOTH, WATCHED);
    let reset = to_host(&tcp(4_100, 80, RST));
    for _ in 0..2 {
        host.ingress("reset", &reset, passes_as(reason::AUDITED));
        let expected = (kind::AUDIT, DROP_POLICY, 0, false);
        assert_eq!(one(&host, "reset"), expected);
    }
    let shape = Ip {
        fragment: Some((24, false, 71)),
        ..Ip::default()
    };
    let fragment = frame(&ip(OUTSIDER4, HOST4, &shape, &raw(6)));
    host.ingress("fragment", &fragment, passes_as(reason::AUDITED));
    let (kind, reason, _, _) = one(&host, "fragment");
    assert_eq!((kind, reason), (kind::AUDIT, DROP_FRAGMENT));
}

/// Everything that is dropped where policy is enforced, whatever the verdict.
fn refused() -> Vec<(&'static str, Vec<u8>)> {
    let shape = Ip::default();
    let short = Ip {
        extensions: vec![60; 9],
        ..Ip::default()
    };
    let tiny = Ip {
        fragment: Some((0, true, 9)),
        ..Ip::default()
    };
    let ssh = tcp(4_200, 22, SYN);
    let cut = frame(&ip(OUTSIDER4, HOST4, &shape, &ssh));
    let stub = L4 {
        proto: 6,
        bytes: vec![0; 8],
    };
    vec![
        ("own source", frame(&ip(HOST4, HOST4, &shape, &ssh))),
        ("own source", frame(&ip(HOST6, HOST6, &shape, &ssh))),
        ("truncated", cut[..40].to_vec()),
        ("extensions", frame(&ip(OUTSIDER6, HOST6, &short, &ssh))),
        ("tiny", frame(&ip(OUTSIDER4, HOST4, &tiny, &stub))),
        ("tiny", frame(&ip(OUTSIDER6, HOST6, &tiny, &stub))),
        (
            "ICMPv6",
            frame(&ip(OUTSIDER6, HOST6, &shape, &icmp(58, 200, 0, 1))),
        ),
        ("VLAN", tagged(&to_host(&ssh), 6)),
        ("LLC", frame_of(0x0026, &[0; 46])),
    ]
}

#[test]
fn nothing_else_is_dropped_either() {
    let Some(mut host) = Host::new() else { return };
    host.drop_other_ethertypes();
    host.apply(BOTH);
    for (what, packet) in refused() {
        host.ingress(what, &packet, Expect::AnyDrop);
    }
    host.events();
    host.apply_as(BOTH, WATCHED);
    for (what, packet) in refused() {
        let exit = if what == "LLC" {
            reason::OTHER_ETHERTYPE
        } else {
            reason::NOT_ENFORCED
        };
        host.ingress(what, &packet, passes_as(exit));
        nothing(&host, what);
    }
}

#[test]
fn a_missed_tail_call_passes() {
    let Some(mut host) = Host::with_failsafe(FAILSAFE) else {
        return;
    };
    host.apply_as(BOTH, [As::Watched, As::Enforced]);
    host.remove_programs();
    let degraded = passes_as(reason::MISSED_TAIL_CALL_PASSED);
    host.ingress("watched", &to_host(&tcp(4_300, 80, SYN)), degraded);
    let missed = Expect::Drop(reason::MISSED_TAIL_CALL);
    host.egress("enforced", &from_host(&udp(4_300, 53)), missed);
}

#[test]
fn running_flows_are_judged_again_and_told_once() {
    let Some(mut host) = Host::new() else { return };
    host.apply("");
    for (own, other) in [(HOST4, OUTSIDER4), (HOST6, OUTSIDER6)] {
        let shape = Ip::default();
        let forward = |flags| frame(&ip(other, own, &shape, &tcp(4_400, 80, flags)));
        let backward = frame(&ip(own, other, &shape, &tcp(80, 4_400, ACK)));
        host.apply("");
        host.ingress("open", &forward(SYN), pass());
        host.egress("open", &backward, pass());
        nothing(&host, "not enforced");
        host.apply_as(BOTH, [As::Watched, As::Enforced]);
        // The answer comes first: it is judged with its flow, and passes where
        // egress is enforced.
        host.egress("answer", &backward, passes_as(reason::FORWARDED));
        let expected = (
            kind::AUDIT,
            DROP_POLICY,
            flags::REJUDGED | flags::REPLY,
            false,
        );
        assert_eq!(one(&host, "answer"), expected);
        host.ingress("running", &forward(ACK), passes_as(reason::AUDITED));
        nothing(&host, "told already");
        host.apply(BOTH);
        host.ingress("enforced", &forward(ACK), Expect::Drop(DROP_POLICY));
        host.egress("enforced", &backward, Expect::Drop(DROP_POLICY));
        host.apply_as(BOTH, WATCHED);
        host.ingress("watched again", &forward(ACK), passes_as(reason::AUDITED));
        host.egress("watched again", &backward, pass());
        host.events();
    }
}

#[test]
fn the_other_direction_is_enforced_all_the_same() {
    let Some(mut host) = Host::new() else { return };
    host.apply("");
    host.egress("open", &from_host(&udp(4_500, 53)), pass());
    host.apply_as(BOTH, [As::Watched, As::Enforced]);
    host.egress(
        "out",
        &from_host(&udp(4_500, 53)),
        Expect::Drop(DROP_POLICY),
    );
    // Of a flow that egress denies, too, nothing is dropped on its way in.
    host.ingress("its answer", &to_host(&udp(53, 4_500)), pass());
    let audited = passes_as(reason::AUDITED);
    host.ingress("in", &to_host(&tcp(4_501, 80, SYN)), audited);
    host.egress("answer", &from_host(&tcp(80, 4_501, SYN | ACK)), pass());
    // A packet in mid-stream of which nobody knows anything.
    host.ingress("mid-stream", &to_host(&tcp(4_502, 80, ACK)), audited);
    host.apply_as(BOTH, [As::Enforced, As::Watched]);
    host.egress("out", &from_host(&udp(4_503, 53)), audited);
    host.ingress("its answer", &to_host(&udp(53, 4_503)), pass());
    let denied = Expect::Drop(DROP_POLICY);
    host.ingress("in", &to_host(&tcp(4_504, 80, SYN)), denied);
}

/// No policy makes such a table; were it there, the direction would drop nothing.
#[test]
fn a_denial_without_the_audit_bit_passes_in_silence() {
    let Some(mut host) = Host::new() else { return };
    host.apply("");
    host.ingress("open", &to_host(&udp(4_600, 53)), pass());
    host.apply_as(BOTH, [As::WatchedWithDenials, As::Enforced]);
    let silent = passes_as(reason::NOT_ENFORCED);
    for port in [80, 8_080] {
        host.ingress("in", &to_host(&tcp(4_601, port, SYN)), silent);
        host.ingress("running", &to_host(&tcp(4_601, port, ACK)), silent);
    }
    host.ingress("judged again", &to_host(&udp(4_600, 53)), silent);
    nothing(&host, "a denial without the audit bit");
}

#[test]
fn a_direction_without_any_policy_is_not_asked() {
    let Some(mut host) = Host::new() else { return };
    host.apply_as(SEED, WATCHED);
    let quiet = passes_as(reason::FORWARDED);
    host.egress("out", &from_host(&udp(4_700, 53)), quiet);
    nothing(&host, "egress");
    host.ingress("in", &to_host(&udp(4_701, 53)), passes_as(reason::AUDITED));
    assert_eq!(one(&host, "in").0, kind::AUDIT);
}
