//! Precedence, completeness and errors of the configuration.

use clap::{CommandFactory, FromArgMatches, Parser};

use super::*;
use crate::policy::language::PortProtocol;
use crate::policy::{EnforcementMode, PolicyOptions};

#[derive(Parser)]
struct Harness {
    #[command(flatten)]
    options: AgentOptions,
}

fn options(args: &[&str]) -> AgentOptions {
    let matches = Harness::command()
        .try_get_matches_from([&["agent"], args].concat())
        .expect("arguments");
    Harness::from_arg_matches(&matches)
        .expect("arguments")
        .options
}

fn resolve(args: &[&str]) -> Result<Config, ConfigErrors> {
    Config::resolve(&options(args), &Origins::default(), "node-1")
}

fn known() -> Vec<String> {
    Harness::command()
        .get_arguments()
        .map(|arg| arg.get_id().to_string())
        .collect()
}

#[test]
fn defaults_are_the_contract() {
    let config = resolve(&[]).expect("defaults");
    assert_eq!(config.policy.node_name, "node-1");
    assert_eq!(config.state_dir.to_str(), Some("/var/lib/palisade"));
    assert_eq!(config.bpffs.to_str(), Some("/sys/fs/bpf/palisade"));
    assert_eq!(config.socket.to_str(), Some("/run/palisade/palisade.sock"));
    assert_eq!(config.metrics_prefix, "palisade_");
    assert_eq!(config.policy.enforcement, EnforcementMode::Default);
    // While tail calls miss, and the operator has named nothing.
    let ways_in: Vec<_> = config
        .settings
        .failsafe
        .iter()
        .map(format_failsafe)
        .collect();
    assert_eq!(ways_in, ["in:tcp/22"]);
    let settings = crate::datapath::DatapathSettings {
        failsafe: Vec::new(),
        ..config.settings
    };
    assert_eq!(settings, crate::datapath::DatapathSettings::default());
    assert_eq!(config.conntrack.entries_max, crate::limits::CT_ENTRIES_MAX);
    let interval_s = u64::from(crate::limits::AUDIT_INTERVAL_S);
    assert_eq!(config.audit_interval.as_secs(), interval_s);
    let policy = PolicyOptions {
        node_name: "node-1".to_owned(),
        ..PolicyOptions::default()
    };
    assert_eq!(config.policy, policy);
    assert_eq!(config.policy.cluster_name, "default");
}

#[test]
fn every_option_has_its_variable_and_its_key() {
    for arg in Harness::command().get_arguments() {
        let id = arg.get_id().as_str();
        if id == "help" {
            continue;
        }
        assert_eq!(arg.get_long(), Some(id));
        let variable = format!("PALISADE_{}", id.to_uppercase().replace('-', "_"));
        let env = arg.get_env().and_then(|name| name.to_str());
        assert_eq!(env, Some(variable.as_str()));
    }
}

#[test]
fn lists_come_repeated_or_with_commas() {
    let config = resolve(&[
        "--manifests",
        "/a",
        "--manifests",
        "/b,/c",
        "--node-labels",
        "node-access=ssh,x=",
        "--failsafe",
        "tcp/22@10.0.0.0/8,out:udp/53",
        "--vlan-allow=5,6",
    ])
    .expect("lists");
    assert_eq!(config.manifests.len(), 3);
    assert_eq!(config.policy.node_labels["node-access"], "ssh");
    assert_eq!(config.policy.failsafe.len(), 2);
    assert_eq!(
        format_failsafe(&config.policy.failsafe[0]),
        "in:tcp/22@10.0.0.0/8"
    );
    assert_eq!(format_failsafe(&config.policy.failsafe[1]), "out:udp/53");
    assert_eq!(config.settings.vlan_allow, [5, 6]);
}

#[test]
fn a_failsafe_list_fits_twice_into_its_map() {
    let list = |count: u16, of: &str| {
        let entries: Vec<String> = (1..=count).map(|port| format!("tcp/{port}{of}")).collect();
        resolve(&[format!("--failsafe={}", entries.join(",")).as_str()])
    };
    list(256, "").expect("512 entries, in both families");
    list(512, "@10.0.0.0/8").expect("512 entries in one");
    let errors = list(257, "").expect_err("one too many");
    assert!(errors.to_string().contains("514 entries given"), "{errors}");
}

#[test]
fn all_errors_come_at_once() {
    let errors = resolve(&[
        "--policy-enforcement=sometimes",
        "--metrics-addr=nowhere",
        "--failsafe=tcp",
        "--policy-audit-mode=maybe",
        "--ct-other=soon",
        "--kubeconfig=cluster.yaml",
        "--etcd=127.0.0.1:2379",
    ])
    .expect_err("seven errors")
    .0;
    assert_eq!(errors.len(), 7, "{errors:#?}");
    assert!(errors.iter().all(|error| error.place.starts_with("--")));
}

#[test]
fn always_needs_a_way_in() {
    let errors = resolve(&["--policy-enforcement=always"]).expect_err("sealed");
    assert!(errors.to_string().contains("--yes-seal-this-node"));
    resolve(&["--policy-enforcement=always", "--yes-seal-this-node"]).expect("confirmed");
    resolve(&["--policy-enforcement=always", "--failsafe=tcp/22"]).expect("failsafe");
}

