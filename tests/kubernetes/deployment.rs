//! `deploy/` against the real server: the plain manifests and the chart are
//! valid, say the same, and come and go as docs/kubernetes.md tells.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use palisade::datapath::netns;
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::cluster::{Cluster, until};
use crate::harness::exe;
use crate::server::programs;

const CHART: &str = "deploy/helm/palisade";
const PODMONITOR: &str = include_str!("podmonitor-definition.yaml");
const CCNP: &str = "ciliumclusterwidenetworkpolicies.cilium.io";

/// Helm and kubectl: those that `cargo xtask apiserver` fetched, else those on
/// the path.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")))?;
    let path = std::env::var_os("PATH")?;
    let folders = std::env::split_paths(&path);
    let folders = std::iter::once(base.join("palisade/helm/v3.17.2")).chain(folders);
    folders
        .map(|folder| folder.join(name))
        .find(|it| it.is_file())
}

/// The programs that act on a cluster, and where they do it.
struct Hands<'c> {
    cluster: &'c Cluster,
    helm: PathBuf,
    kubectl: PathBuf,
}

impl Hands<'_> {
    /// Runs a program beside the server, as its administrator.
    fn run(&self, program: &Path, words: &[&str], input: &str) -> Output {
        use std::io::Write as _;
        let home = self.cluster.world.sandbox.path("home");
        let mut command = Command::new(program);
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("HOME", &home)
            .env("KUBECONFIG", self.cluster.server.admin_kubeconfig())
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = netns::run_in(&self.cluster.server.namespace, || command.spawn());
        let mut child = child.expect("a namespace").expect("it starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).expect("it reads");
        drop(stdin);
        child.wait_with_output().expect("it ends")
    }

    #[track_caller]
    fn ok(&self, program: &Path, words: &[&str], input: &str) -> String {
        let output = self.run(program, words, input);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8(output.stdout).expect("text")
    }

    #[track_caller]
    fn helm(&self, words: &[&str]) -> String {
        self.ok(&self.helm, words, "")
    }

    /// Whether the server would take this, and every field of it is known.
    fn check(&self, text: &str) -> Output {
        let words = ["apply", "--dry-run=server", "--validate=true", "-f", "-"];
        self.run(&self.kubectl, &words, text)
    }

    #[track_caller]
    fn expect_valid(&self, text: &str) {
        let output = self.check(text);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\n{text}");
    }

    fn exists(&self, what: &str, name: &str) -> bool {
        let words = ["-n", "palisade", "get", what, name];
        self.run(&self.kubectl, &words, "").status.success()
    }
}

fn documents(text: &str) -> Vec<Value> {
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    let documents = documents.map(|it| Value::deserialize(it).expect("YAML"));
    documents.filter(|document| !document.is_null()).collect()
}

/// By kind and name, without what a packager adds to metadata.
fn bare(documents: Vec<Value>) -> BTreeMap<String, Value> {
    let bare = documents.into_iter().map(|mut document| {
        let name = format!("{} {}", document["kind"], document["metadata"]["name"]);
        let metadata = document["metadata"].as_object_mut().expect("metadata");
        metadata.retain(|field, _| field != "labels" && field != "annotations");
        (name, document)
    });
    bare.collect()
}

fn plain(names: &[&str]) -> String {
    let texts = names.iter().map(|name| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes");
        std::fs::read_to_string(path.join(name)).expect("a manifest")
    });
    texts.collect::<Vec<_>>().join("\n---\n")
}

fn definitions() -> String {
    let output = Command::new(exe()).arg("crds").output();
    String::from_utf8(output.expect("it runs").stdout).expect("text")
}

