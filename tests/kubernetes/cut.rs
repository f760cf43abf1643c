//! No policy cuts the agent from its source: the node denies everything, both ways,
//! and the agent still finds the server, by name and by address, hears it, and comes
//! back to it after either of them was away.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use palisade::datapath::{ControlMark, netns};
use palisade::lab::network::{DEVICE, Family, Place};
use rustix::process::Signal;
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use crate::cluster::{Cluster, until};
use crate::harness::{HTTP, SSH};
use crate::names::NameServer;
use crate::server::{NAME, SERVICE, programs};

const API: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 88, 0, 9)), 6_443);
const POLICIES: &str = "/apis/cilium.io/v2/ciliumclusterwidenetworkpolicies";
/// What is dropped is not waited for longer.
const PATIENCE: Duration = Duration::from_millis(700);

#[test]
fn a_node_that_denies_everything_still_hears_its_server() {
    let Some(programs) = programs() else { return };
    let mut cluster = Cluster::bare(programs);
    cluster.install_definitions();
    let names = NameServer::start(&cluster.world.sandbox);
    cluster.world.run_as_agent(&names.program);
    reach_by(&cluster, NAME, API.port());
    cluster.world.start_agent();
    cluster.create(POLICIES, &deny_all());
    cluster.world.wait("egress", "enabled");
    cluster.world.wait("ingress", "enabled");

    // The next policy is heard through the connection that stands.
    cluster.create_policy("ssh", "web", &[SSH]);
    cluster.wait_open(&[SSH]);
    listed(&mut cluster);
    strangers_are_judged_by_policy(&cluster);

    // A server that was away is found again, its name asked for anew.
    let asked = names.asked();
    cluster.server.kill();
    cluster.server.restart(&cluster.world.sandbox);
    cluster.create_policy("http", "web", &[HTTP]);
    cluster.wait_open(&[SSH, HTTP]);
    assert!(names.asked() > asked, "the name was asked for again");

    // So does an agent that starts where all is denied already; now by address.
    cluster.world.agent().end(Signal::KILL).expect("it ends");
    reach_by(&cluster, &API.ip().to_string(), API.port());
    cluster.world.start_agent();
    cluster.delete_policy("ssh");
    cluster.wait_open(&[HTTP]);
    assert_eq!(endpoints(&mut cluster), [format!("tcp/{API}")]);
}

/// As in a cluster: the agent knows the address of a Service, the host's own rules
/// lead it to an API server, and what leaves the host carries that one's address.
#[test]
fn a_translated_way_to_the_server_is_not_cut_either() {
    let Some(programs) = programs() else { return };
    let mut cluster = Cluster::bare(programs);
    cluster.install_definitions();
    translate(&cluster);
    reach_by(&cluster, SERVICE, 443);
    cluster.create(&slices(&cluster), &slice());
    cluster.world.start_agent();
    until("the servers behind the Service are listed", || {
        let all = endpoints(&mut cluster);
        (all == [format!("tcp/{API}"), format!("tcp/{SERVICE}:443")]).then_some(())
    });
    cluster.create(POLICIES, &deny_all());
    cluster.world.wait("egress", "enabled");
    cluster.create_policy("ssh", "web", &[SSH]);
    cluster.wait_open(&[SSH]);

    // The connection breaks: it is made anew through the same translation.
    cluster.server.kill();
    cluster.server.restart(&cluster.world.sandbox);
    cluster.create_policy("http", "web", &[HTTP]);
    cluster.wait_open(&[SSH, HTTP]);

    // And by an agent that starts where everything is denied already.
    cluster.world.agent().end(Signal::KILL).expect("it ends");
    cluster.world.start_agent();
    cluster.delete_policy("ssh");
    cluster.wait_open(&[HTTP]);
    let status = cluster.world.agent().json(&["status"]).expect("status");
    assert_eq!(status["ready"], true, "{status}");
}

/// What kube-proxy does for the Service of the API.
fn translate(cluster: &Cluster) {
    let file = cluster.world.sandbox.path("service.nft");
    let text = format!(
        "add table ip service\n\
         add chain ip service output {{ type nat hook output priority -100; }}\n\
         add rule ip service output ip daddr {SERVICE} tcp dport 443 dnat to {API}\n"
    );
    std::fs::write(&file, text).expect("a file");
    let host = Place::Host.name();
    cluster
        .world
        .tool(host, &format!("nft -f {}", file.display()));
    cluster
        .world
        .tool(host, &format!("ip route add {SERVICE}/32 dev {DEVICE}"));
}

