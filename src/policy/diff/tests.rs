//! Comparisons as people read them.

use super::compare::diff_within;
use super::diff;
use crate::policy::language::{Entity, L4Match, Peer, Peers, PortProtocol, Ports};
use crate::policy::oracle::tests::{HOST, add, cluster, item};
use crate::policy::{PolicyOptions, PolicySnapshot, Section};

fn tcp(first: u16, last: u16) -> Ports {
    Ports::Some(vec![L4Match::Ports {
        protocol: PortProtocol::Tcp,
        first,
        last,
    }])
}

fn cidr(prefix: &str, except: &[&str]) -> Peers {
    Peers::Select(vec![Peer::Cidr {
        cidr: prefix.parse().expect("a prefix"),
        except: except
            .iter()
            .map(|one| one.parse().expect("a prefix"))
            .collect(),
    }])
}

type Written = (&'static str, bool, Section, fn() -> (Peers, Ports));
type Side = &'static [Written];

fn side(policies: Side) -> PolicySnapshot {
    let mut snapshot = cluster(PolicyOptions::default());
    for (name, audit, section, parts) in policies {
        let (peers, ports) = parts();
        add(
            &mut snapshot,
            name,
            *audit,
            vec![item(*section, peers, ports)],
        );
    }
    snapshot
}

#[track_caller]
fn check(before: Side, after: Side, expected: &[&str]) {
    let told = diff(&side(before), &side(after), HOST);
    assert_eq!(told.cut, None);
    let enforcement = told.enforcement.iter().map(ToString::to_string);
    let changes = told.changes.iter().map(ToString::to_string);
    let found: Vec<String> = enforcement.chain(changes).collect();
    assert_eq!(found, expected);
    // The other way round, the same packets change.
    let back = diff(&side(after), &side(before), HOST);
    let packets = |changes: &[super::VerdictChange]| {
        let packets = changes.iter().map(|change| change.packets.clone());
        packets.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(packets(&back.changes), packets(&told.changes));
}

const ALL_IN: Written = ("all", false, Section::Ingress, || {
    (Peers::Select(vec![Peer::Entity(Entity::All)]), Ports::All)
});

#[test]
fn what_changes_is_told_for_people() {
    check(&[ALL_IN], &[ALL_IN], &[]);
    check(
        &[ALL_IN],
        &[
            ALL_IN,
            ("x", false, Section::IngressDeny, || {
                (cidr("10.0.0.0/8", &["10.1.0.0/16"]), tcp(443, 443))
            }),
        ],
        &[
            "ingress  enforced, default-deny by CiliumClusterwideNetworkPolicy/all -> enforced, \
             default-deny by CiliumClusterwideNetworkPolicy/all, CiliumClusterwideNetworkPolicy/x",
            "ingress  allowed -> denied  tcp/443, fragments without ports  from 10.0.0.0/8 except 10.1.0.0/16 (world)  by \
             CiliumClusterwideNetworkPolicy/x ingressDeny[0]  was \
             CiliumClusterwideNetworkPolicy/all ingress[0]",
        ],
    );
    // A deny within a prefix that is as good as the one around it.
    check(
        &[("x", false, Section::Egress, || {
            (cidr("192.0.2.0/24", &[]), tcp(1, 9))
        })],
        &[
            ("x", false, Section::Egress, || {
                (cidr("192.0.2.0/24", &[]), tcp(1, 9))
            }),
            ("y", false, Section::EgressDeny, || {
                (cidr("192.0.2.0/28", &[]), tcp(3, 4))
            }),
            ("z", false, Section::EgressDeny, || {
                (cidr("192.0.2.128/25", &[]), tcp(5, 12))
            }),
        ],
        &[
            "egress  enforced, default-deny by CiliumClusterwideNetworkPolicy/x -> enforced, \
             default-deny by CiliumClusterwideNetworkPolicy/x, CiliumClusterwideNetworkPolicy/y, \
             CiliumClusterwideNetworkPolicy/z",
            "egress  allowed -> denied  tcp/3-4  to 192.0.2.0/28 (world)  by \
             CiliumClusterwideNetworkPolicy/y egressDeny[0]  was CiliumClusterwideNetworkPolicy/x \
             egress[0]",
            "egress  allowed -> denied  tcp/5-9  to 192.0.2.128/25 (world)  by \
             CiliumClusterwideNetworkPolicy/z egressDeny[0]  was CiliumClusterwideNetworkPolicy/x \
             egress[0]",
        ],
    );
}

#[test]
fn enforcement_and_audit_are_told() {
    check(
        &[],
        &[("n", false, Section::Ingress, || {
            let nodes = Peer::Entity(Entity::RemoteNode);
            (Peers::Select(vec![nodes]), tcp(22, 22))
        })],
        &[
            "ingress  not enforced -> enforced, default-deny by CiliumClusterwideNetworkPolicy/n",
            "ingress  allowed -> denied  any  from 0.0.0.0/0 (world), ::/0 (world), 10.0.0.1 \
             (host), 10.2.0.1 (workload k8s:app=cart k8s:io.cilium.k8s.namespace.labels.team=a \
             k8s:io.cilium.k8s.policy.cluster=default \
             k8s:io.cilium.k8s.policy.serviceaccount=default \
             k8s:io.kubernetes.pod.namespace=shop), 10.2.0.2 (workload k8s:app=strange)",
            "ingress  allowed -> denied  tcp/0-21, tcp/23-65535, udp, sctp, icmp, other \
             protocols, fragments without ports  from 10.0.0.2, 10.0.0.3 (remote-node)",
        ],
    );
    check(
        &[("a", true, Section::Ingress, || (Peers::Any, tcp(22, 22)))],
        &[("a", false, Section::Ingress, || (Peers::Any, tcp(22, 22)))],
        &[
            "ingress  not enforced, in audit CiliumClusterwideNetworkPolicy/a -> enforced, \
             default-deny by CiliumClusterwideNetworkPolicy/a",
            "ingress  allowed -> denied  icmpv6/0, icmpv6/5-127, icmpv6/137-140, icmpv6/144-147, \
             icmpv6/150, icmpv6/154-255  from ::/0 (world)",
            "ingress  audited -> denied  tcp/0-21, tcp/23-65535, udp, sctp, icmp, other \
             protocols, fragments without ports  from 0.0.0.0/0 (world), 10.0.0.1 (host), \
             10.0.0.2, 10.0.0.3 (remote-node), 10.2.0.1 (workload k8s:app=cart \
             k8s:io.cilium.k8s.namespace.labels.team=a k8s:io.cilium.k8s.policy.cluster=default \
             k8s:io.cilium.k8s.policy.serviceaccount=default \
             k8s:io.kubernetes.pod.namespace=shop), 10.2.0.2 (workload k8s:app=strange)",
            "ingress  audited -> denied  tcp/0-21, tcp/23-65535, udp, sctp, icmpv6/128-129, other \
             protocols, fragments without ports  from ::/0 (world)",
        ],
    );
}

#[test]
fn a_comparison_that_was_cut_says_so_and_tells_no_lies() {
    let before = side(&[]);
    let after = side(&[("x", false, Section::Ingress, || {
        (cidr("192.0.2.0/24", &[]), tcp(22, 22))
    })]);
    let whole = diff(&before, &after, HOST);
    assert_eq!(whole.cut, None);
    let cut = diff_within(&before, &after, HOST, 100);
    assert!(cut.cut.is_some_and(|told| told.contains("was cut")));
    assert!(cut.changes.len() < whole.changes.len());
    assert_eq!(cut.enforcement, whole.enforcement);
}
