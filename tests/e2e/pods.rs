//! Pods, namespaces and CIDR groups as manifests: who an address is decides on
//! the wire, and follows the objects.

use palisade::lab::network::{Family, Place};
use palisade::lab::probe::{Kind, Seen};

use super::harness::{HTTP, SSH, World, privileged};

const POLICY: &str = "apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: by-labels}
spec:
  nodeSelector: {}
  ingress:
  - fromEndpoints:
    - matchLabels:
        app: web
        io.cilium.k8s.namespace.labels.team: a
    toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]
  - fromCIDRSet:
    - cidrGroupRef: partners
    toPorts: [{ports: [{port: \"22\", protocol: TCP}]}]
";
const NAMESPACE: &str = "apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
";

fn pod() -> String {
    let [v4, v6] = Family::BOTH.map(|family| Place::Outsider.address(family));
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: web, namespace: shop, labels: {{app: web}}}}
status:
  podIPs: [{{ip: \"{v4}\"}}, {{ip: \"{v6}\"}}]
"
    )
}

fn group() -> String {
    let [v4, v6] = Family::BOTH.map(|family| Place::Outsider.address(family));
    format!(
        "apiVersion: cilium.io/v2
kind: CiliumCIDRGroup
metadata: {{name: partners}}
spec: {{externalCIDRs: [\"{v4}/32\", \"{v6}/128\"]}}
"
    )
}

/// What the outsider may reach.
fn expect(world: &World, http: Seen, ssh: Seen) {
    world.expect(&[
        (Place::Outsider, Place::Host, Kind::Tcp(HTTP), http),
        (Place::Outsider, Place::Host, Kind::Tcp(SSH), ssh),
    ]);
}

fn change(world: &mut World, name: &str, text: &str) {
    let revision = world.revision();
    world.manifest(name, text);
    world.wait_revision_after(revision);
}

#[test]
fn pods_namespaces_and_groups_decide_on_the_wire() {
    if !privileged() {
        return;
    }
    let mut world = World::new();
    world.manifest("namespace.yaml", NAMESPACE);
    world.manifest("policy.yaml", POLICY);
    world.wait("ingress", "enabled");
    expect(&world, Seen::Dropped, Seen::Dropped);
    change(&mut world, "pod.yaml", &pod());
    expect(&world, Seen::Passed, Seen::Dropped);
    let address = Place::Outsider.address(Family::V4).to_string();
    let listed = world.client(&["ip", "get", &address]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("k8s"), "{listed}");
    // Another label of the pod, then of its namespace.
    change(
        &mut world,
        "pod.yaml",
        &pod().replace("app: web", "app: db"),
    );
    expect(&world, Seen::Dropped, Seen::Dropped);
    change(&mut world, "pod.yaml", &pod());
    expect(&world, Seen::Passed, Seen::Dropped);
    let other = NAMESPACE.replace("team: a", "team: b");
    change(&mut world, "namespace.yaml", &other);
    expect(&world, Seen::Dropped, Seen::Dropped);
    // A prefix does not mean a pod; when the pod is gone, it means the address.
    change(&mut world, "group.yaml", &group());
    expect(&world, Seen::Dropped, Seen::Dropped);
    let revision = world.revision();
    world.remove_manifest("pod.yaml");
    world.wait_revision_after(revision);
    expect(&world, Seen::Dropped, Seen::Passed);
}
