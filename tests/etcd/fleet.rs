//! Nodes with an agent each, and the store that they share.
//!
//! ```text
//!   n1 eth0 ──┐
//!   n2 eth0 ──┤ bridge in a namespace of its own (the wire)
//!   store   ──┤
//!   outsider ─┘
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use palisade::datapath::netns;
use palisade::lab::agent::{Agent, AgentSpec, write_manifest};
use palisade::lab::network::{self, DEVICE};
use palisade::lab::probe::{self, Kind, Seen};
use palisade::lab::sandbox::{Process, Sandbox};
use palisade::lab::scenario::log_tail;
use palisade::lab::{echo, tool};
use rustix::process::Signal;
use serde_json::{Value, json};

pub(crate) use crate::harness::until;
use crate::harness::{HTTP, SSH, exe};
use crate::store::{ADDRESS, Store};

const PLACE: &str = "host";
/// The shortest lease that an agent takes.
pub(crate) const LEASE_TTL: &str = "5";

/// A node: namespace, servers, agent.
pub(crate) struct Node {
    // Dropped first: the agent ends before its namespace goes.
    agent: Option<Agent>,
    _servers: Process,
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    arguments: Vec<String>,
    /// What is started as the agent.
    pub(crate) program: PathBuf,
    sandbox: Sandbox,
}

impl Node {
    /// Starts the agent (again) and waits until it is ready.
    pub(crate) fn start(&mut self) {
        self.launch();
        let ready = self.agent().wait_ready();
        ready.unwrap_or_else(|error| panic!("{error:#}\n{}", log_tail(&self.sandbox)));
    }

    /// Starts it without waiting.
    pub(crate) fn launch(&mut self) {
        let spec = AgentSpec {
            exe: self.program.clone(),
            place: PLACE.into(),
            arguments: self.arguments.clone(),
        };
        self.agent = Some(Agent::start(&self.sandbox, &spec).expect("the agent starts"));
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.agent().end(Signal::KILL).expect("it ends");
        self.agent = None;
    }

    pub(crate) fn is_running(&self) -> bool {
        self.agent.is_some()
    }

    pub(crate) fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().expect("an agent")
    }

    pub(crate) fn json(&mut self, arguments: &[&str]) -> Value {
        self.agent().json(arguments).expect("the agent answers")
    }

    pub(crate) fn manifest(&self, name: &str, text: &str) {
        write_manifest(&self.sandbox, name, text).expect("a manifest");
    }

    /// Writes a file that the agent does not look at; its path.
    pub(crate) fn scratch(&self, name: &str, text: &str) -> String {
        let file = self.sandbox.path(name);
        std::fs::write(&file, text).expect("a file");
        file.to_string_lossy().into_owned()
    }

    pub(crate) fn remove_manifest(&self, name: &str) {
        let path = self.sandbox.path("manifests").join(name);
        std::fs::remove_file(path).expect("the manifest was there");
    }

    pub(crate) fn add_arguments(&mut self, arguments: &[&str]) {
        self.arguments
            .extend(arguments.iter().map(|it| (*it).to_owned()));
    }

    /// How many seconds what it published stays after it is heard no more.
    pub(crate) fn lease_for(&mut self, seconds: &str) {
        let option = self
            .arguments
            .iter()
            .position(|it| it == "--etcd-lease-ttl");
        let value = option.expect("each node has a lease") + 1;
        seconds.clone_into(&mut self.arguments[value]);
    }

    /// What `palisade status` says of the source.
    pub(crate) fn source(&mut self) -> Value {
        let status = self.json(&["status"]);
        let sources = status["sources"].as_array().expect("sources").clone();
        let source = sources.into_iter().find(|source| source["name"] == "etcd");
        source.unwrap_or_else(|| panic!("no etcd in {status}"))
    }

    /// All problems of the status, as text.
    pub(crate) fn problems(&mut self) -> String {
        self.json(&["status"])["problems"].to_string()
    }

    /// Identity and labels of an address, as the agent sees them.
    pub(crate) fn who_is(&mut self, address: impl std::fmt::Display) -> Value {
        self.json(&["ip", "get", &address.to_string()])
    }

    /// Whether the agent takes the address for one of a node.
    pub(crate) fn knows_node(&mut self, address: Ipv4Addr) -> bool {
        let who = self.who_is(address);
        who["labels"].to_string().contains("remote-node")
    }
}

/// Nodes, a store and an outsider on one wire.
pub(crate) struct Fleet {
    pub(crate) nodes: Vec<Node>,
    pub(crate) store: Store,
    pub(crate) wire: Sandbox,
}

impl Fleet {
    /// Nodes of these roles, with agents that are in sync.
    pub(crate) fn new(program: PathBuf, roles: &[&str]) -> Self {
        let mut fleet = Self::bare(program, roles, false);
        let url = fleet.store.url();
        for node in &mut fleet.nodes {
            node.add_arguments(&["--etcd", &url]);
            node.start();
        }
        fleet
    }

