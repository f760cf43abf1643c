//! Flows over several packets and several generations.

use crate::frames::{ACK, FIN, Ip, RST, SYN, frame, icmp, icmp_error, ip, tcp, udp};
use crate::host::{
    DROP_POLICY, Expect, HOST4, HOST6, Host, OUTSIDER4, OUTSIDER6, SEED, pass, passes_as,
};
use palisade_abi::reason;

/// Allows nothing in, in any family.
const CLOSED: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: closed}
spec:
  nodeSelector: {}
  ingress: [{}]
"#;

const SEALED: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: sealed}
spec:
  nodeSelector: {}
  ingress: [{}]
  egress: [{}]
"#;

#[test]
fn answers_to_the_host_pass_and_nothing_else_does() {
    let Some(mut host) = Host::new() else { return };
    host.apply(CLOSED);
    let shape = Ip::default();
    for (own, other, request, answer) in [
        (HOST4, OUTSIDER4, icmp(1, 8, 0, 12), icmp(1, 0, 0, 12)),
        (HOST6, OUTSIDER6, icmp(58, 128, 0, 12), icmp(58, 129, 0, 12)),
    ] {
        let cases = [
            ("tcp", tcp(50_000, 443, SYN), tcp(443, 50_000, SYN | ACK)),
            ("udp", udp(50_000, 53), udp(53, 50_000)),
            ("ping", request, answer),
            ("gre", crate::frames::raw(47), crate::frames::raw(47)),
        ];
        for (name, question, answer) in cases {
            let answer = frame(&ip(other, own, &shape, &answer));
            host.ingress(
                &format!("{name}: answer too early"),
                &answer,
                Expect::Drop(DROP_POLICY),
            );
            host.egress(name, &frame(&ip(own, other, &shape, &question)), pass());
            host.ingress(&format!("{name}: answer"), &answer, pass());
        }
        let wrong = frame(&ip(other, own, &shape, &udp(53, 50_001)));
        host.ingress("other port", &wrong, Expect::Drop(DROP_POLICY));
    }
}

#[test]
fn a_revoked_allow_cuts_both_directions_at_the_next_packet() {
    let Some(mut host) = Host::new() else { return };
    host.apply(SEED);
    let shape = Ip::default();
    for (own, other) in [(HOST4, OUTSIDER4), (HOST6, OUTSIDER6)] {
        host.apply(SEED);
        let forward = frame(&ip(other, own, &shape, &tcp(3_000, 22, ACK)));
        let backward = frame(&ip(own, other, &shape, &tcp(22, 3_000, ACK)));
        host.ingress(
            "open",
            &frame(&ip(other, own, &shape, &tcp(3_000, 22, SYN))),
            pass(),
        );
        host.egress(
            "answer",
            &frame(&ip(own, other, &shape, &tcp(22, 3_000, SYN | ACK))),
            pass(),
        );
        host.ingress("running", &forward, pass());
        host.apply(SEALED);
        host.egress(
            "answer after the change",
            &backward,
            Expect::Drop(DROP_POLICY),
        );
        host.ingress("after the change", &forward, Expect::Drop(DROP_POLICY));
        host.apply(SEED);
        host.ingress("allowed again", &forward, pass());
        host.egress("answer again", &backward, pass());
    }
}

#[test]
fn a_change_that_keeps_the_allow_keeps_the_flow() {
    let Some(mut host) = Host::new() else { return };
    host.apply("");
    let shape = Ip::default();
    host.ingress(
        "open",
        &frame(&ip(OUTSIDER4, HOST4, &shape, &tcp(3_100, 22, SYN))),
        pass(),
    );
    host.egress(
        "answer",
        &frame(&ip(HOST4, OUTSIDER4, &shape, &tcp(22, 3_100, SYN | ACK))),
        pass(),
    );
    host.egress(
        "call",
        &frame(&ip(HOST4, OUTSIDER4, &shape, &udp(3_101, 53))),
        pass(),
    );
    host.apply(SEED);
    host.ingress(
        "running",
        &frame(&ip(OUTSIDER4, HOST4, &shape, &tcp(3_100, 22, ACK))),
        pass(),
    );
    host.ingress(
        "answer",
        &frame(&ip(OUTSIDER4, HOST4, &shape, &udp(53, 3_101))),
        pass(),
    );
}

