//! `palisade policy explain`, offline.

use std::fs;

use serde_json::Value;

use super::{CLUSTER_AND_SSH, Said, policy, run};

struct Offline {
    folder: tempfile::TempDir,
}

impl Offline {
    fn new(files: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("written");
        }
        Self { folder }
    }

    fn explain(&self, labels: &str, flow: &[&str]) -> Said {
        let manifests = self.folder.path().to_str().expect("UTF-8");
        let mut arguments = vec!["policy", "explain", "-o", "json", "--manifests", manifests];
        arguments.extend(["--node-name", "n1", "--node-labels", labels]);
        arguments.extend(flow);
        run(&arguments)
    }

    #[track_caller]
    fn answer(&self, flow: &[&str]) -> Value {
        let said = self.explain("node-access=ssh", flow);
        assert_eq!(said.code, Some(0), "{}", said.err);
        serde_json::from_str(&said.out).expect("JSON alone on stdout")
    }
}

const OUTSIDER: [&str; 4] = ["--direction", "ingress", "--peer", "192.0.2.9"];

fn flow<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    [&OUTSIDER[..], rest].concat()
}

#[test]
fn the_contract_of_an_answer() {
    let offline = Offline::new(&[("a.yaml", policy("demo", CLUSTER_AND_SSH))]);
    let ssh = offline.answer(&flow(&["--proto", "tcp", "--port", "22"]));
    assert_eq!(ssh["verdict"], "allowed");
    assert_eq!(ssh["enforced"], true);
    assert_eq!(ssh["identity"]["id"], 2);
    assert_eq!(ssh["identity"]["labels"][0], "reserved:world");
    assert_eq!(
        ssh["rule"]["resource"],
        "CiliumClusterwideNetworkPolicy/demo"
    );
    assert_eq!(ssh["rule"]["section"], "ingress");
    assert_eq!(ssh["rule"]["index"], 1);
    assert!(ssh["revision"].is_u64());
    let http = offline.answer(&flow(&["--proto", "tcp", "--port", "80"]));
    assert_eq!(http["verdict"], "denied");
    assert!(http["rule"].is_null());
    assert!(
        http["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("demo"))
    );
    let ping = offline.answer(&flow(&["--proto", "icmp"]));
    assert_eq!(ping["verdict"], "denied");
    let out = offline.answer(&[
        "--direction",
        "egress",
        "--peer",
        "192.0.2.9",
        "--proto",
        "udp",
        "--port",
        "53",
    ]);
    assert_eq!(
        (&out["verdict"], &out["enforced"]),
        (&"allowed".into(), &false.into())
    );
}

#[test]
fn why_not_names_every_rule() {
    let offline = Offline::new(&[("a.yaml", policy("demo", CLUSTER_AND_SSH))]);
    let told = offline.answer(&flow(&["--proto", "tcp", "--port", "80", "--why-not"]));
    assert_eq!(told["why_not"].as_array().map(Vec::len), Some(2), "{told}");
}

#[test]
fn the_place_and_the_log_of_the_rule_are_told() {
    let text = policy("demo", CLUSTER_AND_SSH) + "  log:\n    value: seen\n";
    let offline = Offline::new(&[("a.yaml", text.clone())]);
    let ssh = offline.answer(&flow(&["--proto", "tcp", "--port", "22"]));
    assert_eq!(ssh["log"], "seen");
    let file = ssh["rule"]["file"].as_str().expect("a file");
    assert!(file.ends_with("/a.yaml"), "{file}");
    let written = text.lines().position(|line| line.contains("toPorts"));
    let line = written.expect("the item") + 1;
    assert_eq!(ssh["rule"]["line"], line, "{ssh}");
}

#[test]
fn what_stood_in_the_way_is_told_nearest_first() {
    let for_pods = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: \
                    {name: pods}\nspec: {endpointSelector: {}, ingress: [{fromEntities: \
                    [all]}]}\n";
    let elsewhere = policy("other", "  - fromEntities:\n    - all\n").replace("ssh", "none");
    let offline = Offline::new(&[
        ("a.yaml", policy("demo", CLUSTER_AND_SSH)),
        ("b.yaml", for_pods.to_owned()),
        ("c.yaml", elsewhere),
    ]);
    let told = offline.answer(&flow(&["--proto", "tcp", "--port", "80", "--why-not"]));
    let lines: Vec<String> = told["why_not"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|miss| {
            let name = miss["resource"].as_str().expect("a name");
            let name = name.rsplit('/').next().expect("a name");
            format!(
                "{name}[{}] {}: {}",
                miss["index"], miss["term"], miss["reason"]
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "demo[1] \"ports\": \"TCP 80, the rule has TCP 22\"",
            "demo[0] \"peers\": \"192.0.2.9 is reserved:world (outside of the cluster), not \
             entity cluster\"",
            "other[0] \"subject\": \"nodeSelector node-access=none, this node has \
             node-access=ssh\"",
            "pods[0] \"subject\": \"endpointSelector never selects the host\"",
        ]
    );
}

#[test]
fn differences_are_of_packets() {
    let before = Offline::new(&[("a.yaml", policy("demo", CLUSTER_AND_SSH))]);
    let narrower = CLUSTER_AND_SSH.replace("22", "2222");
    let after = Offline::new(&[("a.yaml", policy("demo", &narrower))]);
    let compare = |one: &Offline, other: &Offline| -> Value {
        let paths = [one, other].map(|side| side.folder.path().to_str().expect("UTF-8"));
        let said = run(&[
            "policy",
            "diff",
            paths[0],
            paths[1],
            "-o",
            "json",
            "--node-labels",
            "node-access=ssh",
        ]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        serde_json::from_str(&said.out).expect("JSON alone on stdout")
    };
    let same = compare(&before, &before);
    assert_eq!(same["changes"].as_array().map(Vec::len), Some(0), "{same}");
    let told = compare(&before, &after);
    let lines: Vec<String> = told["changes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|change| {
            let verdicts = [&change["before"]["verdict"], &change["after"]["verdict"]];
            format!("{} {} {}", verdicts[0], verdicts[1], change["packets"])
        })
        .collect();
    assert_eq!(
        lines,
        [
            "\"allowed\" \"denied\" [\"tcp/22\"]",
            "\"denied\" \"allowed\" [\"tcp/2222\"]",
        ]
    );
    let said = run(&["policy", "diff", "/nonexistent", "/nonexistent"]);
    assert_eq!(said.code, Some(1), "{}", said.err);
}

#[test]
fn another_node_is_not_selected() {
    let offline = Offline::new(&[("a.yaml", policy("demo", CLUSTER_AND_SSH))]);
    let said = offline.explain("role=db", &flow(&["--proto", "tcp", "--port", "80"]));
    let answer: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(answer["verdict"], "allowed");
    assert_eq!(answer["enforced"], false);
}

#[test]
fn what_is_broken_is_told_and_left_out() {
    let offline = Offline::new(&[
        ("a.yaml", policy("demo", CLUSTER_AND_SSH)),
        ("b.yaml", "kind: [\n".to_owned()),
    ]);
    let said = offline.explain(
        "node-access=ssh",
        &flow(&["--proto", "tcp", "--port", "22"]),
    );
    assert_eq!(said.code, Some(0));
    assert!(said.err.contains("b.yaml"), "{}", said.err);
}

#[test]
fn flows_that_cannot_be() {
    let offline = Offline::new(&[]);
    for rest in [
        &["--proto", "tcp"][..],
        &["--proto", "icmp", "--port", "8"],
        &["--proto", "tcp", "--port", "22", "--type", "8"],
        &["--proto", "carrier-pigeon"],
        &["--proto", "icmpv6"],
    ] {
        let said = offline.explain("", &flow(rest));
        assert_eq!(said.code, Some(2), "{rest:?}: {}", said.err);
    }
    let said = offline.explain(
        "",
        &["--direction", "up", "--peer", "192.0.2.9", "--proto", "112"],
    );
    assert_eq!(said.code, Some(2));
}

/// What the agent would be told by the same options.
#[test]
fn the_agents_options_count_offline() {
    let offline = Offline::new(&[("a.yaml", policy("demo", CLUSTER_AND_SSH))]);
    let http = |options: &[&str]| -> Value {
        let tcp = flow(&["--proto", "tcp", "--port", "80"]);
        offline.answer(&[&tcp, options].concat())
    };
    assert_eq!(http(&[])["verdict"], "denied");
    let audited = http(&["--policy-audit-mode"]);
    assert_eq!(audited["verdict"], "audited", "{audited}");
    assert_eq!(http(&["--policy-audit-mode=false"])["verdict"], "denied");
    let listed = http(&["--failsafe", "tcp/443,tcp/80@192.0.2.0/24"]);
    assert_eq!(listed["verdict"], "allowed", "{listed}");
    assert_eq!(listed["rule"]["section"], "failsafe");
    assert_eq!(http(&["--policy-enforcement=never"])["enforced"], false);
    for wrong in [
        &["--failsafe", "tcp"][..],
        &["--policy-audit-mode=perhaps"],
        &["--policy-enforcement=sometimes"],
        &["--policy-cidr-match-mode=pods"],
        &["--cluster-name=A"],
        &["--named-ports=ssh"],
    ] {
        let tcp = flow(&["--proto", "tcp", "--port", "80"]);
        let said = offline.explain("", &[&tcp, wrong].concat());
        assert_eq!(said.code, Some(2), "{wrong:?}: {}", said.err);
        let flag = wrong[0].split('=').next().expect("a flag");
        assert!(said.err.contains(flag), "{}", said.err);
    }
}

#[test]
fn an_option_of_the_node_needs_manifests() {
    let tcp = flow(&["--proto", "tcp", "--port", "80"]);
    for option in [
        ["--node-name", "n1"],
        ["--failsafe", "tcp/22"],
        ["--named-ports", "ssh=22/tcp"],
        ["--policy-enforcement", "default"],
    ] {
        let said = run(&[&["policy", "explain"], &tcp[..], &option].concat());
        assert_eq!(said.code, Some(2), "{}", said.err);
        assert!(said.err.contains(option[0]), "{}", said.err);
        assert!(said.err.contains("--manifests"), "{}", said.err);
    }
}