/// The same text from a flag, the file and the environment means the same: what
/// differs is the origin that an error names.
#[test]
fn options_about_policy() {
    let config = resolve(&[
        "--policy-cidr-match-mode=nodes",
        "--cluster-name=prod-1",
        "--named-ports",
        "ssh=22/TCP,dns=53/udp",
        "--named-ports=DNS=53/tcp,dns=53/tcp",
    ])
    .expect("options");
    assert!(config.policy.cidr_match_nodes);
    assert_eq!(config.policy.cluster_name, "prod-1");
    let ports = config.policy.named_ports.iter();
    let ports: Vec<_> = ports
        .map(|named| (named.name.as_str(), named.protocol, named.port))
        .collect();
    let expected = [
        ("dns", PortProtocol::Tcp, 53),
        ("dns", PortProtocol::Udp, 53),
        ("ssh", PortProtocol::Tcp, 22),
    ];
    assert_eq!(ports, expected);
    let empty = resolve(&[
        "--policy-cidr-match-mode=",
        "--cluster-name=",
        "--named-ports=",
    ]);
    let empty = empty.expect("empty is not given").policy;
    let nothing = resolve(&[]).expect("defaults").policy;
    assert_eq!(empty, nothing);
}

#[test]
fn each_bad_option_about_policy_is_one_error() {
    let long = format!("--cluster-name={}", "a".repeat(33));
    for (flag, reason) in [
        ("--policy-cidr-match-mode=pods", "fromEndpoints"),
        ("--policy-cidr-match-mode=Nodes", "expected nodes"),
        ("--cluster-name=Prod", "lower-case"),
        ("--cluster-name=-prod", "no dash"),
        ("--cluster-name=prod_1", "lower-case"),
        (long.as_str(), "at most 32"),
        ("--named-ports=ssh", "NAME=PORT/PROTOCOL"),
        ("--named-ports=ssh=22", "NAME=PORT/PROTOCOL"),
        ("--named-ports=22=22/tcp", "name of a port"),
        ("--named-ports=much-too-long-name=22/tcp", "name of a port"),
        ("--named-ports=ssh=0/tcp", "`0` is not a port"),
        ("--named-ports=ssh=65536/tcp", "`65536` is not a port"),
        ("--named-ports=ssh=22/icmp", "`icmp` is neither"),
        ("--named-ports=ssh=22/tcp,ssh=2222/tcp", "port 22 too"),
        ("--node-labels==x", "key=value"),
    ] {
        let errors = resolve(&[flag]).expect_err(flag).0;
        assert_eq!(errors.len(), 1, "{errors:?}");
        let (place, _) = flag.split_once('=').expect("a flag with a value");
        assert_eq!(errors[0].place, place);
        assert!(errors[0].reason.contains(reason), "{}", errors[0]);
    }
}

#[test]
fn too_many_named_ports_are_refused() {
    let max = crate::limits::NAMED_PORTS_MAX;
    let list = |count: usize| (0..count).map(|port| format!("p{port}={}/udp", port + 1));
    let flag = |count| {
        let list: Vec<String> = list(count).collect();
        format!("--named-ports={}", list.join(","))
    };
    let config = resolve(&[&flag(max)]).expect("as many as fit");
    assert_eq!(config.policy.named_ports.len(), max);
    let errors = resolve(&[&flag(max + 1)]).expect_err("one more");
    assert!(errors.to_string().contains("at most 1024"), "{errors}");
}

#[test]
fn file_takes_every_form_of_a_list() {
    let text =
        "manifests: [/a, /b]\nnode-labels:\n  zone: a\nct-other: 30\npolicy-audit-mode: true\n";
    let file = FileOptions::parse("f", text, &known()).expect("file");
    assert_eq!(file.values["manifests"], ["/a", "/b"]);
    assert_eq!(file.values["node-labels"], ["zone=a"]);
    assert_eq!(file.values["ct-other"], ["30"]);
    assert_eq!(file.values["policy-audit-mode"], ["true"]);
}

#[test]
fn unknown_keys_are_errors_with_a_suggestion() {
    let errors =
        FileOptions::parse("f", "manifest: /a\nxyzzy: 1\n", &known()).expect_err("unknown");
    assert_eq!(errors.len(), 2);
    assert!(errors[0].reason.contains("`manifests`"), "{}", errors[0]);
    assert!(errors[1].reason.contains("--help"), "{}", errors[1]);
}

#[test]
fn failsafe_grammar() {
    for (text, printed) in [
        ("tcp/22", "in:tcp/22"),
        ("in:udp/0@fd00::1", "in:udp/0@fd00::1/128"),
        ("out:TCP/6443@10.1.2.3/16", "out:tcp/6443@10.1.0.0/16"),
        ("icmp/*", "in:icmp/0"),
        ("112/0", "in:vrrp/0"),
        ("out:GRE/*", "out:gre/0"),
        ("253/0", "in:253/0"),
    ] {
        let entry = parse_failsafe(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(format_failsafe(&entry), printed);
    }
    for text in ["tcp", "xyz/1", "tcp/70000", "tcp/22@x", "icmp/8", "0/1", ""] {
        parse_failsafe(text).expect_err(text);
    }
}