#[test]
fn a_syn_on_a_closing_flow_is_judged_anew() {
    let Some(mut host) = Host::new() else { return };
    host.apply(CLOSED);
    let shape = Ip::default();
    let from_us = |flags| frame(&ip(HOST4, OUTSIDER4, &shape, &tcp(60_000, 80, flags)));
    let from_them = |flags| frame(&ip(OUTSIDER4, HOST4, &shape, &tcp(80, 60_000, flags)));
    host.egress("open", &from_us(SYN), pass());
    host.ingress("open", &from_them(SYN | ACK), pass());
    host.ingress(
        "a SYN against a running flow",
        &from_them(SYN),
        Expect::Drop(DROP_POLICY),
    );
    host.ingress("running", &from_them(ACK), pass());
    host.egress("close", &from_us(FIN | ACK), pass());
    host.ingress("close", &from_them(FIN | ACK), pass());
    host.ingress("last answer", &from_them(ACK), pass());
    host.ingress("opened by them", &from_them(SYN), Expect::Drop(DROP_POLICY));
    host.egress("opened again", &from_us(SYN), pass());
    host.ingress("reset", &from_them(RST | ACK), pass());
}

#[test]
fn icmp_errors_pass_with_their_flow() {
    let Some(mut host) = Host::new() else { return };
    host.apply(CLOSED);
    let shape = Ip::default();
    let router = "172.16.0.1".parse().expect("an address");
    let sent = ip(HOST4, OUTSIDER4, &shape, &udp(41_000, 33_434));
    let error = |message_type, code, quoted: &[u8]| {
        frame(&ip(
            router,
            HOST4,
            &shape,
            &icmp_error(1, message_type, code, quoted),
        ))
    };
    host.ingress(
        "unknown flow",
        &error(11, 0, &sent[..28]),
        Expect::Drop(DROP_POLICY),
    );
    host.egress("sent", &frame(&sent), pass());
    host.ingress(
        "time exceeded",
        &error(11, 0, &sent[..28]),
        passes_as(reason::RELATED),
    );
    host.ingress(
        "port unreachable",
        &error(3, 3, &sent[..28]),
        passes_as(reason::RELATED),
    );
    host.ingress(
        "quoted too little",
        &error(3, 3, &sent[..24]),
        Expect::Drop(DROP_POLICY),
    );
    host.ingress(
        "path MTU, any flow",
        &error(3, 4, &[0; 28]),
        passes_as(reason::RELATED),
    );
    host.ingress(
        "redirect",
        &error(5, 0, &sent[..28]),
        Expect::Drop(DROP_POLICY),
    );
}

#[test]
fn masqueraded_flows_pass_unjudged_and_so_do_their_answers() {
    let Some(mut host) = Host::new() else { return };
    host.apply(SEALED);
    let shape = Ip::default();
    let out = frame(&ip(HOST4, OUTSIDER4, &shape, &tcp(61_000, 443, SYN)));
    let answer = frame(&ip(OUTSIDER4, HOST4, &shape, &tcp(443, 61_000, SYN | ACK)));
    host.ingress("too early", &answer, Expect::Drop(DROP_POLICY));
    host.egress("the host's own", &out, Expect::Drop(DROP_POLICY));
    host.forwarded("masqueraded", &out, passes_as(reason::NOT_OURS));
    host.ingress("answer", &answer, pass());
    host.egress(
        "the host's own, same ports",
        &out,
        Expect::Drop(DROP_POLICY),
    );
    let elsewhere = "192.168.77.7".parse().expect("an address");
    let routed = frame(&ip(elsewhere, OUTSIDER4, &shape, &tcp(1, 2, SYN)));
    host.forwarded("routed", &routed, passes_as(reason::NOT_OURS));
}
