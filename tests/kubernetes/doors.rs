//! The ways to the server: the account of a pod, a context of a kubeconfig, a
//! proxy, another authority; and who tells of pods where Cilium runs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use palisade::datapath::netns;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cluster::{Cluster, POLICIES, until};
use crate::harness::{HTTP, SSH, exe};
use crate::server::{PORT, programs};

const PROXY: u16 = 3_128;

#[test]
fn every_way_to_the_server_is_taken() {
    let Some(programs) = programs() else { return };
    let mut cluster = Cluster::empty(programs);
    cluster.prepare();
    cluster.install_definitions();

    // As in a pod: its account's files, and the server's address in the
    // environment.
    let agent = pod_like(&cluster);
    cluster.world.run_as_agent(&agent);
    cluster.world.add_arguments(&["--kubernetes"]);
    cluster.world.start_agent();
    cluster.create_policy("ssh", "web", &[SSH]);
    cluster.wait_open(&[SSH]);
    cluster.world.agent().end(Signal::KILL).expect("it ends");

    // A context that is not the current one, through a proxy, to a server that
    // nobody reaches without it.
    cluster.server.kill();
    cluster.server.restart_inside(&cluster.world.sandbox);
    serve_proxy(&cluster.server.namespace);
    let file = cluster
        .server
        .write_contexts(&format!("http://10.88.0.9:{PROXY}"));
    cluster.world.run_as_agent(exe());
    let arguments = ["--kubeconfig", &file, "--kube-context", "through-the-proxy"];
    cluster.world.add_arguments(&arguments);
    cluster.world.launch_agent();
    cluster.create_policy("http", "web", &[HTTP]);
    cluster.wait_open(&[SSH, HTTP]);

    // No policy cuts the way through the proxy, and the authority is another one: the
    // file is read again.
    cluster.create(POLICIES, &crate::cut::deny_all());
    cluster.world.wait("egress", "enabled");
    cluster.server.kill();
    cluster.server.rotate_authority();
    cluster.server.restart_inside(&cluster.world.sandbox);
    cluster.delete_policy("ssh");
    cluster.wait_open(&[HTTP]);
}

/// A program that starts the agent where the files of a pod's account are.
fn pod_like(cluster: &Cluster) -> std::path::PathBuf {
    let root = cluster.world.sandbox.path("pod");
    let account = root.join("var/run/secrets/kubernetes.io/serviceaccount");
    fs::create_dir_all(&account).expect("a directory");
    for (from, to) in [("agent.token", "token"), ("ca.crt", "ca.crt")] {
        let from = Path::new(&cluster.server.admin_kubeconfig()).with_file_name(from);
        fs::copy(from, account.join(to)).expect("a copy");
    }
    fs::write(account.join("namespace"), "palisade").expect("a file");
    let script = root.join("agent");
    // Its mounts go with it; those of others are seen by it.
    let text = format!(
        "#!/bin/sh\nexport HOME={root} KUBERNETES_SERVICE_HOST=10.88.0.9 \
         KUBERNETES_SERVICE_PORT={PORT}\nunset KUBECONFIG\n\
         exec unshare --mount --propagation slave sh -c \
         'mount --bind {root}/var /var && exec {exe} \"$@\"' sh \"$@\"\n",
        root = root.display(),
        exe = exe().display(),
    );
    fs::write(&script, text).expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("permissions");
    script
}

/// A proxy that knows CONNECT, in the server's namespace.
fn serve_proxy(namespace: &str) {
    let bound = netns::run_in(namespace, || TcpListener::bind(("10.88.0.9", PROXY)));
    let listener = bound.expect("a namespace").expect("a port");
    let namespace = namespace.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let namespace = namespace.clone();
            std::thread::spawn(move || drop(connect(stream, &namespace)));
        }
    });
}

fn connect(mut client: TcpStream, namespace: &str) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head
        .strip_prefix("CONNECT ")
        .and_then(|rest| rest.split(' ').next());
    let target = target.expect("CONNECT").to_owned();
    let reached = netns::run_in(namespace, || TcpStream::connect(target));
    let mut server = reached.map_err(std::io::Error::other)??;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
    std::io::copy(&mut server, &mut client)?;
    client.shutdown(std::net::Shutdown::Both)
}

#[test]
fn pods_are_heard_of_until_cilium_tells_its_endpoints() {
    let Some(programs) = programs() else { return };
    let mut cluster = Cluster::new(programs);
    cluster.create("/api/v1/namespaces", &json!({"metadata": {"name": "shop"}}));
    let account = json!({"metadata": {"name": "default"}});
    cluster.create("/api/v1/namespaces/shop/serviceaccounts", &account);
    let pod = json!({"metadata": {"name": "web", "labels": {"app": "of-the-pod"}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]}});
    cluster.create("/api/v1/namespaces/shop/pods", &pod);
    let address = json!({"status": {"phase": "Running", "podIP": "10.77.0.5",
        "podIPs": [{"ip": "10.77.0.5"}]}});
    cluster.patch("/api/v1/namespaces/shop/pods/web/status", &address);
    // Somebody asks for the labels of pods.
    let policy = json!({"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "pods"}, "spec": {"nodeSelector": {}, "ingress": [
            {"fromEndpoints": [{"matchLabels": {"app": "of-the-pod"}}]}]}});
    cluster.create(POLICIES, &policy);
    wait_identity(&mut cluster, "app=of-the-pod");

    for (kind, plural, scope) in [
        ("CiliumIdentity", "ciliumidentities", "Cluster"),
        ("CiliumEndpoint", "ciliumendpoints", "Namespaced"),
    ] {
        cluster.create(
            crate::cluster::DEFINITIONS,
            &definition(kind, plural, scope),
        );
    }
    let endpoint = json!({"apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint",
        "metadata": {"name": "web", "namespace": "shop"},
        "status": {"identity": {"id": 4711, "labels": ["k8s:app=of-the-endpoint"]},
            "networking": {"addressing": [{"ipv4": "10.77.0.5"}]}}});
    let path = "/apis/cilium.io/v2/namespaces/shop/ciliumendpoints";
    until("endpoints are served", || {
        cluster.server.request("POST", path, Some(&endpoint))
    });
    wait_identity(&mut cluster, "app=of-the-endpoint");
    let pods = cluster.kind("Pod");
    assert_eq!(pods["detail"], "CiliumEndpoint is watched instead");
    assert_eq!(
        (&pods["in_sync"], &pods["resources"]),
        (&json!(true), &json!(0))
    );

    // Cilium goes: the pods speak for themselves again.
    cluster.delete_definition("ciliumendpoints.cilium.io");
    wait_identity(&mut cluster, "app=of-the-pod");
    assert_eq!(cluster.kind("Pod")["resources"], 1);
}

/// Waits until the pod's address has the identity with this label.
#[track_caller]
fn wait_identity(cluster: &mut Cluster, label: &str) {
    until(&format!("10.77.0.5 is {label}"), || {
        let found = cluster.world.agent().json(&["ip", "get", "10.77.0.5"]);
        found.ok()?.to_string().contains(label).then_some(())
    });
}

/// As Cilium's, as far as the server needs it.
pub(crate) fn definition(kind: &str, plural: &str, scope: &str) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.cilium.io")},
        "spec": {"group": "cilium.io", "scope": scope,
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(),
                "listKind": format!("{kind}List")},
            "versions": [{"name": "v2", "served": true, "storage": true, "schema": {
                "openAPIV3Schema": {"type": "object",
                    "x-kubernetes-preserve-unknown-fields": true}}}]}})
}
