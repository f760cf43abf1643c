//! A slot without its programs: the degraded mode of the entry programs.

use crate::frames::{ACK, Ip, SYN, frame, icmp, ip, tcp, udp};
use crate::host::{
    DROP_MISSED, Expect, FAILSAFE, HOST4, HOST6, Host, OUTSIDER4, OUTSIDER6, SEED, pass, passes_as,
};
use palisade_abi::reason::MISSED_TAIL_CALL_PASSED;

#[test]
fn a_missed_tail_call_drops_all_but_running_flows_and_the_failsafe_list() {
    let Some(mut host) = Host::with_failsafe(FAILSAFE) else {
        return;
    };
    host.apply(SEED);
    let shape = Ip::default();
    for (own, other) in [(HOST4, OUTSIDER4), (HOST6, OUTSIDER6)] {
        let running = frame(&ip(other, own, &shape, &tcp(4_000, 22, ACK)));
        host.ingress(
            "open",
            &frame(&ip(other, own, &shape, &tcp(4_000, 22, SYN))),
            pass(),
        );
        host.egress(
            "answer",
            &frame(&ip(own, other, &shape, &tcp(22, 4_000, SYN | ACK))),
            pass(),
        );
        host.ingress("running", &running, pass());
        host.remove_programs();
        let degraded = passes_as(MISSED_TAIL_CALL_PASSED);
        host.ingress("running", &running, degraded);
        let allowed_by_policy = frame(&ip(other, own, &shape, &tcp(4_001, 22, SYN)));
        host.ingress("new", &allowed_by_policy, Expect::Drop(DROP_MISSED));
        let listed = frame(&ip(other, own, &shape, &tcp(4_002, 2_222, SYN)));
        host.ingress("failsafe", &listed, degraded);
        let other_protocol = frame(&ip(other, own, &shape, &udp(4_002, 2_222)));
        host.ingress("other protocol", &other_protocol, Expect::Drop(DROP_MISSED));
        // Egress is not enforced: nothing is dropped there.
        host.egress(
            "egress",
            &frame(&ip(own, other, &shape, &udp(1, 2))),
            degraded,
        );
        host.apply(SEED);
        host.ingress("healed by the next commit", &allowed_by_policy, pass());
    }
}

#[test]
fn the_failsafe_list_overrides_policy() {
    let Some(mut host) = Host::with_failsafe(FAILSAFE) else {
        return;
    };
    host.apply(SEED);
    let shape = Ip::default();
    let listed = frame(&ip(OUTSIDER4, HOST4, &shape, &tcp(4_002, 2_222, SYN)));
    host.ingress("failsafe", &listed, pass());
    let near = frame(&ip(OUTSIDER4, HOST4, &shape, &tcp(4_002, 2_223, SYN)));
    host.ingress(
        "not listed",
        &near,
        Expect::Drop(palisade_abi::reason::POLICY),
    );
    let echo = frame(&ip(OUTSIDER4, HOST4, &shape, &icmp(1, 8, 0, 9)));
    host.ingress("ping", &echo, Expect::Drop(palisade_abi::reason::POLICY));
}