/// Older servers serve no v1 of them, newer ones no v1beta1.
fn slices(cluster: &Cluster) -> String {
    let group = cluster
        .server
        .request("GET", "/apis/discovery.k8s.io", None);
    let group = group.expect("the server tells of the group");
    let best = group["preferredVersion"]["groupVersion"].as_str();
    let best = best.expect("a version");
    format!("/apis/{best}/namespaces/default/endpointslices")
}

fn slice() -> serde_json::Value {
    json!({"metadata": {"name": "kubernetes",
            "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4", "endpoints": [{"addresses": [API.ip()]}],
        "ports": [{"name": "https", "port": API.port(), "protocol": "TCP"}]})
}

pub(crate) fn deny_all() -> serde_json::Value {
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "deny-all"},
        "spec": {"nodeSelector": {"matchLabels": {"role": "web"}},
            "ingress": [{}], "egress": [{}]}})
}

/// Where the agent's kubeconfig leads from its next start on.
fn reach_by(cluster: &Cluster, host: &str, port: u16) {
    let file = cluster.server.kubeconfig();
    let text = std::fs::read_to_string(&file).expect("a kubeconfig");
    let (before, rest) = text.split_once("https://").expect("a server");
    let (_, after) = rest.split_once(":6443").expect("its port");
    let text = format!("{before}https://{host}:{port}{after}");
    std::fs::write(&file, text).expect("a kubeconfig");
}

/// What is let through is told wherever somebody looks for it.
fn listed(cluster: &mut Cluster) {
    let server = Place::Peer.address(Family::V4);
    let expected = [
        format!("tcp/{server}:53"),
        format!("tcp/{API}"),
        format!("udp/{server}:53"),
    ];
    assert_eq!(endpoints(cluster), expected);
    let metrics = cluster.world.client(&["metrics", "list"]).stdout;
    let metrics = String::from_utf8(metrics).expect("text");
    assert!(metrics.contains("control_flows_total"), "{metrics}");
    let policy = cluster.world.agent().json(&["bpf", "policy", "list"]);
    let policy = policy.expect("the policy").to_string();
    assert!(policy.contains("6443/TCP"), "{policy}");
    let host = cluster.world.agent().host_endpoint().expect("an endpoint");
    let id = host["id"].to_string();
    let detail = cluster.world.agent().json(&["endpoint", "get", &id]);
    let detail = detail.expect("the endpoint");
    let control = detail["control"].as_array().expect("a list");
    let api = control
        .iter()
        .find(|line| line["endpoint"] == format!("tcp/{API}"));
    let flows = api.expect("the server")["flows"].as_u64();
    assert!(flows > Some(0), "{detail}");
}

fn endpoints(cluster: &mut Cluster) -> Vec<String> {
    let status = cluster.world.agent().json(&["status"]).expect("status");
    let control = &status["control"];
    assert_eq!(control["mark"], ControlMark::DEFAULT.to_string());
    let all = control["endpoints"].as_array().expect("a list").iter();
    let mut all: Vec<_> = all
        .map(|line| line["endpoint"].as_str().expect("text").to_owned())
        .collect();
    all.sort();
    all
}

/// Another process of the node: neither the destination nor the mark is enough.
fn strangers_are_judged_by_policy(cluster: &Cluster) {
    let elsewhere = SocketAddr::new(Place::Outsider.address(Family::V4), SSH);
    let names = SocketAddr::new(Place::Peer.address(Family::V4), 53);
    let mark = ControlMark::DEFAULT.of_socket();
    let cases = [
        (API, Some(mark), true),
        (API, None, false),
        (API, Some(mark + 1), false),
        (elsewhere, Some(mark), false),
        (elsewhere, None, false),
        (names, None, false),
    ];
    let host = cluster.world.sandbox.namespace(Place::Host.name());
    for (to, mark, passes) in cases {
        let connected = netns::run_in(&host, || connect(to, mark)).expect("a namespace");
        let timed_out = matches!(&connected, Err(error) if error.kind() == io::ErrorKind::TimedOut);
        assert!(
            if passes { connected.is_ok() } else { timed_out },
            "{to} with {mark:x?}: {connected:?}"
        );
    }
}

fn connect(to: SocketAddr, mark: Option<u32>) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    socket.connect_timeout(&to.into(), PATIENCE)
}
