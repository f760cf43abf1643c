//! A node with an agent and the cluster that it watches.

use std::net::IpAddr;
use std::process::Command;

use palisade::lab::network::{Family, Place};
use palisade::lab::probe::{Kind, Seen};
use serde::Deserialize as _;
use serde_json::{Value, json};

pub(crate) use crate::harness::until;
use crate::harness::{World, exe};
use crate::server::{ApiServer, Programs};

pub(crate) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub(crate) const POLICIES: &str = "/apis/cilium.io/v2/ciliumclusterwidenetworkpolicies";

/// Namespaces, a server, an agent.
pub(crate) struct Cluster {
    pub(crate) world: World,
    pub(crate) server: ApiServer,
}

impl Cluster {
    /// A server that knows nothing yet.
    pub(crate) fn empty(programs: Programs) -> Self {
        let world = World::bare();
        let server = ApiServer::start(&world.sandbox, programs);
        Self { world, server }
    }

    /// A server that knows the node, and no agent yet.
    pub(crate) fn bare(programs: Programs) -> Self {
        let mut cluster = Self::empty(programs);
        cluster.prepare();
        let file = cluster.server.kubeconfig();
        let arguments = ["--kubernetes", "--kubeconfig", &file];
        cluster.world.add_arguments(&arguments);
        cluster
    }

    /// The agent's rights and its node.
    pub(crate) fn prepare(&self) {
        self.apply_deployment();
        self.create("/api/v1/nodes", &node());
        let address = json!({"status": {"addresses": [
            {"type": "InternalIP", "address": "10.88.0.1"}]}});
        self.patch("/api/v1/nodes/host/status", &address);
    }

    /// A server with the definitions, and an agent that is in sync.
    pub(crate) fn new(programs: Programs) -> Self {
        let mut cluster = Self::bare(programs);
        cluster.install_definitions();
        cluster.world.start_agent();
        cluster
    }

    /// Everything that `palisade crds` prints.
    pub(crate) fn install_definitions(&self) {
        for definition in &definitions() {
            let name = definition["metadata"]["name"].as_str().expect("a name");
            let there = self
                .server
                .request("GET", &format!("{DEFINITIONS}/{name}"), None);
            if there.is_none() {
                self.create(DEFINITIONS, definition);
            }
        }
        until("the definitions are established", || {
            self.server.request("GET", POLICIES, None)
        });
    }

    /// Everything in `deploy/kubernetes/`, as the server takes it: the agent has
    /// the rights that stand there, and no others.
    fn apply_deployment(&self) {
        for (text, path) in [
            (
                include_str!("../../deploy/kubernetes/namespace.yaml"),
                &["/api/v1/namespaces"][..],
            ),
            (
                include_str!("../../deploy/kubernetes/rbac.yaml"),
                &[
                    "/api/v1/namespaces/palisade/serviceaccounts",
                    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
                    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
                    "/apis/rbac.authorization.k8s.io/v1/namespaces/palisade/roles",
                    "/apis/rbac.authorization.k8s.io/v1/namespaces/palisade/rolebindings",
                ],
            ),
            (
                include_str!("../../deploy/kubernetes/daemonset.yaml"),
                &["/apis/apps/v1/namespaces/palisade/daemonsets"],
            ),
        ] {
            let documents = serde_yaml_ng::Deserializer::from_str(text);
            let documents = documents.map(|it| Value::deserialize(it).expect("YAML"));
            let documents: Vec<Value> = documents.collect();
            assert_eq!(documents.len(), path.len());
            for (document, path) in documents.iter().zip(path) {
                self.create(path, document);
            }
        }
    }

    /// Takes a definition away, and with it all its objects.
    pub(crate) fn delete_definition(&self, name: &str) {
        let path = format!("{DEFINITIONS}/{name}");
        self.delete(&path);
        until("the definition is gone", || {
            self.server
                .request("GET", &path, None)
                .is_none()
                .then_some(())
        });
    }

    #[track_caller]
    pub(crate) fn create(&self, path: &str, object: &Value) {
        self.order("POST", path, Some(object));
    }

    #[track_caller]
    pub(crate) fn patch(&self, path: &str, patch: &Value) {
        self.order("PATCH", path, Some(patch));
    }

    #[track_caller]
    pub(crate) fn delete(&self, path: &str) {
        self.order("DELETE", path, None);
    }

    #[track_caller]
    fn order(&self, method: &str, path: &str, body: Option<&Value>) {
        if let Err(error) = self.server.ask(method, path, body) {
            panic!("{method} {path}: {error}");
        }
    }

    /// A cluster-wide policy: nodes of a role let these TCP ports in.
    pub(crate) fn create_policy(&self, name: &str, role: &str, ports: &[u16]) {
        self.create(POLICIES, &policy(name, role, ports));
    }

    pub(crate) fn patch_policy(&self, name: &str, patch: &Value) {
        self.patch(&format!("{POLICIES}/{name}"), patch);
    }

    pub(crate) fn delete_policy(&self, name: &str) {
        self.delete(&format!("{POLICIES}/{name}"));
    }

    /// Relabels the agent's node.
    pub(crate) fn set_role(&self, role: &str) {
        let patch = json!({"metadata": {"labels": {"role": role}}});
        self.patch("/api/v1/nodes/host", &patch);
    }

    /// Waits until these TCP ports, and only these of SSH and HTTP, are open to
    /// the outsider.
    #[track_caller]
    pub(crate) fn wait_open(&self, open: &[u16]) {
        until(&format!("{open:?} are open"), || {
            self.is_open(open).then_some(())
        });
    }

    /// Whether exactly these ports are open to the outsider, now.
    pub(crate) fn is_open(&self, open: &[u16]) -> bool {
        let host: IpAddr = Place::Host.address(Family::V4);
        [crate::harness::SSH, crate::harness::HTTP]
            .iter()
            .all(|port| {
                let seen = self
                    .world
                    .probe(Place::Outsider.name(), Kind::Tcp(*port), host);
                (seen == Seen::Passed) == open.contains(port)
            })
    }

    /// The lines of all kinds in `palisade status`.
    pub(crate) fn kinds(&mut self) -> Vec<Value> {
        let status = self.world.agent().json(&["status"]).expect("status");
        let sources = status["sources"].as_array().expect("sources");
        let source = sources.iter().find(|source| source["name"] == "kubernetes");
        let kinds = source.expect("the source")["kinds"].as_array().cloned();
        kinds.expect("kinds")
    }

    /// The line of a kind in `palisade status`.
    pub(crate) fn kind(&mut self, kind: &str) -> Value {
        let kinds = self.kinds();
        let line = kinds.iter().find(|line| line["kind"] == kind);
        line.unwrap_or_else(|| panic!("no {kind} in {kinds:?}"))
            .clone()
    }

    /// All problems of the status, as text.
    pub(crate) fn problems(&mut self) -> String {
        let status = self.world.agent().json(&["status"]).expect("status");
        status["problems"].to_string()
    }
}

/// Everything that `palisade crds` prints.
pub(crate) fn definitions() -> Vec<Value> {
    let output = Command::new(exe()).args(["crds", "-o", "json"]).output();
    let output = output.expect("the command runs");
    let list: Value = serde_json::from_slice(&output.stdout).expect("a list");
    list["items"].as_array().expect("items").clone()
}

fn node() -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "host", "labels": {"role": "web"}}})
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
