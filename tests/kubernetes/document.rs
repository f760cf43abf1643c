//! docs/kubernetes.md, literally: its commands install and remove on a real server.
//! This file plays what a cluster's controllers do to the objects meanwhile.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use palisade::datapath::netns;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::deployment::tool;
use crate::harness::exe;
use crate::server::programs;

const DOCUMENT: &str = include_str!("../../docs/kubernetes.md");
const DAEMONSETS: &str = "/apis/apps/v1/namespaces/palisade/daemonsets";
const NAMESPACE: &str = "/api/v1/namespaces/palisade";

#[test]
fn the_commands_of_the_document_install_and_remove() {
    let Some(programs) = programs() else { return };
    let (Some(_), Some(kubectl)) = (tool("helm"), tool("kubectl")) else {
        let must = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!must, "no helm and kubectl: run `cargo xtask apiserver`");
        eprintln!("SKIPPED: no helm and kubectl; `cargo xtask apiserver` fetches them");
        return;
    };
    let tools = kubectl.parent().expect("a folder");
    let install = blocks("## Install");
    let [manifests, helm] = &install[..] else {
        panic!("two ways to install: {install:?}")
    };
    assert_eq!(manifests.len(), 5, "five commands: {manifests:?}");
    let uninstall = blocks("## Uninstall").concat();

    let cluster = Cluster::empty(programs.clone());
    run(&cluster, tools, manifests);
    assert!(exists(&cluster, &format!("{DAEMONSETS}/palisade")));
    // Where there is a Node, its agent would have told by now.
    run(&cluster, tools, &["kubectl get palisadenodes".to_owned()]);
    run(&cluster, tools, &uninstall);
    expect_gone(&cluster);

    let cluster = Cluster::empty(programs);
    run(&cluster, tools, helm);
    let daemon = cluster
        .server
        .request("GET", &format!("{DAEMONSETS}/palisade"), None);
    let daemon = daemon.expect("a DaemonSet").to_string();
    assert!(daemon.contains("--failsafe=tcp/22@10.0.0.0/8"), "{daemon}");
    assert!(daemon.contains("REGISTRY/palisade"), "{daemon}");
    let upgrade = DOCUMENT
        .split("`helm upgrade ")
        .nth(1)
        .and_then(|text| text.split('`').next());
    let upgrade = upgrade
        .expect("how to upgrade")
        .split_whitespace()
        .collect::<Vec<_>>();
    run(
        &cluster,
        tools,
        &[format!("helm upgrade {}", upgrade.join(" "))],
    );
    let daemon = cluster
        .server
        .request("GET", &format!("{DAEMONSETS}/palisade"), None);
    let daemon = daemon.expect("a DaemonSet").to_string();
    assert!(daemon.contains("REGISTRY/palisade:VERSION"), "{daemon}");
    assert!(
        daemon.contains("--failsafe=tcp/22@10.0.0.0/8"),
        "values are kept: {daemon}"
    );
    let (_, instead) = uninstall[0].split_once("# or: ").expect("Helm's way");
    let mut with_helm = uninstall.clone();
    with_helm[0] = instead.to_owned();
    // Its own roles have gone with it.
    with_helm.pop();
    run(&cluster, tools, &with_helm);
    expect_gone(&cluster);
}

/// The commands of each block below a heading.
fn blocks(heading: &str) -> Vec<Vec<String>> {
    let (_, below) = DOCUMENT
        .split_once(&format!("{heading}\n"))
        .expect("the heading");
    let section = below.split("\n## ").next().unwrap_or(below);
    let fenced = section.split("```").skip(1).step_by(2);
    let commands = fenced.map(|block| {
        let lines = block.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(str::to_owned).collect()
    });
    commands.collect()
}

fn exists(cluster: &Cluster, path: &str) -> bool {
    cluster.server.request("GET", path, None).is_some()
}

fn expect_gone(cluster: &Cluster) {
    for path in [
        NAMESPACE,
        "/apis/apps/v1/namespaces/palisade/daemonsets/palisade",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/palisade",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/palisade",
    ] {
        assert!(!exists(cluster, path), "{path} is left");
    }
    let policies = "/apis/cilium.io/v2/ciliumclusterwidenetworkpolicies";
    assert!(exists(cluster, policies), "policies outlive the agents");
}

/// Runs commands as somebody would who stands in the repository.
#[track_caller]
fn run(cluster: &Cluster, tools: &Path, commands: &[String]) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                control(cluster);
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
        });
        let outcomes: Vec<_> = commands
            .iter()
            .map(|command| shell(cluster, tools, command))
            .collect();
        is_over.store(true, Ordering::Relaxed);
        for (command, outcome) in commands.iter().zip(outcomes) {
            assert!(outcome.is_ok(), "{command}: {outcome:?}");
        }
    });
}

fn shell(cluster: &Cluster, tools: &Path, command: &str) -> Result<(), String> {
    let ours = Path::new(exe()).parent().expect("a folder");
    let path = format!("{}:{}:/usr/bin:/bin", tools.display(), ours.display());
    let mut shell = Command::new("timeout");
    shell
        .args(["120", "bash", "-o", "pipefail", "-c", command])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PATH", path)
        .env("HOME", cluster.world.sandbox.path("home"))
        .env("KUBECONFIG", cluster.server.admin_kubeconfig());
    let output = netns::run_in(&cluster.server.namespace, || shell.output());
    let output = output.expect("a namespace").expect("it starts");
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What controllers would do: daemons run, and a namespace that goes is emptied.
fn control(cluster: &Cluster) {
    let server = &cluster.server;
    let daemons = server.request("GET", DAEMONSETS, None).unwrap_or_default();
    for daemon in daemons["items"].as_array().into_iter().flatten() {
        let generation = &daemon["metadata"]["generation"];
        if daemon["status"]["observedGeneration"] == *generation {
            continue;
        }
        let name = daemon["metadata"]["name"].as_str().unwrap_or_default();
        let status = json!({"status": {"observedGeneration": generation,
            "desiredNumberScheduled": 1, "updatedNumberScheduled": 1,
            "numberAvailable": 1, "numberReady": 1, "currentNumberScheduled": 1}});
        drop(server.request(
            "PATCH",
            &format!("{DAEMONSETS}/{name}/status"),
            Some(&status),
        ));
    }
    let namespace = server.request("GET", NAMESPACE, None).unwrap_or_default();
    if namespace["metadata"]["deletionTimestamp"].is_string() {
        for daemon in daemons["items"].as_array().into_iter().flatten() {
            let name = daemon["metadata"]["name"].as_str().unwrap_or_default();
            drop(server.request("DELETE", &format!("{DAEMONSETS}/{name}"), None));
        }
        let mut emptied: Value = namespace;
        emptied["spec"]["finalizers"] = json!([]);
        drop(server.request("PUT", &format!("{NAMESPACE}/finalize"), Some(&emptied)));
    }
}
