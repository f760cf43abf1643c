//! A newer server behind the first one: it serves cilium.io from an etcd of its own,
//! as any server of an APIService does, and streams lists. `cargo xtask streaming`
//! builds it; where it is not named, there is none.

use std::path::{Path, PathBuf};
use std::process::Command;

use palisade::lab::sandbox::Process;
use serde_json::{Value, json};

use crate::cluster::{Cluster, DEFINITIONS, POLICIES, definitions};
use crate::harness::until;

const GROUP: &str = "cilium.io";
const PORT: u16 = 6_444;
/// Where only the test finds it.
const SIDE_PORT: u16 = 6_445;
const ETCD: u16 = 2_389;
const SERVICES: &str = "/api/v1/namespaces/palisade/services";
const REGISTRATIONS: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
/// What needs a cluster with a newer core.
const ADMISSION: &str = "NamespaceLifecycle,MutatingAdmissionWebhook,MutatingAdmissionPolicy,\
                         ValidatingAdmissionWebhook,ValidatingAdmissionPolicy";

/// The server, with its store.
pub(crate) struct Extension {
    programs: PathBuf,
    server: Option<Process>,
    etcd: Option<Process>,
}

impl Extension {
    /// Serves cilium.io from now on, if there is such a server; the agents' rights
    /// and definitions come later.
    pub(crate) fn start(cluster: &Cluster) -> Option<Self> {
        let programs = PathBuf::from(std::env::var_os("PALISADE_STREAMING_SERVER")?);
        let etcd = etcd(cluster, &programs.join("etcd"), "newer");
        let mut extension = Self {
            programs,
            server: None,
            etcd: Some(etcd),
        };
        cluster.server.write_admin_kubeconfig("newer", &at(PORT));
        cluster
            .server
            .write_admin_kubeconfig("aside", &at(SIDE_PORT));
        extension.serve(cluster, &[]);
        define(cluster);
        register(cluster);
        Some(extension)
    }

    /// Starts it (again) with these options, and waits until it answers.
    pub(crate) fn serve(&mut self, cluster: &Cluster, options: &[&str]) {
        self.start_at(cluster, PORT, options);
    }

    fn start_at(&mut self, cluster: &Cluster, port: u16, options: &[&str]) {
        self.server = None;
        let server = &cluster.server;
        let mut command = Command::new(self.programs.join("apiextensions-apiserver"));
        command.arg(format!("--etcd-servers=http://127.0.0.1:{ETCD}"));
        command.arg("--bind-address=127.0.0.1");
        command.arg(format!("--secure-port={port}"));
        for (option, file) in [
            ("cert-dir", "newer-certificates"),
            ("tls-cert-file", "server.crt"),
            ("tls-private-key-file", "server.key"),
            ("kubeconfig", "admin.kubeconfig"),
            ("authentication-kubeconfig", "admin.kubeconfig"),
            ("authorization-kubeconfig", "admin.kubeconfig"),
            ("audit-policy-file", "audit.yaml"),
            ("audit-log-path", "newer-audit.log"),
        ] {
            command.arg(format!("--{option}={}", server.path(file)));
        }
        command.arg(format!("--disable-admission-plugins={ADMISSION}"));
        command.arg("--enable-priority-and-fairness=false");
        command.args(options);
        let log = "newer-server.log";
        self.server = Some(server.launch(&cluster.world.sandbox, command, log));
        let name = if port == PORT { "newer" } else { "aside" };
        until("the newer server is ready", || {
            ask(cluster, name, "GET", "/readyz", None)
        });
    }

    /// The same server with another store, of the system's etcd, which is too old for
    /// streams; the one policy in it.
    pub(crate) fn start_over(&mut self, cluster: &Cluster, policy: &Value) {
        self.kill();
        self.etcd = None;
        self.etcd = Some(etcd(cluster, Path::new("etcd"), "older"));
        self.serve(cluster, &[]);
        define(cluster);
        until("it takes a policy", || {
            ask(cluster, "newer", "POST", POLICIES, Some(policy))
        });
    }

    pub(crate) fn kill(&mut self) {
        self.server = None;
    }

    /// While no agent sees it, a policy comes and another one goes.
    pub(crate) fn change_aside(&mut self, cluster: &Cluster, comes: &Value, goes: &str) {
        self.start_at(cluster, SIDE_PORT, &[]);
        let goes = format!("{POLICIES}/{goes}");
        for (method, path, body) in [("POST", POLICIES, Some(comes)), ("DELETE", &*goes, None)] {
            until("it is changed", || {
                ask(cluster, "aside", method, path, body)
            });
        }
        self.kill();
    }
}

fn define(cluster: &Cluster) {
    for definition in definitions().iter().filter(|it| is_served(it)) {
        until("the newer server takes a definition", || {
            ask(cluster, "newer", "POST", DEFINITIONS, Some(definition))
        });
    }
}

/// The first server leads what is asked of the group here.
fn register(cluster: &Cluster) {
    let service = json!({"metadata": {"name": "newer"}, "spec": {
        "type": "ExternalName", "externalName": "127.0.0.1", "ports": [{"port": PORT}]}});
    cluster.create(SERVICES, &service);
    for version in ["v2", "v2alpha1"] {
        let registration = json!({"metadata": {"name": format!("{version}.{GROUP}")},
        "spec": {"group": GROUP, "version": version, "insecureSkipTLSVerify": true,
            "groupPriorityMinimum": 1_000, "versionPriority": 100,
            "service": {"namespace": "palisade", "name": "newer", "port": PORT}}});
        cluster.create(REGISTRATIONS, &registration);
    }
}

fn at(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn etcd(cluster: &Cluster, program: &Path, name: &str) -> Process {
    let client = format!("http://127.0.0.1:{ETCD}");
    let peer = format!("http://127.0.0.1:{}", ETCD + 1);
    let mut etcd = Command::new(program);
    etcd.args(["--data-dir", &cluster.server.path(name)])
        .args(["--listen-client-urls", &client])
        .args(["--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer])
        .args(["--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .arg("--unsafe-no-fsync");
    let log = format!("{name}-etcd.log");
    cluster.server.launch(&cluster.world.sandbox, etcd, &log)
}

fn is_served(definition: &Value) -> bool {
    definition["spec"]["group"] == GROUP
}

fn ask(
    cluster: &Cluster,
    kubeconfig: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Option<String> {
    let asked = cluster
        .server
        .ask_at(kubeconfig, "application/json", method, path, body);
    asked.ok()
}