    /// The same without agents.
    pub(crate) fn bare(program: PathBuf, roles: &[&str], tls: bool) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("palisade-e2e-{}e{number}", std::process::id());
        let wire = Sandbox::create(&format!("{name}w")).expect("a sandbox");
        network::build(&wire).expect("a network");
        let address: IpAddr = ADDRESS.parse().expect("an address");
        network::join(&wire, "store", &[address]).expect("a namespace on the wire");
        let store = Store::start(&wire, program, &wire.namespace("store"), tls);
        let mut nodes = Vec::new();
        for (position, role) in roles.iter().enumerate() {
            let last = u8::try_from(position).expect("few nodes") + 11;
            nodes.push(join(&wire, &name, last, role));
        }
        Self { nodes, store, wire }
    }

    /// Writes a policy.
    pub(crate) fn policy(&self, name: &str, role: &str, ports: &[u16]) {
        self.store
            .put(&policy_key(name), &policy(name, role, ports).to_string());
    }

    /// Waits until exactly these of SSH and HTTP are open on a node.
    #[track_caller]
    pub(crate) fn wait_open(&self, node: usize, open: &[u16]) {
        until(&format!("{open:?} are open on node {node}"), || {
            self.is_open(node, open).then_some(())
        });
    }

    /// Whether exactly these ports are open to the outsider, now.
    pub(crate) fn is_open(&self, node: usize, open: &[u16]) -> bool {
        let namespace = self.wire.namespace("outsider");
        [SSH, HTTP].iter().all(|port| {
            let seen = self.probe(&namespace, node, *port);
            (seen == Seen::Passed) == open.contains(port)
        })
    }

    /// Whether the outsider reaches a port, now.
    pub(crate) fn passes(&self, node: usize, port: u16) -> bool {
        self.probe(&self.wire.namespace("outsider"), node, port) == Seen::Passed
    }

    /// Whether one node reaches a port of another.
    pub(crate) fn reaches(&self, from: usize, to: usize, port: u16) -> bool {
        let namespace = self.nodes[from].sandbox.namespace(PLACE);
        self.probe(&namespace, to, port) == Seen::Passed
    }

    fn probe(&self, namespace: &str, node: usize, port: u16) -> Seen {
        let to = IpAddr::V4(self.nodes[node].address);
        netns::run_in(namespace, || probe::send(Kind::Tcp(port), to)).expect("a namespace")
    }

    /// Nothing passes between a node and the store, without a word to either.
    pub(crate) fn cut(&self, node: usize) {
        let address = self.nodes[node].address;
        let rules = format!(
            "table bridge cut {{\nchain forward {{\ntype filter hook forward priority 0\n\
             ip saddr {address} ip daddr {ADDRESS} drop\n\
             ip saddr {ADDRESS} ip daddr {address} drop\n}}\n}}\n"
        );
        let file = self.wire.path("cut.nft");
        std::fs::write(&file, rules).expect("rules");
        self.nft(&["-f", &file.to_string_lossy()]);
    }

    /// All passes again.
    pub(crate) fn mend(&self) {
        self.nft(&["delete", "table", "bridge", "cut"]);
    }

    fn nft(&self, arguments: &[&str]) {
        let ran = netns::run_in(&self.wire.namespace("wire"), || tool::run("nft", arguments));
        ran.expect("a namespace").expect("nft");
    }

    /// Starts etcd again.
    pub(crate) fn restart_store(&mut self) {
        self.store.run(&self.wire);
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("{}: {}", node.name, log_tail(&node.sandbox));
            }
        }
    }
}

fn join(wire: &Sandbox, fleet: &str, last: u8, role: &str) -> Node {
    let name = format!("n{last}");
    let sandbox = Sandbox::create(&format!("{fleet}{name}")).expect("a sandbox");
    let namespace = sandbox.add_namespace(PLACE).expect("a namespace");
    let bridge = wire.namespace("wire");
    let address = Ipv4Addr::new(10, 88, 0, last);
    for line in [
        format!("-n {bridge} link add {name} type veth peer name {DEVICE} netns {namespace}"),
        format!("-n {bridge} link set {name} master br0 up"),
        format!("-n {namespace} link set {DEVICE} up"),
        format!("-n {namespace} addr add {address}/24 dev {DEVICE}"),
    ] {
        tool::ip(&line).expect("ip");
    }
    let servers = echo::start(&sandbox, Path::new(exe()), PLACE, &[SSH, HTTP], &[]);
    let labels = format!("role={role}");
    let arguments = [
        "--node-name",
        &name,
        "--device",
        DEVICE,
        "--node-labels",
        &labels,
    ];
    let mut node = Node {
        agent: None,
        _servers: servers.expect("echo servers"),
        name: name.clone(),
        address,
        arguments: arguments.map(String::from).into(),
        program: exe().to_owned(),
        sandbox,
    };
    node.add_arguments(&["--etcd-lease-ttl", LEASE_TTL]);
    node
}

pub(crate) fn policy_key(name: &str) -> String {
    format!("cilium/state/policies/v1/CiliumClusterwideNetworkPolicy/{name}")
}

/// Nodes of a role let these TCP ports in.
pub(crate) fn policy(name: &str, role: &str, ports: &[u16]) -> Value {
    let ports: Vec<Value> = ports
        .iter()
        .map(|port| json!({"port": port.to_string(), "protocol": "TCP"}))
        .collect();
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "nodeSelector": {"matchLabels": {"role": role}},
            "ingress": [{"fromEntities": ["all"], "toPorts": [{"ports": ports}]}]}})
}
