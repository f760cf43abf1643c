//! What policies mean on the wire: labels, nodes, revoked flows, egress.

use palisade::lab::network::{Family, Place};
use palisade::lab::probe::{self, Kind, Seen};
use palisade::lab::scenario::NODES;
use std::time::Duration;

use super::harness::{
    DEMO_POLICY, ECHO, HTTP, PATIENCE, SSH, World, demo_rows, open_rows, privileged,
};

#[test]
fn a_label_of_the_node_decides_whether_a_policy_selects_it() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    world.manifest(
        "nodes.yaml",
        &NODES.replace("node-access: ssh", "node-access: none"),
    );
    let endpoint = world.wait("ingress", "disabled");
    let labels = endpoint["labels"].to_string();
    assert!(labels.contains("k8s:node-access=none"), "{labels}");
    world.expect(&open_rows());
    world.manifest("nodes.yaml", NODES);
    world.wait("ingress", "enabled");
    world.expect(&demo_rows());
}

#[test]
fn a_node_that_leaves_the_cluster_becomes_a_stranger() {
    if !privileged() {
        return;
    }
    let mut world = World::with_demo_policy();
    let own = NODES.split("---").next().expect("the host's document");
    let revision = world.revision();
    world.manifest("nodes.yaml", own);
    world.wait_revision_after(revision);
    world.expect(&[
        (Place::Peer, Place::Host, Kind::Tcp(HTTP), Seen::Dropped),
        (Place::Peer, Place::Host, Kind::Ping, Seen::Dropped),
        (Place::Peer, Place::Host, Kind::Tcp(SSH), Seen::Passed),
    ]);
    let revision = world.revision();
    world.manifest("nodes.yaml", NODES);
    world.wait_revision_after(revision);
    world.expect(&demo_rows());
}

/// A deny cuts what it denies at the next packet, in both directions, and
/// nothing else.
#[test]
fn a_revoked_flow_ends_and_others_go_on() {
    if !privileged() {
        return;
    }
    const SHORT: Duration = Duration::from_millis(700);
    let mut world = World::with_demo_policy();
    let open = |world: &World, from, to, port| {
        Family::BOTH.map(|family| world.connect(from, to, port, family))
    };
    let revoked = open(&world, Place::Peer, Place::Host, HTTP);
    let kept = open(&world, Place::Peer, Place::Host, SSH);
    let own = open(&world, Place::Host, Place::Peer, HTTP);
    let revision = world.revision();
    let deny = DEMO_POLICY
        .replace("demo-host-policy", "no-http")
        .replace("  ingress:", "  ingressDeny:")
        .replace("- fromEntities:\n    - cluster\n  - toPorts", "- toPorts")
        .replace("\"22\"", "\"80\"");
    world.manifest("deny.yaml", &deny);
    world.wait_revision_after(revision);
    for mut stream in revoked {
        let outcome = probe::echo(&mut stream, SHORT);
        assert!(outcome.is_err(), "a revoked flow goes on");
    }
    for mut stream in kept.into_iter().chain(own) {
        probe::echo(&mut stream, PATIENCE).expect("another flow goes on");
    }
    let endpoint = world.agent().host_endpoint().expect("the endpoint");
    assert_eq!(endpoint["policy"]["egress"], "disabled");
}

#[test]
fn egress_is_policed_by_cidr_port_and_icmp_type() {
    if !privileged() {
        return;
    }
    let mut world = World::new();
    world.manifest(
        "egress.yaml",
        "apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata:
  name: egress
spec:
  nodeSelector:
    matchExpressions:
    - {key: node-access, operator: In, values: [ssh, all]}
  egress:
  - toCIDRSet:
    - cidr: 10.88.0.0/24
      except: [10.88.0.2/32]
    - cidr: fd88::/64
    toPorts:
    - ports:
      - {port: \"79\", endPort: 81, protocol: TCP}
  - toEntities: [all]
    icmps:
    - fields:
      - {family: IPv4, type: EchoRequest}
      - {family: IPv6, type: 128}
",
    );
    let endpoint = world.wait("egress", "enabled");
    assert_eq!(endpoint["policy"]["ingress"], "disabled");
    world.expect(&[
        (Place::Host, Place::Outsider, Kind::Tcp(HTTP), Seen::Passed),
        (Place::Host, Place::Outsider, Kind::Tcp(SSH), Seen::Dropped),
        (Place::Host, Place::Outsider, Kind::Udp(ECHO), Seen::Dropped),
        (Place::Host, Place::Outsider, Kind::Ping, Seen::Passed),
        (Place::Host, Place::Peer, Kind::Ping, Seen::Passed),
        // What others open is answered: egress is about what the host opens.
        (Place::Outsider, Place::Host, Kind::Tcp(SSH), Seen::Passed),
        (Place::Outsider, Place::Host, Kind::Udp(ECHO), Seen::Passed),
    ]);
    // A CIDR rule does not match a node of the cluster.
    let peer = Place::Peer.address(Family::V6);
    assert_eq!(world.probe("host", Kind::Tcp(HTTP), peer), Seen::Dropped);
}

#[test]
fn a_failsafe_passes_whatever_the_policies_say() {
    if !privileged() {
        return;
    }
    let mut world = World::bare();
    world.add_arguments(&[
        "--failsafe",
        "tcp/80@10.88.0.0/24,tcp/80@fd88::/64,out:udp/9000",
    ]);
    world.manifest("nodes.yaml", NODES);
    world.manifest(
        "sealed.yaml",
        "apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: sealed}
spec:
  nodeSelector: {}
  ingress: [{}]
  egress: [{}]
",
    );
    world.start_agent();
    world.wait("egress", "enabled");
    world.expect(&[
        (Place::Outsider, Place::Host, Kind::Tcp(HTTP), Seen::Passed),
        (Place::Outsider, Place::Host, Kind::Tcp(SSH), Seen::Dropped),
        (Place::Peer, Place::Host, Kind::Ping, Seen::Dropped),
        (Place::Host, Place::Outsider, Kind::Udp(ECHO), Seen::Passed),
        (Place::Host, Place::Outsider, Kind::Tcp(HTTP), Seen::Dropped),
    ]);
}
