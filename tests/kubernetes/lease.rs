//! One agent counts for all: when it dies another one does, and at no time both.

use palisade::lab::agent::{Agent, AgentSpec};
use palisade::lab::network::DEVICE;
use palisade::lab::sandbox::Sandbox;
use palisade::lab::scenario::log_tail;
use palisade::lab::tool;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cluster::{Cluster, POLICIES, until};
use crate::harness::{SSH, exe};
use crate::server::programs;

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/palisade/leases/palisade-status";
/// The shortest that an agent takes, so that the test need not wait long.
const SPAN: [&str; 2] = ["--kube-status-lease", "5"];

#[test]
fn another_agent_counts_when_the_one_that_counted_is_gone() {
    let Some(programs) = programs() else { return };
    let mut cluster = Cluster::bare(programs);
    cluster.install_definitions();
    cluster.world.add_arguments(&SPAN);
    cluster.world.start_agent();
    cluster.create_policy("ssh", "web", &[SSH]);
    until("somebody counts", || {
        (holder(&cluster) == "host").then_some(())
    });
    let mut second = Second::start(&cluster);
    counted(&cluster, "ssh", [2, 2]);
    assert_eq!(holder(&cluster), "host", "who holds it keeps it");

    cluster.world.agent().end(Signal::KILL).expect("it ends");
    cluster.create_policy("late", "web", &[SSH]);
    // The dead node's word about `ssh` stands until its Node goes, and its object
    // with it; of `late` it has said nothing.
    counted(&cluster, "late", [1, 1]);
    assert_eq!(holder(&cluster), "second", "it counts in its place");

    // Who comes back does not count beside the other one.
    cluster.world.start_agent();
    counted(&cluster, "late", [2, 2]);
    assert_eq!(holder(&cluster), "second");
    assert_eq!(
        cluster.server.request("GET", LEASE, None).expect("a lease")["spec"]["leaseTransitions"],
        2
    );
    let writers = writers(&cluster);
    assert_eq!(writers, ["10.88.0.1", "10.88.0.12"], "one after the other");
    second.agent.end(Signal::TERM).expect("it ends");
}

fn holder(cluster: &Cluster) -> String {
    let lease = cluster.server.request("GET", LEASE, None);
    let holder = lease.map(|lease| lease["spec"]["holderIdentity"].clone());
    holder
        .as_ref()
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// Waits until `kubectl get ccnp` shows so many nodes that a policy selects, and
/// that enforce it.
#[track_caller]
fn counted(cluster: &Cluster, policy: &str, expected: [u32; 2]) {
    let what = format!("{policy} is counted as {expected:?}");
    let columns = until(&what, || {
        let columns = cluster.server.columns(&format!("{POLICIES}/{policy}"))?;
        let numbers = json!([columns["Nodes"], columns["Enforcing"]]);
        (numbers == json!(expected)).then_some(columns)
    });
    assert_eq!(columns["Valid"], "True", "{columns:?}");
    assert_eq!(columns["Revision"], columns["Generation"], "{columns:?}");
}

/// Who wrote to the status of policies, each as often as it took turns.
fn writers(cluster: &Cluster) -> Vec<String> {
    let requests = cluster.server.asked();
    let writes = requests.iter().filter(|request| {
        request["verb"] == "patch"
            && request["objectRef"]["subresource"] == "status"
            && request["objectRef"]["resource"] == "ciliumclusterwidenetworkpolicies"
    });
    let mut writers: Vec<String> = writes
        .filter_map(|request| Some(request["sourceIPs"][0].as_str()?.to_owned()))
        .collect();
    writers.dedup();
    writers
}

/// A node beside the first.
struct Second {
    // Dropped first: the agent ends before its namespace goes.
    agent: Agent,
    sandbox: Sandbox,
}

impl Drop for Second {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the second: {}", log_tail(&self.sandbox));
        }
    }
}

impl Second {
    fn start(cluster: &Cluster) -> Self {
        let wire = &cluster.world.sandbox;
        let node = json!({"metadata": {"name": "second", "labels": {"role": "web"}}});
        cluster.create("/api/v1/nodes", &node);
        let sandbox = Sandbox::create(&format!("{}s", wire.name())).expect("a sandbox");
        let address = std::net::Ipv4Addr::new(10, 88, 0, 12);
        let namespace = sandbox.add_namespace("second").expect("a namespace");
        let bridge = wire.namespace("wire");
        for line in [
            format!("-n {bridge} link add second type veth peer name {DEVICE} netns {namespace}"),
            format!("-n {bridge} link set second master br0 up"),
            format!("-n {namespace} link set {DEVICE} up"),
            format!("-n {namespace} addr add {address}/24 dev {DEVICE}"),
        ] {
            tool::ip(&line).expect("ip");
        }
        let file = cluster.server.kubeconfig();
        let arguments = ["--node-name", "second", "--device", DEVICE, "--kubernetes"];
        let spec = AgentSpec {
            exe: exe().to_owned(),
            place: "second".to_owned(),
            arguments: arguments
                .into_iter()
                .chain(["--kubeconfig", &file])
                .chain(SPAN)
                .map(String::from)
                .collect(),
        };
        let mut agent = Agent::start(&sandbox, &spec).expect("the agent starts");
        agent.wait_ready().expect("it is ready");
        Self { agent, sandbox }
    }
}
