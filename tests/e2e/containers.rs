//! Container-like traffic that is forwarded and masqueraded through the host
//! is untouched by the host's policy, both ways.

use std::fs;
use std::net::IpAddr;

use palisade::datapath::netns;
use palisade::lab::network::{DEVICE, Family, Place};
use palisade::lab::probe::{Kind, Seen};

use super::harness::{ECHO, HTTP, World, privileged};

/// Nothing in but ssh, nothing out at all.
const SEALED: &str = "apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata:
  name: sealed
spec:
  nodeSelector: {}
  ingress:
  - toPorts:
    - ports:
      - {port: \"22\", protocol: TCP}
  egress:
  - {}
";

const MASQUERADE: &str = "table inet nat {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname \"eth0\" ip saddr 172.30.0.0/24 masquerade
    oifname \"eth0\" ip6 saddr fd30::/64 masquerade
  }
}
";

fn container(family: Family) -> IpAddr {
    match family {
        Family::V4 => "172.30.0.2".parse().expect("an address"),
        Family::V6 => "fd30::2".parse().expect("an address"),
    }
}

/// A namespace behind the host, as a container runtime makes it.
fn add_container(world: &mut World, masquerade: bool) {
    let inner = world
        .sandbox
        .add_namespace("container")
        .expect("a namespace");
    world.tool(
        "host",
        &format!("ip link add ctr type veth peer name {DEVICE} netns {inner}"),
    );
    world.tool("host", "ip link set ctr up");
    world.tool("host", "ip addr add 172.30.0.1/24 dev ctr");
    world.tool("host", "ip addr add fd30::1/64 dev ctr nodad");
    world.tool("container", &format!("ip link set {DEVICE} up"));
    world.tool(
        "container",
        &format!("ip addr add 172.30.0.2/24 dev {DEVICE}"),
    );
    world.tool(
        "container",
        &format!("ip addr add fd30::2/64 dev {DEVICE} nodad"),
    );
    world.tool("container", "ip route add default via 172.30.0.1");
    world.tool("container", "ip -6 route add default via fd30::1");
    netns::run_in(&world.sandbox.namespace("host"), || {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")
    })
    .expect("a namespace")
    .expect("forwarding");
    if masquerade {
        let file = world.sandbox.path("nat.nft");
        fs::write(&file, MASQUERADE).expect("a file");
        world.tool("host", &format!("nft -f {}", file.display()));
    } else {
        world.tool("outsider", "ip route add 172.30.0.0/24 via 10.88.0.1");
        world.tool("outsider", "ip -6 route add fd30::/64 via fd88::1");
    }
    world.serve("container", &[HTTP], &[ECHO]);
}

fn seal(world: &mut World) {
    world.manifest("sealed.yaml", SEALED);
    world.wait("ingress", "enabled");
    world.wait("egress", "enabled");
    let kinds = [Kind::Tcp(HTTP), Kind::Udp(ECHO), Kind::Ping];
    let sealed = kinds.map(|kind| (Place::Host, Place::Outsider, kind, Seen::Dropped));
    world.expect(&sealed);
}

#[test]
fn masqueraded_traffic_passes_a_sealed_host() {
    if !privileged() {
        return;
    }
    let mut world = World::new();
    add_container(&mut world, true);
    seal(&mut world);
    for family in Family::BOTH {
        for kind in [Kind::Tcp(HTTP), Kind::Udp(ECHO), Kind::Ping] {
            let to = Place::Outsider.address(family);
            assert_eq!(
                world.probe("container", kind, to),
                Seen::Passed,
                "{kind:?} to {to}"
            );
        }
    }
}

#[test]
fn routed_traffic_passes_a_sealed_host_both_ways() {
    if !privileged() {
        return;
    }
    let mut world = World::new();
    add_container(&mut world, false);
    seal(&mut world);
    for family in Family::BOTH {
        for kind in [Kind::Tcp(HTTP), Kind::Udp(ECHO), Kind::Ping] {
            let out = Place::Outsider.address(family);
            assert_eq!(
                world.probe("container", kind, out),
                Seen::Passed,
                "{kind:?} to {out}"
            );
            let into = container(family);
            assert_eq!(
                world.probe("outsider", kind, into),
                Seen::Passed,
                "{kind:?} to {into}"
            );
        }
        // The host's other address is still the host.
        let inner = match family {
            Family::V4 => "172.30.0.1",
            Family::V6 => "fd30::1",
        };
        let inner = inner.parse().expect("an address");
        assert_eq!(
            world.probe("outsider", Kind::Tcp(HTTP), inner),
            Seen::Dropped
        );
    }
}