#[test]
fn manifests_and_chart_are_valid_and_say_the_same() {
    let Some(programs) = programs() else { return };
    let (Some(helm), Some(kubectl)) = (tool("helm"), tool("kubectl")) else {
        let must = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!must, "no helm and kubectl: run `cargo xtask apiserver`");
        eprintln!("SKIPPED: no helm and kubectl; `cargo xtask apiserver` fetches them");
        return;
    };
    let cluster = Cluster::empty(programs);
    let hands = Hands {
        cluster: &cluster,
        helm,
        kubectl,
    };
    let namespace = plain(&["namespace.yaml"]);
    hands.ok(&hands.kubectl, &["apply", "-f", "-"], &namespace);
    hands.ok(&hands.kubectl, &["apply", "-f", "-"], PODMONITOR);
    let files = ["rbac.yaml", "daemonset.yaml", "podmonitor.yaml"];
    let all = plain(&files);
    until("the definition of monitors is served", || {
        hands.exists("crd", "podmonitors.monitoring.coreos.com");
        hands.check(&all).status.success().then_some(())
    });
    hands.expect_valid(&definitions());
    hands.expect_valid(&plain(&["detach.yaml"]));
    expect_refusals(&hands, &all);

    hands.helm(&["lint", "--strict", CHART]);
    let template = ["template", "palisade", CHART, "-n", "palisade"];
    let rendered = hands.helm(&[&template[..], &["--set", "podMonitor.enabled=true"]].concat());
    hands.expect_valid(&rendered);
    let mut chart = bare(documents(&rendered));
    let mut manifests = bare(documents(&format!("{all}\n---\n{}", definitions())));
    // The one difference: who serves a monitor, serves on all addresses.
    for (objects, address) in [(&mut chart, "0.0.0.0"), (&mut manifests, "127.0.0.1")] {
        let daemon = objects.get_mut("\"DaemonSet\" \"palisade\"");
        let daemon = daemon.expect("a DaemonSet");
        let arguments = &mut daemon["spec"]["template"]["spec"]["containers"][0]["args"];
        let arguments = arguments.as_array_mut().expect("arguments");
        let expected = json!(format!("--metrics-addr={address}:9962"));
        let at = arguments.iter().position(|it| *it == expected);
        arguments.remove(at.expect("where metrics are served"));
    }
    assert_eq!(chart, manifests);
    expect_release(&hands);
}

/// The checks see what is wrong.
fn expect_refusals(hands: &Hands<'_>, all: &str) {
    for (good, bad) in [
        ("hostNetwork: true", "hostNetwrok: true"),
        ("verbs: [list, watch]", "verb: [list, watch]"),
        ("podMetricsEndpoints:", "podMetricEndpoints:"),
        ("interval: 30s", "interval: often"),
    ] {
        let broken = all.replacen(good, bad, 1);
        assert_ne!(broken, all, "{good}");
        // The server tells the fields of a new definition a moment later.
        until(bad, || {
            (!hands.check(&broken).status.success()).then_some(())
        });
    }
    for value in ["podMonitr.enabled=true", "metrics.port=no"] {
        let words = ["template", CHART, "--set", value];
        let output = hands.run(&hands.helm, &words, "");
        assert!(!output.status.success(), "{value}");
    }
}

/// Installed, upgraded and removed; policies outlive it.
fn expect_release(hands: &Hands<'_>) {
    let release = ["palisade", CHART, "-n", "palisade"];
    let values = "agent.failsafe={tcp/22@10.0.0.0/8,udp/53}";
    hands.helm(&[&["install"], &release[..], &["--set", values]].concat());
    let daemon = "/apis/apps/v1/namespaces/palisade/daemonsets/palisade";
    let arguments = || {
        let object = hands.cluster.server.request("GET", daemon, None);
        let object = object.expect("the DaemonSet");
        object["spec"]["template"]["spec"]["containers"][0]["args"].clone()
    };
    let failsafe = json!("--failsafe=tcp/22@10.0.0.0/8,udp/53");
    assert!(
        arguments()
            .as_array()
            .expect("arguments")
            .contains(&failsafe)
    );
    assert!(!hands.exists("podmonitor", "palisade"));
    hands.helm(
        &[
            &["upgrade"],
            &release[..],
            &["--set", "podMonitor.enabled=true"],
        ]
        .concat(),
    );
    assert!(
        !arguments()
            .as_array()
            .expect("arguments")
            .contains(&failsafe)
    );
    assert!(hands.exists("podmonitor", "palisade"));
    hands.helm(&["uninstall", "palisade", "-n", "palisade"]);
    assert!(!hands.exists("daemonset", "palisade"));
    assert!(!hands.exists("clusterrole", "palisade"));
    assert!(
        hands.exists("crd", CCNP),
        "with its definition all policies would go"
    );
}
